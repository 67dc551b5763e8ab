"""Images and masks that are read from their files as they are needed, by worker processes."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.data.augmentation.base import Augmentation
from zoo.data.augmentation.deformation import BrightnessContrast, RandomTile
from zoo.data.download import DataError
from zoo.data.images.from_files import IMAGENET_MEAN, IMAGENET_STD
from zoo.data.loading.stream import StreamLoader
from zoo.data.masks.base import (
    Labelled,
    MaskModule,
    NormalizeAnySize,
    check_pair,
    read_image,
    read_mask,
    to_classes,
)
from zoo.data.masks.tiles import Flips, check_flips, flip_augmentations
from zoo.data.module import Part, check_batch_size

Pair = tuple[Path, Path]  # image, mask


class MaskFiles:
    """A map-style data set ``(image, mask)``.

    Args:
        pairs: the files.
        classes: the number of each value in the masks; 255 for those to be ignored.
        short_side: length that the shorter side of an image is resized to; ``None``: its own.
        tile: cuts a tile out. Random numbers come from torch's global state, which the loader
            seeds for each sample.

    Shape:
        - image: uint8 ``(3, height, width)``
        - mask: int64 ``(height, width)``

    Raises:
        DataError: on taking a sample whose files cannot be used.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        classes: dict[int, int],
        *,
        short_side: int | None = None,
        tile: RandomTile | None = None,
    ) -> None:
        self.pairs = pairs
        self.classes = classes
        self.short_side = short_side
        self.tile = tile

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.pairs)

    def __getitem__(self, index: int) -> Labelled:
        """Reads one image with its mask."""
        file, path = self.pairs[index]
        values, _ = read_mask(path)
        image, mask = read_image(file, 3), to_classes(path, values, self.classes).long()
        check_pair(file, path, (image, mask))
        if self.short_side is not None:
            image, mask = resize(image, self.short_side), resize(mask, self.short_side)
        if self.tile is None:
            return image, mask
        draws = torch.rand(1, self.tile.num_draws)
        image, mask = self.tile.apply((image.unsqueeze(0), mask.unsqueeze(0)), draws)
        return image[0], mask[0]


class MaskOptions(TypedDict, total=False):
    """Arguments of :class:`StreamedMasks` whose defaults are the same for all data sets."""

    root: str
    flips: Flips
    jitter: float
    num_workers: int
    drop_last: bool


class StreamedMasks(MaskModule):
    """Random tiles for training, and whole images one by one for evaluation, from files.

    What an image lacks to fill a tile is black, and ignored in the mask.

    Args:
        root: folder of all downloads.
        batch_size: tiles a batch.
        tile_size: height and width of a tile.
        short_side: length that the shorter side of an image is resized to; ``None``: its own.
        flips: of training tiles. ``horizontal``: mirror half of them; ``all``: the eight
            symmetries of a square.
        jitter: greatest change of brightness and contrast; 0 for none.
        num_workers: processes that read files.
        drop_last: omit the last training batch of an epoch if it is smaller.
        classes: the number of each value in the masks; 255 for those to be ignored.
    """

    changeable = ("root", "num_workers")
    in_channels = 3
    image_size: int

    def __init__(
        self,
        *,
        root: str = "data",
        batch_size: int,
        tile_size: int,
        short_side: int | None,
        flips: Flips = "horizontal",
        jitter: float = 0.0,
        num_workers: int = 2,
        drop_last: bool = False,
        classes: dict[int, int],
    ) -> None:
        super().__init__()
        check_batch_size(batch_size)
        check_flips(flips)
        if tile_size < 1:
            raise ValueError(f"tile_size must be at least 1, not {tile_size}")
        if short_side is not None and short_side < 1:
            raise ValueError(f"short_side must be at least 1 or None, not {short_side}")
        if not 0 <= jitter <= 1:
            raise ValueError(f"jitter must be in [0, 1], not {jitter}")
        if num_workers < 0:
            raise ValueError(f"num_workers must not be negative, not {num_workers}")
        self.root = root
        self.batch_size = batch_size
        self.image_size = tile_size
        self.short_side = short_side
        self.flips = flips
        self.jitter = jitter
        self.num_workers = num_workers
        self.drop_last = drop_last
        self.classes = classes
        self.normalize = NormalizeAnySize(IMAGENET_MEAN, IMAGENET_STD)

    @abstractmethod
    def _pairs(self) -> dict[str, list[Pair]]:
        """The files of each split."""

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        for split, pairs in self._pairs().items():
            if missing := [path for pair in pairs for path in pair if not path.is_file()]:
                raise DataError(
                    f"{missing[0]} is missing, though it is listed for {split}: put it there, or "
                    f"delete the whole folder, so that it is downloaded again"
                )
            train = split == "train"
            tile = RandomTile(self.image_size, border="ignore") if train else None
            self.loaders[split] = StreamLoader(
                MaskFiles(pairs, self.classes, short_side=self.short_side, tile=tile),
                batch_size=self.batch_size if train else 1,
                shuffle=train,
                seed=seed,
                num_workers=self.num_workers,
                augment=self._augmentations() if train else (),
                transform=self.normalize,
                drop_last=self.drop_last and train,
                device=device,
                part=part,
            )

    def _resized(self, pixels: Tensor) -> Tensor:
        return pixels if self.short_side is None else resize(pixels, self.short_side)

    def _augmentations(self) -> tuple[Augmentation, ...]:
        found = flip_augmentations(self.flips)
        if self.jitter > 0:
            found.append(BrightnessContrast(self.jitter, self.jitter))
        return tuple(found)


def resize(pixels: Tensor, short_side: int) -> Tensor:
    """Resizes an image ``(channels, height, width)`` or a mask ``(height, width)``."""
    height, width = pixels.shape[-2:]
    scale = short_side / min(height, width)
    size = (round(height * scale), round(width * scale))
    if pixels.ndim == 2:
        stack = pixels[None, None].float()
        return F.interpolate(stack, size=size, mode="nearest-exact")[0, 0].to(pixels.dtype)
    return F.interpolate(pixels[None], size=size, mode="bilinear", antialias=True)[0]
