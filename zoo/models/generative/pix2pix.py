r"""Image-to-image translation by a conditional GAN, pix2pix (Isola, Zhu, Zhou and Efros, 2017).

P. Isola, J.-Y. Zhu, T. Zhou and A. A. Efros, "Image-to-image translation with conditional
adversarial networks", https://arxiv.org/abs/1611.07004

One network turns an image into another (a map into a photograph, say); the second is shown both and
tells, patch by patch, whether they belong together. So the loss is learned along with the mapping,
and need not be designed for each pair of domains.

What is built is the authors' PyTorch code
(https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix, `unet_256`, `unet_128` and `basic`), whose
weights load strictly into ``generator`` and ``discriminator``. It differs from the paper's text:

- no batch normalisation at the bottleneck of 1x1 pixels, which with one image a batch would make it
  zero (the paper's errata say so too), and no biases before batch normalisation;
- dropout stands in the decoder's blocks of 8 times the base width but for the innermost: in three
  of them for 256 pixels, two for 128, one for 64 and none for 32; in the paper, in the decoder's
  first three;
- the discriminator's last two convolutions have stride 1.

Section 3.4 is kept in evaluation mode too: dropout, the only source of noise, stays on, and batch
normalisation takes the statistics of the images at hand, one image at a time, as the authors test.
Running averages are in the state for the sake of published weights, and are not used.

Not in the authors' code: sizes other than 128 and 256; a level is added for each doubling.

| part (64 channels) | parameters |
|---|---|
| U-Net, 256x256, 3 to 3 channels | 54,413,955 |
| U-Net, 256x256, 1 to 1 channel | 54,407,809 |
| U-Net, 128x128, 3 to 3 channels | 41,828,995 |
| PatchGAN of 70x70 pixels, 3 + 3 channels | 2,768,705 |
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.layers.checks import check_at_least_one, check_images, check_probability, is_traced
from zoo.layers.initialization import deferred_init

STD = 0.02
"""Of all first weights (section 6.2)."""

SMALLEST = 32


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation by the images at hand; in evaluation by each image alone."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return super().forward(x)
        return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)


class Noise(nn.Dropout):
    """Dropout that stays on in evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.p, training=True)


def _initialise(network: nn.Module) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()
            nn.init.normal_(layer.weight, 1.0, STD)
        elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0.0, STD)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class Level(nn.Module):
    """A level of the U-Net and all below it: halves the side of a map and doubles it again.

    What comes out is joined with what went in: the skip connection.

    Args:
        outer_channels: of the map.
        inner_channels: of the map of half its side.
        inside: the next level, which doubles the channels; None: there is none.
        dropout: probability of dropping an output; None: there is no dropout.

    Shape:
        - input: ``(batch, outer_channels, height, width)``
        - output: ``(batch, 2 * outer_channels, height, width)``
    """

    def __init__(
        self,
        outer_channels: int,
        inner_channels: int,
        *,
        inside: nn.Module | None,
        dropout: float | None = None,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.LeakyReLU(0.2),
            nn.Conv2d(outer_channels, inner_channels, 4, stride=2, padding=1, bias=False),
        ]
        if inside is not None:
            layers += [BatchNorm(inner_channels), inside]
            inner_channels *= 2
        layers += [
            nn.ReLU(),
            nn.ConvTranspose2d(inner_channels, outer_channels, 4, stride=2, padding=1, bias=False),
            BatchNorm(outer_channels),
        ]
        if dropout is not None:
            layers += [Noise(dropout)]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.model(x)], dim=1)  # (batch, 2 * outer_channels, height, width)


class Generator(nn.Module):
    """Images to images: a U-Net whose innermost map has one pixel.

    Args:
        image_size: height and width of the images that it is made for, a power of two.
        in_channels: channels of an image that it is given.
        out_channels: channels of the image that it makes.
        base_channels: channels of the first map; up to eight times as many follow.
        dropout: probability of dropping an output, see above where.

    Shape:
        - input: ``(batch, in_channels, height, width)``, multiples of ``image_size``
        - output: in [-1, 1], ``(batch, out_channels, height, width)``
    """

    @deferred_init
    def __init__(
        self,
        image_size: int,
        in_channels: int,
        *,
        out_channels: int,
        base_channels: int = 64,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.image_size, self.in_channels = image_size, in_channels
        levels = image_size.bit_length() - 1
        widths = [base_channels * min(2**i, 8) for i in range(levels)]
        inside = Level(*widths[-2:], inside=None)
        for i in reversed(range(1, levels - 1)):
            inside = Level(
                widths[i - 1], widths[i], inside=inside, dropout=dropout if i >= 4 else None
            )
        outermost = nn.Sequential(
            nn.Conv2d(in_channels, base_channels, 4, stride=2, padding=1, bias=False),
            inside,
            nn.ReLU(),
            nn.ConvTranspose2d(2 * base_channels, out_channels, 4, stride=2, padding=1),
            nn.Tanh(),
        )
        self.model = nn.Sequential(OrderedDict(model=outermost))

    def init_weights(self) -> None:
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, in_channels=self.in_channels)
        if not is_traced(images) and any(side % self.image_size for side in images.shape[2:]):
            raise ValueError(
                f"x must have sides that are multiples of image_size={self.image_size}, not "
                f"{images.size(2)}x{images.size(3)}: less than a pixel would be left of others"
            )
        return self.model(images)  # (batch, out_channels, height, width)


class Discriminator(nn.Module):
    """Images to a map of logits: one for each patch of them being real (section 3.2.2).

    A logit sees 70x70 pixels with three layers; 16x16, 34x34, 142x142 and 286x286 with one, two,
    four and five.

    Args:
        in_channels: channels of all images that it is shown at once.
        base_channels: channels of the first map; up to eight times as many follow.
        num_layers: convolutions with stride 2.

    Shape:
        - input: images joined along their channels, ``(batch, in_channels, height, width)``
        - output: logits ``(batch, 1, height / 2**num_layers - 2, width / 2**num_layers - 2)``
    """

    @deferred_init
    def __init__(self, in_channels: int, *, base_channels: int = 64, num_layers: int = 3) -> None:
        super().__init__()
        self.in_channels, self.smallest = in_channels, 3 * 2**num_layers
        width = base_channels
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
        ]
        for i in range(1, num_layers + 1):
            before, width = width, base_channels * min(2**i, 8)
            stride = 2 if i < num_layers else 1
            layers += [
                nn.Conv2d(before, width, 4, stride=stride, padding=1, bias=False),
                BatchNorm(width),
                nn.LeakyReLU(0.2),
            ]
        self.model = nn.Sequential(*layers, nn.Conv2d(width, 1, 4, stride=1, padding=1))

    def init_weights(self) -> None:
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, in_channels=self.in_channels, smallest=self.smallest)
        return self.model(images)  # (batch, 1, patches, patches)


class Pix2Pix(nn.Module):
    r"""A generator G of images and a discriminator D of pairs, to be trained in turns.

    .. math:: \arg\min_G \max_D \; \mathbb E_{x, y} \log D(x, y)
        + \mathbb E_{x, z} \log(1 - D(x, G(x, z)))
        + \lambda \, \mathbb E_{x, y, z} \lVert y - G(x, z) \rVert_1

    (equation 4), with dropout in the place of the noise z. ``forward`` is the generator's; the
    discriminator is called by its name, with x and y joined along their channels.

    Args:
        image_size: height and width of an image, a power of two.
        in_channels: channels of x.
        out_channels: channels of y.
        base_channels: channels of the first map of both networks.
        patch_layers: convolutions with stride 2 of the discriminator: 3 for patches of 70x70.
        dropout: probability of dropping an output of the generator's blocks that have dropout.

    Shape:
        - input: images x ``(batch, in_channels, image_size, image_size)``
        - output: images y in [-1, 1], ``(batch, out_channels, image_size, image_size)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    @deferred_init
    def __init__(
        self,
        image_size: int = 256,
        in_channels: int = 3,
        *,
        out_channels: int = 3,
        base_channels: int = 64,
        patch_layers: int = 3,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_at_least_one(
            in_channels=in_channels,
            out_channels=out_channels,
            base_channels=base_channels,
            patch_layers=patch_layers,
        )
        check_probability(dropout=dropout)
        if image_size < SMALLEST or image_size & (image_size - 1):
            raise ValueError(
                f"image_size must be a power of two, at least {SMALLEST}, not {image_size}"
            )
        if 3 * 2**patch_layers > image_size:
            raise ValueError(
                f"patch_layers={patch_layers} leaves nothing of images of {image_size} pixels a "
                f"side: they must have at least {3 * 2**patch_layers}"
            )
        self.image_size, self.in_channels = image_size, in_channels
        self.generator = Generator(
            image_size,
            in_channels,
            out_channels=out_channels,
            base_channels=base_channels,
            dropout=dropout,
        )
        self.discriminator = Discriminator(
            in_channels + out_channels, base_channels=base_channels, num_layers=patch_layers
        )

    def init_weights(self) -> None:
        self.generator.init_weights()
        self.discriminator.init_weights()

    def forward(self, images: Tensor) -> Tensor:
        return self.generator(images)  # (batch, out_channels, height, width)
