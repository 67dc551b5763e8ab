r"""MobileNetV2 (Sandler, Howard, Zhu, Zhmoginov and Chen, 2018).

"MobileNetV2: Inverted residuals and linear bottlenecks", https://arxiv.org/abs/1801.04381

Between thin layers a block widens to many maps, filters each of them alone (a depthwise
convolution) and narrows again, at a fraction of a full convolution's cost. The shortcuts join the
thin layers, and these carry no ReLU, which would destroy some of what so few maps hold.

Differences from the paper, which leaves these open; both follow the authors' TensorFlow code:
widths are rounded to multiples of 8, and a dropout of 0.2 precedes the classifier. Weights start
as in torchvision: the paper names no initialisation. The paper says 3.4 M parameters.

`mobilenet_v2_cifar` is ours: the paper's layers, of which the stem and stage 2 keep their
resolution, so that 32x32 images end at 4x4. The network of that name by kuangliu has these
strides too, but also projects the shortcuts of blocks that change their width (2,296,922
parameters), where the paper has none.

| stage | expansion t | channels c | blocks n | stride s | size (224x224) | strides, size (32x32) |
|---|---|---|---|---|---|---|
| convolution 3x3 | | 32 | 1 | 2 | 112 | 1, 32 |
| bottleneck 1 | 1 | 16 | 1 | 1 | 112 | 1, 32 |
| bottleneck 2 | 6 | 24 | 2 | 2 | 56 | 1, 32 |
| bottleneck 3 | 6 | 32 | 3 | 2 | 28 | 2, 16 |
| bottleneck 4 | 6 | 64 | 4 | 2 | 14 | 2, 8 |
| bottleneck 5 | 6 | 96 | 3 | 1 | 14 | 1, 8 |
| bottleneck 6 | 6 | 160 | 3 | 2 | 7 | 2, 4 |
| bottleneck 7 | 6 | 320 | 1 | 1 | 7 | 1, 4 |
| convolution 1x1 | | 1280 | 1 | 1 | 7 | 1, 4 |

| builder | classes | parameters | multiply-adds |
|---|---|---|---|
| `mobilenet_v2` | 1000 | 3,504,872 | 300,774,272 |
| `mobilenet_v2_cifar` | 10 | 2,236,682 | 87,976,448 |
"""

from typing import TypedDict, Unpack

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_images, check_probability
from zoo.layers.classifier import fresh_linear
from zoo.layers.initialization import deferred_init, reset

# Table 2: expansion t, channels c, blocks n of each stage of bottlenecks.
STAGES = (
    (1, 16, 1),
    (6, 24, 2),
    (6, 32, 3),
    (6, 64, 4),
    (6, 96, 3),
    (6, 160, 3),
    (6, 320, 1),
)
# Strides s of the stem and of the first block of each stage.
IMAGENET_STRIDES = (2, 1, 2, 2, 2, 1, 2, 1)
CIFAR_STRIDES = (1, 1, 1, 2, 2, 1, 2, 1)


def round_width(channels: float) -> int:
    """Rounds a width to the nearest multiple of 8 that is no less than 90 % of it."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class ConvNormReLU6(nn.Sequential):
    """Convolution, batch normalisation and ReLU6, the last two in place of a bias.

    Args:
        in_channels: maps in.
        out_channels: maps out.
        kernel_size: height and width of the kernel, odd; the image is framed to keep its size.
        stride: reduction of height and width.
        groups: groups of maps that do not see one another.

    Shape:
        - input: ``(batch, in_channels, height, width)``
        - output: ``(batch, out_channels, height / stride, width / stride)``, rounded up
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int,
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__(
            nn.Conv2d(
                in_channels,
                out_channels,
                kernel_size,
                stride=stride,
                padding=kernel_size // 2,
                groups=groups,
                bias=False,
            ),
            nn.BatchNorm2d(out_channels),
            nn.ReLU6(inplace=True),
        )


class InvertedResidual(nn.Module):
    r"""Bottleneck with the wide layer in the middle (table 1, figure 4).

    .. math:: y = x + \mathrm{project}(\mathrm{depthwise}(\mathrm{expand}(x)))

    ``expand`` is a 1x1 convolution to :math:`t` times the maps (left out for :math:`t = 1`),
    ``depthwise`` a 3x3 convolution of each map alone, both with batch normalisation and ReLU6;
    ``project`` is a 1x1 convolution with batch normalisation and no non-linearity. The shortcut
    is there where input and output have one shape.

    Args:
        in_channels: maps in.
        out_channels: maps out.
        stride: stride of the depthwise convolution.
        expansion: t.

    Shape:
        - input: ``(batch, in_channels, height, width)``
        - output: ``(batch, out_channels, height / stride, width / stride)``, rounded up
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        width = in_channels * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers.append(ConvNormReLU6(in_channels, width, kernel_size=1))
        layers += [
            ConvNormReLU6(width, width, kernel_size=3, stride=stride, groups=width),
            nn.Conv2d(width, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        ]
        self.conv = nn.Sequential(*layers)
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)  # (batch, out_channels, height / stride, width / stride)
        return x + y if self.has_shortcut else y


class MobileNetV2(nn.Module):
    """Stem, seven stages of inverted residuals, 1x1 convolution, global average, classifier.

    The names of the parts are torchvision's, whose state dicts load as they are.

    Args:
        num_classes: width of the output.
        in_channels: channels of the image.
        width_mult: factor on the width of every layer; the last convolution never gets narrower
            (section 5 of the paper).
        strides: of the stem and of the first block of each stage.
        dropout: probability of silencing an input of the classifier during training.

    Shape:
        - input: ``(batch, in_channels, height, width)``, any height and width
        - output: logits ``(batch, num_classes)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    @deferred_init
    def __init__(
        self,
        num_classes: int = 1000,
        *,
        in_channels: int = 3,
        width_mult: float = 1.0,
        strides: tuple[int, ...] = IMAGENET_STRIDES,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        check_at_least_one(num_classes=num_classes, in_channels=in_channels)
        if not width_mult > 0:
            raise ValueError(f"width_mult must be above 0, not {width_mult}")
        check_probability(dropout=dropout)
        self.in_channels = in_channels
        channels = round_width(32 * width_mult)
        layers: list[nn.Module] = [
            ConvNormReLU6(in_channels, channels, kernel_size=3, stride=strides[0])
        ]
        for (expansion, width, num_blocks), stride in zip(STAGES, strides[1:], strict=True):
            out_channels = round_width(width * width_mult)
            for i in range(num_blocks):
                layers.append(
                    InvertedResidual(
                        channels,
                        out_channels,
                        stride=stride if i == 0 else 1,
                        expansion=expansion,
                    )
                )
                channels = out_channels
        last_channels = round_width(1280 * max(1.0, width_mult))
        layers.append(ConvNormReLU6(channels, last_channels, kernel_size=1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last_channels, num_classes))

    def init_weights(self) -> None:
        reset(self)
        self.apply(_initialise)

    def reset_classifier(self, num_classes: int) -> None:
        """Makes the last layer anew, for other classes."""
        self.classifier[-1] = fresh_linear(self.classifier[-1], num_classes).apply(_initialise)

    def forward_features(self, x: Tensor) -> Tensor:
        check_images(x, in_channels=self.in_channels)
        return self.features(x)  # (batch, last_channels, height / 32, width / 32)

    def forward(self, x: Tensor) -> Tensor:
        x = self.forward_features(x)  # (batch, last_channels, height / 32, width / 32)
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)  # (batch, last_channels)
        return self.classifier(x)  # (batch, num_classes)


def _initialise(layer: nn.Module) -> None:
    """Convolutions by He's procedure (fan-out), the classifier from N(0, 0.01²) and bias 0."""
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.zeros_(layer.bias)


class MobileNetV2Options(TypedDict, total=False):
    """What the builders hand on to :class:`MobileNetV2`."""

    in_channels: int
    width_mult: float
    dropout: float


def mobilenet_v2(num_classes: int = 1000, **options: Unpack[MobileNetV2Options]) -> MobileNetV2:
    """MobileNetV2 for ImageNet; the paper also has widths of 0.35, 0.5, 0.75 and 1.4."""
    return MobileNetV2(num_classes, strides=IMAGENET_STRIDES, **options)


def mobilenet_v2_cifar(num_classes: int = 10, **options: Unpack[MobileNetV2Options]) -> MobileNetV2:
    """MobileNetV2 for 32x32 images: reduced 8 times, where the original reduces 32 times."""
    return MobileNetV2(num_classes, strides=CIFAR_STRIDES, **options)
