"""Augmentation that moves images, masks and weight maps together.

Images and weight maps (float targets with height and width) are interpolated bilinearly; in masks
(whole-numbered ones) the nearest pixel counts. What lies outside the image is its mirror image,
as in microscopy, or is left out: black in the image, 255 (ignored) in the mask and 0 in the
weights.
"""

import functools
from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.data.augmentation.base import Augmentation, float64_on

Border = Literal["mirror", "ignore"]
NO_CLASS = 255
"""Value of the pixels of a mask that have no class; tasks define it again, importing no data."""


class SpatialAugmentation(Augmentation):
    """Moves the pixels of all tensors of a batch that have height and width in the same way."""

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        return self.apply((images,), draws)[0]

    def apply(self, batch: tuple[Tensor, ...], draws: Tensor) -> tuple[Tensor, ...]:
        maps = [i for i, tensor in enumerate(batch) if i == 0 or tensor.ndim == 3]
        moved = self.move([batch[i] if i == 0 else batch[i].unsqueeze(1) for i in maps], draws)
        changed = list(batch)
        for i, tensor in zip(maps, moved, strict=True):
            changed[i] = tensor if i == 0 else tensor.squeeze(1)
        return tuple(changed)

    @abstractmethod
    def move(self, maps: list[Tensor], draws: Tensor) -> list[Tensor]:
        """Moves maps ``(batch, channels, height, width)``: images, then masks and weights."""


class Dihedral(SpatialAugmentation):
    """Shows square images in one of the eight symmetries of the square, all equally likely."""

    num_draws = 1

    def move(self, maps: list[Tensor], draws: Tensor) -> list[Tensor]:
        height, width = maps[0].shape[-2:]
        if height != width:
            raise ValueError(f"images must be square to be turned, not {height}x{width}")
        number = (draws[:, 0] * 8).long().view(-1, 1, 1, 1)
        moved = []
        for x in maps:
            x = torch.where((number & 1).bool(), x.flip(3), x)
            x = torch.where((number & 2).bool(), x.flip(2), x)
            moved.append(torch.where((number & 4).bool(), x.transpose(2, 3), x))
        return moved


class ElasticDeformation(SpatialAugmentation):
    r"""Bends images smoothly (Ronneberger, Fischer and Brox 2015, "U-Net", section 3.1).

    Random vectors :math:`d_{ij}` stand on a coarse grid of nodes that spans the image; bicubic
    interpolation :math:`B` makes a displacement for each pixel out of them:

    .. math:: y(p) = x\Big(p + \sum_{ij} B_{ij}(p)\, d_{ij}\Big), \quad
        d_{ij} \sim \mathcal{N}(0, \sigma^2 I)

    Args:
        deviation: standard deviation :math:`\sigma` in pixels.
        nodes: of the grid on each side.
        margin: pixels on each side that are there to be moved in only, and not part of the result.
        border: what comes in from outside the image.

    Shape:
        - input: ``(batch, channels, height, width)``
        - output: ``(batch, channels, height - 2 margin, width - 2 margin)``, float32
    """

    def __init__(
        self,
        deviation: float = 10.0,
        nodes: int = 3,
        *,
        margin: int = 0,
        border: Border = "mirror",
    ) -> None:
        if deviation < 0:
            raise ValueError(f"deviation must not be negative, not {deviation}")
        if nodes < 2:
            raise ValueError(f"nodes must be at least 2, not {nodes}")
        if margin < 0:
            raise ValueError(f"margin must not be negative, not {margin}")
        check_border(border)
        self.deviation = deviation
        self.nodes = nodes
        self.margin = margin
        self.border = border
        self.num_draws = 2 * nodes**2

    def move(self, maps: list[Tensor], draws: Tensor) -> list[Tensor]:
        height, width = maps[0].shape[-2:]
        grid = self._grid(height, width, draws)
        return [self._sample(x, grid, is_mask=i > 0) for i, x in enumerate(maps)]

    def _grid(self, height: int, width: int, draws: Tensor) -> Tensor:
        """Where each pixel comes from, in the units of ``grid_sample``."""
        margin, device = self.margin, draws.device
        rows, columns = height - 2 * margin, width - 2 * margin
        vectors = self.deviation * normal(draws).view(-1, 2, self.nodes, self.nodes)
        # Multiplications and additions of whole tensors: unlike those of a matrix product, they
        # round the same way whatever the batch.
        along_x = _cubic_weights(self.nodes, columns, device)  # (nodes, columns)
        along_y = _cubic_weights(self.nodes, rows, device).unsqueeze(2)  # (nodes, rows, 1)
        parts = [vectors[..., j, None] * along_x[j] for j in range(self.nodes)]
        lines = functools.reduce(torch.add, parts)  # (batch, 2, nodes, columns)
        parts = [lines[:, :, i, None] * along_y[i] for i in range(self.nodes)]
        shift = functools.reduce(torch.add, parts)  # (batch, 2, rows, columns)
        x = shift[:, 0] + torch.arange(margin, margin + columns, device=device)
        y = shift[:, 1] + torch.arange(margin, margin + rows, device=device).unsqueeze(1)
        # With align_corners, -1 and 1 are the centres of the first and the last pixel, and a mirror
        # image does not repeat the edge.
        x, y = x * (2 / max(width - 1, 1)) - 1, y * (2 / max(height - 1, 1)) - 1
        return torch.stack((x, y), -1)  # (batch, rows, columns, 2)

    def _sample(self, x: Tensor, grid: Tensor, *, is_mask: bool) -> Tensor:
        mirror = self.border == "mirror"
        nearest = is_mask and not x.is_floating_point()
        outside = NO_CLASS if nearest and not mirror else 0
        moved = F.grid_sample(
            x.float() - outside if outside else x.float(),
            grid,
            mode="nearest" if nearest else "bilinear",
            padding_mode="reflection" if mirror else "zeros",
            align_corners=True,
        )
        return (moved + outside).to(x.dtype) if nearest else moved


class RandomTile(SpatialAugmentation):
    """Cuts a square tile out of each image, at a random place.

    Args:
        tile_size: height and width of the tile. What a smaller image lacks comes in evenly on
            both sides.
        overhang: how far a tile may reach beyond the image, in pixels.
        border: what comes in from outside the image.

    Shape:
        - input: ``(batch, channels, height, width)``
        - output: ``(batch, channels, tile_size, tile_size)``
    """

    num_draws = 2

    def __init__(self, tile_size: int, *, overhang: int = 0, border: Border = "mirror") -> None:
        if tile_size < 1:
            raise ValueError(f"tile_size must be at least 1, not {tile_size}")
        if overhang < 0:
            raise ValueError(f"overhang must not be negative, not {overhang}")
        check_border(border)
        self.tile_size = tile_size
        self.overhang = overhang
        self.border = border

    def move(self, maps: list[Tensor], draws: Tensor) -> list[Tensor]:
        batch, _, height, width = maps[0].shape
        heights, widths = (torch.full((batch,), n, device=draws.device) for n in (height, width))
        tile = (self.tile_size, self.tile_size)
        pixels, inside = tile_pixels(heights, widths, tile, draws, overhang=self.overhang)
        moved = []
        for i, x in enumerate(maps):
            index = pixels.view(batch, 1, -1).expand(-1, x.shape[1], -1)
            cut = x.flatten(2).gather(2, index).unflatten(2, tile)
            if self.border == "ignore":
                outside = NO_CLASS if i > 0 and not x.is_floating_point() else 0
                cut = cut.masked_fill(~inside.unsqueeze(1), outside)
            moved.append(cut)
        return moved


class BrightnessContrast(Augmentation):
    r"""Makes images brighter or darker and their contrast stronger or weaker.

    With :math:`w` the value of white and :math:`b`, :math:`c` uniform in their ranges for each
    image, :math:`y = (1 + c)(x - w/2) + w/2 + b w`, cut off at 0 and :math:`w`.

    Args:
        brightness: :math:`b` is within plus and minus this.
        contrast: :math:`c` is within plus and minus this.
        white: :math:`w`, 255 or 1.
    """

    num_draws = 2

    def __init__(
        self, brightness: float = 0.1, contrast: float = 0.1, *, white: float = 255.0
    ) -> None:
        for name, value in (("brightness", brightness), ("contrast", contrast)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be in [0, 1], not {value}")
        self.brightness = brightness
        self.contrast = contrast
        self.white = white

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        b, c = (2 * draws - 1).view(-1, 2, 1, 1, 1).unbind(1)  # each (batch, 1, 1, 1)
        scale = 1 + self.contrast * c
        shift = self.white * (0.5 * (1 - scale) + self.brightness * b)
        return (images.float() * scale).add_(shift).clamp_(0, self.white)


def normal(draws: Tensor) -> Tensor:
    """Turns uniform numbers in [0, 1) into Gaussian ones, by the inverse of the distribution."""
    # In double precision where there is any: see RandomAffine.
    draws = draws.to(float64_on(draws.device))
    symmetric = (2 * draws - 1).clamp(-1 + 2.0**-23, 1 - 2.0**-23)  # 0 would be minus infinity
    return (2**0.5 * torch.erfinv(symmetric)).float()


def mirrored(index: Tensor, size: Tensor) -> Tensor:
    """Takes pixel numbers outside [0, size) to their mirror images inside."""
    period = (2 * (size - 1)).clamp(min=1)
    index = index.remainder(period)
    return torch.minimum(index, period - index).minimum(size - 1)


def tile_pixels(
    heights: Tensor, widths: Tensor, tile: tuple[int, int], draws: Tensor, *, overhang: int = 0
) -> tuple[Tensor, Tensor]:
    """Chooses a tile in each of several images.

    Args:
        heights: of the images, ``(batch,)``.
        widths: likewise.
        tile: height and width of the tiles.
        draws: ``(batch, 2)``, uniform in [0, 1).
        overhang: how far tiles may reach beyond the images.

    Returns:
        The number of each pixel of the tile in the rows of its image, laid end to end; where it
        lies outside, that of its mirror image. And whether it lies inside. Both
        ``(batch, height, width)``.
    """
    places = []
    for axis, sizes in enumerate((heights, widths)):
        room = sizes + (2 * overhang - tile[axis])
        first = (draws[:, axis] * (room.clamp(min=0) + 1)).long() - overhang
        first = torch.where(room < 0, room.div(2, rounding_mode="floor") - overhang, first)
        step = torch.arange(tile[axis], device=sizes.device)
        places.append(first.unsqueeze(1) + step)  # (batch, height) or (batch, width)
    y, x = places
    h, w = heights.unsqueeze(1), widths.unsqueeze(1)
    rows, columns = mirrored(y, h) * w, mirrored(x, w)
    pixels = rows.unsqueeze(2) + columns.unsqueeze(1)  # (batch, height, width)
    inside = ((y >= 0) & (y < h)).unsqueeze(2) & ((x >= 0) & (x < w)).unsqueeze(1)
    return pixels, inside


def check_border(border: str) -> None:
    """Refuses an unknown border."""
    if border not in ("mirror", "ignore"):
        raise ValueError(f"border must be 'mirror' or 'ignore', not {border!r}")


@functools.lru_cache(maxsize=16)
def _cubic_weights(nodes: int, size: int, device: torch.device) -> Tensor:
    """Weight of each node in each of ``size`` evenly spaced places: ``(nodes, size)``."""
    unit = torch.eye(nodes).view(1, 1, nodes, nodes)
    weights = F.interpolate(unit, size=(nodes, size), mode="bicubic", align_corners=True)
    return weights[0, 0].to(device)
