r"""Variational autoencoder (Kingma and Welling, 2014).

D. P. Kingma and M. Welling, "Auto-encoding variational Bayes", https://arxiv.org/abs/1312.6114

A decoder gives the distribution of an image for latent variables whose prior is standard normal,
and an encoder approximates their posterior for an image by a normal distribution with a diagonal
covariance. Latent variables are drawn as mean plus deviation times noise, so that gradients of a
bound on the likelihood reach both networks.

With classes it is the conditional form of K. Sohn, H. Lee and X. Yan, "Learning structured output
representation using deep conditional generative models", 2015: both networks are given the class.
Without hidden layers it is the linear one, whose optimum is probabilistic PCA (J. Lucas, G. Tucker,
R. Grosse and M. Norouzi, "Don't blame the ELBO!", 2019, https://arxiv.org/abs/1911.02469).

Differences from the paper:

- layers start as in the code of the importance-weighted autoencoder (Y. Burda, R. Grosse and
  R. Salakhutdinov, 2016, https://arxiv.org/abs/1509.00519,
  https://github.com/yburda/iwae): Glorot-uniform weights, zero biases, and output biases at which
  the decoder's first guess is the mean training image (:meth:`VariationalAutoencoder.start_at`);
- the variance of a Gaussian decoder is one number, given or learned, and not a second output for
  each pixel (appendix C.2), under which the likelihood has no upper bound;
- the conditional prior does not depend on the class.

| sizes (28x28 images, 1 channel) | parameters |
|---|---|
| 784 - 200 - 200 - 50, tanh (Burda et al., one stochastic layer) | 425,284 |
| 784 - 400 - 20, relu | 652,824 |
| the second with ten classes | 660,824 |
| convolutions of 32 and 64, 256 hidden, 20 latent | 1,691,369 |
"""

from functools import partial
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from zoo.layers.activations import Elementwise, check_activation, make_activation
from zoo.layers.checks import check_at_least_one, check_shape
from zoo.layers.initialization import deferred_init

Likelihood = Literal["bernoulli", "gaussian"]


class Autoencoding(NamedTuple):
    """All that the bound on an image's likelihood is made of, in single precision or better.

    Attributes:
        mean: of the posterior, ``(batch, latent_dim)``.
        log_variance: of the posterior, likewise.
        noise: standard normal, ``(samples, batch, latent_dim)``.
        latents: drawn from the posterior with it, likewise.
        output: logits of a Bernoulli decoder or means of a Gaussian one,
            ``(samples, batch, channels, height, width)``.
        output_log_variance: a scalar; None for a Bernoulli decoder.
    """

    mean: Tensor
    log_variance: Tensor
    noise: Tensor
    latents: Tensor
    output: Tensor
    output_log_variance: Tensor | None


class Encoder(nn.Module):
    """Images to mean and log-variance of the latent variables.

    Args:
        image_shape: channels, height and width.
        latent_dim: number of latent variables.
        channels: of each convolution, 4x4 with stride 2, that comes before the hidden layers.
        hidden_sizes: width of each hidden layer.
        activation: after each convolution and hidden layer.
        num_classes: length of the one-hot class that the first hidden layer is given too; or 0.

    Shape:
        - input: images ``(batch, *image_shape)`` and classes ``(batch, num_classes)``
        - output: twice ``(batch, latent_dim)``
    """

    @deferred_init
    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: int,
        *,
        channels: tuple[int, ...],
        hidden_sizes: tuple[int, ...],
        activation: Elementwise,
        num_classes: int,
    ) -> None:
        super().__init__()
        act = partial(make_activation, activation)
        convolutions: list[nn.Module] = []
        for ins, outs in pairwise((image_shape[0], *channels)):
            convolutions += [nn.Conv2d(ins, outs, 4, stride=2, padding=1), act()]
        self.convolutions = nn.Sequential(*convolutions)
        shape = _inner_shape(image_shape, channels)
        sizes = (shape.numel() + num_classes, *hidden_sizes)
        hidden = [nn.Linear(*pair) for pair in pairwise(sizes)]
        self.layers = nn.Sequential(*(part for layer in hidden for part in (layer, act())))
        self.mean = nn.Linear(sizes[-1], latent_dim)
        self.log_variance = nn.Linear(sizes[-1], latent_dim)

    def init_weights(self) -> None:
        _initialise(self)

    def forward(self, images: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = self.convolutions(images).flatten(1)  # (batch, features)
        if classes is not None:
            x = torch.cat([x, classes.to(x.dtype)], dim=1)  # (batch, features + classes)
        x = self.layers(x)
        return self.mean(x), self.log_variance(x)  # (batch, latent_dim) each


class Decoder(nn.Module):
    """Latent variables to logits or means of images: the encoder's layers in reverse.

    Args and shapes are those of :class:`Encoder`, outputs and inputs exchanged.
    """

    @deferred_init
    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: int,
        *,
        channels: tuple[int, ...],
        hidden_sizes: tuple[int, ...],
        activation: Elementwise,
        num_classes: int,
    ) -> None:
        super().__init__()
        act = partial(make_activation, activation)
        shape = _inner_shape(image_shape, channels)
        sizes = (latent_dim + num_classes, *hidden_sizes[::-1])
        hidden = [nn.Linear(*pair) for pair in pairwise(sizes)]
        self.layers = nn.Sequential(*(part for layer in hidden for part in (layer, act())))
        last: list[nn.Module] = [nn.Linear(sizes[-1], shape.numel())]
        if channels:
            last += [act(), nn.Unflatten(1, shape)]  # (batch, channels, height, width)
            for ins, outs in pairwise((*channels[::-1], image_shape[0])):
                last += [nn.ConvTranspose2d(ins, outs, 4, stride=2, padding=1), act()]
            last.pop()  # no activation behind the output
        self.image_shape = image_shape
        self.output = nn.Sequential(*last)

    def init_weights(self) -> None:
        _initialise(self)

    def forward(self, latents: Tensor, classes: Tensor | None = None) -> Tensor:
        if classes is not None:
            latents = torch.cat([latents, classes.to(latents.dtype)], dim=1)
        x = self.output(self.layers(latents))
        return x.reshape(-1, *self.image_shape)  # (batch, channels, height, width)


class VariationalAutoencoder(nn.Module):
    r"""Encoder :math:`q(z | x)` and decoder :math:`p(x | z)`, with the prior :math:`N(0, I)`.

    .. math:: z = \mu(x) + \sigma(x) \odot \epsilon, \qquad \epsilon \sim N(0, I)

    (section 2.4). ``forward`` encodes images, draws latent variables and decodes them.

    Args:
        image_size: height and width of an image.
        in_channels: its channels.
        latent_dim: number of latent variables.
        hidden_sizes: width of each hidden layer of the encoder; the decoder has them in reverse.
        channels: of each convolution before them (stride 2); none for a network of layers that are
            all fully connected.
        activation: ``tanh``, ``relu`` or another (``zoo/layers/activations.py``).
        likelihood: of pixels given the latent variables: ``bernoulli`` (pixels in [0, 1], to be 0
            or 1) or ``gaussian``.
        variance: of a Gaussian decoder, one for all pixels: a number, or ``learned``.
        num_classes: the conditional form; None: there are no classes.

    Shape:
        - input: images ``(batch, in_channels, image_size, image_size)``; if conditional also
          classes ``(batch, num_classes)``, one-hot
        - output: :class:`Autoencoding`

    Raises:
        ValueError: if an argument is outside its range.
    """

    output_log_variance: Tensor | None

    @deferred_init
    def __init__(
        self,
        image_size: int = 28,
        in_channels: int = 1,
        *,
        latent_dim: int = 50,
        hidden_sizes: tuple[int, ...] = (200, 200),
        channels: tuple[int, ...] = (),
        activation: Elementwise = "tanh",
        likelihood: Likelihood = "bernoulli",
        variance: float | Literal["learned"] = "learned",
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        check_at_least_one(
            image_size=image_size,
            in_channels=in_channels,
            latent_dim=latent_dim,
            hidden_sizes=hidden_sizes,
            channels=channels,
            num_classes=1 if num_classes is None else num_classes,
        )
        if image_size % 2 ** len(channels):
            raise ValueError(
                f"image_size must be a multiple of {2 ** len(channels)} for {len(channels)} "
                f"convolutions that halve it, not {image_size}"
            )
        check_activation(activation, Elementwise)
        if likelihood not in ("bernoulli", "gaussian"):
            raise ValueError(f"likelihood must be bernoulli or gaussian, not {likelihood!r}")
        if variance != "learned" and not (isinstance(variance, int | float) and variance > 0):
            raise ValueError(f"variance must be a number above 0 or 'learned', not {variance!r}")
        self.image_shape = (in_channels, image_size, image_size)
        self.latent_dim, self.num_classes = latent_dim, num_classes
        self.likelihood, self.variance = likelihood, variance
        arguments: dict[str, Any] = {
            "channels": channels,
            "hidden_sizes": hidden_sizes,
            "activation": activation,
            "num_classes": num_classes or 0,
        }
        self.encoder = Encoder(self.image_shape, latent_dim, **arguments)
        self.decoder = Decoder(self.image_shape, latent_dim, **arguments)
        if likelihood == "bernoulli":
            self.output_log_variance = None
        elif variance == "learned":
            self.output_log_variance = nn.Parameter(torch.empty(()))
        else:
            self.register_buffer("output_log_variance", torch.empty(()))
        self._start: Tensor | None = None

    def init_weights(self) -> None:
        self.encoder.init_weights()
        self.decoder.init_weights()
        self._start = None
        if self.output_log_variance is not None:
            variance = 1.0 if self.variance == "learned" else self.variance
            with torch.no_grad():
                self.output_log_variance.fill_(variance).log_()

    @torch.no_grad()
    def start_at(self, mean_image: Tensor) -> None:
        """Starts the output biases so that the decoder's first guess is the mean image.

        Biases that have been trained stay. Means of Bernoulli pixels are kept from 0 and 1 by a
        thousandth, as Burda et al. do.

        Shape:
            - mean_image: ``(in_channels, image_size, image_size)``
        """
        last: Any = self.decoder.output[-1]
        bias: Tensor = last.bias
        if self.likelihood == "bernoulli":
            mean_image = mean_image.clamp(1e-3, 1 - 1e-3).logit()
        is_one_a_pixel = bias.numel() == mean_image.numel()
        start = mean_image.flatten() if is_one_a_pixel else mean_image.mean((1, 2))
        if not bias.any() or (self._start is not None and torch.equal(bias, self._start)):
            bias.copy_(start)
            self._start = bias.clone()

    def no_weight_decay(self) -> set[str]:
        """The learned variance: decay would draw it to 1."""
        is_learned = isinstance(self.output_log_variance, nn.Parameter)
        return {"output_log_variance"} if is_learned else set()

    @property
    def output_layers(self) -> list[str]:
        """The layers whose outputs are those of the two networks."""
        last = len(self.decoder.output) - 1
        return ["encoder.mean", "encoder.log_variance", f"decoder.output.{last}"]

    def encode(self, images: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the posterior, ``(batch, latent_dim)`` each."""
        check_shape(images, *self.image_shape)
        mean, log_variance = self.encoder(images, self._checked(classes))
        return _single(mean), _single(log_variance)

    def decode(self, latents: Tensor, classes: Tensor | None = None) -> Tensor:
        """Logits of a Bernoulli decoder, means of a Gaussian one.

        Shape:
            - latents: ``(batch, latent_dim)``
            - classes: ``(batch, num_classes)``
            - output: ``(batch, in_channels, image_size, image_size)``
        """
        return _single(self.decoder(latents, self._checked(classes)))

    def forward(
        self, images: Tensor, classes: Tensor | None = None, samples: int = 1
    ) -> Autoencoding:
        mean, log_variance = self.encode(images, classes)
        noise = torch.randn(samples, *mean.shape, device=mean.device, dtype=mean.dtype)
        latents = mean + (0.5 * log_variance).exp() * noise  # (samples, batch, latent_dim)
        repeated = None if classes is None else classes.repeat(samples, 1)
        output = self.decode(latents.flatten(0, 1), repeated)  # (samples * batch, *image_shape)
        output = output.unflatten(0, (samples, -1))  # (samples, batch, *image_shape)
        return Autoencoding(mean, log_variance, noise, latents, output, self.output_log_variance)

    def _checked(self, classes: Tensor | None) -> Tensor | None:
        if (classes is None) != (self.num_classes is None):
            raise ValueError(
                "classes are needed, since num_classes is set"
                if classes is None
                else "classes are given, but num_classes is not set"
            )
        return classes


def _inner_shape(image_shape: tuple[int, int, int], channels: tuple[int, ...]) -> torch.Size:
    """The shape between convolutions and hidden layers."""
    depth, height, width = image_shape
    factor = 2 ** len(channels)
    return torch.Size((channels[-1] if channels else depth, height // factor, width // factor))


def _single(x: Tensor) -> Tensor:
    """At least single precision: a bound is a sum over many pixels."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _initialise(network: nn.Module) -> None:
    """Glorot-uniform weights and zero biases."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.PReLU):
            layer.reset_parameters()
