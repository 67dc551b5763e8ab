r"""Pre-activation residual networks for small images (He, Zhang, Ren and Sun, 2016).

"Identity mappings in deep residual networks", https://arxiv.org/abs/1603.05027

If the shortcut is an identity and nothing follows the addition, the signal reaches any unit from
any other unchanged, forwards and backwards: :math:`x_{l+1} = x_l + F(x_l)`. So batch norm and
ReLU move in front of the convolutions, into :math:`F`, and networks of a thousand layers train.

A unit that opens a stage changes the shape, so its shortcut cannot be the identity. ResNet-110
has the parameter-free shortcuts of its predecessor; the bottleneck networks project there, and
only there, from the activated input, as the authors' code does. The first unit of all is activated
before the paths part, and an extra norm and ReLU follow the last (appendix).

Differences from the paper: none in the networks for CIFAR. Those for ImageNet (152 and 200
layers) are left out. As in the authors' code, the bottlenecks halve the resolution
in their first 1x1 convolution, and He initialisation keeps the variance of the gradients.

| stage | size (32x32 input) | 110 | 164 | 1001 |
|---|---|---|---|---|
| conv1 | 16 x 32 x 32 | 1 | 1 | 1 |
| layer1 | 16 (64) x 32 x 32 | 18 x 2 | 18 x 3 | 111 x 3 |
| layer2 | 32 (128) x 16 x 16 | 18 x 2 | 18 x 3 | 111 x 3 |
| layer3 | 64 (256) x 8 x 8 | 18 x 2 | 18 x 3 | 111 x 3 |
| linear | num_classes | 1 | 1 | 1 |

| builder | parameters | error on CIFAR-10 in the paper, % |
|---|---|---|
| `preact_resnet110` | 1,727,962 | 6.37 |
| `preact_resnet164` | 1,703,258 | 5.46 |
| `preact_resnet1001` | 10,327,706 | 4.92 |

The paper's 10.2 M are the weights of the convolutions and of the linear layer alone.
"""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_images
from zoo.layers.classifier import fresh_linear
from zoo.layers.convolution import conv1x1, conv3x3
from zoo.layers.initialization import deferred_init, reset


class PreActBlock(nn.Module):
    r"""Two 3x3 convolutions, each after batch norm and ReLU (figure 4e).

    .. math:: y = x + W_2 * \mathrm{ReLU}(\mathrm{BN}(W_1 * \mathrm{ReLU}(\mathrm{BN}(x))))

    Where the block changes the shape, the shortcut takes every second row and column and adds
    channels of zeros.

    Args:
        in_channels: channels of the input.
        channels: channels of the convolutions and of the output.
        stride: of the first convolution.
        is_first: whether the block is the network's first; then the shortcut carries the activated
            input.

    Shape:
        - input: ``(batch, in_channels, height, width)``
        - output: ``(batch, channels, ceil(height / stride), ceil(width / stride))``
    """

    expansion: ClassVar[int] = 1

    def __init__(
        self, in_channels: int, channels: int, *, stride: int = 1, is_first: bool = False
    ) -> None:
        super().__init__()
        self.stride, self.is_first = stride, is_first
        self.new_channels = channels - in_channels
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv3x3(in_channels, channels, stride=stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)

    def shortcut(self, x: Tensor) -> Tensor:
        if self.stride == 1 and self.new_channels == 0:
            return x
        # Pooling windows of one pixel choose every stride-th, with a cheaper gradient than slices.
        x = F.avg_pool2d(x, 1, self.stride)  # (batch, in_channels, h, w)
        before = self.new_channels // 2
        after = self.new_channels - before
        return F.pad(x, (0, 0, 0, 0, before, after))  # (batch, channels, h, w)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x), inplace=True)
        out = self.conv1(active)  # (batch, channels, h, w)
        out = self.conv2(F.relu(self.bn2(out), inplace=True))
        out += self.shortcut(active if self.is_first else x)
        return out


class PreActBottleneck(nn.Module):
    r"""A 1x1 convolution to few channels, a 3x3, a 1x1 back to many, each after norm and ReLU.

    .. math:: y = x + F(x), \quad \text{or} \quad
        y = W_s * \mathrm{ReLU}(\mathrm{BN}(x)) + F(x) \text{ where the shape changes}

    Args:
        in_channels: channels of the input.
        channels: of the stage; a quarter of the output's.
        stride: of the first convolution.
        is_first: whether the block is the network's first. It changes the shape, so that its
            shortcut carries the activated input anyway.

    Shape:
        - input: ``(batch, in_channels, height, width)``
        - output: ``(batch, 4 * channels, ceil(height / stride), ceil(width / stride))``
    """

    expansion: ClassVar[int] = 4

    def __init__(
        self, in_channels: int, channels: int, *, stride: int = 1, is_first: bool = False
    ) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv1x1(in_channels, channels, stride=stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        self.bn3 = nn.BatchNorm2d(channels)
        self.conv3 = conv1x1(channels, out_channels)
        self.projection: nn.Conv2d | None = None
        if stride != 1 or in_channels != out_channels:
            self.projection = conv1x1(in_channels, out_channels, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x), inplace=True)
        out = self.conv1(active)  # (batch, channels, h, w)
        out = self.conv2(F.relu(self.bn2(out), inplace=True))
        out = self.conv3(F.relu(self.bn3(out), inplace=True))  # (batch, 4 * channels, h, w)
        out += x if self.projection is None else self.projection(active)
        return out


class PreActResNet(nn.Module):
    """Three stages of pre-activation units, then one last norm and ReLU.

    Args:
        block: :class:`PreActBlock` or :class:`PreActBottleneck`.
        blocks: number of units per stage.
        num_classes: width of the output.
        in_channels: channels of the image.

    Shape:
        - input: ``(batch, in_channels, height, width)``, of any size
        - output: logits ``(batch, num_classes)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    @deferred_init
    def __init__(
        self,
        block: type[PreActBlock] | type[PreActBottleneck],
        blocks: int,
        *,
        num_classes: int = 10,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        check_at_least_one(blocks=blocks, num_classes=num_classes, in_channels=in_channels)
        self.in_channels = in_channels
        width = 64 * block.expansion
        self.conv1 = conv3x3(in_channels, 16)
        self.layer1 = _stage(block, 16, 16, blocks, stride=1, is_first=True)
        self.layer2 = _stage(block, 16 * block.expansion, 32, blocks, stride=2)
        self.layer3 = _stage(block, 32 * block.expansion, 64, blocks, stride=2)
        self.bn = nn.BatchNorm2d(width)
        self.linear = nn.Linear(width, num_classes)

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
        # Sizes in the comments are those of 32x32 images, channels those of PreActBlock.
        x = self.conv1(x)  # (batch, 16, 32, 32)
        x = self.layer1(x)  # (batch, 16, 32, 32)
        x = self.layer2(x)  # (batch, 32, 16, 16)
        x = self.layer3(x)  # (batch, 64, 8, 8)
        return F.relu(self.bn(x), inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.forward_features(x)  # (batch, 64, 8, 8)
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)  # (batch, 64)
        return self.linear(x)  # (batch, num_classes)


def _stage(
    block: type[PreActBlock] | type[PreActBottleneck],
    in_channels: int,
    channels: int,
    blocks: int,
    *,
    stride: int,
    is_first: bool = False,
) -> nn.Sequential:
    """Units of which the first has the stride."""
    first = block(in_channels, channels, stride=stride, is_first=is_first)
    width = channels * block.expansion
    return nn.Sequential(first, *(block(width, channels) for _ in range(blocks - 1)))


def preact_resnet110(num_classes: int = 10, *, in_channels: int = 3) -> PreActResNet:
    """110 layers, 18 units of two 3x3 convolutions per stage."""
    return PreActResNet(PreActBlock, 18, num_classes=num_classes, in_channels=in_channels)


def preact_resnet164(num_classes: int = 10, *, in_channels: int = 3) -> PreActResNet:
    """164 layers, 18 bottlenecks per stage."""
    return PreActResNet(PreActBottleneck, 18, num_classes=num_classes, in_channels=in_channels)


def preact_resnet1001(num_classes: int = 10, *, in_channels: int = 3) -> PreActResNet:
    """1001 layers, 111 bottlenecks per stage."""
    return PreActResNet(PreActBottleneck, 111, num_classes=num_classes, in_channels=in_channels)
