r"""Autoencoders (Hinton and Salakhutdinov, 2006): deep, with tied weights, convolutional.

G. E. Hinton and R. R. Salakhutdinov, "Reducing the dimensionality of data with neural networks",
Science 313, https://doi.org/10.1126/science.1127647

A network that has to give back its input through a narrow layer puts into that layer what it needs
to know. With linear units this is principal component analysis; with several layers it is not.

Differences from the paper, for :class:`Autoencoder` as its defaults are:

- all layers are trained jointly by backpropagation from random weights; the paper pretrains each
  pair of layers as a restricted Boltzmann machine, because nobody knew how to start them;
- the random weights are those described there under "Start".

:class:`TiedAutoencoder` has one hidden layer whose weights are used in both directions, as in
P. Vincent, H. Larochelle, Y. Bengio and P.-A. Manzagol, 2008,
https://doi.org/10.1145/1390156.1390294, and S. Rifai, P. Vincent, X. Muller, X. Glorot and
Y. Bengio, 2011, https://icml.cc/2011/papers/455_icmlpaper.pdf; that linear units make it principal
component analysis is from H. Bourlard and Y. Kamp, 1988, https://doi.org/10.1007/BF00332918.
:class:`ConvolutionalAutoencoder` follows no paper. It is the form that is built today, strided
convolutions down and transposed ones up; the idea is that of J. Masci, U. Meier, D. Ciresan and
J. Schmidhuber, 2011, https://doi.org/10.1007/978-3-642-21735-7_7.

What makes them sparse, denoising or contractive is in the loss, see
`zoo/tasks/generative/reconstruction.py`.

| class | layers (28x28 images, 1 channel) | parameters |
|---|---|---|
| `Autoencoder` | 784 - 1000 - 500 - 250 - 30 - 250 - 500 - 1000 - 784 | 2,837,314 |
| `TiedAutoencoder` | 784 - 30 - 784, one matrix | 24,334 |
| `ConvolutionalAutoencoder` | 28x28 - 14x14x32 - 7x7x64 - 30 and back | 258,015 |
"""

from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.layers.checks import check_at_least_one, check_shape
from zoo.layers.initialization import deferred_init, reset

Units = Literal["linear", "sigmoid"]
_UNITS = ("linear", "sigmoid")


class Parts(NamedTuple):
    """Everything that an autoencoder computes on the way to a reconstruction.

    Attributes:
        codes: ``(batch, latent_dim)``.
        outputs: as the images; of logistic output units what goes into them, the logits.
        reconstructions: as the images.
    """

    codes: Tensor
    outputs: Tensor
    reconstructions: Tensor


class _ImageAutoencoder(nn.Module):
    """What all of them share: codes of images, images of codes.

    A subclass has ``_codes_of`` and ``_outputs_of``, and calls this constructor.

    Attributes:
        code: the units of the code, ``linear`` or ``sigmoid``.
        output: the units of the reconstruction, likewise.
    """

    def __init__(
        self, image_size: int, in_channels: int, latent_dim: int, code: Units, output: Units
    ) -> None:
        super().__init__()
        check_at_least_one(image_size=image_size, in_channels=in_channels, latent_dim=latent_dim)
        for name, units in (("code", code), ("output", output)):
            if units not in _UNITS:
                raise ValueError(f"{name} must be 'linear' or 'sigmoid', not {units!r}")
        self.image_shape = (in_channels, image_size, image_size)
        self.latent_dim, self.code, self.output = latent_dim, code, output

    def _codes_of(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _outputs_of(self, codes: Tensor) -> Tensor:
        raise NotImplementedError

    def encode(self, x: Tensor) -> Tensor:
        """The codes of images: ``(batch, latent_dim)``."""
        check_shape(x, *self.image_shape)
        return self._codes_of(x)

    def decode(self, codes: Tensor) -> Tensor:
        """The images that codes stand for: ``(batch, in_channels, image_size, image_size)``."""
        return self._reconstructed(self._outputs_of(codes))

    def forward(self, x: Tensor, *, return_parts: bool = False) -> Tensor | Parts:
        codes = self.encode(x)
        outputs = self._outputs_of(codes)
        reconstructions = self._reconstructed(outputs)
        return Parts(codes, outputs, reconstructions) if return_parts else reconstructions

    def _reconstructed(self, outputs: Tensor) -> Tensor:
        return outputs.sigmoid() if self.output == "sigmoid" else outputs


class Autoencoder(_ImageAutoencoder):
    r"""Fully connected layers down to a code, and their mirror image back up.

    .. math:: h_l = \sigma(W_l h_{l-1} + b_l), \qquad
        z = W_L h_{L-1} + b_L, \qquad \hat x = \sigma(W' h'_1 + b')

    with logistic hidden units, a linear code (or a logistic one) and logistic output units (or
    linear ones).

    Start: a logistic unit is a tanh unit on another scale,
    :math:`\sigma(a) = (1 + \tanh(a/2)) / 2`, so the network starts as the one of tanh units that
    Glorot and Bengio advise (2010, https://proceedings.mlr.press/v9/glorot10a.html, equation 16):
    with T from :math:`\mathcal U(\pm\sqrt{6 / (\mathrm{fan\_in} + \mathrm{fan\_out})})`, a layer
    computes :math:`T t` of what goes in as the tanh units' t. That doubles weights into logistic
    units, doubles those out of logistic units, which also get the bias :math:`-W 1/2`, and leaves
    the other biases at zero. Started with T itself, the gradient is lost on the way through eight
    layers, and for epochs nothing but the mean image is learned.

    Args:
        image_size: height and width of an image.
        in_channels: its channels.
        hidden_sizes: width of each hidden layer between image and code; may be none.
        latent_dim: length of the code.
        code: units of the code, ``linear`` or ``sigmoid``.
        output: units of the reconstruction, ``sigmoid`` (for values from 0 to 1) or ``linear``.
        num_classes: classes that a linear ``classifier`` tells from the code, for a task that
            learns both at once; None: there is none.

    Shape:
        - input, output: images ``(batch, in_channels, image_size, image_size)``

    Raises:
        ValueError: if a size is smaller than 1 or ``code`` or ``output`` is unknown.
    """

    @deferred_init
    def __init__(
        self,
        image_size: int = 28,
        in_channels: int = 1,
        *,
        hidden_sizes: tuple[int, ...] = (1000, 500, 250),
        latent_dim: int = 30,
        code: Units = "linear",
        output: Units = "sigmoid",
        num_classes: int | None = None,
    ) -> None:
        super().__init__(image_size, in_channels, latent_dim, code, output)
        check_at_least_one(hidden_sizes=hidden_sizes)
        widths = (in_channels * image_size**2, *hidden_sizes, latent_dim)
        self.encoder = _logistic_layers(widths)
        if code == "sigmoid":
            self.encoder.append(nn.Sigmoid())
        self.decoder = _logistic_layers(widths[::-1])  # The output's units follow in `decode`.
        if num_classes is not None:
            check_at_least_one(num_classes=num_classes)
            self.classifier = nn.Linear(latent_dim, num_classes)

    def init_weights(self) -> None:
        layers = [*self.encoder, *self.decoder, nn.Sigmoid() if self.output == "sigmoid" else None]
        for before, layer, after in zip([None, *layers], layers, layers[1:], strict=False):
            if isinstance(layer, nn.Linear):
                reset(layer)
                from_logistic = isinstance(before, nn.Sigmoid)
                gain = 2.0 ** (from_logistic + isinstance(after, nn.Sigmoid))
                nn.init.xavier_uniform_(layer.weight, gain)
                nn.init.zeros_(layer.bias)
                if from_logistic:
                    with torch.no_grad():
                        layer.bias.copy_(-layer.weight.sum(1) / 2)
        if hasattr(self, "classifier"):
            reset(self.classifier)

    def _codes_of(self, x: Tensor) -> Tensor:
        return self.encoder(x.flatten(1))  # (batch, latent_dim)

    def _outputs_of(self, codes: Tensor) -> Tensor:
        return self.decoder(codes).unflatten(1, self.image_shape)  # (batch, channels, size, size)


class TiedAutoencoder(_ImageAutoencoder):
    r"""One hidden layer; the weights that encode, transposed, also decode.

    .. math:: z = s(W x + b), \qquad \hat x = t(W^\top z + c)

    with s and t the identity or the logistic function. With two identities, and trained on squared
    error, the reconstructions are those of principal component analysis, though the codes are not
    its components: rows of W span the same space in another basis.

    Weights start as in :class:`Autoencoder`, but only ever from T itself, since one matrix goes in
    both directions; biases start at zero.

    Args:
        image_size: height and width of an image.
        in_channels: its channels.
        latent_dim: length of the code.
        code: units of the code, ``linear`` or ``sigmoid``.
        output: units of the reconstruction, likewise.

    Shape:
        - input, output: images ``(batch, in_channels, image_size, image_size)``

    Raises:
        ValueError: if a size is smaller than 1 or ``code`` or ``output`` is unknown.
    """

    @deferred_init
    def __init__(
        self,
        image_size: int = 28,
        in_channels: int = 1,
        *,
        latent_dim: int = 30,
        code: Units = "linear",
        output: Units = "linear",
    ) -> None:
        super().__init__(image_size, in_channels, latent_dim, code, output)
        self.encoder = nn.Sequential(nn.Linear(in_channels * image_size**2, latent_dim))
        if code == "sigmoid":
            self.encoder.append(nn.Sigmoid())
        self.decoder_bias = nn.Parameter(torch.empty(in_channels * image_size**2))

    def init_weights(self) -> None:
        layer: Any = self.encoder[0]
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.decoder_bias)

    def _codes_of(self, x: Tensor) -> Tensor:
        return self.encoder(x.flatten(1))  # (batch, latent_dim)

    def _outputs_of(self, codes: Tensor) -> Tensor:
        layer: Any = self.encoder[0]
        pixels = F.linear(codes, layer.weight.T, self.decoder_bias)  # (batch, pixels)
        return pixels.unflatten(1, self.image_shape)  # (batch, channels, size, size)


class ConvolutionalAutoencoder(_ImageAutoencoder):
    """Convolutions that halve the image, a linear map to the code, and their mirror image.

    Every kernel is 4x4 with stride 2, so that a transposed convolution covers each pixel equally
    often and leaves no checkerboard. Hidden units are rectified. Weights before them start as in
    He et al. (2015, https://arxiv.org/abs/1502.01852, equation 10), where a value of a transposed
    convolution has a quarter of the kernel's places behind it; those of code and output as in
    Glorot and Bengio (2010). Biases start at zero.

    Args:
        image_size: height and width of an image: a multiple of 2 for each convolution.
        in_channels: its channels.
        hidden_channels: channels after each convolution.
        latent_dim: length of the code.
        code: units of the code, ``linear`` or ``sigmoid``.
        output: units of the reconstruction, ``sigmoid`` (for values from 0 to 1) or ``linear``.

    Shape:
        - input, output: images ``(batch, in_channels, image_size, image_size)``

    Raises:
        ValueError: if a size is smaller than 1, ``image_size`` cannot be halved so often, or
            ``code`` or ``output`` is unknown.
    """

    @deferred_init
    def __init__(
        self,
        image_size: int = 28,
        in_channels: int = 1,
        *,
        hidden_channels: tuple[int, ...] = (32, 64),
        latent_dim: int = 30,
        code: Units = "linear",
        output: Units = "sigmoid",
    ) -> None:
        super().__init__(image_size, in_channels, latent_dim, code, output)
        check_at_least_one(hidden_channels=hidden_channels)
        if not hidden_channels or image_size % 2 ** len(hidden_channels):
            raise ValueError(
                f"image_size must be a multiple of {2 ** len(hidden_channels)} for the "
                f"{len(hidden_channels)} convolutions of hidden_channels, not {image_size}"
            )
        side = image_size // 2 ** len(hidden_channels)
        grid = (hidden_channels[-1], side, side)
        features = hidden_channels[-1] * side**2
        channels = (in_channels, *hidden_channels)
        down: list[nn.Module] = []
        for width, out in pairwise(channels):
            down += [nn.Conv2d(width, out, 4, stride=2, padding=1), nn.ReLU()]
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(features, latent_dim))
        if code == "sigmoid":
            self.encoder.append(nn.Sigmoid())
        up: list[nn.Module] = [nn.Linear(latent_dim, features), nn.Unflatten(1, grid)]
        for width, out in pairwise(channels[::-1]):
            up += [nn.ReLU(), nn.ConvTranspose2d(width, out, 4, stride=2, padding=1)]
        self.decoder = nn.Sequential(*up)

    def init_weights(self) -> None:
        reset(self)
        is_last = (self.encoder[-2 if self.code == "sigmoid" else -1], self.decoder[-1])
        for layer in (*self.encoder, *self.decoder):
            if not isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                continue
            if layer in is_last:
                nn.init.xavier_uniform_(layer.weight)
            elif isinstance(layer, nn.ConvTranspose2d):
                fan_in = layer.in_channels * layer.weight[0, 0].numel() / 4
                nn.init.normal_(layer.weight, std=(2 / fan_in) ** 0.5)
            else:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def _codes_of(self, x: Tensor) -> Tensor:
        return self.encoder(x)  # (batch, latent_dim)

    def _outputs_of(self, codes: Tensor) -> Tensor:
        return self.decoder(codes)  # (batch, channels, size, size)


def _logistic_layers(widths: tuple[int, ...]) -> nn.Sequential:
    """Linear layers from each width to the next, with logistic units between them."""
    layers: list[nn.Module] = []
    for sizes in pairwise(widths):
        layers += [nn.Linear(*sizes), nn.Sigmoid()]
    return nn.Sequential(*layers[:-1])
