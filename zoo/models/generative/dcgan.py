r"""Deep convolutional generative adversarial network, DCGAN (Radford, Metz and Chintala, 2016).

A. Radford, L. Metz and S. Chintala, "Unsupervised representation learning with deep convolutional
generative adversarial networks", https://arxiv.org/abs/1511.06434

Convolutions with strides in the place of pooling and of fully connected layers, batch normalisation
and a fixed set of activations: with these a pair of deep networks can be trained against each
other.

The layers, their order and their names are those of PyTorch's example
(https://github.com/pytorch/examples/tree/main/dcgan), so its weights load strictly into
``generator`` and ``discriminator``. Differences from the paper are the example's: the noise is
normal, not uniform; the generator's first layer has as many channels as the discriminator's last
(512, where figure 1 has 1024); no layer has a bias. The discriminator returns the logit, whose
sigmoid belongs to the loss. Not in the paper: sizes other than 64x64; a discriminator without batch
normalisation (for a gradient penalty), or with spectral normalisation in its place (Miyato et al.,
2018, https://arxiv.org/abs/1802.05957).

| part (noise of 100, 64 channels) | 64x64 RGB | 28x28 grey |
|---|---|---|
| generator | 3,576,704 | 759,680 |
| discriminator | 2,765,568 | 138,624 |
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

from zoo.layers.checks import check_at_least_one, check_images
from zoo.layers.initialization import deferred_init

Norm = Literal["batch", "spectral"]

STD = 0.02
"""Of all first weights (section 4)."""


def _halvings(image_size: int) -> tuple[int, int]:
    """The side of the smallest map, and how often an image is halved to get there.

    Raises:
        ValueError: no smallest map of 4 or 7 pixels fits.
    """
    for side in (4, 7):
        factor, rest = divmod(image_size, side)
        if rest == 0 and factor > 1 and factor & (factor - 1) == 0:
            return side, factor.bit_length() - 1
    raise ValueError(
        f"image_size must be 4 or 7 times a power of two (8, 14, 16, 28, 32, 56, 64, ...), not "
        f"{image_size}"
    )


def _initialise(network: nn.Module) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()
            nn.init.normal_(layer.weight, 1.0, STD)
        elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            is_spectral = is_parametrized(layer, "weight")
            if is_spectral:
                remove_parametrizations(layer, "weight", leave_parametrized=False)
            nn.init.normal_(layer.weight, 0.0, STD)
            if is_spectral:  # Anew: it starts with the singular vectors of the first weights.
                spectral_norm(layer)


class Generator(nn.Module):
    """Noise to images: transposed convolutions that double the side, with ReLU; tanh at the end.

    Args:
        image_size: height and width of an image, 4 or 7 times a power of two.
        in_channels: channels of an image.
        latent_dim: length of the noise vector.
        base_channels: channels of the last hidden map; each earlier one has twice as many.

    Shape:
        - input: noise ``(batch, latent_dim)``
        - output: images in [-1, 1], ``(batch, in_channels, image_size, image_size)``
    """

    @deferred_init
    def __init__(
        self, image_size: int, in_channels: int, *, latent_dim: int = 100, base_channels: int = 64
    ) -> None:
        super().__init__()
        side, halvings = _halvings(image_size)
        widths = [base_channels * 2**i for i in reversed(range(halvings))]
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent_dim, widths[0], side, bias=False)]
        for width, following in zip(widths, [*widths[1:], in_channels], strict=True):
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
            layers += [nn.ConvTranspose2d(width, following, 4, stride=2, padding=1, bias=False)]
        self.main = nn.Sequential(*layers, nn.Tanh())

    def init_weights(self) -> None:
        _initialise(self)

    def forward(self, latents: Tensor) -> Tensor:
        return self.main(latents[:, :, None, None])  # (batch, in_channels, size, size)


class Discriminator(nn.Module):
    """Images to the logit of their being real: convolutions that halve the side, leaky ReLU.

    Args:
        image_size: height and width of an image, 4 or 7 times a power of two.
        in_channels: channels of an image, or of several joined.
        base_channels: channels of the first hidden map; each later one has twice as many.
        norm: ``batch`` normalisation of every hidden map but the first, ``spectral`` normalisation
            of every weight, or ``None``.

    Shape:
        - input: images ``(batch, in_channels, image_size, image_size)``
        - output: logits ``(batch,)``
    """

    @deferred_init
    def __init__(
        self,
        image_size: int,
        in_channels: int,
        *,
        base_channels: int = 64,
        norm: Norm | None = "batch",
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        side, halvings = _halvings(image_size)
        layers: list[nn.Module] = []
        before = in_channels
        for i in range(halvings):
            width = base_channels * 2**i
            layers += [nn.Conv2d(before, width, 4, stride=2, padding=1, bias=False)]
            if norm == "batch" and i > 0:
                layers += [nn.BatchNorm2d(width)]
            layers += [nn.LeakyReLU(0.2)]
            before = width
        self.main = nn.Sequential(*layers, nn.Conv2d(before, 1, side, bias=False))
        if norm == "spectral":
            for layer in self.main:
                if isinstance(layer, nn.Conv2d):
                    spectral_norm(layer)

    def init_weights(self) -> None:
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, in_channels=self.in_channels)
        return self.main(images).flatten()  # (batch,)


class DCGAN(nn.Module):
    r"""A convolutional generator G and discriminator D, to be trained in turns.

    .. math:: \min_G \max_D \; \mathbb E_x \log D(x) + \mathbb E_z \log(1 - D(G(z)))

    ``forward`` is the generator's; the discriminator is called by its name.

    Args:
        image_size: height and width of an image, 4 or 7 times a power of two.
        in_channels: its channels.
        latent_dim: length of the noise vector z.
        base_channels: channels of the largest hidden map of both networks.
        norm: of the discriminator: ``batch`` (the paper's), ``spectral`` or ``None``.
        packing: images that the discriminator judges at once, joined along their channels (Lin et
            al., 2018, https://arxiv.org/abs/1712.04086).

    Shape:
        - input: noise ``(batch, latent_dim)``
        - output: images in [-1, 1], ``(batch, in_channels, image_size, image_size)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    @deferred_init
    def __init__(
        self,
        image_size: int = 64,
        in_channels: int = 3,
        *,
        latent_dim: int = 100,
        base_channels: int = 64,
        norm: Norm | None = "batch",
        packing: int = 1,
    ) -> None:
        super().__init__()
        check_at_least_one(
            in_channels=in_channels,
            latent_dim=latent_dim,
            base_channels=base_channels,
            packing=packing,
        )
        if norm not in ("batch", "spectral", None):
            raise ValueError(f"norm must be 'batch', 'spectral' or None, not {norm!r}")
        self.latent_dim, self.packing = latent_dim, packing
        self.image_size, self.in_channels = image_size, in_channels
        self.generator = Generator(
            image_size, in_channels, latent_dim=latent_dim, base_channels=base_channels
        )
        self.discriminator = Discriminator(
            image_size, in_channels * packing, base_channels=base_channels, norm=norm
        )

    def init_weights(self) -> None:
        self.generator.init_weights()
        self.discriminator.init_weights()

    def forward(self, latents: Tensor) -> Tensor:
        return self.generator(latents)  # (batch, in_channels, size, size)
