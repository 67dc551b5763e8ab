r"""Wasserstein GAN with a gradient penalty (Gulrajani et al., 2017): its networks.

I. Gulrajani, F. Ahmed, M. Arjovsky, V. Dumoulin and A. Courville, "Improved training of Wasserstein
GANs", https://arxiv.org/abs/1704.00028, after M. Arjovsky, S. Chintala and L. Bottou, "Wasserstein
GAN", 2017, https://arxiv.org/abs/1701.07875

The discriminator becomes a critic, whose mean difference between real and generated samples
estimates the Wasserstein distance as long as its slope is at most 1. Arjovsky et al. bound the
slope by clipping the weights, Gulrajani et al. by a penalty, for which the critic must not
normalise over the batch. Both bounds are a task's business; here are the networks of the published
code for MNIST and for points in the plane (https://github.com/igul222/improved_wgan_training).

Difference from that code: zeros surround a map evenly before a convolution that halves its side,
where TensorFlow puts more of them right and below.

| class | generator | critic |
|---|---|---|
| `WGAN` (28x28, 64 channels) | 1,554,177 | 1,030,145 |
| `PointWGAN` (3 layers of 512) | 527,874 | 527,361 |
"""

import math
from itertools import pairwise

from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_images
from zoo.layers.initialization import deferred_init

SIDE = 4
"""Of the smallest maps."""


def _he_(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> None:
    """Draws from a uniform distribution after He et al., with both fans for convolutions."""
    fan_in, fan_out = layer.weight[0].numel(), layer.weight[:, 0].numel()
    if isinstance(layer, nn.Linear):
        std = math.sqrt(2 / fan_in)
    else:
        # The weight is (out, in, ...) or, transposed, (in, out, ...): each time, the side with the
        # larger maps is the second dimension, and the strides thin out the other.
        std = math.sqrt(4 / (fan_in + fan_out / math.prod(layer.stride)))
    nn.init.uniform_(layer.weight, -math.sqrt(3) * std, math.sqrt(3) * std)


def _initialise(network: nn.Module, plain: tuple[nn.Module, ...]) -> None:
    """He's start for all layers but the plain ones, which have Glorot's; biases are zero."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            if layer in plain:
                nn.init.xavier_uniform_(layer.weight)
            else:
                _he_(layer)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class Generator(nn.Module):
    """Noise to images of 28x28: three transposed convolutions from maps of 4x4.

    Args:
        in_channels: channels of an image.
        latent_dim: length of the noise vector.
        base_channels: channels of the last hidden map.

    Shape:
        - input: noise ``(batch, latent_dim)``
        - output: images in [0, 1], ``(batch, in_channels, 28, 28)``
    """

    @deferred_init
    def __init__(
        self, in_channels: int = 1, *, latent_dim: int = 128, base_channels: int = 64
    ) -> None:
        super().__init__()
        width = base_channels
        self.input = nn.Linear(latent_dim, 4 * width * SIDE**2)
        self.deconv1 = nn.ConvTranspose2d(4 * width, 2 * width, 5, 2, 2, output_padding=1)
        self.deconv2 = nn.ConvTranspose2d(2 * width, width, 5, 2, 2, output_padding=1)
        self.deconv3 = nn.ConvTranspose2d(width, in_channels, 5, 2, 2, output_padding=1)

    def init_weights(self) -> None:
        _initialise(self, plain=(self.input,))

    def forward(self, latents: Tensor) -> Tensor:
        x = self.input(latents).relu().unflatten(1, (-1, SIDE, SIDE))  # (batch, 4 width, 4, 4)
        x = self.deconv1(x).relu()[:, :, :7, :7]  # (batch, 2 width, 7, 7): half of half of 28
        x = self.deconv2(x).relu()  # (batch, width, 14, 14)
        return self.deconv3(x).sigmoid()  # (batch, in_channels, 28, 28)


class Critic(nn.Module):
    """Images of 28x28 to one number each: three convolutions, without any normalisation.

    Args:
        in_channels: channels of an image, or of several joined.
        base_channels: channels of the first hidden map.

    Shape:
        - input: images ``(batch, in_channels, 28, 28)``
        - output: ``(batch,)``
    """

    @deferred_init
    def __init__(self, in_channels: int = 1, *, base_channels: int = 64) -> None:
        super().__init__()
        self.in_channels = in_channels
        widths = [in_channels, base_channels, 2 * base_channels, 4 * base_channels]
        layers: list[nn.Module] = []
        for before, width in pairwise(widths):
            layers += [nn.Conv2d(before, width, 5, stride=2, padding=2), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)
        self.output = nn.Linear(widths[-1] * SIDE**2, 1)

    def init_weights(self) -> None:
        _initialise(self, plain=(self.output,))

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, in_channels=self.in_channels, smallest=28)
        return self.output(self.layers(images).flatten(1)).squeeze(1)  # (batch,)


class WGAN(nn.Module):
    r"""A generator G and a critic D of images of 28x28, to be trained in turns.

    .. math:: \min_G \max_{D \text{ with slope} \le 1} \;
        \mathbb E_x D(x) - \mathbb E_z D(G(z))

    (equation 2). ``forward`` is the generator's; the critic is the part ``discriminator``.

    Args:
        in_channels: channels of an image.
        latent_dim: length of the noise vector z.
        base_channels: channels of the largest hidden map of both networks ("DIM").
        packing: images that the critic judges at once, joined along their channels.

    Shape:
        - input: noise ``(batch, latent_dim)``
        - output: images in [0, 1], ``(batch, in_channels, 28, 28)``

    Raises:
        ValueError: if an argument is smaller than 1.
    """

    @deferred_init
    def __init__(
        self,
        in_channels: int = 1,
        *,
        latent_dim: int = 128,
        base_channels: int = 64,
        packing: int = 1,
    ) -> None:
        super().__init__()
        check_at_least_one(
            in_channels=in_channels,
            latent_dim=latent_dim,
            base_channels=base_channels,
            packing=packing,
        )
        self.latent_dim, self.packing = latent_dim, packing
        self.generator = Generator(in_channels, latent_dim=latent_dim, base_channels=base_channels)
        self.discriminator = Critic(in_channels * packing, base_channels=base_channels)

    def init_weights(self) -> None:
        self.generator.init_weights()
        self.discriminator.init_weights()

    def forward(self, latents: Tensor) -> Tensor:
        return self.generator(latents)  # (batch, in_channels, 28, 28)


class PointNetwork(nn.Module):
    """Fully connected layers with ReLU.

    Args:
        in_features: width of the input.
        out_features: width of the output; it is dropped where it is 1.
        hidden_sizes: width of each hidden layer.

    Shape:
        - input: ``(batch, in_features)``
        - output: ``(batch, out_features)``, or ``(batch,)`` for one output
    """

    @deferred_init
    def __init__(self, in_features: int, out_features: int, hidden_sizes: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width in pairwise((in_features, *hidden_sizes)):
            layers += [nn.Linear(before, width), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.output = nn.Linear((in_features, *hidden_sizes)[-1], out_features)

    def init_weights(self) -> None:
        _initialise(self, plain=(self.output,))

    def forward(self, x: Tensor) -> Tensor:
        y = self.output(self.layers(x))
        return y.squeeze(1) if self.output.out_features == 1 else y


class PointWGAN(nn.Module):
    """A generator and a critic of points (or any vectors), to be trained in turns.

    Args:
        in_features: numbers of a point.
        latent_dim: length of the noise vector.
        hidden_sizes: width of each hidden layer of both networks.
        packing: points that the critic judges at once, one behind the other.

    Shape:
        - input: noise ``(batch, latent_dim)``
        - output: ``(batch, in_features)``

    Raises:
        ValueError: if an argument is smaller than 1, or ``in_features`` smaller than 2.
    """

    @deferred_init
    def __init__(
        self,
        in_features: int = 2,
        *,
        latent_dim: int = 2,
        hidden_sizes: tuple[int, ...] = (512, 512, 512),
        packing: int = 1,
    ) -> None:
        super().__init__()
        check_at_least_one(latent_dim=latent_dim, hidden_sizes=hidden_sizes, packing=packing)
        if in_features < 2:
            raise ValueError(f"in_features must be at least 2, not {in_features}")
        self.latent_dim, self.packing = latent_dim, packing
        self.generator = PointNetwork(latent_dim, in_features, hidden_sizes)
        self.discriminator = PointNetwork(in_features * packing, 1, hidden_sizes)

    def init_weights(self) -> None:
        self.generator.init_weights()
        self.discriminator.init_weights()

    def forward(self, latents: Tensor) -> Tensor:
        return self.generator(latents)  # (batch, in_features)
