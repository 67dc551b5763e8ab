"""A folder of your own images and, for each, a mask that says the class of every pixel.

Either ``folder/images/*.jpg`` with ``folder/masks/<same name>.png``, which is divided at random, or
``folder/train/images`` and ``folder/train/masks`` with ``folder/val`` and ``folder/test`` alike (a
missing ``val`` is taken from ``train``; a missing ``test`` stays missing).
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Unpack

import torch
from torch import Tensor

from zoo.data.augmentation.deformation import NO_CLASS
from zoo.data.download import DataError
from zoo.data.files import locate
from zoo.data.folders import (
    SplitFolders,
    check_beside,
    check_splits,
    divide_folder,
    list_files,
    skipped_note,
    split_folders,
    splits_of,
)
from zoo.data.images.from_files import GREY_MEAN, GREY_STD, IMAGENET_MEAN, IMAGENET_STD
from zoo.data.images.opening import SUFFIXES, ImageReader, depth_note
from zoo.data.masks.base import (
    UNKNOWN,
    Labelled,
    MaskModule,
    NormalizeAnySize,
    check_pair,
    read_image,
    read_mask,
    to_classes,
)
from zoo.data.masks.tiles import Flips, Tiling, TilingOptions, tiled_loaders, training_tile
from zoo.data.module import Part
from zoo.data.splits import check_fractions

MAX_GREYS = 32  # more different values in grey masks mean that these are not masks
CLASS_NUMBERS = 32  # grey values below this are class numbers rather than shades
Pair = tuple[Path, Path]  # image, mask


class MaskFolder(MaskModule):
    """Batches of random tiles for training, and whole images of any size for evaluation.

    Indexed masks (palette PNG files, as of Pascal VOC) hold class numbers, and 255 for pixels to be
    ignored. In grey ones each value is a class, in ascending order: 0 and 255 are classes 0 and 1;
    but 255 beside two or more class numbers (0, 1, 255) marks what is ignored.
    Images are kept in memory as bytes, on the training device. Evaluation has batches if all
    images of a split have one size, and takes them one by one if not.

    Args:
        folder: the folder, from where you stand or within ``root``.
        root: folder of all data.
        tiles_per_image: tiles of each image an epoch.
        in_channels: 3 (RGB) or 1 (grey), whatever the files hold.
        max_value: see :class:`~zoo.data.images.opening.ImageReader`.
        background: likewise.
        flips: of training tiles. ``horizontal``: mirror half of them; ``all``: the eight
            symmetries of a square.
        elastic: standard deviation of the elastic deformation in pixels; 0 for none.
        jitter: greatest change of brightness and contrast; 0 for none.
        mean: of each channel, for values from 0 to 1; ``None``: ImageNet's.
        std: of each channel, likewise.
        class_names: a name for each class; ``auto``: the values in the masks.
        mask_values: the value of each class in the masks; ``auto``: those found. Pixels of value
            255 are ignored if 255 is not among them.
        val_fraction: share for validation where there is no ``val`` folder.
        test_fraction: share for the test where there are no split folders at all; 0 for none.
        split_seed: another seed, another division.
        splits: the folder of each split, ``{train: part1, val: part2}`` for example; ``auto``:
            by the usual names, see `zoo.data.folders`.
        options: see :class:`~zoo.data.masks.tiles.Tiling`. Images that are smaller than a
            ``tile_size`` are mirrored; without one, they must have one size.
    """

    changeable = ("root", "folder")

    def __init__(
        self,
        folder: str,
        *,
        root: str = "data",
        tiles_per_image: int = 1,
        in_channels: int = 3,
        max_value: int | None = None,
        background: str = "white",
        flips: Flips = "horizontal",
        elastic: float = 0.0,
        jitter: float = 0.0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        class_names: Literal["auto"] | Sequence[str] = "auto",
        mask_values: Literal["auto"] | Sequence[int] = "auto",
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        splits: SplitFolders = "auto",
        **options: Unpack[TilingOptions],
    ) -> None:
        super().__init__()
        self.tiling = Tiling(
            tiles_per_image=tiles_per_image, flips=flips, elastic=elastic, jitter=jitter, **options
        )
        if in_channels not in (1, 3):
            raise ValueError(f"in_channels must be 1 or 3, not {in_channels}")
        check_fractions(val_fraction, test_fraction)
        self.reader = ImageReader(max_value, background)
        grey = in_channels == 1
        self.normalize = NormalizeAnySize(
            (GREY_MEAN if grey else IMAGENET_MEAN) if mean is None else mean,
            (GREY_STD if grey else IMAGENET_STD) if std is None else std,
        )
        if len(self.normalize.mean) != in_channels:
            raise ValueError(f"mean must have in_channels = {in_channels} values, not {mean}")
        self.mask_values = () if mask_values == "auto" else _check_values(mask_values)
        self.class_names = () if class_names == "auto" else tuple(class_names)
        if self.mask_values and self.class_names:
            self._check_names()
        check_splits(splits)
        self.folder = locate(folder, root)
        self.given = splits
        self.in_channels = in_channels
        self.image_size = self.tiling.tile_size
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.split_seed = split_seed

    @property
    def splits(self) -> tuple[str, ...]:
        """Train, val and, if the folder has one or is divided by us, test."""
        return splits_of(split_folders(self.folder, self.given), self.test_fraction)

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        self.notes = []
        pairs = self._pairs()
        masks = {mask: read_mask(mask) for part in pairs.values() for _, mask in part}
        if not self.mask_values:
            self.mask_values = _find_values(self.folder, masks)
        self.notes.append(self._summary(pairs, masks))
        self.class_names = self.class_names or tuple(str(value) for value in self.mask_values)
        self._check_names()
        splits = {
            split: [self._sample(pair, masks[pair[1]][0]) for pair in part]
            for split, part in pairs.items()
        }
        note = depth_note([image for image, _ in pairs["train"]], self.reader)
        self.notes += [] if note is None else [note]
        height, width = training_tile(splits["train"], self.tiling)
        self.image_size = height if height == width else None
        self.loaders = tiled_loaders(
            splits,
            self.tiling,
            num_classes=len(self.class_names),
            normalize=self.normalize,
            seed=seed,
            device=device,
            part=part,
        )

    def facts(self) -> dict[str, Any]:
        if not self.class_names:
            raise RuntimeError("MaskFolder.setup() must be called before its facts are known")
        return super().facts()

    def resolved(self) -> dict[str, Any]:
        if not (self.mask_values and self.class_names):
            return {}
        return {"class_names": list(self.class_names), "mask_values": list(self.mask_values)}

    def _check_names(self) -> None:
        if len(self.class_names) != len(self.mask_values):
            raise ValueError(
                f"class_names must be as many as the values in the masks "
                f"({', '.join(map(str, self.mask_values))}), not {', '.join(self.class_names)}"
            )

    def _pairs(self) -> dict[str, list[Pair]]:
        """The files of each split."""
        if not self.folder.is_dir():
            raise DataError(
                f"{self.folder} is not a folder: name one that holds images and masks, or "
                f"train/images and train/masks"
            )
        places = split_folders(self.folder, self.given)
        if places and self.given == "auto":
            check_beside(self.folder, places, SUFFIXES)
        skipped: Counter[str] = Counter()
        pairs = divide_folder(
            self.folder,
            places,
            lambda folder: list_pairs(folder, skipped),
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            seed=self.split_seed,
        )
        self.notes += filter(None, [skipped_note(skipped)])
        return pairs

    def _summary(self, pairs: dict[str, list[Pair]], masks: dict[Path, tuple[Tensor, bool]]) -> str:
        """How many images there are in each split, and what the values in their masks mean."""
        splits = ", ".join(f"{len(found):,} {split}" for split, found in pairs.items())
        values = ", ".join(
            f"{value} is {number}" for number, value in enumerate(self.mask_values[:MAX_GREYS])
        )
        ignored = NO_CLASS not in self.mask_values and any(
            bool((mask == NO_CLASS).any()) for mask, _ in masks.values()
        )
        note = f"images of {self.folder}: {splits}; of the values in the masks, {values}"
        return f"{note}; {NO_CLASS} is ignored" if ignored else f"{note}; all count"

    def _sample(self, pair: Pair, values: Tensor) -> Labelled:
        numbers = {value: number for number, value in enumerate(self.mask_values)}
        mask = to_classes(
            pair[1],
            values,
            {NO_CLASS: NO_CLASS} | numbers,
            advice="correct the mask, or add the value to mask_values",
        )
        sample = read_image(pair[0], self.in_channels, self.reader), mask
        check_pair(*pair, sample)
        return sample


def list_pairs(folder: Path, skipped: Counter[str] | None = None) -> list[Pair]:
    """All images in ``folder/images``, in the order of their names, with their masks.

    Args:
        folder: where the two folders are.
        skipped: counts files that are not read, see :func:`~zoo.data.folders.list_files`.

    Raises:
        DataError: if there are none, or an image or mask has no partner.
    """
    images, masks = folder / "images", folder / "masks"
    for part in (images, masks):
        if not part.is_dir():
            raise DataError(
                f"{part} is not a folder: put images into {images} and the mask of each, of the "
                f"same name but ending in .png, into {masks}"
            )
    found: dict[str, Path] = {}
    for file in list_files(images, SUFFIXES, skipped=skipped, enter=lambda folder: False):
        path = Path(file)
        if path.stem in found:
            raise DataError(
                f"{found[path.stem]} and {path.name} would have the same mask: rename one of them"
            )
        found[path.stem] = path
    if not found:
        raise DataError(f"{images} holds no images ({', '.join(SUFFIXES)}): add some")
    there = list_files(masks, (".png",), skipped=skipped, enter=lambda folder: False)
    partners = {path.stem: path for path in map(Path, there)}
    for stem, path in found.items():
        if stem not in partners:
            other = next((p.name for p in masks.glob(f"{stem}.*")), None)
            hint = f" (there is {other}, but masks must be PNG files)" if other else ""
            raise DataError(
                f"{path} has no mask {masks / stem}.png{hint}: add it, or remove the image"
            )
    if spare := sorted(set(partners) - set(found)):
        raise DataError(
            f"{partners[spare[0]]} has no image of this name in {images}: add it, or remove the "
            f"mask"
        )
    return [(path, partners[stem]) for stem, path in found.items()]


def _find_values(folder: Path, masks: dict[Path, tuple[Tensor, bool]]) -> tuple[int, ...]:
    """The values of the classes in the masks, in ascending order.

    Two values are classes whatever they are: 0 and 255 make a black and white image. With
    more, 255 beside nothing but small numbers is what it is everywhere else, no class.
    """
    kinds: dict[bool, Path] = {}
    found: dict[int, Path] = {}
    for path, (values, indexed) in masks.items():
        kinds.setdefault(indexed, path)
        for value in values.unique().tolist():
            found.setdefault(value, path)
        if len(kinds) > 1:
            raise DataError(
                f"{kinds[True]} is an indexed (palette) mask, but {kinds[False]} a grey one: save "
                f"all masks in the same way, or give mask_values"
            )
        if not indexed and len(found) > MAX_GREYS:
            raise DataError(
                f"{path} holds too many grey values for a mask (with those before it, "
                f"{len(found)}): save masks without smoothing and not by way of JPEG, or give "
                f"mask_values"
            )
    if True in kinds:
        found.pop(NO_CLASS, None)
        found = dict.fromkeys(range(max(found, default=-1) + 1), folder)
        if found and max(found) >= UNKNOWN:
            raise DataError(f"{kinds[True]} and others hold class numbers above {UNKNOWN - 1}")
    elif len(found) > 2 and max(v for v in found if v != NO_CLASS) < CLASS_NUMBERS:
        found.pop(NO_CLASS, None)
    if len(found) < 2:
        raise DataError(
            f"the masks in {folder} hold {len(found)} class{'' if len(found) == 1 else 'es'}, not "
            f"at least 2: give mask_values if others can occur"
        )
    return tuple(sorted(found))


def _check_values(values: Sequence[int]) -> tuple[int, ...]:
    different = len(set(values)) == len(values) and 2 <= len(values) <= UNKNOWN
    if not different or any(not 0 <= value <= 255 for value in values):
        raise ValueError(
            f"mask_values must be 2 to {UNKNOWN} different numbers from 0 to 255, "
            f"not {list(values)}"
        )
    return tuple(values)
