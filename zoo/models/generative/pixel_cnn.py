r"""PixelCNN (van den Oord, Kalchbrenner and Kavukcuoglu, 2016).

A. van den Oord, N. Kalchbrenner and K. Kavukcuoglu, "Pixel recurrent neural networks",
https://arxiv.org/abs/1601.06759

Convolutions whose kernels are masked so that each output depends on the pixels above, and to the
left in its own row, only. The outputs are then the conditional probabilities of the pixels, and
their product is the probability of the image: exact, in one pass. Drawing takes one pass a pixel.

The masks leave a blind spot, which the authors describe in their next paper
(https://arxiv.org/abs/1606.05328, section 2.2): a pixel never sees those above it that lie far to
the right. What is :math:`m` rows above is seen up to :math:`m + 2` columns to the right and no
further, however many blocks there are. The likelihood is exact nevertheless: those pixels are just
not made use of.

Differences from the paper: the last of the two 1x1 convolutions at the end gives the logits (the
paper does not say whether another layer does); pixels are binary, one logit each, in colour too,
where the paper has a softmax over 256 values; weights start by PyTorch's default.

| channels h, blocks (28x28 binary images) | parameters |
|---|---|
| 16, 7 | 26,433 |
| 128, 15 | 3,223,617 |
"""

from itertools import product
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.layers.checks import check_at_least_one, check_shape
from zoo.layers.initialization import deferred_init, reset


class MaskedConv2d(nn.Conv2d):
    r"""A convolution that sees the pixels above, those to the left, and part of its own.

    The weights for pixels below and to the right are masked. Those for the pixel itself go by
    colour: features belong to one colour each, in equal shares and in the colours' order, and see
    features of the colours before (mask A, for the image itself) or of their own too (mask B).

    Args:
        in_channels: features of the input.
        out_channels: features of the output.
        kernel_size: an odd number.
        mask_type: ``A`` or ``B``.
        colours: channels of the image.

    Attributes:
        mask: which weights there are, ``(out_channels, in_channels, kernel_size, kernel_size)``.

    Shape:
        - input: ``(batch, in_channels, height, width)``
        - output: ``(batch, out_channels, height, width)``
    """

    mask: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        mask_type: Literal["A", "B"] = "B",
        colours: int = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        self.mask_type, self.colours = mask_type, colours
        self.register_buffer("mask", torch.empty_like(self.weight, dtype=torch.bool))
        self._fill_mask()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if hasattr(self, "mask"):  # The base class's constructor calls this before there is one.
            self._fill_mask()

    def _fill_mask(self) -> None:
        ours, theirs = (
            torch.arange(size, device=self.mask.device) * self.colours // size
            for size in (self.out_channels, self.in_channels)
        )
        middle = self.kernel_size[0] // 2
        is_before = ours[:, None] > theirs
        self.mask.fill_(False)
        self.mask[:, :, :middle] = True
        self.mask[:, :, middle, :middle] = True
        self.mask[:, :, middle, middle] = (
            is_before if self.mask_type == "A" else is_before | (ours[:, None] == theirs)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)

    def at(self, x: Tensor, row: int, column: int) -> Tensor:
        """The output at one pixel, from an input with a margin of ``kernel_size // 2`` zeros.

        Shape:
            - x: ``(batch, in_channels, height + kernel_size - 1, width + kernel_size - 1)``
            - output: ``(batch, out_channels, 1, 1)``
        """
        height, width = self.kernel_size
        seen = x[:, :, row : row + height, column : column + width]
        return F.conv2d(seen, self.weight * self.mask, self.bias)


class ResidualBlock(nn.Module):
    """Halves the features, convolves, doubles them, each after a ReLU (figure 5, left).

    Args:
        channels: h, half of the features.
        colours: channels of the image.

    Shape:
        - input and output: ``(batch, 2 * channels, height, width)``
    """

    def __init__(self, channels: int, *, colours: int) -> None:
        super().__init__()
        self.reduce = MaskedConv2d(2 * channels, channels, 1, colours=colours)
        self.conv = MaskedConv2d(channels, channels, 3, colours=colours)
        self.expand = MaskedConv2d(channels, 2 * channels, 1, colours=colours)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv(F.relu(self.reduce(F.relu(x))))
        return x + self.expand(F.relu(hidden))

    def at(self, x: Tensor, memory: Tensor, row: int, column: int) -> Tensor:
        """The output at one pixel, given those before; see :meth:`MaskedConv2d.at`.

        Args:
            x: the input at this pixel, ``(batch, 2 * channels, 1, 1)``.
            memory: what the 3x3 convolution sees, in which this pixel is filled in,
                ``(batch, channels, height + 2, width + 2)``.
            row: of the pixel.
            column: of the pixel.
        """
        memory[:, :, row + 1, column + 1] = F.relu(self.reduce(F.relu(x)))[:, :, 0, 0]
        return x + self.expand(F.relu(self.conv.at(memory, row, column)))


class PixelCNN(nn.Module):
    r"""Binary pixels, each given those above and to the left of it (table 1).

    .. math:: p(x) = \prod_i p(x_i \mid x_{<i})

    in the order of reading, and within a pixel of its colours: a 7x7 convolution with mask A,
    residual blocks with mask B, and two 1x1 convolutions, each after a ReLU.

    Args:
        image_size: height and width of an image.
        in_channels: its channels.
        hidden_channels: h, features inside a residual block, between which there are twice as many.
        num_blocks: residual blocks.
        head_channels: features between the two last convolutions.

    Shape:
        - input: pixels of 0 and 1, ``(batch, in_channels, image_size, image_size)``
        - output: their logits given the pixels before each, of the same shape

    Raises:
        ValueError: if an argument is outside its range.
    """

    is_binary = True
    """What it gives probabilities to is pixels of 0 and 1."""

    @deferred_init
    def __init__(
        self,
        image_size: int = 28,
        in_channels: int = 1,
        *,
        hidden_channels: int = 16,
        num_blocks: int = 7,
        head_channels: int = 32,
    ) -> None:
        super().__init__()
        check_at_least_one(image_size=image_size, in_channels=in_channels, num_blocks=num_blocks)
        for name, size in (("hidden_channels", hidden_channels), ("head_channels", head_channels)):
            if size < in_channels:
                raise ValueError(
                    f"{name} must be at least in_channels={in_channels}, since every feature "
                    f"belongs to one colour, not {size}"
                )
        self.sample_shape = (in_channels, image_size, image_size)
        colours = in_channels
        self.stem = MaskedConv2d(
            in_channels, 2 * hidden_channels, 7, mask_type="A", colours=colours
        )
        self.blocks = nn.ModuleList(
            ResidualBlock(hidden_channels, colours=colours) for _ in range(num_blocks)
        )
        self.head = nn.Sequential(
            nn.ReLU(),
            MaskedConv2d(2 * hidden_channels, head_channels, 1, colours=colours),
            nn.ReLU(),
            MaskedConv2d(head_channels, in_channels, 1, colours=colours),
        )

    def init_weights(self) -> None:
        reset(self)  # PyTorch's default

    def forward(self, x: Tensor) -> Tensor:
        check_shape(x, *self.sample_shape)
        hidden = self.stem(x)  # (batch, 2 * hidden_channels, height, width)
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(hidden)  # (batch, in_channels, height, width)

    def log_prob(self, x: Tensor) -> Tensor:
        """Logarithm of the probability of each image.

        Shape:
            - input: pixels of 0 and 1, ``(batch, channels, height, width)``
            - output: ``(batch,)``
        """
        losses = F.binary_cross_entropy_with_logits(self(x), x, reduction="none")
        return -losses.flatten(1).sum(1)

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Images, drawn pixel by pixel in the order of reading.

        What the layers make of a pixel does not change when later ones are drawn, so it is kept,
        and a pixel costs what it costs in a pass over the whole image.

        Args:
            count: how many.
            generator: of random numbers, on the CPU; torch's own if None.

        Shape:
            - output: pixels of 0 and 1, ``(count, channels, height, width)``
        """
        channels, height, width = self.sample_shape
        like = next(self.parameters())
        noise = torch.rand(count, *self.sample_shape, generator=generator).to(like.device)
        margin = self.stem.kernel_size[0] // 2
        images = like.new_zeros(count, channels, height + 2 * margin, width + 2 * margin)
        blocks: list[Any] = list(self.blocks)
        memories = [
            like.new_zeros(count, block.conv.in_channels, height + 2, width + 2) for block in blocks
        ]
        for row, column, colour in product(range(height), range(width), range(channels)):
            hidden = self.stem.at(images, row, column)  # (count, 2 * hidden_channels, 1, 1)
            for block, memory in zip(blocks, memories, strict=True):
                hidden = block.at(hidden, memory, row, column)
            means = self.head(hidden)[:, colour, 0, 0].sigmoid()
            drawn = noise[:, colour, row, column] < means
            images[:, colour, row + margin, column + margin] = drawn.to(images)
        return images[:, :, margin:-margin, margin:-margin].contiguous()
