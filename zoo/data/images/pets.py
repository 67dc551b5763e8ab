"""Oxford-IIIT Pet: 7,349 photographs of cats and dogs of 37 breeds.

Parkhi, Vedaldi, Zisserman and Jawahar, 2012, "Cats and Dogs",
https://www.robots.ox.ac.uk/~vgg/data/pets. The published split has 3,680 photographs for training
and validation and 3,669 for the test; some of the former are set aside for validation, stratified
by breed. Its outlines of the animals are in `zoo.data.masks.pets`, with the same splits.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from zoo.data.download import torchvision_download
from zoo.data.images.from_files import FilePreset, ImagesFromFiles
from zoo.data.images.reading import Sample
from zoo.data.splits import check_fractions, divide

SOURCE = "https://www.robots.ox.ac.uk/~vgg/data/pets"


class Pets(ImagesFromFiles):
    """Photographs and their breeds, streamed from their files or in memory.

    The files are those of torchvision, in ``root/oxford-iiit-pet``; if they are missing,
    torchvision downloads them (800 MB) and compares checksums.

    Args:
        root: folder of all downloads.
        batch_size: images a batch.
        image_size: height and width that images are resized to.
        resize: length of the shorter side from whose middle an image is cut; ``None``: the largest
            centred square is resized.
        augment: as for :class:`~zoo.data.images.image_folder.ImageFolder`.
        mixup: alpha of mixup in training; 0: none. With both, half the samples have either.
        cutmix: alpha of CutMix in training; 0: none.
        mean: of each channel, for values from 0 to 1; ``None``: ImageNet's.
        std: of each channel, likewise.
        class_names: ``auto``: the names that torchvision gives.
        in_memory: ``auto``: if all images together take at most 2 GiB and a quarter of the free
            memory of the device.
        num_workers: processes that read files while streaming.
        val_fraction: share of the published training images for validation.
        split_seed: another seed, another choice of validation images.
    """

    splits = ("train", "val", "test")

    def __init__(
        self,
        *,
        root: str = "data",
        batch_size: int = 64,
        image_size: int = 224,
        resize: int | None = 256,
        augment: FilePreset = "none",
        mixup: float = 0.0,
        cutmix: float = 0.0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        class_names: Literal["auto"] | Sequence[str] = "auto",
        in_memory: Literal["auto"] | bool = "auto",
        num_workers: int = 2,
        val_fraction: float = 0.1,
        split_seed: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            image_size=image_size,
            resize=resize,
            in_channels=3,
            augment=augment,
            mixup=mixup,
            cutmix=cutmix,
            mean=mean,
            std=std,
            in_memory=in_memory,
            num_workers=num_workers,
        )
        check_fractions(val_fraction)
        self.root = root
        self.class_names = () if class_names == "auto" else tuple(class_names)
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
    with torchvision_download(
        f"Oxford-IIIT Pet not found in {Path(root) / 'oxford-iiit-pet'}",
        source=SOURCE,
        advice="unpack images.tar.gz and annotations.tar.gz there by hand",
    ):
        from torchvision import datasets

        trainval, test = (
            datasets.OxfordIIITPet(root, split=split, target_types=target, download=True)
            for split in ("trainval", "test")
        )
    return trainval, test
