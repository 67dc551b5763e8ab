r"""DenseNet (Huang, Liu, van der Maaten and Weinberger, 2017).

"Densely connected convolutional networks", https://arxiv.org/abs/1608.06993

Each layer reads the maps of all layers before it and adds a few of its own, so that no map need
be learned twice and every layer hears the loss directly. Maps are concatenated, not added as in a
residual network: narrow layers suffice, and the network needs far fewer parameters.

All networks here are the paper's DenseNet-BC: a 1x1 convolution before each 3x3 (B for
bottleneck), and transitions that keep half of the maps (C for compression).

Differences from the paper: none in the layers. Convolutions start as in He et al. 2015, to which
the paper points, from the fan-in (the authors' Torch code takes the fan-out). ``dropout``
follows every convolution but the first, as in the paper; torchvision's ``drop_rate`` follows the
3x3 ones alone.

| stage (224x224 input) | size | layers of 121 / 161 / 169 / 201 | stage (32x32) | size | layers |
|---|---|---|---|---|---|
| convolution | 112 | 7x7, stride 2 | convolution | 32 | 3x3 |
| pooling | 56 | 3x3 maximum, stride 2 | | | |
| dense block 1, transition 1 | 56, 28 | 6 / 6 / 6 / 6 | block, transition 1 | 32, 16 | 16 |
| dense block 2, transition 2 | 28, 14 | 12 / 12 / 12 / 12 | block, transition 2 | 16, 8 | 16 |
| dense block 3, transition 3 | 14, 7 | 24 / 36 / 32 / 48 | dense block 3 | 8 | 16 |
| dense block 4 | 7 | 16 / 24 / 32 / 32 | | | |

| builder | growth rate k | classes | parameters |
|---|---|---|---|
| `densenet121` | 32 | 1000 | 7,978,856 |
| `densenet161` | 48 | 1000 | 28,681,000 |
| `densenet169` | 32 | 1000 | 14,149,480 |
| `densenet201` | 32 | 1000 | 20,013,928 |
| `densenet_cifar` (L = 100) | 12 | 10 | 769,162 |
| `densenet_cifar(depth=250, growth_rate=24)` | 24 | 10 | 15,324,406 |
| `densenet_cifar(depth=190, growth_rate=40)` | 40 | 10 | 25,624,430 |
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import ClassVar, NamedTuple, TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_images, check_probability
from zoo.layers.classifier import fresh_linear
from zoo.layers.initialization import deferred_init, reset


class DenseLayer(nn.Module):
    r"""Computes a few new maps from all maps so far and puts them behind those.

    .. math:: x_l = [x_{l-1},\; H_l(x_{l-1})]

    where :math:`H_l` is BN-ReLU-Conv(1x1)-BN-ReLU-Conv(3x3), the 1x1 convolution giving
    :math:`4k` maps and the 3x3 one :math:`k`. As :math:`x_{l-1}` itself ends in the maps of the
    layers before, this is the paper's :math:`H_l([x_0, x_1, \dots, x_{l-1}])`.

    Args:
        in_channels: maps so far.
        growth_rate: new maps k.
        dropout: probability of silencing a value behind each convolution during training.

    Shape:
        - input: ``(batch, in_channels, height, width)``
        - output: ``(batch, in_channels + growth_rate, height, width)``
    """

    def __init__(self, in_channels: int, growth_rate: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, 4 * growth_rate, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth_rate)
        self.conv2 = nn.Conv2d(4 * growth_rate, growth_rate, 3, padding=1, bias=False)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv1(F.relu(self.norm1(x), inplace=True))  # (batch, 4k, height, width)
        if self.dropout > 0:
            new = F.dropout(new, self.dropout, self.training)
        new = self.conv2(F.relu(self.norm2(new), inplace=True))  # (batch, k, height, width)
        if self.dropout > 0:
            new = F.dropout(new, self.dropout, self.training)
        return torch.cat([x, new], dim=1)  # (batch, in_channels + k, height, width)


def dense_block(
    in_channels: int, num_layers: int, *, growth_rate: int, dropout: float
) -> nn.Sequential:
    """Dense layers one after the other: ``in_channels + num_layers * growth_rate`` maps out."""
    return nn.Sequential(
        OrderedDict(
            (
                f"denselayer{i + 1}",
                DenseLayer(in_channels + i * growth_rate, growth_rate, dropout=dropout),
            )
            for i in range(num_layers)
        )
    )


def transition(in_channels: int, out_channels: int, *, dropout: float) -> nn.Sequential:
    """Fewer maps of half the resolution: BN-ReLU-Conv(1x1)-average pooling."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["norm"] = nn.BatchNorm2d(in_channels)
    layers["relu"] = nn.ReLU(inplace=True)
    layers["conv"] = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    if dropout > 0:
        layers["dropout"] = nn.Dropout(dropout)
    layers["pool"] = nn.AvgPool2d(2)
    return nn.Sequential(layers)


class Stem(NamedTuple):
    """What comes before the first block.

    Attributes:
        layers: makes the layers by name, given the channels of the image and of the first block.
        stride: by how much they reduce height and width.
    """

    layers: Callable[[int, int], OrderedDict[str, nn.Module]]
    stride: int


def _imagenet_stem(in_channels: int, channels: int) -> OrderedDict[str, nn.Module]:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv0"] = nn.Conv2d(in_channels, channels, 7, stride=2, padding=3, bias=False)
    layers["norm0"] = nn.BatchNorm2d(channels)
    layers["relu0"] = nn.ReLU(inplace=True)
    layers["pool0"] = nn.MaxPool2d(3, stride=2, padding=1)
    return layers


def _cifar_stem(in_channels: int, channels: int) -> OrderedDict[str, nn.Module]:
    return OrderedDict(conv0=nn.Conv2d(in_channels, channels, 3, padding=1, bias=False))


IMAGENET = Stem(_imagenet_stem, stride=4)
CIFAR = Stem(_cifar_stem, stride=1)


class DenseNet(nn.Module):
    """Stem, dense blocks with transitions between them, global average, linear classifier.

    The names of the parts are torchvision's, whose state dicts load as they are; its published
    files have older names.

    Args:
        block_sizes: layers of each dense block.
        stem: makes the layers before the first block by name; the first is the convolution
            ``conv0``.
        num_classes: width of the output.
        in_channels: channels of the image.
        growth_rate: maps that each layer adds (k).
        compression: share of the maps that a transition keeps (theta).
        dropout: probability of silencing a value behind each convolution but the first.

    Shape:
        - input: ``(batch, in_channels, height, width)``
        - output: logits ``(batch, num_classes)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    foreign_names: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2"),
    )

    @deferred_init
    def __init__(
        self,
        block_sizes: tuple[int, ...],
        stem: Stem,
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        growth_rate: int = 32,
        compression: float = 0.5,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_at_least_one(
            num_classes=num_classes, in_channels=in_channels, growth_rate=growth_rate
        )
        if not 0 < compression <= 1:
            raise ValueError(f"compression must be in (0, 1], not {compression}")
        check_probability(dropout=dropout)
        self.in_channels = in_channels
        # The stem's strides round up; the pooling of the transitions rounds down.
        self.smallest = stem.stride * (2 ** (len(block_sizes) - 1) - 1) + 1

        channels = 2 * growth_rate
        self.features = nn.Sequential(stem.layers(in_channels, channels))
        for i, num_layers in enumerate(block_sizes, start=1):
            block = dense_block(channels, num_layers, growth_rate=growth_rate, dropout=dropout)
            self.features.add_module(f"denseblock{i}", block)
            channels += num_layers * growth_rate
            if i < len(block_sizes):
                kept = int(channels * compression)
                self.features.add_module(
                    f"transition{i}", transition(channels, kept, dropout=dropout)
                )
                channels = kept
        # Named for the four blocks that torchvision's networks have, however many there are.
        self.features.add_module("norm5", nn.BatchNorm2d(channels))
        self.classifier = nn.Linear(channels, num_classes)

    def init_weights(self) -> None:
        reset(self)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(self.classifier.bias)

    def reset_classifier(self, num_classes: int) -> None:
        """Makes the last layer anew, for other classes."""
        self.classifier = fresh_linear(self.classifier, num_classes)
        nn.init.zeros_(self.classifier.bias)

    def forward_features(self, x: Tensor) -> Tensor:
        check_images(x, in_channels=self.in_channels, smallest=self.smallest)
        return F.relu(self.features(x), inplace=True)  # (batch, channels, height', width')

    def forward(self, x: Tensor) -> Tensor:
        x = self.forward_features(x)  # (batch, channels, height', width')
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)  # (batch, channels)
        return self.classifier(x)  # (batch, num_classes)


class DenseNetOptions(TypedDict, total=False):
    """What the builders hand on to :class:`DenseNet`."""

    in_channels: int
    compression: float
    dropout: float


def densenet121(num_classes: int = 1000, **options: Unpack[DenseNetOptions]) -> DenseNet:
    """DenseNet-121 for ImageNet."""
    return DenseNet((6, 12, 24, 16), IMAGENET, num_classes=num_classes, growth_rate=32, **options)


def densenet161(num_classes: int = 1000, **options: Unpack[DenseNetOptions]) -> DenseNet:
    """DenseNet-161 for ImageNet, with a growth rate of 48."""
    return DenseNet((6, 12, 36, 24), IMAGENET, num_classes=num_classes, growth_rate=48, **options)


def densenet169(num_classes: int = 1000, **options: Unpack[DenseNetOptions]) -> DenseNet:
    """DenseNet-169 for ImageNet."""
    return DenseNet((6, 12, 32, 32), IMAGENET, num_classes=num_classes, growth_rate=32, **options)


def densenet201(num_classes: int = 1000, **options: Unpack[DenseNetOptions]) -> DenseNet:
    """DenseNet-201 for ImageNet."""
    return DenseNet((6, 12, 48, 32), IMAGENET, num_classes=num_classes, growth_rate=32, **options)


def densenet_cifar(
    num_classes: int = 10,
    *,
    depth: int = 100,
    growth_rate: int = 12,
    **options: Unpack[DenseNetOptions],
) -> DenseNet:
    """DenseNet-BC for 32x32 images: three equal blocks behind one 3x3 convolution to 2k maps.

    The paper trains (depth, growth rate) = (100, 12), (250, 24) and (190, 40), and uses a dropout
    of 0.2 where the data are not augmented.

    Args:
        num_classes: width of the output.
        depth: layers with weights (L): 4 more than a multiple of 6.
        growth_rate: maps that each layer adds (k).
        options: see :class:`DenseNet`.

    Raises:
        ValueError: if an argument is outside its range.
    """
    # Stem, two transitions and the classifier make 4; a dense layer has two convolutions.
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"depth must be 6 n + 4 (10, 16, ..., 100), not {depth}")
    sizes = ((depth - 4) // 6,) * 3
    return DenseNet(sizes, CIFAR, num_classes=num_classes, growth_rate=growth_rate, **options)
