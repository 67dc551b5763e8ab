r"""Residual networks (He, Zhang, Ren and Sun, 2015), and ResNeXt (Xie et al., 2017).

"Deep residual learning for image recognition", https://arxiv.org/abs/1512.03385

Stacking more layers makes a plain network worse, on the training set too: it fails to learn even
the identity. Let each pair of layers learn a difference to its input instead, :math:`x + F(x)`,
and networks of 152 layers train as easily as shallow ones. The shortcuts are identities; only
where the shape changes are they 1x1 convolutions (option B). Section 4.2's networks for small
images are in :mod:`zoo.models.vision.resnet_cifar`.

"Aggregated residual transformations for deep neural networks", https://arxiv.org/abs/1611.05431

ResNeXt splits the 3x3 convolution of each bottleneck into groups, 32 of them four channels wide
in the first stage: many small transformations, summed, for the price of one.

"Wide residual networks", Zagoruyko and Komodakis 2016, https://arxiv.org/abs/1605.07146

For ImageNet they double the width of the 3x3 convolution inside each bottleneck; their networks for
small images are in :mod:`zoo.models.vision.wide_resnet`.

Differences from the papers:

- `resnet50`, `resnet101` and `resnet152` halve the resolution in the bottleneck's 3x3 convolution,
  as torchvision and everyone since does ("v1.5", about 0.5 % better). The networks as published
  halve it in the first 1x1 convolution: `resnet50_v1`, `resnet101_v1`, `resnet152_v1`. The
  parameters are the same. ResNeXt halves it in the 3x3 convolution in its paper already.
  The wide networks are torchvision's, with the stride in the 3x3 convolution too.
- He initialisation keeps the variance of the gradients (fan-out), as the authors' code
  for Torch does. With ``zero_init_residual`` each block starts as the identity, because the last
  batch norm's weights start at zero (Goyal et al. 2017, https://arxiv.org/abs/1706.02677).
- `resnet18_cifar` is nobody's paper, but the network that "ResNet-18 on CIFAR-10" mostly means:
  a 3x3 convolution without pooling in place of the stem, so that a 32x32 image is not 8x8
  before the first block.

Names of parameters are torchvision's, whose weights load.

| stage | size (224x224 input) | 18 | 34 | 50 | 101 | 152 |
|---|---|---|---|---|---|---|
| conv1 | 64 x 112 x 112 | 1 | 1 | 1 | 1 | 1 |
| layer1 | 64 (256) x 56 x 56 | 2 x 2 | 3 x 2 | 3 x 3 | 3 x 3 | 3 x 3 |
| layer2 | 128 (512) x 28 x 28 | 2 x 2 | 4 x 2 | 4 x 3 | 4 x 3 | 8 x 3 |
| layer3 | 256 (1024) x 14 x 14 | 2 x 2 | 6 x 2 | 6 x 3 | 23 x 3 | 36 x 3 |
| layer4 | 512 (2048) x 7 x 7 | 2 x 2 | 3 x 2 | 3 x 3 | 3 x 3 | 3 x 3 |
| fc | num_classes | 1 | 1 | 1 | 1 | 1 |

| builder | parameters |
|---|---|
| `resnet18` | 11,689,512 |
| `resnet34` | 21,797,672 |
| `resnet50`, `resnet50_v1` | 25,557,032 |
| `resnet101`, `resnet101_v1` | 44,549,160 |
| `resnet152`, `resnet152_v1` | 60,192,808 |
| `resnext50_32x4d` | 25,028,904 |
| `resnext101_32x8d` | 88,791,336 |
| `resnext101_64x4d` | 83,455,272 |
| `wide_resnet50_2` | 68,883,240 |
| `wide_resnet101_2` | 126,886,696 |
| `resnet18_cifar` | 11,173,962 (10 classes) |
"""

from collections.abc import Callable
from functools import partial
from typing import ClassVar, TypedDict, Unpack

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_images
from zoo.layers.classifier import fresh_linear
from zoo.layers.convolution import conv1x1, conv3x3
from zoo.layers.initialization import deferred_init, reset


def projection(in_channels: int, out_channels: int, *, stride: int) -> nn.Sequential | None:
    """The shortcut: None for the identity, a 1x1 convolution if the shape changes (option B)."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        conv1x1(in_channels, out_channels, stride=stride), nn.BatchNorm2d(out_channels)
    )


class BasicBlock(nn.Module):
    r"""Two 3x3 convolutions and a shortcut (figure 5, left).

    .. math:: y = \mathrm{ReLU}(F(x) + x)

    Args:
        in_channels: channels of the input.
        channels: channels of the convolutions and of the output.
        stride: of the first convolution.

    Shape:
        - input: ``(batch, in_channels, height, width)``
        - output: ``(batch, channels, ceil(height / stride), ceil(width / stride))``
    """

    expansion: ClassVar[int] = 1

    def __init__(self, in_channels: int, channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, channels, stride=stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = projection(in_channels, channels, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)  # (batch, channels, h, w)
        out = self.bn2(self.conv2(out))
        out += x if self.downsample is None else self.downsample(x)
        return F.relu(out, inplace=True)


class Bottleneck(nn.Module):
    r"""A 1x1 convolution to few channels, a 3x3, a 1x1 back to many, and a shortcut.

    .. math:: y = \mathrm{ReLU}(F(x) + x)

    Figure 5 on the right, and figure 3c of ResNeXt's paper.

    Args:
        in_channels: channels of the input.
        channels: of the stage; a quarter of the output's.
        stride: how much the resolution falls.
        groups: groups of the 3x3 convolution.
        group_width: width of a group, in channels when ``channels`` is 64.
        stride_first: whether the first 1x1 convolution has the stride, as published, or the 3x3.

    Shape:
        - input: ``(batch, in_channels, height, width)``
        - output: ``(batch, 4 * channels, ceil(height / stride), ceil(width / stride))``
    """

    expansion: ClassVar[int] = 4

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int = 1,
        groups: int = 1,
        group_width: int = 64,
        stride_first: bool = False,
    ) -> None:
        super().__init__()
        width = channels * group_width // 64 * groups
        out_channels = channels * self.expansion
        first, second = (stride, 1) if stride_first else (1, stride)
        self.conv1 = conv1x1(in_channels, width, stride=first)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride=second, groups=groups)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv1x1(width, out_channels)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = projection(in_channels, out_channels, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)  # (batch, width, ., .)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)  # (batch, width, h, w)
        out = self.bn3(self.conv3(out))  # (batch, 4 * channels, h, w)
        out += x if self.downsample is None else self.downsample(x)
        return F.relu(out, inplace=True)


class ResNet(nn.Module):
    """Four stages of residual blocks; each after the first halves the resolution (table 1).

    Args:
        block: :class:`BasicBlock` or :class:`Bottleneck`, or the latter with arguments filled in.
        blocks: number of blocks in each of the four stages.
        num_classes: width of the output.
        in_channels: channels of the image.
        zero_init_residual: whether each block starts as the identity.

    Shape:
        - input: ``(batch, in_channels, height, width)``, of any size
        - output: logits ``(batch, num_classes)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    @deferred_init
    def __init__(
        self,
        block: Callable[..., BasicBlock | Bottleneck],
        blocks: tuple[int, int, int, int],
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        check_at_least_one(num_classes=num_classes, in_channels=in_channels)
        self.in_channels, self.zero_init_residual = in_channels, zero_init_residual
        self.conv1, self.bn1, self.maxpool = self._stem(in_channels)
        self.layer1, width = _stage(block, 64, 64, blocks[0], stride=1)
        self.layer2, width = _stage(block, width, 128, blocks[1], stride=2)
        self.layer3, width = _stage(block, width, 256, blocks[2], stride=2)
        self.layer4, width = _stage(block, width, 512, blocks[3], stride=2)
        self.fc = nn.Linear(width, num_classes)

    def _stem(self, in_channels: int) -> tuple[nn.Conv2d, nn.BatchNorm2d, nn.Module]:
        """Convolution, norm and pooling before the first stage."""
        conv = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        return conv, nn.BatchNorm2d(64), nn.MaxPool2d(3, stride=2, padding=1)

    def init_weights(self) -> None:
        reset(self)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif self.zero_init_residual and isinstance(module, BasicBlock):
                nn.init.zeros_(module.bn2.weight)
            elif self.zero_init_residual and isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)

    def reset_classifier(self, num_classes: int) -> None:
        """Makes the last layer anew, for other classes."""
        self.fc = fresh_linear(self.fc, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        check_images(x, in_channels=self.in_channels)
        # Sizes in the comments are those of 224x224 images, channels those of basic blocks.
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)  # (batch, 64, 112, 112)
        x = self.maxpool(x)  # (batch, 64, 56, 56)
        x = self.layer1(x)  # (batch, 64, 56, 56)
        x = self.layer2(x)  # (batch, 128, 28, 28)
        x = self.layer3(x)  # (batch, 256, 14, 14)
        return self.layer4(x)  # (batch, 512, 7, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.forward_features(x)  # (batch, 512, 7, 7)
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)  # (batch, 512)
        return self.fc(x)  # (batch, num_classes)


class SmallImageResNet(ResNet):
    """The same four stages after a 3x3 convolution without pooling, for images of 32x32.

    ``Args``, ``Shape`` and ``Raises`` are :class:`ResNet`'s.
    """

    def _stem(self, in_channels: int) -> tuple[nn.Conv2d, nn.BatchNorm2d, nn.Module]:
        return conv3x3(in_channels, 64), nn.BatchNorm2d(64), nn.Identity()


def _stage(
    block: Callable[..., BasicBlock | Bottleneck],
    in_channels: int,
    channels: int,
    blocks: int,
    *,
    stride: int,
) -> tuple[nn.Sequential, int]:
    """Blocks of which the first has the stride, and the channels that come out."""
    first = block(in_channels, channels, stride=stride)
    width = channels * first.expansion
    return nn.Sequential(first, *(block(width, channels) for _ in range(blocks - 1))), width


_AS_PUBLISHED = partial(Bottleneck, stride_first=True)
_RESNEXT_32X4D = partial(Bottleneck, groups=32, group_width=4)
_RESNEXT_32X8D = partial(Bottleneck, groups=32, group_width=8)
_RESNEXT_64X4D = partial(Bottleneck, groups=64, group_width=4)
_TWICE_AS_WIDE = partial(Bottleneck, group_width=128)


class ResNetOptions(TypedDict, total=False):
    """What the builders hand on to :class:`ResNet`."""

    in_channels: int
    zero_init_residual: bool


def resnet18(num_classes: int = 1000, **options: Unpack[ResNetOptions]) -> ResNet:
    """18 layers in basic blocks."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes=num_classes, **options)


def resnet34(num_classes: int = 1000, **options: Unpack[ResNetOptions]) -> ResNet:
    """34 layers in basic blocks."""
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes=num_classes, **options)


def resnet50(num_classes: int = 1000, **options: Unpack[ResNetOptions]) -> ResNet:
    """50 layers in bottlenecks, strides in the 3x3 convolutions."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes=num_classes, **options)


def resnet101(num_classes: int = 1000, **options: Unpack[ResNetOptions]) -> ResNet:
    """101 layers in bottlenecks, strides in the 3x3 convolutions."""
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes=num_classes, **options)


def resnet152(num_classes: int = 1000, **options: Unpack[ResNetOptions]) -> ResNet:
    """152 layers in bottlenecks, strides in the 3x3 convolutions."""
    return ResNet(Bottleneck, (3, 8, 36, 3), num_classes=num_classes, **options)


def resnet50_v1(num_classes: int = 1000, **options: Unpack[ResNetOptions]) -> ResNet:
    """50 layers as published, strides in the first 1x1 convolutions."""
    return ResNet(_AS_PUBLISHED, (3, 4, 6, 3), num_classes=num_classes, **options)


def resnet101_v1(num_classes: int = 1000, **options: Unpack[ResNetOptions]) -> ResNet:
    """101 layers as published, strides in the first 1x1 convolutions."""
    return ResNet(_AS_PUBLISHED, (3, 4, 23, 3), num_classes=num_classes, **options)


def resnet152_v1(num_classes: int = 1000, **options: Unpack[ResNetOptions]) -> ResNet:
    """152 layers as published, strides in the first 1x1 convolutions."""
    return ResNet(_AS_PUBLISHED, (3, 8, 36, 3), num_classes=num_classes, **options)


def resnext50_32x4d(num_classes: int = 1000, **options: Unpack[ResNetOptions]) -> ResNet:
    """ResNeXt-50 with 32 groups of four channels."""
    return ResNet(_RESNEXT_32X4D, (3, 4, 6, 3), num_classes=num_classes, **options)


def resnext101_32x8d(num_classes: int = 1000, **options: Unpack[ResNetOptions]) -> ResNet:
    """ResNeXt-101 with 32 groups of eight channels."""
    return ResNet(_RESNEXT_32X8D, (3, 4, 23, 3), num_classes=num_classes, **options)


def resnext101_64x4d(num_classes: int = 1000, **options: Unpack[ResNetOptions]) -> ResNet:
    """ResNeXt-101 with 64 groups of four channels, the paper's largest."""
    return ResNet(_RESNEXT_64X4D, (3, 4, 23, 3), num_classes=num_classes, **options)


def wide_resnet50_2(num_classes: int = 1000, **options: Unpack[ResNetOptions]) -> ResNet:
    """WRN-50-2-bottleneck: ResNet-50 with 3x3 convolutions twice as wide."""
    return ResNet(_TWICE_AS_WIDE, (3, 4, 6, 3), num_classes=num_classes, **options)


def wide_resnet101_2(num_classes: int = 1000, **options: Unpack[ResNetOptions]) -> ResNet:
    """ResNet-101 with 3x3 convolutions twice as wide; torchvision's, not in the paper."""
    return ResNet(_TWICE_AS_WIDE, (3, 4, 23, 3), num_classes=num_classes, **options)


def resnet18_cifar(num_classes: int = 10, **options: Unpack[ResNetOptions]) -> SmallImageResNet:
    """ResNet-18 with a 3x3 stem without pooling, for images of 32x32."""
    return SmallImageResNet(BasicBlock, (2, 2, 2, 2), num_classes=num_classes, **options)
