r"""AlexNet (Krizhevsky, Sutskever and Hinton, 2012), and its one-tower successor of 2014.

"ImageNet classification with deep convolutional neural networks",
https://papers.nips.cc/paper/4824-imagenet-classification-with-deep-convolutional-neural-networks

A large convolutional network, trained on more than a million images on two graphics cards, halves
the error of everything before it. ReLUs make that trainable in days; dropout and altered copies of
the images keep sixty million parameters from learning them by heart.

| layer (2012) | size (227x227 input) | neurons | parameters |
|---|---|---|---|
| conv1, 11x11/4 | 96 x 55 x 55 | 290,400 | 34,944 |
| normalisation, pool 3x3/2 | 96 x 27 x 27 | | |
| conv2, 5x5, two groups | 256 x 27 x 27 | 186,624 | 307,456 |
| normalisation, pool 3x3/2 | 256 x 13 x 13 | | |
| conv3, 3x3 | 384 x 13 x 13 | 64,896 | 885,120 |
| conv4, 3x3, two groups | 384 x 13 x 13 | 64,896 | 663,936 |
| conv5, 3x3, two groups | 256 x 13 x 13 | 43,264 | 442,624 |
| pool 3x3/2 | 256 x 6 x 6 | | |
| fc6, fc7, fc8 | 4096, 4096, 1000 | 9,192 | 37,752,832, 16,781,312, 4,097,000 |
| total | | | 60,965,224 |

| builder | parameters (1000 classes) |
|---|---|
| `alexnet_2012` | 60,965,224 |
| `alexnet` | 61,100,840 |

Differences from the paper, :class:`AlexNet2012`:

- The paper's images are 224x224, from which 11x11 kernels at stride 4 make no 55 positions; 227
  do. (Its 253,440 neurons in conv1 are not 96 x 55 x 55 either; the other layers' are as given.)
- One device computes both halves. Where the halves were joined, at conv3 and in the fully-connected
  layers, nothing changes. The normalisation runs over all maps of a layer, as its formula has it,
  so the two maps on each side of the seam see across.
- The normalisation's sum is multiplied by alpha = 1e-4, as the formula has it. The authors' program
  (cuda-convnet) and Caffe divide alpha by n = 5 first, and so does `torch.nn.LocalResponseNorm`,
  which is why it is given 5e-4 here.
- Images of other sizes: the last maps are averaged to 6x6, which at 227x227 they are already.

:class:`AlexNet` is the network of "One weird trick for parallelizing convolutional neural
networks" (Krizhevsky, 2014, https://arxiv.org/abs/1404.5997), footnote 1, as torchvision has it:
one tower with 64, 192, 384, 256 and 256 maps, no normalisation, the image padded so that 224x224
fits, dropout before the two hidden layers instead of behind them, PyTorch's initial weights. Its
checkpoints load. The footnote has 384 maps in the fourth layer; 256 are those of the configuration
that the author published with it (cuda-convnet2), which torchvision follows.
"""

from typing import TypedDict, Unpack

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_images, check_probability
from zoo.layers.classifier import fresh_linear
from zoo.layers.initialization import deferred_init, reset

_SMALLEST_2012 = 67  # 15, 7 and 3 pixels reach the three poolings
_SMALLEST = 63


def _check(num_classes: int, in_channels: int, dropout: float) -> None:
    check_at_least_one(num_classes=num_classes, in_channels=in_channels)
    check_probability(dropout=dropout)


def local_response_norm() -> nn.LocalResponseNorm:
    r"""Activity of a map, divided by that of its neighbours at the same place (section 3.3).

    .. math:: b_i = a_i \Big/ \Big(k + \alpha \sum_{j = i - n/2}^{i + n/2} a_j^2\Big)^\beta,
        \qquad k = 2, \; n = 5, \; \alpha = 10^{-4}, \; \beta = 0.75
    """
    # torch multiplies the mean over n maps, and pads with zeros at both ends: n times alpha.
    return nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2)


class AlexNet2012(nn.Module):
    """AlexNet of 2012: two groups, local response normalisation, overlapping poolings.

    Weights start from N(0, 0.01²); biases from 1 in conv2, conv4, conv5 and the hidden
    fully-connected layers, so that their ReLUs get positive inputs, and from 0 elsewhere.
    The layers are named as in Caffe.

    Args:
        num_classes: width of the output.
        in_channels: channels of the image.
        dropout: probability of silencing a unit of the two hidden layers during training.

    Shape:
        - input: ``(batch, in_channels, height, width)``, at least 67x67
        - output: logits ``(batch, num_classes)``

    Raises:
        ValueError: if an argument is outside its range, or the input not such images.
    """

    @deferred_init
    def __init__(
        self, num_classes: int = 1000, *, in_channels: int = 3, dropout: float = 0.5
    ) -> None:
        super().__init__()
        _check(num_classes, in_channels, dropout)
        self.in_channels = in_channels
        self.conv1 = nn.Conv2d(in_channels, 96, 11, stride=4)
        self.norm1 = local_response_norm()
        self.pool1 = nn.MaxPool2d(3, stride=2)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.norm2 = local_response_norm()
        self.pool2 = nn.MaxPool2d(3, stride=2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        self.pool5 = nn.MaxPool2d(3, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.fc6 = nn.Linear(256 * 6 * 6, 4096)
        self.drop6 = nn.Dropout(dropout)
        self.fc7 = nn.Linear(4096, 4096)
        self.drop7 = nn.Dropout(dropout)
        self.fc8 = nn.Linear(4096, num_classes)

    def init_weights(self) -> None:
        reset(self)
        for name, layer in self.named_children():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
                assert layer.bias is not None
                nn.init.constant_(layer.bias, 0.0 if name in ("conv1", "conv3", "fc8") else 1.0)

    def reset_classifier(self, num_classes: int) -> None:
        """Makes the last layer anew, for other classes."""
        self.fc8 = fresh_linear(self.fc8, num_classes)
        nn.init.normal_(self.fc8.weight, std=0.01)
        nn.init.zeros_(self.fc8.bias)

    def forward_features(self, x: Tensor) -> Tensor:
        check_images(x, in_channels=self.in_channels, smallest=_SMALLEST_2012)
        # Sizes in the comments are those of 227x227 images.
        x = F.relu(self.conv1(x), inplace=True)  # (batch, 96, 55, 55)
        x = self.pool1(self.norm1(x))  # (batch, 96, 27, 27)
        x = F.relu(self.conv2(x), inplace=True)  # (batch, 256, 27, 27)
        x = self.pool2(self.norm2(x))  # (batch, 256, 13, 13)
        x = F.relu(self.conv3(x), inplace=True)  # (batch, 384, 13, 13)
        x = F.relu(self.conv4(x), inplace=True)
        x = F.relu(self.conv5(x), inplace=True)  # (batch, 256, 13, 13)
        return self.avgpool(self.pool5(x))  # (batch, 256, 6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.forward_features(x).flatten(1)  # (batch, 256 * 6 * 6)
        x = self.drop6(F.relu(self.fc6(x), inplace=True))  # (batch, 4096)
        x = self.drop7(F.relu(self.fc7(x), inplace=True))
        return self.fc8(x)  # (batch, num_classes)


class AlexNet(nn.Module):
    """AlexNet of 2014: one tower, no normalisation.

    Args:
        num_classes: width of the output.
        in_channels: channels of the image.
        dropout: probability of silencing an input of the two hidden layers during training.

    Shape:
        - input: ``(batch, in_channels, height, width)``, at least 63x63
        - output: logits ``(batch, num_classes)``

    Raises:
        ValueError: if an argument is outside its range, or the input not such images.
    """

    @deferred_init
    def __init__(
        self, num_classes: int = 1000, *, in_channels: int = 3, dropout: float = 0.5
    ) -> None:
        super().__init__()
        _check(num_classes, in_channels, dropout)
        self.in_channels = in_channels
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 64, 11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, num_classes),
        )

    def init_weights(self) -> None:
        reset(self)

    def reset_classifier(self, num_classes: int) -> None:
        """Makes the last layer anew, for other classes."""
        self.classifier[-1] = fresh_linear(self.classifier[-1], num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        check_images(x, in_channels=self.in_channels, smallest=_SMALLEST)
        # Sizes in the comments are those of 224x224 images.
        x = self.features(x)  # (batch, 256, 6, 6)
        return self.avgpool(x)  # (batch, 256, 6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.forward_features(x).flatten(1))  # (batch, num_classes)


class AlexNetOptions(TypedDict, total=False):
    """What the builders hand on."""

    in_channels: int
    dropout: float


def alexnet_2012(num_classes: int = 1000, **options: Unpack[AlexNetOptions]) -> AlexNet2012:
    """AlexNet as published in 2012."""
    return AlexNet2012(num_classes, **options)


def alexnet(num_classes: int = 1000, **options: Unpack[AlexNetOptions]) -> AlexNet:
    """AlexNet with one tower (2014): torchvision's ``alexnet``."""
    return AlexNet(num_classes, **options)
