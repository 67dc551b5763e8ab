"""Oxford-IIIT Pet: 7,349 photographs of cats and dogs of 37 breeds, with outlines of the animals.

Parkhi, Vedaldi, Zisserman and Jawahar, 2012, "Cats and Dogs",
https://www.robots.ox.ac.uk/~vgg/data/pets. The published split has 3,680 photographs for training
and validation and 3,669 for the test; some of the former are set aside for validation, stratified
by breed, the same ones for breeds and for outlines.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from zoo.data.augmentation.deformation import IGNORED
from zoo.data.download import torchvision_download
from zoo.data.images.from_files import FilePreset, ImagesFromFiles
from zoo.data.images.reading import Sample
from zoo.data.masks.from_files import Pair, StreamedMasks
from zoo.data.sampling import split_indices

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
        _check_fraction(val_fraction)
        self.root = root
        self.class_names = () if class_names == "auto" else tuple(class_names)
        self.val_fraction = val_fraction
        self.split_seed = split_seed

    def _samples(self) -> dict[str, list[Sample]]:
        trainval, test = _published(self.root, "category")
        self.class_names = self.class_names or tuple(trainval.classes)
        every = [(str(p), n) for p, n in zip(trainval._images, trainval._labels, strict=True)]
        train, val = _divide(trainval._labels, self.val_fraction, self.split_seed)
        return {
            "train": [every[i] for i in train.tolist()],
            "val": [every[i] for i in val.tolist()],
            "test": [(str(p), n) for p, n in zip(test._images, test._labels, strict=True)],
        }


class PetsSegmentation(StreamedMasks):
    """Photographs and their outlines, resized: tiles for training, whole ones for evaluation.

    The files are those of :class:`Pets`. In them, a narrow border around each animal is neither
    animal nor background.

    Args:
        root: folder of all downloads.
        batch_size: tiles a batch.
        tile_size: height and width of a tile.
        short_side: length that the shorter side of a photograph is resized to, its mask with it;
            ``None``: its own.
        border: ``class``: the border is a class of its own; ``ignore``: it does not count.
        flips: of training tiles. ``horizontal``: mirror half of them; ``all``: the eight
            symmetries of a square.
        jitter: greatest change of brightness and contrast; 0 for none.
        num_workers: processes that read files.
        val_fraction: share of the published training images for validation.
        split_seed: another seed, another choice of validation images.
    """

    splits = ("train", "val", "test")

    def __init__(
        self,
        *,
        root: str = "data",
        batch_size: int = 16,
        tile_size: int = 128,
        short_side: int | None = 128,
        border: Literal["class", "ignore"] = "class",
        flips: Literal["none", "horizontal", "all"] = "horizontal",
        jitter: float = 0.0,
        num_workers: int = 2,
        val_fraction: float = 0.1,
        split_seed: int = 0,
    ) -> None:
        if border not in ("class", "ignore"):
            raise ValueError(f"border must be 'class' or 'ignore', not {border!r}")
        _check_fraction(val_fraction)
        super().__init__(
            batch_size=batch_size,
            tile_size=tile_size,
            short_side=short_side,
            flips=flips,
            jitter=jitter,
            num_workers=num_workers,
            classes={1: 1, 2: 0, 3: 2 if border == "class" else IGNORED},
        )
        names = ("background", "pet", "border")
        self.class_names = names if border == "class" else names[:2]
        self.root = root
        self.val_fraction = val_fraction
        self.split_seed = split_seed

    def _pairs(self) -> dict[str, list[Pair]]:
        trainval, test = _published(self.root, "segmentation")
        every = list(zip(trainval._images, trainval._segs, strict=True))
        train, val = _divide(trainval._labels, self.val_fraction, self.split_seed)
        return {
            "train": [every[i] for i in train.tolist()],
            "val": [every[i] for i in val.tolist()],
            "test": list(zip(test._images, test._segs, strict=True)),
        }


def _published(root: str, target: str) -> tuple[Any, Any]:
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


def _divide(labels: list[int], val_fraction: float, split_seed: int) -> list[Tensor]:
    return split_indices(labels, (1 - val_fraction, val_fraction), seed=split_seed)


def _check_fraction(val_fraction: float) -> None:
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction must be between 0 and 1, not {val_fraction}")
