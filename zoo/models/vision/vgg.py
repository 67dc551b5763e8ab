r"""VGG (Simonyan and Zisserman, 2014).

"Very deep convolutional networks for large-scale image recognition",
https://arxiv.org/abs/1409.1556

Depth is what counts: every kernel is 3x3, and a stack of them sees as far as one large kernel with
fewer parameters and a non-linearity after each. Five blocks, each followed by a pooling that
halves the image while the channels double, then three fully-connected layers.

The letters are the columns of the paper's table 1; the conv blocks are numbers of layers.

| builder | letter | conv layers | parameters (1000 classes) | with `_bn` |
|---|---|---|---|---|
| `vgg11` | A | 1, 1, 2, 2, 2 | 132,863,336 | 132,868,840 |
| `vgg13` | B | 2, 2, 2, 2, 2 | 133,047,848 | 133,053,736 |
| `vgg16` | D | 2, 2, 3, 3, 3 | 138,357,544 | 138,365,992 |
| `vgg19` | E | 2, 2, 4, 4, 4 | 143,667,240 | 143,678,248 |

| after block | 1 | 2 | 3 | 4 | 5 |
|---|---|---|---|---|---|
| size (224x224 input) | 64 x 112² | 128 x 56² | 256 x 28² | 512 x 14² | 512 x 7² |

Differences from the paper, :class:`VGG`:

- Initial weights. The paper draws net A from N(0, 0.01²) and starts the deeper nets from the
  trained layers of A, since learning would stall otherwise; it adds that Glorot's procedure makes
  this unnecessary. Here the convolutions follow He's (2015), which is Glorot's made right for
  ReLU; the fully-connected layers and the biases are the paper's: N(0, 0.01²) and 0.
- Images of any size: the last maps are averaged to 7x7, which at 224x224 they are already.
- Nets A-LRN and C (1x1 kernels), which the paper finds no better, are not here.
- Batch normalisation (`_bn`) was published after the paper (Ioffe and Szegedy, 2015).

Names, sizes and initial weights are torchvision's, and its checkpoints load.

:class:`VGGSmall` is the network that goes by the name on CIFAR: 32x32 images leave one value a
channel after the five poolings, so one linear layer takes the place of three.

| builder | parameters (10 classes) |
|---|---|
| `vgg11_cifar` | 9,231,114 |
| `vgg13_cifar` | 9,416,010 |
| `vgg16_cifar` | 14,728,266 |
| `vgg19_cifar` | 20,040,522 |
"""

from typing import TypedDict, Unpack

from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_images, check_probability
from zoo.layers.classifier import fresh_linear
from zoo.layers.initialization import deferred_init, reset

# Convolutions in each of the five blocks, by the paper's letter.
A = (1, 1, 2, 2, 2)
B = (2, 2, 2, 2, 2)
D = (2, 2, 3, 3, 3)
E = (2, 2, 4, 4, 4)
CHANNELS = (64, 128, 256, 512, 512)
_SMALLEST = 32  # five halvings leave one pixel


def _features(blocks: tuple[int, ...], in_channels: int, *, batch_norm: bool) -> nn.Sequential:
    """The convolutional part: ``(batch, in_channels, ...)`` to ``(batch, 512, ...)``."""
    if len(blocks) != len(CHANNELS) or min(blocks) < 1:
        raise ValueError(f"blocks must be {len(CHANNELS)} numbers of layers, not {blocks}")
    check_at_least_one(in_channels=in_channels)
    layers: list[nn.Module] = []
    for depth, channels in zip(blocks, CHANNELS, strict=True):
        for _ in range(depth):
            layers.append(nn.Conv2d(in_channels, channels, 3, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(channels))
            layers.append(nn.ReLU(inplace=True))
            in_channels = channels
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def _initialise(layer: nn.Module) -> None:
    """Convolutions by He's procedure, linear layers from N(0, 0.01²), biases 0."""
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight, std=0.01)
    else:
        return
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)


class VGG(nn.Module):
    """VGG for images of ImageNet's size.

    Args:
        num_classes: width of the output.
        blocks: convolutions in each of the five blocks.
        in_channels: channels of the image.
        batch_norm: normalise between each convolution and its ReLU.
        dropout: probability of silencing a unit of the two hidden layers during training.

    Shape:
        - input: ``(batch, in_channels, height, width)``, at least 32x32
        - output: logits ``(batch, num_classes)``

    Raises:
        ValueError: if an argument is outside its range, or the input not such images.
    """

    @deferred_init
    def __init__(
        self,
        num_classes: int = 1000,
        *,
        blocks: tuple[int, ...] = A,
        in_channels: int = 3,
        batch_norm: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_at_least_one(num_classes=num_classes)
        check_probability(dropout=dropout)
        self.in_channels = in_channels
        self.features = _features(blocks, in_channels, batch_norm=batch_norm)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(4096, num_classes),
        )

    def init_weights(self) -> None:
        reset(self)
        self.apply(_initialise)

    def reset_classifier(self, num_classes: int) -> None:
        """Makes the last layer anew, for other classes."""
        self.classifier[-1] = fresh_linear(self.classifier[-1], num_classes).apply(_initialise)

    def forward_features(self, x: Tensor) -> Tensor:
        check_images(x, in_channels=self.in_channels, smallest=_SMALLEST)
        return self.features(x)  # (batch, 512, height // 32, width // 32)

    def forward(self, x: Tensor) -> Tensor:
        x = self.avgpool(self.forward_features(x))  # (batch, 512, 7, 7)
        return self.classifier(x.flatten(1))  # (batch, num_classes)


class VGGSmall(nn.Module):
    """VGG for images of CIFAR's size: batch normalisation, and one linear layer at the end.

    Args:
        num_classes: width of the output.
        blocks: convolutions in each of the five blocks.
        in_channels: channels of the image.

    Shape:
        - input: ``(batch, in_channels, height, width)``, at least 32x32; what larger images leave
          after the poolings is averaged
        - output: logits ``(batch, num_classes)``

    Raises:
        ValueError: if an argument is outside its range, or the input not such images.
    """

    @deferred_init
    def __init__(
        self, num_classes: int = 10, *, blocks: tuple[int, ...] = D, in_channels: int = 3
    ) -> None:
        super().__init__()
        check_at_least_one(num_classes=num_classes)
        self.in_channels = in_channels
        self.features = _features(blocks, in_channels, batch_norm=True)
        self.classifier = nn.Linear(512, num_classes)

    def init_weights(self) -> None:
        reset(self)
        self.apply(_initialise)

    def reset_classifier(self, num_classes: int) -> None:
        """Makes the last layer anew, for other classes."""
        self.classifier = fresh_linear(self.classifier, num_classes).apply(_initialise)

    def forward_features(self, x: Tensor) -> Tensor:
        check_images(x, in_channels=self.in_channels, smallest=_SMALLEST)
        return self.features(x)  # (batch, 512, height // 32, width // 32)

    def forward(self, x: Tensor) -> Tensor:
        x = self.forward_features(x)  # (batch, 512, height // 32, width // 32)
        return self.classifier(x.mean((2, 3)))  # (batch, num_classes)


class VGGOptions(TypedDict, total=False):
    """What the builders hand on to :class:`VGG`."""

    in_channels: int
    dropout: float


def vgg11(num_classes: int = 1000, **options: Unpack[VGGOptions]) -> VGG:
    """VGG with 11 layers: net A of the paper."""
    return VGG(num_classes, blocks=A, batch_norm=False, **options)


def vgg13(num_classes: int = 1000, **options: Unpack[VGGOptions]) -> VGG:
    """VGG with 13 layers: net B of the paper."""
    return VGG(num_classes, blocks=B, batch_norm=False, **options)


def vgg16(num_classes: int = 1000, **options: Unpack[VGGOptions]) -> VGG:
    """VGG with 16 layers: net D of the paper."""
    return VGG(num_classes, blocks=D, batch_norm=False, **options)


def vgg19(num_classes: int = 1000, **options: Unpack[VGGOptions]) -> VGG:
    """VGG with 19 layers: net E of the paper."""
    return VGG(num_classes, blocks=E, batch_norm=False, **options)


def vgg11_bn(num_classes: int = 1000, **options: Unpack[VGGOptions]) -> VGG:
    """VGG with 11 layers and batch normalisation."""
    return VGG(num_classes, blocks=A, batch_norm=True, **options)


def vgg13_bn(num_classes: int = 1000, **options: Unpack[VGGOptions]) -> VGG:
    """VGG with 13 layers and batch normalisation."""
    return VGG(num_classes, blocks=B, batch_norm=True, **options)


def vgg16_bn(num_classes: int = 1000, **options: Unpack[VGGOptions]) -> VGG:
    """VGG with 16 layers and batch normalisation."""
    return VGG(num_classes, blocks=D, batch_norm=True, **options)


def vgg19_bn(num_classes: int = 1000, **options: Unpack[VGGOptions]) -> VGG:
    """VGG with 19 layers and batch normalisation."""
    return VGG(num_classes, blocks=E, batch_norm=True, **options)


def vgg11_cifar(num_classes: int = 10, *, in_channels: int = 3) -> VGGSmall:
    """VGG-11 with batch normalisation for 32x32 images."""
    return VGGSmall(num_classes, blocks=A, in_channels=in_channels)


def vgg13_cifar(num_classes: int = 10, *, in_channels: int = 3) -> VGGSmall:
    """VGG-13 with batch normalisation for 32x32 images."""
    return VGGSmall(num_classes, blocks=B, in_channels=in_channels)


def vgg16_cifar(num_classes: int = 10, *, in_channels: int = 3) -> VGGSmall:
    """VGG-16 with batch normalisation for 32x32 images."""
    return VGGSmall(num_classes, blocks=D, in_channels=in_channels)


def vgg19_cifar(num_classes: int = 10, *, in_channels: int = 3) -> VGGSmall:
    """VGG-19 with batch normalisation for 32x32 images."""
    return VGGSmall(num_classes, blocks=E, in_channels=in_channels)
