"""Oxford-IIIT Pet: 7,349 photographs of cats and dogs of 37 breeds.

Parkhi, Vedaldi, Zisserman and Jawahar, 2012, "Cats and Dogs",
https://www.robots.ox.ac.uk/~vgg/data/pets. The published split has 3,680 photographs for training
and validation and 3,669 for the test; some of the former are set aside for validation, stratified
by breed. Its outlines of the animals are in `zoo.data.masks.pets`, with the same splits.
"""

from pathlib import Path
from typing import Any, Unpack

from zoo.data.download import torchvision_download
from zoo.data.images.from_files import FileOptions, ImagesFromFiles
from zoo.data.images.reading import Sample
from zoo.data.splits import check_fractions, divide

SOURCE = "https://www.robots.ox.ac.uk/~vgg/data/pets"


class Pets(ImagesFromFiles):
    """Photographs and their breeds, streamed from their files or in memory.

    The files are those of torchvision, in ``root/oxford-iiit-pet``; if they are missing,
    torchvision downloads them (800 MB) and compares checksums.

    Args:
        val_fraction: share of the published training images for validation.
        split_seed: another seed, another choice of validation images.
        options: see :class:`~zoo.data.images.from_files.ImagesFromFiles`.
    """

    splits = ("train", "val", "test")

    def __init__(
        self, *, val_fraction: float = 0.1, split_seed: int = 0, **options: Unpack[FileOptions]
    ) -> None:
        super().__init__(**options)
        check_fractions(val_fraction)
        self.val_fraction = val_fraction
        self.split_seed = split_seed

    def _samples(self) -> dict[str, list[Sample]]:
        trainval, test = published(self.root, "category")
        self.class_names = self.class_names or tuple(trainval.classes)
        every = [(str(p), n) for p, n in zip(trainval._images, trainval._labels, strict=True)]
        parts = divide(trainval._labels, {"val": self.val_fraction}, seed=self.split_seed)
        return {
            **{split: [every[i] for i in index.tolist()] for split, index in parts.items()},
            "test": [(str(p), n) for p, n in zip(test._images, test._labels, strict=True)],
        }


def published(root: str, target: str) -> tuple[Any, Any]:
    """Both published parts, as torchvision's data sets; downloads them if they are missing."""
    folder = Path(root) / "oxford-iiit-pet"
    with torchvision_download(
        f"Oxford-IIIT Pet not found in {folder}",
        folder=folder,
        source=SOURCE,
        advice="unpack images.tar.gz and annotations.tar.gz there by hand",
    ):
        from torchvision import datasets

        trainval, test = (
            datasets.OxfordIIITPet(root, split=split, target_types=target, download=True)
            for split in ("trainval", "test")
        )
    return trainval, test
