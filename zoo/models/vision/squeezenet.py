r"""SqueezeNet (Iandola, Han, Moskewicz, Ashraf, Dally and Keutzer, 2016).

"SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size",
https://arxiv.org/abs/1602.07360

Most kernels are 1x1, those that are 3x3 see few maps, which a 1x1 layer has squeezed together
before, and pooling comes late, so that the maps stay large. No layer is fully connected: each
class has its map, averaged over the image.

`squeezenet1_0` is the paper's network; `squeezenet1_1` is the authors' later one, as accurate at
2.4 times less computation (https://github.com/forresti/SqueezeNet, v1.1).

Differences from the paper: the paper names no initialisation, and the authors' Caffe files draw
weights of variance 1 / fan-in; here as in torchvision it is the 2 / fan-in that suits ReLU (He et
al. 2015), and for the last layer the authors' standard deviation of 0.01. The paper's networks with
bypass connections and its compression are not here. Table 1 of the paper gives the sizes for images
of 227x227 pixels, though it says 224x224.

| layer | size (227x227) | squeeze, expand 1x1, expand 3x3 | parameters | `squeezenet1_1` |
|---|---|---|---|---|
| conv1 | 111 | 96 of 7x7, stride 2 | 14,208 | 64 of 3x3: 1,792 |
| maxpool1 | 55 | | | here, too |
| fire2 | 55 | 16, 64, 64 | 11,920 | 11,408 |
| fire3 | 55 | 16, 64, 64 | 12,432 | 12,432 |
| | | | | maxpool3 |
| fire4 | 55 | 32, 128, 128 | 45,344 | 45,344 |
| maxpool4 | 27 | | | |
| fire5 | 27 | 32, 128, 128 | 49,440 | 49,440 |
| | | | | maxpool5 |
| fire6 | 27 | 48, 192, 192 | 104,880 | 104,880 |
| fire7 | 27 | 48, 192, 192 | 111,024 | 111,024 |
| fire8 | 27 | 64, 256, 256 | 188,992 | 188,992 |
| maxpool8 | 13 | | | |
| fire9 | 13 | 64, 256, 256 | 197,184 | 197,184 |
| conv10 | 13 | 1000 of 1x1 | 513,000 | 513,000 |
| total | | | 1,248,424 | 1,235,496 |
"""

from collections.abc import Callable
from typing import TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_images, check_probability
from zoo.layers.classifier import fresh_conv1x1
from zoo.layers.initialization import deferred_init, reset


class Fire(nn.Module):
    r"""Squeezes the maps together, then expands them by kernels of two sizes (figure 1).

    .. math:: s = \phi(W_s * x), \qquad y = [\phi(W_1 * s),\; \phi(W_3 * s)]

    with :math:`\phi` a ReLU, :math:`W_s` and :math:`W_1` of 1x1 and :math:`W_3` of 3x3 pixels.

    Args:
        in_channels: maps in.
        squeeze_channels: maps between.
        expand_channels: maps out, half of them by either size of kernel.

    Shape:
        - input: ``(batch, in_channels, height, width)``
        - output: ``(batch, expand_channels, height, width)``
    """

    def __init__(self, in_channels: int, squeeze_channels: int, *, expand_channels: int) -> None:
        super().__init__()
        half = expand_channels // 2
        self.squeeze = nn.Conv2d(in_channels, squeeze_channels, 1)
        self.expand1x1 = nn.Conv2d(squeeze_channels, half, 1)
        self.expand3x3 = nn.Conv2d(squeeze_channels, half, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x), inplace=True)  # (batch, squeeze_channels, height, width)
        # Rectified before they are joined: the gradient of either half then is contiguous.
        ones = F.relu(self.expand1x1(x), inplace=True)  # (batch, half, height, width)
        threes = F.relu(self.expand3x3(x), inplace=True)  # (batch, half, height, width)
        return torch.cat([ones, threes], dim=1)  # (batch, expand_channels, height, width)


def _pool() -> nn.MaxPool2d:
    """Maximum over overlapping 3x3 windows; one that juts out of the image counts, too."""
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


class SqueezeNet(nn.Module):
    """Convolution, fire modules with pooling between them, one map a class, their averages.

    The names of the parts are torchvision's, whose state dicts load as they are.

    Args:
        features: makes all layers before the dropout, given the channels of the image; 512 maps
            out.
        num_classes: width of the output.
        in_channels: channels of the image.
        smallest: least height and width that leave something behind every layer.
        dropout: probability of silencing a value behind fire9 during training.

    Shape:
        - input: ``(batch, in_channels, height, width)``
        - output: logits ``(batch, num_classes)``, never negative: a ReLU follows conv10

    Raises:
        ValueError: if an argument is outside its range.
    """

    @deferred_init
    def __init__(
        self,
        features: Callable[[int], nn.Sequential],
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        smallest: int,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_at_least_one(num_classes=num_classes, in_channels=in_channels)
        check_probability(dropout=dropout)
        self.in_channels, self.smallest = in_channels, smallest
        self.features = features(in_channels)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Conv2d(512, num_classes, 1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
        )

    def init_weights(self) -> None:
        reset(self)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        self._init_conv10()

    def _init_conv10(self) -> None:
        conv10 = self.classifier[1]
        assert isinstance(conv10, nn.Conv2d) and conv10.bias is not None
        nn.init.normal_(conv10.weight, std=0.01)
        nn.init.zeros_(conv10.bias)

    def reset_classifier(self, num_classes: int) -> None:
        """Makes the last layer anew, for other classes."""
        self.classifier[1] = fresh_conv1x1(self.classifier[1], num_classes)
        self._init_conv10()

    def forward_features(self, x: Tensor) -> Tensor:
        check_images(x, in_channels=self.in_channels, smallest=self.smallest)
        return self.features(x)  # (batch, 512, height', width')

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.forward_features(x)).flatten(1)  # (batch, num_classes)


def _features1_0(in_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, 96, 7, stride=2),
        nn.ReLU(inplace=True),
        _pool(),
        Fire(96, 16, expand_channels=128),
        Fire(128, 16, expand_channels=128),
        Fire(128, 32, expand_channels=256),
        _pool(),
        Fire(256, 32, expand_channels=256),
        Fire(256, 48, expand_channels=384),
        Fire(384, 48, expand_channels=384),
        Fire(384, 64, expand_channels=512),
        _pool(),
        Fire(512, 64, expand_channels=512),
    )


def _features1_1(in_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, 64, 3, stride=2),
        nn.ReLU(inplace=True),
        _pool(),
        Fire(64, 16, expand_channels=128),
        Fire(128, 16, expand_channels=128),
        _pool(),
        Fire(128, 32, expand_channels=256),
        Fire(256, 32, expand_channels=256),
        _pool(),
        Fire(256, 48, expand_channels=384),
        Fire(384, 48, expand_channels=384),
        Fire(384, 64, expand_channels=512),
        Fire(512, 64, expand_channels=512),
    )


class SqueezeNetOptions(TypedDict, total=False):
    """What the builders hand on to :class:`SqueezeNet`."""

    in_channels: int
    dropout: float


def squeezenet1_0(num_classes: int = 1000, **options: Unpack[SqueezeNetOptions]) -> SqueezeNet:
    """SqueezeNet as published."""
    return SqueezeNet(_features1_0, num_classes=num_classes, smallest=21, **options)


def squeezenet1_1(num_classes: int = 1000, **options: Unpack[SqueezeNetOptions]) -> SqueezeNet:
    """SqueezeNet v1.1: smaller kernels in front and earlier pooling."""
    return SqueezeNet(_features1_1, num_classes=num_classes, smallest=17, **options)
