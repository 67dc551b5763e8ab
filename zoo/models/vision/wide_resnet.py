r"""Wide residual networks (Zagoruyko and Komodakis, 2016).

"Wide residual networks", https://arxiv.org/abs/1605.07146

A residual network can be made thin and a thousand layers deep, but most of its blocks then learn
little, one after another. With :math:`k` times the channels 16 layers do as well, and 28 do better
in a fraction of the time, since wide convolutions keep the hardware busy. Dropout between the two
convolutions of a block holds the many parameters in check.

WRN-d-k has :math:`d = 6n + 4` layers: a 3x3 convolution, three stages of :math:`n` pre-activation
blocks (norm, ReLU, convolution) of two 3x3 convolutions, a 1x1 projection a stage where the shape
changes, and a linear layer.

Differences from the paper: none. What the paper leaves open is as in the authors' code: a block
that changes the shape projects its activated input, a last norm and ReLU come before the pooling,
He initialisation keeps the variance of the gradients, and the linear layer's bias starts at zero.

| stage | size (32x32 input) | layers |
|---|---|---|
| conv1 | 16 x 32 x 32 | 1 |
| layer1 | 16k x 32 x 32 | 2n |
| layer2 | 32k x 16 x 16 | 2n |
| layer3 | 64k x 8 x 8 | 2n |
| fc | num_classes | 1 |

| builder | parameters | error on CIFAR-10 in the paper, % |
|---|---|---|
| `wide_resnet16_4` | 2,748,890 | - |
| `wide_resnet16_8` | 10,961,370 | 4.27 |
| `wide_resnet40_4` | 8,949,210 | 4.53 |
| `wide_resnet28_10` | 36,479,194 | 4.00 (3.89 with dropout 0.3) |
"""

from typing import TypedDict, Unpack

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_images, check_probability
from zoo.layers.classifier import fresh_linear
from zoo.layers.convolution import conv3x3
from zoo.layers.initialization import deferred_init, reset


class WideBlock(nn.Module):
    r"""Two 3x3 convolutions, each after norm and ReLU, with dropout between them (figure 1d).

    .. math:: y = x + W_2 * \mathrm{Dropout}(\mathrm{ReLU}(\mathrm{BN}(W_1 * a))), \quad
        a = \mathrm{ReLU}(\mathrm{BN}(x))

    and :math:`W_s * a` in place of :math:`x` where the shape changes.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: of the first convolution.
        dropout: probability of an element to be dropped before the second convolution.

    Shape:
        - input: ``(batch, in_channels, height, width)``
        - output: ``(batch, out_channels, ceil(height / stride), ceil(width / stride))``
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv3x3(in_channels, out_channels, stride=stride)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.projection: nn.Conv2d | None = None
        if stride != 1 or in_channels != out_channels:
            self.projection = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x), inplace=True)
        out = self.conv1(active)  # (batch, out_channels, h, w)
        out = self.dropout(F.relu(self.bn2(out), inplace=True))
        out = self.conv2(out)
        out += x if self.projection is None else self.projection(active)
        return out


class WideResNet(nn.Module):
    """WRN-d-k: three stages of ``16 k``, ``32 k`` and ``64 k`` channels (table 1).

    Args:
        num_classes: width of the output.
        depth: number of layers, 6n + 4.
        widen_factor: k, how many times the channels of a ResNet for small images.
        in_channels: channels of the image.
        dropout: probability of dropout within each block; the paper has 0.3 on CIFAR, 0.4 on SVHN.

    Shape:
        - input: ``(batch, in_channels, height, width)``, of any size
        - output: logits ``(batch, num_classes)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    @deferred_init
    def __init__(
        self,
        num_classes: int = 10,
        *,
        depth: int = 28,
        widen_factor: int = 10,
        in_channels: int = 3,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_at_least_one(num_classes=num_classes)
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f"depth must be 6n + 4 (10, 16, 22, ...), not {depth}")
        check_at_least_one(widen_factor=widen_factor, in_channels=in_channels)
        check_probability(dropout=dropout)
        self.in_channels = in_channels
        blocks = (depth - 4) // 6
        first, second, third = (width * widen_factor for width in (16, 32, 64))
        self.conv1 = conv3x3(in_channels, 16)
        self.layer1 = _stage(16, first, blocks, stride=1, dropout=dropout)
        self.layer2 = _stage(first, second, blocks, stride=2, dropout=dropout)
        self.layer3 = _stage(second, third, blocks, stride=2, dropout=dropout)
        self.bn = nn.BatchNorm2d(third)
        self.fc = nn.Linear(third, num_classes)

    def init_weights(self) -> None:
        reset(self)
        nn.init.zeros_(self.fc.bias)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def reset_classifier(self, num_classes: int) -> None:
        """Makes the last layer anew, for other classes."""
        self.fc = fresh_linear(self.fc, num_classes)
        nn.init.zeros_(self.fc.bias)

    def forward_features(self, x: Tensor) -> Tensor:
        check_images(x, in_channels=self.in_channels)
        # Sizes in the comments are those of 32x32 images.
        x = self.conv1(x)  # (batch, 16, 32, 32)
        x = self.layer1(x)  # (batch, 16 k, 32, 32)
        x = self.layer2(x)  # (batch, 32 k, 16, 16)
        x = self.layer3(x)  # (batch, 64 k, 8, 8)
        return F.relu(self.bn(x), inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.forward_features(x)  # (batch, 64 k, 8, 8)
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)  # (batch, 64 k)
        return self.fc(x)  # (batch, num_classes)


def _stage(
    in_channels: int, out_channels: int, blocks: int, *, stride: int, dropout: float
) -> nn.Sequential:
    """Blocks of which the first has the stride."""
    return nn.Sequential(
        WideBlock(in_channels, out_channels, stride=stride, dropout=dropout),
        *(WideBlock(out_channels, out_channels, dropout=dropout) for _ in range(blocks - 1)),
    )


class WideResNetOptions(TypedDict, total=False):
    """What the builders hand on to :class:`WideResNet`."""

    in_channels: int
    dropout: float


def wide_resnet16_4(num_classes: int = 10, **options: Unpack[WideResNetOptions]) -> WideResNet:
    """WRN-16-4: small enough for a CPU."""
    return WideResNet(num_classes, depth=16, widen_factor=4, **options)


def wide_resnet16_8(num_classes: int = 10, **options: Unpack[WideResNetOptions]) -> WideResNet:
    """WRN-16-8: as good as a ResNet of a thousand layers."""
    return WideResNet(num_classes, depth=16, widen_factor=8, **options)


def wide_resnet40_4(num_classes: int = 10, **options: Unpack[WideResNetOptions]) -> WideResNet:
    """WRN-40-4: fewer parameters than ResNet-1001, eight times as fast, and better."""
    return WideResNet(num_classes, depth=40, widen_factor=4, **options)


def wide_resnet28_10(num_classes: int = 10, **options: Unpack[WideResNetOptions]) -> WideResNet:
    """WRN-28-10, the paper's best."""
    return WideResNet(num_classes, depth=28, widen_factor=10, **options)
