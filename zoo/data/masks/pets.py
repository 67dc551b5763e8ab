"""Outlines of the animals in the photographs of Oxford-IIIT Pet.

Parkhi, Vedaldi, Zisserman and Jawahar, 2012: see `zoo.data.images.pets`, which has their breeds,
and with the same ``val_fraction`` and ``split_seed`` the same photographs in each split.
"""

from typing import Literal, Unpack

from zoo.data.augmentation.deformation import NO_CLASS
from zoo.data.images.pets import published
from zoo.data.masks.from_files import MaskOptions, Pair, StreamedMasks
from zoo.data.splits import check_fractions, divide


class PetsSegmentation(StreamedMasks):
    """Photographs and their outlines, resized: tiles for training, whole ones for evaluation.

    The files are those of :class:`~zoo.data.images.pets.Pets`. In them, a narrow border around each
    animal is neither animal nor background.

    Args:
        batch_size: tiles a batch.
        tile_size: height and width of a tile.
        short_side: length that the shorter side of a photograph is resized to, its mask with it;
            ``None``: its own.
        border: ``class``: the border is a class of its own; ``ignore``: it does not count.
        val_fraction: share of the published training images for validation.
        split_seed: another seed, another choice of validation images.
        options: see :class:`~zoo.data.masks.from_files.StreamedMasks`.
    """

    splits = ("train", "val", "test")

    def __init__(
        self,
        *,
        batch_size: int = 16,
        tile_size: int = 128,
        short_side: int | None = 128,
        border: Literal["class", "ignore"] = "class",
        val_fraction: float = 0.1,
        split_seed: int = 0,
        **options: Unpack[MaskOptions],
    ) -> None:
        if border not in ("class", "ignore"):
            raise ValueError(f"border must be 'class' or 'ignore', not {border!r}")
        check_fractions(val_fraction)
        super().__init__(
            batch_size=batch_size,
            tile_size=tile_size,
            short_side=short_side,
            classes={1: 1, 2: 0, 3: 2 if border == "class" else NO_CLASS},
            **options,
        )
        names = ("background", "pet", "border")
        self.class_names = names if border == "class" else names[:2]
        self.val_fraction = val_fraction
        self.split_seed = split_seed

    def _pairs(self) -> dict[str, list[Pair]]:
        trainval, test = published(self.root, "segmentation")
        every = list(zip(trainval._images, trainval._segs, strict=True))
        parts = divide(trainval._labels, {"val": self.val_fraction}, seed=self.split_seed)
        return {
            **{split: [every[i] for i in index.tolist()] for split, index in parts.items()},
            "test": list(zip(test._images, test._segs, strict=True)),
        }
