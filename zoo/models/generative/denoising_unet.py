"""The U-Net that tells noise from images, told how much of it there is.

Ho, Jain and Abbeel, 2020, appendix B, https://arxiv.org/abs/2006.11239: residual blocks that are
given the time step, with self-attention where the image has become small. What it is for is said
in `zoo/models/generative/diffusion.py`, which also has the published sizes.

The parameters are named as those of diffusers' `UNet2DModel`, whose checkpoints load strictly.
"""

import math
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.layers.checks import check_at_least_one, check_images, check_probability
from zoo.layers.initialization import deferred_init, reset

EPSILON = 1e-6  # of the group normalisation, as in the paper's code


class BlockSizes(NamedTuple):
    """What all residual blocks of a network have in common."""

    time_width: int
    num_groups: int
    dropout: float


def sinusoids(times: Tensor, channels: int) -> Tensor:
    r"""Sines and cosines of times, of wavelengths from :math:`2\pi` to :math:`20000\pi`.

    Shape:
        - times: ``(batch,)``
        - output: float32 ``(batch, channels)``
    """
    half = channels // 2
    places = torch.arange(half, dtype=torch.float32, device=times.device)
    angles = times[:, None].float() * torch.exp(-math.log(10000) * places / (half - 1))
    return torch.cat([angles.sin(), angles.cos()], dim=1)  # (batch, channels)


class TimeEmbedding(nn.Module):
    """Two linear layers on the sinusoids of a time: ``(batch, channels)`` to ``(batch, width)``."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(channels, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(x)))


class ResidualBlock(nn.Module):
    """Two convolutions, each after normalisation and SiLU; the time is added between them.

    Shape:
        - x: ``(batch, in_channels, height, width)``
        - time: ``(batch, time_width)``, activated
        - output: ``(batch, out_channels, height, width)``
    """

    def __init__(self, in_channels: int, out_channels: int, sizes: BlockSizes) -> None:
        super().__init__()
        time_width, num_groups, dropout = sizes
        self.norm1 = nn.GroupNorm(num_groups, in_channels, eps=EPSILON)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = nn.Linear(time_width, out_channels)
        self.norm2 = nn.GroupNorm(num_groups, out_channels, eps=EPSILON)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = (
            nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None
        )

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x))) + self.time_emb_proj(time)[:, :, None, None]
        hidden = self.conv2(self.dropout(F.silu(self.norm2(hidden))))
        return hidden + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class PixelAttention(nn.Module):
    """Self-attention of one head among all pixels, added to its input."""

    def __init__(self, channels: int, *, num_groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(num_groups, channels, eps=EPSILON)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        pixels = self.group_norm(x).flatten(2).mT.unsqueeze(1)  # (batch, 1, pixels, channels)
        queries, keys, values = self.to_q(pixels), self.to_k(pixels), self.to_v(pixels)
        attended = F.scaled_dot_product_attention(queries, keys, values)
        return x + self.to_out[0](attended).squeeze(1).mT.unflatten(2, x.shape[2:])


class Downsample(nn.Module):
    """A convolution that halves height and width, with TensorFlow's one-sided padding."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))  # (batch, channels, height / 2, width / 2)


class Upsample(nn.Module):
    """Doubles height and width by repeating pixels, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return self.conv(x)  # (batch, channels, 2 * height, 2 * width)


class Level(nn.Module):
    """Residual blocks of one resolution, each followed by attention where there is any.

    Args:
        widths: channels that each block gets.
        channels: channels that each gives.
        has_attention: whether attention follows each.
        sizes: of the blocks.
    """

    def __init__(
        self, widths: Sequence[int], channels: int, sizes: BlockSizes, *, has_attention: bool
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResidualBlock(width, channels, sizes) for width in widths)
        attentive = widths if has_attention else ()
        self.attentions = nn.ModuleList(
            PixelAttention(channels, num_groups=sizes.num_groups) for _ in attentive
        )

    def block(self, index: int, x: Tensor, time: Tensor) -> Tensor:
        """One residual block, and its attention if it has one."""
        x = self.resnets[index](x, time)
        return self.attentions[index](x) if index < len(self.attentions) else x


class DownLevel(Level):
    """A level on the way down; returns what each of its layers gives, for the way up."""

    def __init__(
        self,
        widths: Sequence[int],
        channels: int,
        sizes: BlockSizes,
        *,
        has_attention: bool,
        is_last: bool,
    ) -> None:
        super().__init__(widths, channels, sizes, has_attention=has_attention)
        self.downsamplers = nn.ModuleList([] if is_last else [Downsample(channels)])

    def forward(self, x: Tensor, time: Tensor) -> list[Tensor]:
        found = []
        for index in range(len(self.resnets)):
            x = self.block(index, x, time)
            found.append(x)
        return found + [layer(x) for layer in self.downsamplers]


class MiddleLevel(Level):
    """Two residual blocks with attention between them, where the image is smallest."""

    def __init__(self, channels: int, sizes: BlockSizes) -> None:
        super().__init__([channels, channels], channels, sizes, has_attention=False)
        self.attentions.append(PixelAttention(channels, num_groups=sizes.num_groups))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.block(1, self.block(0, x, time), time)


class UpLevel(Level):
    """A level on the way up; each block is also given what a layer on the way down gave."""

    def __init__(
        self,
        widths: Sequence[int],
        channels: int,
        sizes: BlockSizes,
        *,
        has_attention: bool,
        is_last: bool,
    ) -> None:
        super().__init__(widths, channels, sizes, has_attention=has_attention)
        self.upsamplers = nn.ModuleList([] if is_last else [Upsample(channels)])

    def forward(self, x: Tensor, skipped: Sequence[Tensor], time: Tensor) -> Tensor:
        for index, other in enumerate(skipped):
            x = self.block(index, torch.cat([x, other], dim=1), time)
        for layer in self.upsamplers:
            x = layer(x)
        return x


class DenoisingUNet(nn.Module):
    r"""A function of a noisy image and of how noisy it is, of the image's shape.

    On the way down, residual blocks at each resolution and a convolution that halves it; on the way
    up the same in reverse, with one block more at each, and every layer of the way down is joined
    to a block of the way up.

    Args:
        image_size: height and width of an image, divisible by 2 for every level but the first.
        in_channels: its channels.
        channels: channels of each level, each a multiple of ``num_groups``.
        layers_per_level: residual blocks of each on the way down.
        attention_sizes: heights of images at which attention follows every block. Between the two
            blocks at the bottom there always is one.
        num_groups: groups of each normalisation.
        dropout: probability of silencing a value within a residual block.
        num_classes: classes that an image may be asked of; ``None``: the network is told no class.
        time_scale: what times are multiplied by before their sinusoids, which tell numbers from
            0 to 1000 apart: 1 for steps, 1000 for times between 0 and 1.

    Attributes:
        sample_shape: ``(in_channels, image_size, image_size)``.

    Shape:
        - x: ``(batch, in_channels, image_size, image_size)``
        - times: ``(batch,)``
        - labels: int64 ``(batch,)``, where ``num_classes`` stands for no class; ``None``: no class
          for the whole batch
        - output: the shape of x

    Raises:
        ValueError: if an argument is outside its range, or the input not such images.
    """

    output_layers: ClassVar[tuple[str, ...]] = ("conv_out",)

    @deferred_init
    def __init__(
        self,
        image_size: int = 32,
        in_channels: int = 3,
        *,
        channels: tuple[int, ...] = (128, 256, 256, 256),
        layers_per_level: int = 2,
        attention_sizes: tuple[int, ...] = (16,),
        num_groups: int = 32,
        dropout: float = 0.0,
        num_classes: int | None = None,
        time_scale: float = 1.0,
    ) -> None:
        super().__init__()
        check_at_least_one(
            image_size=image_size,
            in_channels=in_channels,
            channels=channels,
            layers_per_level=layers_per_level,
            num_groups=num_groups,
            num_classes=1 if num_classes is None else num_classes,
        )
        check_probability(dropout=dropout)
        if time_scale <= 0:
            raise ValueError(f"time_scale must be greater than 0, not {time_scale}")
        _check_sizes(image_size, channels, attention_sizes, num_groups)
        self.sample_shape = (in_channels, image_size, image_size)
        self.num_classes, self.time_scale = num_classes, time_scale
        self.layers_per_level = layers_per_level
        sizes = BlockSizes(4 * channels[0], num_groups, dropout)
        last = len(channels) - 1
        attends = [image_size >> level in attention_sizes for level in range(len(channels))]

        self.conv_in = nn.Conv2d(in_channels, channels[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(channels[0], sizes.time_width)
        if num_classes is not None:
            self.class_embedding = nn.Embedding(num_classes + 1, sizes.time_width)
        self.down_blocks, skipped = nn.ModuleList(), [channels[0]]
        for level, width in enumerate(channels):
            widths = [skipped[-1], *[width] * (layers_per_level - 1)]
            is_last = level == last
            self.down_blocks.append(
                DownLevel(widths, width, sizes, has_attention=attends[level], is_last=is_last)
            )
            skipped += [width] * (layers_per_level + (not is_last))
        self.mid_block = MiddleLevel(channels[-1], sizes)
        self.up_blocks, current = nn.ModuleList(), channels[-1]
        for level, width in reversed(list(enumerate(channels))):
            before = [current, *[width] * layers_per_level]
            widths = [x + skipped.pop() for x in before]
            is_last = level == 0
            self.up_blocks.append(
                UpLevel(widths, width, sizes, has_attention=attends[level], is_last=is_last)
            )
            current = width
        self.conv_norm_out = nn.GroupNorm(num_groups, channels[0], eps=EPSILON)
        self.conv_out = nn.Conv2d(channels[0], in_channels, 3, padding=1)

    def init_weights(self) -> None:
        """Glorot's uniform numbers, and zeros where a residual branch or the network ends."""
        reset(self)  # Norms and classes start by PyTorch's default, the others by what follows.
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
        for layer in self.modules():
            if isinstance(layer, ResidualBlock):
                nn.init.zeros_(layer.conv2.weight)
            elif isinstance(layer, PixelAttention):
                nn.init.zeros_(layer.get_parameter("to_out.0.weight"))
        nn.init.zeros_(self.conv_out.weight)

    def forward(self, x: Tensor, times: Tensor, labels: Tensor | None = None) -> Tensor:
        self._check(x, labels)
        waves = sinusoids(times * self.time_scale, self.conv_in.out_channels)
        time = self.time_embedding(waves.to(self.time_embedding.linear_1.weight.dtype))
        if self.num_classes is not None:
            if labels is None:
                labels = torch.full((len(x),), self.num_classes, device=x.device)
            time = time + self.class_embedding(labels)
        time = F.silu(time)  # (batch, time_width)

        features = [self.conv_in(x)]
        for down in self.down_blocks:
            features += down(features[-1], time)
        x = self.mid_block(features[-1], time)
        for up in self.up_blocks:
            x = up(x, [features.pop() for _ in range(self.layers_per_level + 1)], time)
        return self.conv_out(F.silu(self.conv_norm_out(x)))

    def _check(self, x: Tensor, labels: Tensor | None) -> None:
        in_channels, size, _ = self.sample_shape
        check_images(x, in_channels=in_channels)
        if x.shape[1:] != self.sample_shape:
            raise ValueError(f"x must be images of {size}x{size}, not {x.size(2)}x{x.size(3)}")
        if labels is not None and self.num_classes is None:
            raise ValueError("labels are for a network with num_classes, and this one has none")


def _check_sizes(
    image_size: int, channels: tuple[int, ...], attention_sizes: tuple[int, ...], num_groups: int
) -> None:
    if not channels:
        raise ValueError("channels must name at least one level, not ()")
    if channels[0] < 4 or channels[0] % 2:
        raise ValueError(f"channels must begin with an even number from 4, not {channels}")
    divisor = 2 ** (len(channels) - 1)
    if image_size % divisor:
        raise ValueError(
            f"image_size must be divisible by {divisor} for {len(channels)} levels, "
            f"not {image_size}"
        )
    if any(width % num_groups for width in channels):
        raise ValueError(f"channels must be multiples of num_groups={num_groups}, not {channels}")
    found = [image_size >> level for level in range(len(channels))]
    if missing := [size for size in attention_sizes if size not in found]:
        raise ValueError(
            f"attention_sizes must be among {', '.join(map(str, found))}, the heights that there "
            f"are, not {missing[0]}"
        )
