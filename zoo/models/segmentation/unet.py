r"""U-Net (Ronneberger, Fischer and Brox, 2015).

"U-Net: convolutional networks for biomedical image segmentation", https://arxiv.org/abs/1505.04597

A contracting path of convolutions and max-pooling learns what is in the image and forgets where;
an expanding path doubles the resolution again and is handed, level by level, the maps that the
contracting path had at that resolution, so that it can say exactly where. Its convolutions are not
padded: every output pixel is computed from true pixels only, and an image of any size is
segmented tile by tile, with the surroundings of each tile as context.

Differences from the paper, `unet`: none known. Where the paper leaves a choice:

- Dropout "at the end of the contracting path" stands after the last two pairs of its convolutions,
  before pooling and copying, with probability 0.5, as in the authors' published network.
- That network also has a ReLU after each up-convolution. The paper does not, nor does this one.
- Biases start at zero.

`unet_padded` is the variant in common use: padded convolutions, so that the output is as large as
the input; batch normalisation (Ioffe and Szegedy, 2015) after each, which takes the place of their
biases; no dropout; any number of levels and any width.

With :math:`L` levels (4 in the paper), unpadded, an input of side :math:`2^L (b + 8) - 4` becomes
:math:`b` pixels at the bottom and :math:`2^L (b - 4) + 4` in the output: a constant margin of
:math:`6 \cdot 2^L - 4` pixels on each side, and one input side in :math:`2^L` that fits
(:meth:`UNet.output_size`, :meth:`UNet.input_size_for`).

| part | size of `unet` (572x572 input) | `unet` | `unet_padded` |
|---|---|---|---|
| contracting.0 | 64 x 568 x 568 | 37,568 | 37,696 |
| contracting.1 | 128 x 280 x 280 | 221,440 | 221,696 |
| contracting.2 | 256 x 136 x 136 | 885,248 | 885,760 |
| contracting.3 | 512 x 64 x 64 | 3,539,968 | 3,540,992 |
| contracting.4 | 1024 x 28 x 28 | 14,157,824 | 14,159,872 |
| expanding.0 | 512 x 52 x 52 | 9,176,576 | 9,177,600 |
| expanding.1 | 256 x 100 x 100 | 2,294,528 | 2,295,040 |
| expanding.2 | 128 x 196 x 196 | 573,824 | 574,080 |
| expanding.3 | 64 x 388 x 388 | 143,552 | 143,680 |
| output | 2 x 388 x 388 | 130 | 130 |
| total | | 31,030,658 | 31,036,546 |
"""

from typing import TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_images, check_probability, is_traced
from zoo.layers.classifier import fresh_conv1x1
from zoo.layers.initialization import deferred_init, reset


class ConvPair(nn.Sequential):
    """Two 3x3 convolutions, each followed by a ReLU, and dropout where the paper has it.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        padding: 0 to lose a pixel on each side in each convolution, 1 to keep the size.
        batch_norm: normalise before each ReLU; the convolutions then have no bias.
        dropout: probability of dropping an output.

    Shape:
        - input: ``(batch, in_channels, height, width)``
        - output: ``(batch, out_channels, height - 4, width - 4)``, or the input's size if padded
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        padding: int = 0,
        batch_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        layers: list[nn.Module] = []
        for channels in (in_channels, out_channels):
            layers.append(
                nn.Conv2d(channels, out_channels, 3, padding=padding, bias=not batch_norm)
            )
            if batch_norm:
                layers.append(nn.BatchNorm2d(out_channels))
            layers.append(nn.ReLU(inplace=True))
        if dropout:
            layers.append(nn.Dropout(dropout))
        super().__init__(*layers)


class UpBlock(nn.Module):
    """One level up: doubles the resolution, joins the copied maps, and convolves twice.

    Args:
        in_channels: channels from the level below; half as many come out.
        padding: of the 3x3 convolutions.
        batch_norm: normalise before each ReLU.

    Shape:
        - x: ``(batch, in_channels, height, width)``
        - copied: ``(batch, in_channels / 2, >= 2 * height, >= 2 * width)``
        - output: ``(batch, in_channels / 2, 2 * height - 4, 2 * width - 4)``; if padded without
          the loss of 4
    """

    def __init__(self, in_channels: int, *, padding: int = 0, batch_norm: bool = False) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, in_channels // 2, 2, stride=2)
        self.convs = ConvPair(in_channels, in_channels // 2, padding=padding, batch_norm=batch_norm)

    def forward(self, x: Tensor, copied: Tensor) -> Tensor:
        x = self.up(x)  # (batch, in_channels / 2, 2 * height, 2 * width)
        copied = center_crop(copied, x.size(2), x.size(3))
        return self.convs(torch.cat((copied, x), dim=1))


def center_crop(x: Tensor, height: int, width: int) -> Tensor:
    """The middle of each map: ``(batch, channels, height, width)``."""
    top, left = (x.size(2) - height) // 2, (x.size(3) - width) // 2
    return x[:, :, top : top + height, left : left + width]


class UNet(nn.Module):
    """Contracting and expanding path with copies from the one to the other.

    Weights are drawn from a Gaussian of standard deviation sqrt(2 / N), with N the number of
    inputs of one neuron (section 3): each output of an up-convolution has one input a channel.

    A padded network takes any size: an image whose sides do not halve evenly ``num_levels`` times
    is continued to the right and below by its outermost pixels, and what lies there is cut off
    the output.

    Args:
        num_classes: channels of the output.
        in_channels: channels of the image.
        base_channels: channels of the first level; each level has twice as many as that above.
        num_levels: how often the resolution is halved.
        padded: pad the convolutions, so that the output has the input's size.
        batch_norm: normalise before each ReLU.
        dropout: probability of dropping an output of the last two pairs of the contracting path.

    Shape:
        - input: ``(batch, in_channels, height, width)``
        - output: logits ``(batch, num_classes, height, width)`` if padded, else
          ``(batch, num_classes, output_size(height), output_size(width))``

    Raises:
        ValueError: if an argument is outside its range, or the image's size does not fit.
    """

    @deferred_init
    def __init__(
        self,
        num_classes: int = 2,
        *,
        in_channels: int = 1,
        base_channels: int = 64,
        num_levels: int = 4,
        padded: bool = False,
        batch_norm: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_at_least_one(
            num_classes=num_classes,
            in_channels=in_channels,
            base_channels=base_channels,
            num_levels=num_levels,
        )
        check_probability(dropout=dropout)
        self.in_channels, self.num_levels, self.padded = in_channels, num_levels, padded
        padding = 1 if padded else 0
        widths = [base_channels * 2**level for level in range(num_levels + 1)]
        self.contracting = nn.ModuleList(
            ConvPair(
                before,
                after,
                padding=padding,
                batch_norm=batch_norm,
                dropout=dropout if level >= num_levels - 1 else 0.0,
            )
            for level, (before, after) in enumerate(
                zip((in_channels, *widths[:-1]), widths, strict=True)
            )
        )
        self.expanding = nn.ModuleList(
            UpBlock(channels, padding=padding, batch_norm=batch_norm)
            for channels in reversed(widths[1:])
        )
        self.output = nn.Conv2d(base_channels, num_classes, 1)

    def init_weights(self) -> None:
        reset(self)
        self.apply(_initialise)

    def reset_classifier(self, num_classes: int) -> None:
        """Makes the last layer anew, for other classes."""
        self.output = fresh_conv1x1(self.output, num_classes).apply(_initialise)

    @property
    def smallest_image(self) -> int:
        """The least height and width that the network takes."""
        return self.input_size_for(1)

    def output_size(self, size: int) -> int:
        """Height or width of the output for that of the input.

        Raises:
            ValueError: no input of this size fits; names the nearest that do.
        """
        if self.padded:
            return size
        bottom = size
        for _ in range(self.num_levels):
            if bottom < 5 or bottom % 2:
                break
            bottom = (bottom - 4) // 2
        else:
            output = bottom - 4
            for _ in range(self.num_levels):
                output = 2 * output - 4
            if output >= 1:
                return output
        step, smallest = 2**self.num_levels, self.smallest_image
        below = smallest + (size - smallest) // step * step
        nearest = f"{below} or {below + step}" if size > smallest else f"{smallest}"
        raise ValueError(
            f"x must have sides of {smallest} pixels plus a multiple of {step}, which unpadded "
            f"convolutions and {self.num_levels} halvings leave whole, not {size}: the "
            f"nearest is {nearest}"
        )

    def input_size_for(self, output_size: int) -> int:
        """The least input height or width whose output has at least ``output_size`` pixels."""
        if self.padded:
            return output_size
        step = 2**self.num_levels
        bottom = -(-(output_size - 4) // step) + 4  # Rounded up.
        return step * (bottom + 8) - 4

    def forward_features(self, x: Tensor) -> Tensor:
        check_images(x, in_channels=self.in_channels, smallest=self.smallest_image)
        height, width = x.shape[2:]
        if self.padded:
            step = 2**self.num_levels
            x = F.pad(x, (0, -width % step, 0, -height % step), mode="replicate")
        elif not is_traced(x):
            self.output_size(height), self.output_size(width)  # Refuses what does not fit.
        copies = []
        for level, convs in enumerate(self.contracting):
            if level:
                x = F.max_pool2d(x, 2)  # (batch, channels, height / 2, width / 2)
            x = convs(x)  # (batch, 2 * channels, height, width), each less 4 unless padded
            copies.append(x)
        copies.pop()  # The bottom is not copied, it is what goes up.
        for block in self.expanding:
            x = block(x, copies.pop())  # (batch, channels / 2, 2 * height, 2 * width), each less 4
        # (batch, base_channels, height, width) without what padding added, or with less unpadded
        return x[:, :, :height, :width]

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.forward_features(x))  # (batch, num_classes, height, width)


def _initialise(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        fan_in = layer.in_channels
        if isinstance(layer, nn.Conv2d):
            fan_in *= layer.kernel_size[0] * layer.kernel_size[1]
        nn.init.normal_(layer.weight, std=(2 / fan_in) ** 0.5)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


class UNetOptions(TypedDict, total=False):
    """What the builders hand on to :class:`UNet`."""

    in_channels: int
    base_channels: int
    num_levels: int


def unet(num_classes: int = 2, *, dropout: float = 0.5, **options: Unpack[UNetOptions]) -> UNet:
    """U-Net as published: unpadded convolutions, 572x572 pixels in, 388x388 out."""
    return UNet(num_classes, padded=False, batch_norm=False, dropout=dropout, **options)


def unet_padded(
    num_classes: int = 2,
    *,
    batch_norm: bool = True,
    dropout: float = 0.0,
    **options: Unpack[UNetOptions],
) -> UNet:
    """U-Net with padded convolutions and batch normalisation: any size in, the same size out."""
    return UNet(num_classes, padded=True, batch_norm=batch_norm, dropout=dropout, **options)
