r"""Fully convolutional networks on VGG-16 (Long, Shelhamer and Darrell, 2015).

"Fully convolutional networks for semantic segmentation", https://arxiv.org/abs/1411.4038

A fully connected layer is a convolution whose kernel covers its whole input, so a classifier slid
over a larger image gives a coarse map of scores; interpolation brings the map back to the
image's size, and scores from the finer maps of earlier layers sharpen it. `fcn32s` magnifies the
last map 32 times, `fcn16s` adds scores of pool4, `fcn8s` of pool3 too.

Sizes are those of the authors' published networks: 100 pixels of padding around the image, so
that any size leaves something for the 7x7 kernel of fc6; poolings that round up; and fixed offsets
at which maps are cut to fit one another. The last magnification is bilinear and fixed, the others
begin bilinear and are learned (section 4.3; the published networks keep all of them fixed). The
layers that score classes begin at zero (section 4.3).

Differences from the paper: the paper always starts from an ImageNet classifier, and trains fcn16s
from fcn32s and fcn8s from fcn16s. Both work here: ``load_pretrained`` (``model.weights``) takes
torchvision's ``vgg16`` (``features.*``, ``classifier.0`` and ``classifier.3``; it folds the
matrices of the last two into kernels) or a coarser FCN, and leaves the new layers as they begin.
Without, the layers of VGG-16 are drawn from He's Gaussian (fan-out). With torchvision's weights
goes its normalisation of the image.

| part | size (500x500 input) | parameters (21 classes) |
|---|---|---|
| features.0-4: 2 convolutions, pool1 | 64 x 349 x 349 | 38,720 |
| features.5-9: 2 convolutions, pool2 | 128 x 175 x 175 | 221,440 |
| features.10-16: 3 convolutions, pool3 | 256 x 88 x 88 | 1,475,328 |
| features.17-23: 3 convolutions, pool4 | 512 x 44 x 44 | 5,899,776 |
| features.24-30: 3 convolutions, pool5 | 512 x 22 x 22 | 7,079,424 |
| classifier.0: fc6 | 4096 x 16 x 16 | 102,764,544 |
| classifier.3: fc7 | 4096 x 16 x 16 | 16,781,312 |
| score | 21 x 16 x 16 | 86,037 |
| `fcn32s` | 21 x 500 x 500 | 134,346,581 |
| score_pool4, upscore2: 21 x 34 x 34 | | 10,773 + 7,056 |
| `fcn16s` | 21 x 500 x 500 | 134,364,410 |
| score_pool3, upscore_pool4: 21 x 70 x 70 | | 5,397 + 7,056 |
| `fcn8s` | 21 x 500 x 500 | 134,376,863 |
"""

from typing import ClassVar, Literal, NamedTuple, TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_images, check_probability
from zoo.layers.initialization import deferred_init, reset

# Channels of VGG-16's convolutions; "pool" halves the resolution.
VGG16: tuple[int | Literal["pool"], ...] = (
    *(64, 64, "pool"),
    *(128, 128, "pool"),
    *(256, 256, 256, "pool"),
    *(512, 512, 512, "pool"),
    *(512, 512, 512, "pool"),
)
PADDING = 100  # pixels around the image
POOL3, POOL4 = 17, 24  # how many of the features it takes to get there


def bilinear_kernel(stride: int) -> Tensor:
    r"""The kernel with which a transposed convolution interpolates linearly between its inputs.

    .. math:: k(i, j) = h(i) h(j), \qquad h(i) = 1 - \frac{|i - s + 1/2|}{s}

    Args:
        stride: the magnification s.

    Shape:
        - output: ``(2 * stride, 2 * stride)``
    """
    places = torch.arange(2 * stride, dtype=torch.float32)
    side = 1 - (places - stride + 0.5).abs() / stride
    return side[:, None] * side


class BilinearUpsampling(nn.Module):
    """A transposed convolution that stays bilinear interpolation, of each channel separately.

    Args:
        stride: the magnification.

    Shape:
        - input: ``(batch, channels, height, width)``
        - output: ``(batch, channels, (height + 1) * stride, (width + 1) * stride)``
    """

    kernel: Tensor

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride
        # Not stored, so that a coarser network's weights fit.
        self.register_buffer("kernel", torch.empty(2 * stride, 2 * stride), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        self.kernel.copy_(bilinear_kernel(self.stride))

    def forward(self, x: Tensor) -> Tensor:
        channels = x.size(1)
        weight = x.new_ones(channels, 1, 1, 1) * self.kernel
        return F.conv_transpose2d(x, weight, stride=self.stride, groups=channels)


class LearnedUpsampling(nn.ConvTranspose2d):
    """Doubles the resolution; bilinear interpolation to begin with.

    Args:
        channels: channels of input and output.

    Shape:
        - input: ``(batch, channels, height, width)``
        - output: ``(batch, channels, 2 * height + 2, 2 * width + 2)``
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 4, stride=2, bias=False)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.weight.zero_()
        self.weight.diagonal().copy_(bilinear_kernel(2).unsqueeze(-1))


class Scoring(nn.Conv2d):
    """Scores the classes in each place; zero to begin with.

    Args:
        in_channels: channels of the map.
        num_classes: channels of the output.

    Shape:
        - input: ``(batch, in_channels, height, width)``
        - output: ``(batch, num_classes, height, width)``
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__(in_channels, num_classes, 1)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        assert self.bias is not None
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class Maps(NamedTuple):
    """What the scores are made of, with a margin around each map.

    Attributes:
        pool3: ``(batch, 256, height / 8, width / 8)``.
        pool4: ``(batch, 512, height / 16, width / 16)``.
        fc7: ``(batch, classifier_channels, height / 32, width / 32)``.
    """

    pool3: Tensor
    pool4: Tensor
    fc7: Tensor


def crop_like(x: Tensor, reference: Tensor, offset: int) -> Tensor:
    """Cuts a map to the height and width of another, beginning at ``offset``."""
    height, width = reference.shape[2:]
    return x[:, :, offset : offset + height, offset : offset + width]


def _through(layers: nn.Sequential, x: Tensor) -> Tensor:
    """What layers make of a map, one by one: a part of a `Sequential` cannot be traced."""
    for layer in layers:
        x = layer(x)
    return x


class FCN(nn.Module):
    """VGG-16 made fully convolutional, with scores from one, two or three of its depths.

    Args:
        num_classes: channels of the output, background included.
        stride: pixels between the finest scores: 32, 16 or 8.
        in_channels: channels of the image.
        classifier_channels: channels of fc6 and fc7.
        dropout: probability of dropping an output of fc6 and fc7.

    Shape:
        - input: ``(batch, in_channels, height, width)``
        - output: logits ``(batch, num_classes, height, width)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    # Layers that a classifier's weights, or a coarser network's, do not have.
    optional_weights: ClassVar[tuple[str, ...]] = ("score*", "upscore*")

    @deferred_init
    def __init__(
        self,
        num_classes: int = 21,
        *,
        stride: Literal[32, 16, 8] = 8,
        in_channels: int = 3,
        classifier_channels: int = 4096,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_at_least_one(
            num_classes=num_classes,
            in_channels=in_channels,
            classifier_channels=classifier_channels,
        )
        if stride not in (32, 16, 8):
            raise ValueError(f"stride must be 32, 16 or 8, not {stride}")
        check_probability(dropout=dropout)
        self.in_channels, self.stride = in_channels, stride
        layers: list[nn.Module] = []
        channels = in_channels
        for width in VGG16:
            if width == "pool":
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
                continue
            padding = 1 if layers else PADDING
            layers += [nn.Conv2d(channels, width, 3, padding=padding), nn.ReLU(inplace=True)]
            channels = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Conv2d(channels, classifier_channels, 7),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Conv2d(classifier_channels, classifier_channels, 1),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )
        self._add_scores(classifier_channels, num_classes)
        self.upscore = BilinearUpsampling(stride)

    def _add_scores(self, classifier_channels: int, num_classes: int) -> None:
        self.score = Scoring(classifier_channels, num_classes)
        if self.stride <= 16:
            self.upscore2 = LearnedUpsampling(num_classes)
            self.score_pool4 = Scoring(512, num_classes)
        if self.stride <= 8:
            self.upscore_pool4 = LearnedUpsampling(num_classes)
            self.score_pool3 = Scoring(256, num_classes)

    def init_weights(self) -> None:
        convolutions = (*self.features, *self.classifier)
        for layer in convolutions:
            reset(layer)
        for layer in convolutions:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
        for layer in self.children():
            if layer not in (self.features, self.classifier):
                reset(layer)

    def reset_classifier(self, num_classes: int) -> None:
        """Makes anew all layers that score the classes, and those that magnify the scores."""
        check_at_least_one(num_classes=num_classes)
        weight = self.score.weight
        with torch.device(weight.device):
            self._add_scores(self.score.in_channels, num_classes)
        for name, layer in self.named_children():
            if name.startswith(("score", "upscore")):
                layer.to(weight.dtype)

    def forward_features(self, x: Tensor) -> Maps:
        check_images(x, in_channels=self.in_channels)
        pool3 = _through(
            self.features[:POOL3], x
        )  # (batch, 256, height / 8, width / 8), and a margin
        pool4 = _through(self.features[POOL3:POOL4], pool3)  # (batch, 512, height / 16, width / 16)
        pool5 = _through(self.features[POOL4:], pool4)  # (batch, 512, height / 32, width / 32)
        return Maps(pool3, pool4, self.classifier(pool5))

    def forward(self, x: Tensor) -> Tensor:
        pool3, pool4, fc7 = self.forward_features(x)
        scores = self.score(fc7)  # (batch, num_classes, height / 32, width / 32), and a margin
        if self.stride <= 16:
            scores = self.upscore2(scores)  # (batch, num_classes, height / 16, width / 16)
            scores = scores + crop_like(self.score_pool4(pool4), scores, 5)
        if self.stride <= 8:
            scores = self.upscore_pool4(scores)  # (batch, num_classes, height / 8, width / 8)
            scores = scores + crop_like(self.score_pool3(pool3), scores, 9)
        offset = {32: 19, 16: 27, 8: 31}[self.stride]
        return crop_like(self.upscore(scores), x, offset)  # (batch, num_classes, height, width)


class FCNOptions(TypedDict, total=False):
    """What the builders hand on to :class:`FCN`."""

    in_channels: int
    classifier_channels: int
    dropout: float


def fcn32s(num_classes: int = 21, **options: Unpack[FCNOptions]) -> FCN:
    """FCN-32s: the scores of the last layer, magnified 32 times."""
    return FCN(num_classes, stride=32, **options)


def fcn16s(num_classes: int = 21, **options: Unpack[FCNOptions]) -> FCN:
    """FCN-16s: with scores of pool4."""
    return FCN(num_classes, stride=16, **options)


def fcn8s(num_classes: int = 21, **options: Unpack[FCNOptions]) -> FCN:
    """FCN-8s: with scores of pool4 and pool3."""
    return FCN(num_classes, stride=8, **options)
