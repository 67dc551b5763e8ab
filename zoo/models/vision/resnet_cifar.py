r"""Residual and plain networks for small images (He, Zhang, Ren and Sun, 2015, section 4.2).

"Deep residual learning for image recognition", https://arxiv.org/abs/1512.03385

Stacking more layers makes a plain network worse, on the training set too: it fails to learn even
the identity. Let each pair of layers learn a difference to its input instead, :math:`x + F(x)`,
and depth helps again.

Both networks have :math:`6n + 2` layers: a 3x3 convolution, three stages of :math:`n` blocks of
two 3x3 convolutions, global average pooling, and a linear layer. A stage that halves the
resolution doubles the channels. The shortcuts are the paper's option A, identities without
parameters, so :class:`PlainNet`, the same without shortcuts, has exactly the same parameters.

Differences from the paper: none in the networks. He initialisation keeps the variance of the
gradients (fan-out), as in the authors' published code. The new channels of a shortcut
are half before and half after the old ones; since every block's weights are learned, their place
makes no difference. The paper warms ResNet-110 up with a learning rate of 0.01.

| stage | size (32x32 input) | layers |
|---|---|---|
| conv1 | 16 x 32 x 32 | 1 |
| layer1 | 16 x 32 x 32 | 2n |
| layer2 | 32 x 16 x 16 | 2n |
| layer3 | 64 x 8 x 8 | 2n |
| linear | num_classes | 1 |

| builder | n | parameters | error on CIFAR-10 in the paper, % |
|---|---|---|---|
| `resnet20`, `plainnet20` | 3 | 269,722 | 8.75 |
| `resnet32` | 5 | 464,154 | 7.51 |
| `resnet44` | 7 | 658,586 | 7.17 |
| `resnet56`, `plainnet56` | 9 | 853,018 | 6.97 |
| `resnet110` | 18 | 1,727,962 | 6.43 |

Errors are the residual networks'; the paper shows the plain ones as curves only.
"""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_images
from zoo.layers.classifier import fresh_linear
from zoo.layers.convolution import conv3x3
from zoo.layers.initialization import deferred_init, reset


class PlainBlock(nn.Module):
    r"""Two 3x3 convolutions, each with batch norm and ReLU.

    .. math:: y = \mathrm{ReLU}(F(x)), \quad
        F(x) = \mathrm{BN}(W_2 * \mathrm{ReLU}(\mathrm{BN}(W_1 * x)))

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: of the first convolution.

    Shape:
        - input: ``(batch, in_channels, height, width)``
        - output: ``(batch, out_channels, ceil(height / stride), ceil(width / stride))``
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels, stride=stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def residual(self, x: Tensor) -> Tensor:
        """F(x), which the block of the residual network adds to its input."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)  # (batch, out_channels, h, w)
        return self.bn2(self.conv2(out))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.residual(x), inplace=True)


class ResidualBlock(PlainBlock):
    r"""A plain block that learns what to add to its input.

    .. math:: y = \mathrm{ReLU}(F(x) + x)

    Where the block changes the shape, the shortcut takes every second row and column and adds
    channels of zeros (option A). ``Args`` and ``Shape`` are :class:`PlainBlock`'s.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, stride=stride)
        self.stride = stride
        self.new_channels = out_channels - in_channels

    def shortcut(self, x: Tensor) -> Tensor:
        if self.stride == 1 and self.new_channels == 0:
            return x
        # Pooling windows of one pixel choose what x[:, :, ::stride, ::stride] does; the gradient
        # of the slices would fill two large tensors with zeros, 5 % of a ResNet-20 step on a CPU.
        x = F.avg_pool2d(x, 1, self.stride)  # (batch, in_channels, h, w)
        before = self.new_channels // 2
        after = self.new_channels - before
        return F.pad(x, (0, 0, 0, 0, before, after))  # (batch, out_channels, h, w)

    def forward(self, x: Tensor) -> Tensor:
        out = self.residual(x)
        out += self.shortcut(x)
        return F.relu(out, inplace=True)


class CifarResNet(nn.Module):
    """The residual network for small images: three stages of 16, 32 and 64 channels.

    Args:
        num_classes: width of the output.
        depth: number of layers with weights, 6n + 2.
        in_channels: channels of the image.

    Shape:
        - input: ``(batch, in_channels, height, width)``, of any size
        - output: logits ``(batch, num_classes)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    block: ClassVar[type[PlainBlock]] = ResidualBlock

    @deferred_init
    def __init__(self, num_classes: int = 10, *, depth: int = 20, in_channels: int = 3) -> None:
        super().__init__()
        check_at_least_one(num_classes=num_classes)
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"depth must be 6n + 2 (8, 14, 20, ...), not {depth}")
        check_at_least_one(in_channels=in_channels)
        self.in_channels = in_channels
        blocks = (depth - 2) // 6
        self.conv1 = conv3x3(in_channels, 16)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks, stride=1)
        self.layer2 = self._stage(16, 32, blocks, stride=2)
        self.layer3 = self._stage(32, 64, blocks, stride=2)
        self.linear = nn.Linear(64, num_classes)

    def _stage(self, in_channels: int, channels: int, blocks: int, *, stride: int) -> nn.Sequential:
        first = self.block(in_channels, channels, stride=stride)
        return nn.Sequential(first, *(self.block(channels, channels) for _ in range(blocks - 1)))

    def init_weights(self) -> None:
        reset(self)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def reset_classifier(self, num_classes: int) -> None:
        """Makes the last layer anew, for other classes."""
        self.linear = fresh_linear(self.linear, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        check_images(x, in_channels=self.in_channels)
        # Sizes in the comments are those of 32x32 images.
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)  # (batch, 16, 32, 32)
        x = self.layer1(x)  # (batch, 16, 32, 32)
        x = self.layer2(x)  # (batch, 32, 16, 16)
        return self.layer3(x)  # (batch, 64, 8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.forward_features(x)  # (batch, 64, 8, 8)
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)  # (batch, 64)
        return self.linear(x)  # (batch, num_classes)


class PlainNet(CifarResNet):
    """The same network without shortcuts, with which the paper shows the degradation.

    ``Args``, ``Shape`` and ``Raises`` are :class:`CifarResNet`'s.
    """

    block = PlainBlock


def resnet20(num_classes: int = 10, *, in_channels: int = 3) -> CifarResNet:
    """20 layers, three blocks per stage."""
    return CifarResNet(num_classes, depth=20, in_channels=in_channels)


def resnet32(num_classes: int = 10, *, in_channels: int = 3) -> CifarResNet:
    """32 layers, five blocks per stage."""
    return CifarResNet(num_classes, depth=32, in_channels=in_channels)


def resnet44(num_classes: int = 10, *, in_channels: int = 3) -> CifarResNet:
    """44 layers, seven blocks per stage."""
    return CifarResNet(num_classes, depth=44, in_channels=in_channels)


def resnet56(num_classes: int = 10, *, in_channels: int = 3) -> CifarResNet:
    """56 layers, nine blocks per stage."""
    return CifarResNet(num_classes, depth=56, in_channels=in_channels)


def resnet110(num_classes: int = 10, *, in_channels: int = 3) -> CifarResNet:
    """110 layers, eighteen blocks per stage."""
    return CifarResNet(num_classes, depth=110, in_channels=in_channels)


def plainnet20(num_classes: int = 10, *, in_channels: int = 3) -> PlainNet:
    """20 layers without shortcuts."""
    return PlainNet(num_classes, depth=20, in_channels=in_channels)


def plainnet56(num_classes: int = 10, *, in_channels: int = 3) -> PlainNet:
    """56 layers without shortcuts: worse than 20, on the training set too."""
    return PlainNet(num_classes, depth=56, in_channels=in_channels)
