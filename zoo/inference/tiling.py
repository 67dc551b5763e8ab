"""Segmenting images of any size: the overlap-tile strategy, and test-time augmentation.

Ronneberger et al., 2015, figure 2 (https://arxiv.org/abs/1505.04597): a large image is cut into
tiles that overlap, and what lies beyond its border is filled in by mirroring it.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Network = Callable[[Tensor], Tensor]
"""Images to probabilities, ``(batch, classes, height, width)``, perhaps of the centre alone."""

TTA = Literal["none", "flips", "dihedral"]


class OverlapTile:
    r"""Applies a network to images of any size, so that every pixel gets its probabilities.

    The size of the network's output says how wide a margin its unpadded convolutions need. The
    image is extended by that margin, mirrored at its border; so is an image smaller than a
    tile.

    Where tiles overlap, the output is their weighted mean. The weight of an output pixel falls
    linearly to the border of its tile, where a padded network knows the least of the surroundings:

    .. math:: p(x) = \frac{\sum_t w(x - x_t)\, p_t(x - x_t)}{\sum_t w(x - x_t)}

    Args:
        tile_size: height and width of what the network is given, or None for whole images.
        overlap: the least share of a tile that its neighbour sees too. A network with a margin
            shares twice the margin as it is.
        input_size_for: the least input size for an output size, where only some sizes fit.

    Shape:
        - images: ``(batch, channels, height, width)``
        - output: ``(batch, classes, height, width)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    def __init__(
        self,
        tile_size: int | None = None,
        *,
        overlap: float = 0.25,
        input_size_for: Callable[[int], int] | None = None,
    ) -> None:
        if tile_size is not None and tile_size < 1:
            raise ValueError(f"tile_size must be at least 1 or None, not {tile_size}")
        if not 0 <= overlap < 1:
            raise ValueError(f"overlap must be in [0, 1), not {overlap}")
        self.tile_size = tile_size
        self.overlap = overlap
        self.input_size_for = input_size_for
        self._output_size: int | None = None  # of a tile, known after the first one

    def __call__(self, network: Network, images: Tensor) -> Tensor:
        if self.tile_size is None:
            return self._whole(network, images)
        return self._tiled(network, images, self.tile_size)

    def _whole(self, network: Network, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        fit = self.input_size_for or (lambda size: size)
        sizes = fit(height), fit(width)
        output = network(mirror(images, *sizes))
        if self.input_size_for is None and output.shape[2:] != images.shape[2:]:
            sizes = 2 * height - output.size(2), 2 * width - output.size(3)
            output = network(mirror(images, *sizes))
        if output.size(2) < height or output.size(3) < width:
            raise ValueError(
                f"the model gives {output.size(2)}x{output.size(3)} pixels for images of "
                f"{sizes[0]}x{sizes[1]}, which leaves some of {height}x{width} without a class: "
                "give it a method input_size_for(output_size)"
            )
        return center(output, (height, width))

    def _tiled(self, network: Network, images: Tensor, size: int) -> Tensor:
        height, width = images.shape[2:]
        if self._output_size is None:
            self._output_size = network(mirror(images[:1], size, size)[..., :size, :size]).size(3)
        kept = self._output_size
        margin = size - kept  # both sides together
        stride = max(min(kept, round(size * (1 - self.overlap))), 1)
        rows, columns = max(height, kept), max(width, kept)
        images = mirror(images, rows + margin, columns + margin)
        window = _window(kept, images)
        tops, lefts = _starts(rows, kept, stride), _starts(columns, kept, stride)
        total: Tensor | None = None
        for top in tops:
            for left in lefts:
                output = network(images[..., top : top + size, left : left + size])
                if total is None:
                    total = output.new_zeros(*output.shape[:2], rows, columns)
                area = total[..., top : top + kept, left : left + kept]
                area += output * (window[:, None] * window)
        assert total is not None
        # The weights of a grid of tiles are a product, as each tile's are.
        total /= _coverage(tops, rows, window)[:, None] * _coverage(lefts, columns, window)
        return center(total, (height, width))


def mirror(images: Tensor, height: int, width: int) -> Tensor:
    """Extends images on all sides by their reflections, as often as it takes.

    The outermost pixels are the axes and are not repeated. A side that is long enough already
    stays as it is.

    Shape:
        - images: ``(batch, channels, *, *)``
        - output: ``(batch, channels, >= height, >= width)``, the images in its middle
    """
    for dim, target in ((2, height), (3, width)):
        size = images.size(dim)
        if (extra := target - size) > 0:
            period = max(2 * (size - 1), 1)
            places = torch.arange(target, device=images.device) - extra // 2
            places = places.remainder(period)
            places = torch.minimum(places, period - places).clamp_max(size - 1)
            images = images.index_select(dim, places)
    return images


def center(x: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """The middle of images or masks: ``(*, height, width)``."""
    top, left = (x.size(-2) - size[0]) // 2, (x.size(-1) - size[1]) // 2
    return x[..., top : top + size[0], left : left + size[1]]


def average_symmetries(network: Network, images: Tensor, tta: TTA) -> Tensor:
    """Mean of what a network says of an image and of its mirror images, laid back over it.

    Args:
        network: images to probabilities of the same size.
        images: ``(batch, channels, height, width)``.
        tta: ``none``; ``flips``: left-right, up-down and both; ``dihedral``: all eight symmetries
            of the square.
    """
    if tta == "none":
        return network(images)
    turns = range(4) if tta == "dihedral" else (0, 2)
    outputs = []
    for flipped in (False, True):
        for turn in turns:
            x = images.flip(3) if flipped else images
            y = network(x.rot90(turn, (2, 3))).rot90(-turn, (2, 3))
            outputs.append(y.flip(3) if flipped else y)
    return torch.stack(outputs).mean(0)


def _window(size: int, like: Tensor) -> Tensor:
    """1, 2, 3 ... 3, 2, 1: the weight of each output pixel of a tile along one side."""
    places = torch.arange(size, device=like.device, dtype=torch.float32)
    return torch.minimum(places + 1, size - places)


def _starts(length: int, size: int, stride: int) -> list[int]:
    """Where tiles begin so that they cover a side, evenly spaced, at most a stride apart."""
    steps = -(-(length - size) // stride)
    return [round(step * (length - size) / steps) for step in range(steps + 1)] if steps else [0]


def _coverage(starts: list[int], length: int, window: Tensor) -> Tensor:
    weights = window.new_zeros(length)
    for start in starts:
        weights[start : start + len(window)] += window
    return weights
