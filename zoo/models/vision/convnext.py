r"""ConvNeXt (Liu, Mao, Wu, Feichtenhofer, Darrell and Xie, 2022).

"A ConvNet for the 2020s", https://arxiv.org/abs/2201.03545

Take a ResNet and change it, one choice at a time, into what a hierarchical vision Transformer is:
patches for a stem, depthwise 7x7 convolutions for attention, an MLP four times as wide, one layer
norm and one GELU per block. What remains is a pure convolutional network that equals Swin.

Differences from the paper: none. Each block's residual is scaled by a learned factor per channel
(layer scale, Touvron et al. 2021, https://arxiv.org/abs/2103.17239) and, in training, skipped at
random per sample (stochastic depth, Huang et al. 2016, https://arxiv.org/abs/1603.09382), more
often the deeper the block. The rates are those of training on ImageNet-1k.

Names of parameters are torchvision's, whose weights load.

| stage | size (224x224 input) | tiny | small | base | large |
|---|---|---|---|---|---|
| stem: 4x4 convolution, stride 4 | 56 x 56 | 96 | 96 | 128 | 192 |
| blocks | 56 x 56 | 3 of 96 | 3 of 96 | 3 of 128 | 3 of 192 |
| blocks | 28 x 28 | 3 of 192 | 3 of 192 | 3 of 256 | 3 of 384 |
| blocks | 14 x 14 | 9 of 384 | 27 of 384 | 27 of 512 | 27 of 768 |
| blocks | 7 x 7 | 3 of 768 | 3 of 768 | 3 of 1024 | 3 of 1536 |

| builder | parameters | stochastic depth |
|---|---|---|
| `convnext_tiny` | 28,589,128 | 0.1 |
| `convnext_small` | 50,223,688 | 0.4 |
| `convnext_base` | 88,591,464 | 0.5 |
| `convnext_large` | 197,767,336 | 0.5 |
"""

from typing import TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_images, check_probability
from zoo.layers.classifier import fresh_linear
from zoo.layers.initialization import deferred_init, reset

_SMALLEST_IMAGE = 32


class ChannelsLast(nn.Module):
    """Moves the channels behind the pixels, where layer norm and linear layers want them.

    Shape:
        - input: ``(batch, channels, height, width)``
        - output: ``(batch, height, width, channels)``
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


class ChannelsFirst(nn.Module):
    """Moves the channels back before the pixels, where convolutions want them.

    Shape:
        - input: ``(batch, height, width, channels)``
        - output: ``(batch, channels, height, width)``
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of each pixel.

    Shape:
        - input and output: ``(batch, channels, height, width)``
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)  # (batch, height, width, channels)
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)  # (batch, channels, height, width)


class ConvNeXtBlock(nn.Module):
    r"""A depthwise 7x7 convolution, and an MLP at each pixel (figure 4).

    .. math:: y = x + \frac{b}{1 - p}\, \gamma \odot W_2\,
        \mathrm{GELU}(W_1\, \mathrm{LN}(D * x))

    where :math:`b`, for each sample, is 0 with probability :math:`p` in training; else
    :math:`b = 1 - p`.

    Args:
        channels: channels of input and output.
        layer_scale: first value of :math:`\gamma`.
        drop_rate: probability p that a sample skips the block.

    Shape:
        - input and output: ``(batch, channels, height, width)``
    """

    def __init__(self, channels: int, *, layer_scale: float, drop_rate: float) -> None:
        super().__init__()
        self.drop_rate, self.first_scale = drop_rate, layer_scale
        self.block = nn.Sequential(
            nn.Conv2d(channels, channels, 7, padding=3, groups=channels),
            ChannelsLast(),  # (batch, height, width, channels)
            nn.LayerNorm(channels, eps=1e-6),
            nn.Linear(channels, 4 * channels),  # (batch, height, width, 4 * channels)
            nn.GELU(),
            nn.Linear(4 * channels, channels),  # (batch, height, width, channels)
            ChannelsFirst(),  # (batch, channels, height, width)
        )
        self.layer_scale = nn.Parameter(torch.empty(channels, 1, 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.layer_scale, self.first_scale)

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay spares, as it does those of norms."""
        return {"layer_scale"}

    def forward(self, x: Tensor) -> Tensor:
        scale: Tensor = self.layer_scale
        if self.training and self.drop_rate > 0:
            kept = 1 - self.drop_rate
            survives = x.new_empty(x.size(0), 1, 1, 1).bernoulli_(kept)
            # The expected output is that of evaluation, where every sample survives.
            scale = scale * (survives / kept)  # (batch, channels, 1, 1)
        return torch.addcmul(x, scale, self.block(x))


class ConvNeXt(nn.Module):
    """Four stages of blocks, at a quarter, 1/8, 1/16 and 1/32 of the resolution.

    Args:
        channels: channels of each stage.
        blocks: number of blocks in each stage.
        num_classes: width of the output.
        in_channels: channels of the image.
        stochastic_depth: probability that a sample skips the last block; it grows linearly from 0
            at the first.
        layer_scale: first value of the factors that scale each block's residual.

    Shape:
        - input: ``(batch, in_channels, height, width)``, at least 32x32
        - output: logits ``(batch, num_classes)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    @deferred_init
    def __init__(
        self,
        channels: tuple[int, int, int, int],
        blocks: tuple[int, int, int, int],
        *,
        num_classes: int = 1000,
        in_channels: int = 3,
        stochastic_depth: float = 0.0,
        layer_scale: float = 1e-6,
    ) -> None:
        super().__init__()
        check_at_least_one(num_classes=num_classes, in_channels=in_channels)
        check_probability(stochastic_depth=stochastic_depth)
        self.in_channels = in_channels
        stem = nn.Sequential(
            nn.Conv2d(in_channels, channels[0], 4, stride=4), LayerNorm2d(channels[0])
        )
        layers = [stem]
        drop_rates = torch.linspace(0, stochastic_depth, sum(blocks), device="cpu").tolist()
        for stage, (width, depth) in enumerate(zip(channels, blocks, strict=True)):
            if stage > 0:
                halve = nn.Conv2d(channels[stage - 1], width, 2, stride=2)
                layers.append(nn.Sequential(LayerNorm2d(channels[stage - 1]), halve))
            rates, drop_rates = drop_rates[:depth], drop_rates[depth:]
            layers.append(
                nn.Sequential(
                    *(ConvNeXtBlock(width, layer_scale=layer_scale, drop_rate=r) for r in rates)
                )
            )
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            LayerNorm2d(channels[-1]), nn.Flatten(1), nn.Linear(channels[-1], num_classes)
        )

    def init_weights(self) -> None:
        reset(self)
        self.apply(_initialise)

    def reset_classifier(self, num_classes: int) -> None:
        """Makes the last layer anew, for other classes."""
        self.classifier[-1] = fresh_linear(self.classifier[-1], num_classes).apply(_initialise)

    def forward_features(self, x: Tensor) -> Tensor:
        check_images(x, in_channels=self.in_channels, smallest=_SMALLEST_IMAGE)
        return self.features(x)  # (batch, channels, height // 32, width // 32)

    def forward(self, x: Tensor) -> Tensor:
        x = self.avgpool(self.forward_features(x))  # (batch, channels, 1, 1)
        return self.classifier(x)  # (batch, num_classes)


def _initialise(layer: nn.Module) -> None:
    """Weights from a truncated normal distribution, biases 0."""
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=0.02)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)


class ConvNeXtOptions(TypedDict, total=False):
    """What the builders hand on to :class:`ConvNeXt`."""

    in_channels: int
    layer_scale: float


def convnext_tiny(
    num_classes: int = 1000, *, stochastic_depth: float = 0.1, **options: Unpack[ConvNeXtOptions]
) -> ConvNeXt:
    """ConvNeXt-T: as much computation as ResNet-50."""
    return ConvNeXt(
        (96, 192, 384, 768),
        (3, 3, 9, 3),
        num_classes=num_classes,
        stochastic_depth=stochastic_depth,
        **options,
    )


def convnext_small(
    num_classes: int = 1000, *, stochastic_depth: float = 0.4, **options: Unpack[ConvNeXtOptions]
) -> ConvNeXt:
    """ConvNeXt-S: three times as many blocks in the third stage."""
    return ConvNeXt(
        (96, 192, 384, 768),
        (3, 3, 27, 3),
        num_classes=num_classes,
        stochastic_depth=stochastic_depth,
        **options,
    )


def convnext_base(
    num_classes: int = 1000, *, stochastic_depth: float = 0.5, **options: Unpack[ConvNeXtOptions]
) -> ConvNeXt:
    """ConvNeXt-B: a third wider than S."""
    return ConvNeXt(
        (128, 256, 512, 1024),
        (3, 3, 27, 3),
        num_classes=num_classes,
        stochastic_depth=stochastic_depth,
        **options,
    )


def convnext_large(
    num_classes: int = 1000, *, stochastic_depth: float = 0.5, **options: Unpack[ConvNeXtOptions]
) -> ConvNeXt:
    """ConvNeXt-L: twice as wide as S."""
    return ConvNeXt(
        (192, 384, 768, 1536),
        (3, 3, 27, 3),
        num_classes=num_classes,
        stochastic_depth=stochastic_depth,
        **options,
    )
