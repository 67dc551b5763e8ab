r"""GoogLeNet, or Inception v1 (Szegedy et al., 2014).

"Going deeper with convolutions", https://arxiv.org/abs/1409.4842, by Szegedy, Liu, Jia, Sermanet,
Reed, Anguelov, Erhan, Vanhoucke and Rabinovich

An Inception module looks at its input through kernels of several sizes side by side, and 1x1
convolutions first reduce the channels that the costly ones see, so the network is deep and wide at
a twelfth of AlexNet's parameters. Two auxiliary classifiers halfway up send gradients to the lower
layers during training, and are not used afterwards.

| stage (table 1) | size (224x224 input) | weights of `googlenet` |
|---|---|---|
| conv1, 7x7/2 | 64 x 112 x 112 | 9,408 |
| maxpool1, 3x3/2 | 64 x 56 x 56 | |
| conv2, conv3 | 192 x 56 x 56 | 114,688 |
| maxpool2, 3x3/2 | 192 x 28 x 28 | |
| inception3a, 3b | 256, 480 x 28 x 28 | 163,328, 388,096 |
| maxpool3, 3x3/2 | 480 x 14 x 14 | |
| inception4a, 4b, 4c | 512 x 14 x 14 | 375,552, 448,512, 509,440 |
| inception4d, 4e | 528, 832 x 14 x 14 | 604,672, 867,328 |
| maxpool4, 3x3/2 | 832 x 7 x 7 | |
| inception5a, 5b | 832, 1024 x 7 x 7 | 1,042,432, 1,442,816 |
| average, dropout, fc | 1024, 1000 | 1,024,000 |

| builder | parameters | with both heads |
|---|---|---|
| `googlenet` (1000 classes) | 6,998,552 | 13,378,280 |
| `googlenet_bn` (1000 classes) | 6,624,904 | 13,004,888 |
| `googlenet_cifar` (10 classes) | 6,166,250 | no heads |

Differences from the paper, :class:`GoogLeNet`:

- What it leaves open is as in Caffe's replication, made with the first author's help
  (https://github.com/BVLC/caffe/tree/master/models/bvlc_googlenet): the constants of the response
  normalisations, and the initial weights, uniform with variance 1 / inputs and biases 0.2, so that
  the ReLUs start open; 0 in the layers that score the classes.
- Where table 1's count of weights does not follow from its widths (2.7K in conv1 where 7x7x3x64 is
  9.2K, 463K in 4c where it is 498K, 1072K in 5a where it is 1018K), the widths are followed.
- Images of other sizes: what a head's 5x5/3 pooling leaves is averaged to 4x4, which at 224x224
  it is already.

Differences from the paper, :class:`GoogLeNetBN`, torchvision's network: batch normalisation after
each convolution instead of biases and of response normalisation; a 3x3 kernel where the paper has
5x5, an old slip that the trained weights keep; maxpool4 is 2x2; the heads average to 4x4 at once;
dropout 0.2 instead of 0.4 before the classifier; weights start from N(0, 0.01²). Its checkpoints
load; the published one wants images scaled to [-1, 1] (mean and standard deviation 0.5), which
torchvision hides in ``transform_input``.

Differences from the paper, :class:`GoogLeNetSmall`, the network that goes by the name on CIFAR: one
3x3 convolution in place of everything before 3a, batch normalisation, two 3x3 kernels in place of
one 5x5, no heads, no dropout; convolutions start by He's procedure (2015).
"""

from collections.abc import Callable
from functools import partial
from typing import ClassVar, NamedTuple, TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_images, check_probability
from zoo.layers.classifier import fresh_linear
from zoo.layers.initialization import deferred_init, reset

_OUTPUT_LAYERS = ("fc", "aux1.fc2", "aux2.fc2")
Unit = Callable[..., nn.Module]  # (in_channels, out_channels, kernel_size, stride=1)

# Table 1: channels in, and 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection.
INCEPTIONS = {
    "3a": (192, (64, 96, 128, 16, 32, 32)),
    "3b": (256, (128, 128, 192, 32, 96, 64)),
    "4a": (480, (192, 96, 208, 16, 48, 64)),
    "4b": (512, (160, 112, 224, 24, 64, 64)),
    "4c": (512, (128, 128, 256, 24, 64, 64)),
    "4d": (512, (112, 144, 288, 32, 64, 64)),
    "4e": (528, (256, 160, 320, 32, 128, 128)),
    "5a": (832, (256, 160, 320, 32, 128, 128)),
    "5b": (832, (384, 192, 384, 48, 128, 128)),
}


class GoogLeNetOutput(NamedTuple):
    """What a GoogLeNet with heads returns in training, in torchvision's order."""

    logits: Tensor  # (batch, num_classes)
    aux2: Tensor  # (batch, num_classes), from 4d
    aux1: Tensor  # (batch, num_classes), from 4a


class ConvReLU(nn.Module):
    """Convolution and ReLU, padded so that stride 1 keeps the size.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: height and width of the kernel, odd.
        stride: step of the kernel.

    Shape:
        - input: ``(batch, in_channels, height, width)``
        - output: ``(batch, out_channels, ceil(height / stride), ceil(width / stride))``
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x), inplace=True)  # (batch, out_channels, ...)


class ConvBatchNormReLU(nn.Module):
    """Convolution, batch normalisation and ReLU, padded so that stride 1 keeps the size.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: height and width of the kernel, odd.
        stride: step of the kernel.
        bias: whether the convolution has a bias, which the normalisation then takes away again.
        eps: added to the variance.

    Shape:
        - input: ``(batch, in_channels, height, width)``
        - output: ``(batch, out_channels, ceil(height / stride), ceil(width / stride))``
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        bias: bool = False,
        eps: float = 1e-3,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            bias=bias,
        )
        self.bn = nn.BatchNorm2d(out_channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)  # (batch, out_channels, ...)


class Inception(nn.Module):
    """Four views of the same input, laid side by side (figure 2b).

    Args:
        in_channels: channels of the input.
        widths: a row of table 1: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection.
        unit: builds a convolution with what follows it.
        large: kernel sizes of the convolutions of the third view, after its reduction: ``(5,)``
            in the paper.

    Shape:
        - input: ``(batch, in_channels, height, width)``
        - output: ``(batch, 1x1 + 3x3 + 5x5 + pool projection, height, width)``
    """

    def __init__(
        self, in_channels: int, widths: tuple[int, ...], *, unit: Unit, large: tuple[int, ...]
    ) -> None:
        super().__init__()
        out1, reduce3, out3, reduce5, out5, projection = widths
        self.branch1 = unit(in_channels, out1, 1)
        self.branch2 = nn.Sequential(unit(in_channels, reduce3, 1), unit(reduce3, out3, 3))
        inputs = (reduce5, *(out5 for _ in large[1:]))
        self.branch3 = nn.Sequential(
            unit(in_channels, reduce5, 1),
            *(unit(channels, out5, size) for channels, size in zip(inputs, large, strict=True)),
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1), unit(in_channels, projection, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        views = [self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)]
        return torch.cat(views, 1)  # (batch, sum of the views' channels, height, width)


class AuxiliaryHead(nn.Module):
    """A classifier on the maps of a middle layer.

    Args:
        in_channels: channels of the maps.
        num_classes: width of the output.
        pool: brings the maps towards 4x4; what it leaves is averaged to 4x4.
        unit: builds the 1x1 convolution with what follows it.
        dropout: probability of silencing a hidden unit during training.

    Shape:
        - input: ``(batch, in_channels, height, width)``
        - output: logits ``(batch, num_classes)``
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        pool: nn.Module,
        unit: Unit,
        dropout: float,
    ) -> None:
        super().__init__()
        self.pool = pool
        self.conv = unit(in_channels, 128, 1)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.pool(x), 4)  # (batch, in_channels, 4, 4)
        x = self.conv(x).flatten(1)  # (batch, 2048)
        x = F.relu(self.fc1(x), inplace=True)  # (batch, 1024)
        return self.fc2(self.dropout(x))  # (batch, num_classes)


class GoogLeNet(nn.Module):
    """GoogLeNet as in the paper: 5x5 kernels, local response normalisation, two auxiliary heads.

    Args:
        num_classes: width of the output.
        in_channels: channels of the image.
        aux_logits: whether there are auxiliary heads.
        dropout: probability of silencing an input of the classifier during training.
        dropout_aux: the same of a hidden unit in the heads.

    Shape:
        - input: ``(batch, in_channels, height, width)``, at least 31x31, in training with heads
          79x79
        - output: logits ``(batch, num_classes)``; in training with heads a
          :class:`GoogLeNetOutput`

    Raises:
        ValueError: if an argument is outside its range, or the input not such images.
    """

    output_layers: ClassVar[tuple[str, ...]] = _OUTPUT_LAYERS

    @deferred_init
    def __init__(
        self,
        num_classes: int = 1000,
        *,
        in_channels: int = 3,
        aux_logits: bool = True,
        dropout: float = 0.4,
        dropout_aux: float = 0.7,
    ) -> None:
        super().__init__()
        check_at_least_one(num_classes=num_classes, in_channels=in_channels)
        check_probability(dropout=dropout, dropout_aux=dropout_aux)
        self.in_channels = in_channels
        inception = partial(Inception, unit=ConvReLU, large=(5,))
        pool = partial(nn.MaxPool2d, 3, stride=2, ceil_mode=True)
        self.conv1 = ConvReLU(in_channels, 64, 7, stride=2)
        self.maxpool1 = pool()
        self.norm1 = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1)
        self.conv2 = ConvReLU(64, 64, 1)
        self.conv3 = ConvReLU(64, 192, 3)
        self.norm2 = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1)
        self.maxpool2 = pool()
        self.inception3a = inception(*INCEPTIONS["3a"])
        self.inception3b = inception(*INCEPTIONS["3b"])
        self.maxpool3 = pool()
        self.inception4a = inception(*INCEPTIONS["4a"])
        self.inception4b = inception(*INCEPTIONS["4b"])
        self.inception4c = inception(*INCEPTIONS["4c"])
        self.inception4d = inception(*INCEPTIONS["4d"])
        self.inception4e = inception(*INCEPTIONS["4e"])
        self.maxpool4 = pool()
        self.inception5a = inception(*INCEPTIONS["5a"])
        self.inception5b = inception(*INCEPTIONS["5b"])
        head = partial(
            AuxiliaryHead,
            num_classes=num_classes,
            pool=nn.AvgPool2d(5, stride=3),
            unit=ConvReLU,
            dropout=dropout_aux,
        )
        self.aux1 = head(512) if aux_logits else None
        self.aux2 = head(528) if aux_logits else None
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(1024, num_classes)

    def init_weights(self) -> None:
        """Weights uniform with variance 1 / inputs; biases 0.2, but 0 where classes are scored."""
        reset(self)
        for name, layer in self.named_modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_uniform_(layer.weight, nonlinearity="linear")
                assert layer.bias is not None
                nn.init.constant_(layer.bias, 0.0 if name in self.output_layers else 0.2)

    def reset_classifier(self, num_classes: int) -> None:
        """Makes anew the last layer, and that of each head, for other classes."""
        for layer in _fresh_scores(self, num_classes):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="linear")
            nn.init.zeros_(layer.bias)

    def _maps(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What 4a, 4d and 5b give."""
        smallest = 79 if self.training and self.aux1 is not None else 31
        check_images(x, in_channels=self.in_channels, smallest=smallest)
        # Sizes in the comments are those of 224x224 images.
        x = self.norm1(self.maxpool1(self.conv1(x)))  # (batch, 64, 56, 56)
        x = self.norm2(self.conv3(self.conv2(x)))  # (batch, 192, 56, 56)
        x = self.maxpool2(x)  # (batch, 192, 28, 28)
        x = self.inception3b(self.inception3a(x))  # (batch, 480, 28, 28)
        maps_4a = self.inception4a(self.maxpool3(x))  # (batch, 512, 14, 14)
        x = self.inception4c(self.inception4b(maps_4a))
        maps_4d = self.inception4d(x)  # (batch, 528, 14, 14)
        x = self.inception4e(maps_4d)  # (batch, 832, 14, 14)
        x = self.inception5b(self.inception5a(self.maxpool4(x)))  # (batch, 1024, 7, 7)
        return maps_4a, maps_4d, x

    def forward_features(self, x: Tensor) -> Tensor:
        return self._maps(x)[-1]  # (batch, 1024, 7, 7)

    def forward(self, x: Tensor) -> Tensor | GoogLeNetOutput:
        maps_4a, maps_4d, x = self._maps(x)
        aux1 = self.aux1(maps_4a) if self.training and self.aux1 is not None else None
        aux2 = self.aux2(maps_4d) if self.training and self.aux2 is not None else None
        logits = self.fc(self.dropout(self.avgpool(x).flatten(1)))  # (batch, num_classes)
        if aux1 is None or aux2 is None:
            return logits
        return GoogLeNetOutput(logits, aux2, aux1)


class GoogLeNetBN(nn.Module):
    """GoogLeNet with batch normalisation, as torchvision has it.

    Args:
        num_classes: width of the output.
        in_channels: channels of the image.
        aux_logits: whether there are auxiliary heads.
        dropout: probability of silencing an input of the classifier during training.
        dropout_aux: the same of a hidden unit in the heads.

    Shape:
        - input: ``(batch, in_channels, height, width)``, at least 15x15
        - output: logits ``(batch, num_classes)``; in training with heads a
          :class:`GoogLeNetOutput`

    Raises:
        ValueError: if an argument is outside its range, or the input not such images.
    """

    output_layers: ClassVar[tuple[str, ...]] = _OUTPUT_LAYERS

    @deferred_init
    def __init__(
        self,
        num_classes: int = 1000,
        *,
        in_channels: int = 3,
        aux_logits: bool = True,
        dropout: float = 0.2,
        dropout_aux: float = 0.7,
    ) -> None:
        super().__init__()
        check_at_least_one(num_classes=num_classes, in_channels=in_channels)
        check_probability(dropout=dropout, dropout_aux=dropout_aux)
        self.in_channels = in_channels
        inception = partial(Inception, unit=ConvBatchNormReLU, large=(3,))
        pool = partial(nn.MaxPool2d, stride=2, ceil_mode=True)
        self.conv1 = ConvBatchNormReLU(in_channels, 64, 7, stride=2)
        self.maxpool1 = pool(3)
        self.conv2 = ConvBatchNormReLU(64, 64, 1)
        self.conv3 = ConvBatchNormReLU(64, 192, 3)
        self.maxpool2 = pool(3)
        self.inception3a = inception(*INCEPTIONS["3a"])
        self.inception3b = inception(*INCEPTIONS["3b"])
        self.maxpool3 = pool(3)
        self.inception4a = inception(*INCEPTIONS["4a"])
        self.inception4b = inception(*INCEPTIONS["4b"])
        self.inception4c = inception(*INCEPTIONS["4c"])
        self.inception4d = inception(*INCEPTIONS["4d"])
        self.inception4e = inception(*INCEPTIONS["4e"])
        self.maxpool4 = pool(2)
        self.inception5a = inception(*INCEPTIONS["5a"])
        self.inception5b = inception(*INCEPTIONS["5b"])
        head = partial(
            AuxiliaryHead,
            num_classes=num_classes,
            pool=nn.Identity(),
            unit=ConvBatchNormReLU,
            dropout=dropout_aux,
        )
        self.aux1 = head(512) if aux_logits else None
        self.aux2 = head(528) if aux_logits else None
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(1024, num_classes)

    def init_weights(self) -> None:
        """Weights from N(0, 0.01²), biases 0."""
        reset(self)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def reset_classifier(self, num_classes: int) -> None:
        """Makes anew the last layer, and that of each head, for other classes."""
        for layer in _fresh_scores(self, num_classes):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def _maps(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What 4a, 4d and 5b give."""
        check_images(x, in_channels=self.in_channels, smallest=15)
        # Sizes in the comments are those of 224x224 images.
        x = self.maxpool1(self.conv1(x))  # (batch, 64, 56, 56)
        x = self.maxpool2(self.conv3(self.conv2(x)))  # (batch, 192, 28, 28)
        x = self.inception3b(self.inception3a(x))  # (batch, 480, 28, 28)
        maps_4a = self.inception4a(self.maxpool3(x))  # (batch, 512, 14, 14)
        x = self.inception4c(self.inception4b(maps_4a))
        maps_4d = self.inception4d(x)  # (batch, 528, 14, 14)
        x = self.inception4e(maps_4d)  # (batch, 832, 14, 14)
        x = self.inception5b(self.inception5a(self.maxpool4(x)))  # (batch, 1024, 7, 7)
        return maps_4a, maps_4d, x

    def forward_features(self, x: Tensor) -> Tensor:
        return self._maps(x)[-1]  # (batch, 1024, 7, 7)

    def forward(self, x: Tensor) -> Tensor | GoogLeNetOutput:
        maps_4a, maps_4d, x = self._maps(x)
        aux1 = self.aux1(maps_4a) if self.training and self.aux1 is not None else None
        aux2 = self.aux2(maps_4d) if self.training and self.aux2 is not None else None
        logits = self.fc(self.dropout(self.avgpool(x).flatten(1)))  # (batch, num_classes)
        if aux1 is None or aux2 is None:
            return logits
        return GoogLeNetOutput(logits, aux2, aux1)


class GoogLeNetSmall(nn.Module):
    """GoogLeNet for images of CIFAR's size, with batch normalisation and without heads.

    Args:
        num_classes: width of the output.
        in_channels: channels of the image.

    Shape:
        - input: ``(batch, in_channels, height, width)``, of any size
        - output: logits ``(batch, num_classes)``

    Raises:
        ValueError: if an argument is outside its range, or the input not such images.
    """

    @deferred_init
    def __init__(self, num_classes: int = 10, *, in_channels: int = 3) -> None:
        super().__init__()
        check_at_least_one(num_classes=num_classes, in_channels=in_channels)
        self.in_channels = in_channels
        unit = partial(ConvBatchNormReLU, bias=True, eps=1e-5)
        inception = partial(Inception, unit=unit, large=(3, 3))
        pool = partial(nn.MaxPool2d, 3, stride=2, padding=1)
        self.conv1 = unit(in_channels, 192, 3)
        self.inception3a = inception(*INCEPTIONS["3a"])
        self.inception3b = inception(*INCEPTIONS["3b"])
        self.maxpool3 = pool()
        self.inception4a = inception(*INCEPTIONS["4a"])
        self.inception4b = inception(*INCEPTIONS["4b"])
        self.inception4c = inception(*INCEPTIONS["4c"])
        self.inception4d = inception(*INCEPTIONS["4d"])
        self.inception4e = inception(*INCEPTIONS["4e"])
        self.maxpool4 = pool()
        self.inception5a = inception(*INCEPTIONS["5a"])
        self.inception5b = inception(*INCEPTIONS["5b"])
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(1024, num_classes)

    def init_weights(self) -> None:
        """Convolutions by He's procedure, the classifier from N(0, 0.01²), biases 0."""
        reset(self)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
        self._init_classifier()

    def _init_classifier(self) -> None:
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def reset_classifier(self, num_classes: int) -> None:
        """Makes the last layer anew, for other classes."""
        self.fc = fresh_linear(self.fc, num_classes)
        self._init_classifier()

    def forward_features(self, x: Tensor) -> Tensor:
        check_images(x, in_channels=self.in_channels)
        # Sizes in the comments are those of 32x32 images.
        x = self.conv1(x)  # (batch, 192, 32, 32)
        x = self.inception3b(self.inception3a(x))  # (batch, 480, 32, 32)
        x = self.inception4b(self.inception4a(self.maxpool3(x)))  # (batch, 512, 16, 16)
        x = self.inception4d(self.inception4c(x))  # (batch, 528, 16, 16)
        x = self.inception4e(x)  # (batch, 832, 16, 16)
        return self.inception5b(self.inception5a(self.maxpool4(x)))  # (batch, 1024, 8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.avgpool(self.forward_features(x)).flatten(1)  # (batch, 1024)
        return self.fc(x)  # (batch, num_classes)


def _fresh_scores(model: GoogLeNet | GoogLeNetBN, num_classes: int) -> list[nn.Linear]:
    """Replaces the layers that score the classes."""
    model.fc = fresh_linear(model.fc, num_classes)
    scores = [model.fc]
    for head in (model.aux1, model.aux2):
        if head is not None:
            head.fc2 = fresh_linear(head.fc2, num_classes)
            scores.append(head.fc2)
    return scores


class GoogLeNetOptions(TypedDict, total=False):
    """What the builders hand on to :class:`GoogLeNet` or :class:`GoogLeNetBN`."""

    in_channels: int
    aux_logits: bool
    dropout: float
    dropout_aux: float


def googlenet(num_classes: int = 1000, **options: Unpack[GoogLeNetOptions]) -> GoogLeNet:
    """GoogLeNet as in the paper."""
    return GoogLeNet(num_classes, **options)


def googlenet_bn(num_classes: int = 1000, **options: Unpack[GoogLeNetOptions]) -> GoogLeNetBN:
    """GoogLeNet with batch normalisation: torchvision's ``googlenet``."""
    return GoogLeNetBN(num_classes, **options)


def googlenet_cifar(num_classes: int = 10, *, in_channels: int = 3) -> GoogLeNetSmall:
    """GoogLeNet with batch normalisation for 32x32 images."""
    return GoogLeNetSmall(num_classes, in_channels=in_channels)
