"""Training on tiles of labelled images that lie in memory, and evaluation on the whole images.

Tiles are cut out at random, each time elsewhere, so that images of any size make batches of one
size (Ronneberger, Fischer and Brox 2015, https://arxiv.org/abs/1505.04597, sections 2 and 3).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

import torch
from torch import Tensor

from zoo.data.augmentation.base import Augmentation, HorizontalFlip
from zoo.data.augmentation.deformation import (
    BrightnessContrast,
    Dihedral,
    ElasticDeformation,
    tile_pixels,
)
from zoo.data.images.base import Normalize
from zoo.data.loading.stream import StreamLoader
from zoo.data.loading.tensor import TensorLoader
from zoo.data.masks.base import Labelled, border_weights, class_balance
from zoo.data.module import Loader, Part, check_batch_size

Flips = Literal["none", "horizontal", "all"]


class TilingOptions(TypedDict, total=False):
    """Arguments of :class:`Tiling` with the same defaults for all data sets of tiles."""

    batch_size: int
    tile_size: int | None
    overhang: int
    border_weights: bool
    drop_last: bool


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """What training sees of the images, checked.

    Args:
        batch_size: tiles a batch.
        tile_size: height and width of a tile; ``None`` for whole images.
        tiles_per_image: tiles of each image an epoch.
        overhang: how far tiles may reach into the mirror image around an image, in pixels.
        flips: ``horizontal``: mirror half of the tiles; ``all``: the eight symmetries of a square.
        elastic: standard deviation of the elastic deformation in pixels; 0 for none.
        jitter: greatest change of brightness and contrast; 0 for none.
        border_weights: add the U-Net paper's weight map to the batches; class 0 is what lies
            between things.
        drop_last: omit the last training batch of an epoch if it is smaller.
    """

    batch_size: int = 8
    tile_size: int | None = 256
    tiles_per_image: int = 1
    overhang: int = 0
    flips: Flips = "none"
    elastic: float = 0.0
    jitter: float = 0.0
    border_weights: bool = False
    drop_last: bool = False

    def __post_init__(self) -> None:
        """Refuses impossible values."""
        check_batch_size(self.batch_size)
        if self.tile_size is not None and self.tile_size < 1:
            raise ValueError(f"tile_size must be at least 1 or None, not {self.tile_size}")
        if self.tiles_per_image < 1:
            raise ValueError(f"tiles_per_image must be at least 1, not {self.tiles_per_image}")
        if self.overhang < 0:
            raise ValueError(f"overhang must not be negative, not {self.overhang}")
        if self.tile_size is None and self.overhang > 0:
            raise ValueError(f"overhang must be 0 without a tile_size, not {self.overhang}")
        check_flips(self.flips)
        if not 0 <= self.elastic < math.inf:
            raise ValueError(f"elastic must not be negative, not {self.elastic}")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter must be in [0, 1], not {self.jitter}")

    @property
    def margin(self) -> int:
        """What is cut out around a tile for the elastic deformation to move in: three sigma."""
        return math.ceil(3 * self.elastic)

    def augmentations(self) -> tuple[Augmentation, ...]:
        """What is done with the tiles."""
        found = flip_augmentations(self.flips)
        if self.elastic > 0:
            found.append(ElasticDeformation(self.elastic, margin=self.margin))
        if self.jitter > 0:
            found.append(BrightnessContrast(self.jitter, self.jitter))
        return tuple(found)


class TileStore(Augmentation):
    """Images and masks of any sizes, laid end to end, out of which batches of tiles are gathered.

    The first step of a loader whose samples are numbers of images: an image may have any number
    of tiles an epoch, and is stored once.

    Args:
        samples: images and masks, uint8.
        tile: height and width of the tiles. Images that are smaller are mirrored.
        overhang: how far tiles may reach into the mirror image around an image.
        weights: a weight map for each image.
        device: where the images are kept.

    Shape:
        - numbers: ``(batch,)``, and draws: ``(batch, 2)``
        - output: ``(batch, channels, height, width)`` uint8, channels last in memory; ``(batch,
          height, width)`` int64; and, with weights, the same in float32
    """

    num_draws = 2

    def __init__(
        self,
        samples: Sequence[Labelled],
        tile: tuple[int, int],
        *,
        overhang: int = 0,
        weights: Sequence[Tensor] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        self.tile = tile
        self.overhang = overhang
        heights, widths = torch.tensor([mask.shape for _, mask in samples]).T.to(device)
        self._heights, self._widths = heights, widths
        self._starts = (heights * widths).cumsum(0) - heights * widths
        images = [image.flatten(1).T for image, _ in samples]  # each (pixels, channels)
        self._images = torch.cat(images).to(device)
        maps = [torch.cat([mask.flatten() for _, mask in samples])]
        maps += [torch.cat([each.flatten() for each in weights])] if weights else []
        self._maps = [values.to(device) for values in maps]

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        return self.apply((images,), draws)[0]

    def apply(self, batch: tuple[Tensor, ...], draws: Tensor) -> tuple[Tensor, ...]:
        (number,) = batch
        heights, widths = self._heights[number], self._widths[number]
        pixels, _ = tile_pixels(heights, widths, self.tile, draws, overhang=self.overhang)
        index = (pixels + self._starts[number].view(-1, 1, 1)).view(-1)
        images = self._images.index_select(0, index).view(*pixels.shape, -1)
        masks, *weights = (values.index_select(0, index).view_as(pixels) for values in self._maps)
        return (images.permute(0, 3, 1, 2), masks.long(), *weights)  # images (batch, c, h, w)


def tiled_loaders(
    splits: dict[str, list[Labelled]],
    tiling: Tiling,
    *,
    num_classes: int,
    normalize: Normalize,
    seed: int,
    device: torch.device | str,
    part: Part = (0, 1),
) -> dict[str, Loader]:
    """Loaders of random tiles for ``train`` and of whole images, in their order, for the rest.

    Whole images of one size come in batches that hold about as many pixels as those of training;
    images of several sizes come one by one.
    """
    balance = class_balance([mask for _, mask in splits["train"]], num_classes)
    loaders: dict[str, Loader] = {}
    for split, samples in splits.items():
        weights = [border_weights(mask, balance) for _, mask in samples if tiling.border_weights]
        if split == "train":
            tile = training_tile(samples, tiling)
            height, width = (side + 2 * tiling.margin for side in tile)
            overhang = tiling.overhang + tiling.margin
            store = TileStore(
                samples, (height, width), overhang=overhang, weights=weights, device=device
            )
            loaders[split] = TensorLoader(
                (torch.arange(len(samples)).repeat(tiling.tiles_per_image),),
                batch_size=tiling.batch_size,
                shuffle=True,
                seed=seed,
                augment=(store, *tiling.augmentations()),
                transform=normalize,
                drop_last=tiling.drop_last,
                device=device,
                part=part,
            )
            continue
        whole = [
            (image, mask.long(), *weights[i : i + 1]) for i, (image, mask) in enumerate(samples)
        ]
        if len(sizes := {mask.shape for _, mask in samples}) > 1:
            loaders[split] = StreamLoader(
                whole, batch_size=1, transform=normalize, device=device, part=part
            )
            continue
        pixels = tiling.batch_size * math.prod(tile)
        loaders[split] = TensorLoader(
            tuple(torch.stack(parts) for parts in zip(*whole, strict=True)),
            batch_size=max(1, pixels // math.prod(sizes.pop())),
            transform=normalize,
            device=device,
            part=part,
        )
    return loaders


def training_tile(samples: Sequence[Labelled], tiling: Tiling) -> tuple[int, int]:
    """Height and width of what training sees.

    Raises:
        ValueError: if whole images are asked for and do not fit into one batch.
    """
    if tiling.tile_size is not None:
        return tiling.tile_size, tiling.tile_size
    sizes = {(mask.shape[0], mask.shape[1]) for _, mask in samples}
    if len(sizes) > 1:
        raise ValueError(
            f"tile_size must be given, because the training images have {len(sizes)} sizes"
        )
    height, width = sizes.pop()
    if tiling.flips == "all" and height != width:
        raise ValueError(
            f"flips must not be 'all' without a tile_size, because the images are not square "
            f"but {width}x{height}"
        )
    return height, width


def flip_augmentations(flips: Flips) -> list[Augmentation]:
    """What stands behind the word."""
    if flips == "none":
        return []
    return [Dihedral() if flips == "all" else HorizontalFlip()]


def check_flips(flips: str) -> None:
    """Refuses unknown flips."""
    if flips not in ("none", "horizontal", "all"):
        raise ValueError(f"flips must be 'none', 'horizontal' or 'all', not {flips!r}")
