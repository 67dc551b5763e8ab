"""A folder of images in class folders, in memory if they fit and streamed from disk if not.

Either ``folder/train/<class>/*.jpg`` with ``folder/val`` and ``folder/test`` alike (a missing
``val`` is taken from ``train``; a missing ``test`` stays missing), or ``folder/<class>/*.jpg``,
which is divided at random, stratified.

ImageNet (`data=imagenet`) is such a folder, with ``train`` and ``val`` as torchvision and timm have
them. The labels of its test images are not public, so it has no test split here: as in every
published table, ``val`` selects and reports at once, which flatters a little.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from zoo.data.download import DataError
from zoo.data.images.from_files import FilePreset, ImagesFromFiles
from zoo.data.images.reading import Sample, class_folders, list_images
from zoo.data.splits import check_fractions, divide_folder, folder_splits


class ImageFolder(ImagesFromFiles):
    """Batches of images, cut to a centred square and resized, and their classes.

    In memory or streamed, the batches are the same; only the time they take is not. In memory,
    images are kept as bytes on the training device.

    Args:
        folder: the folder, absolute or within ``root``.
        root: folder of all data.
        batch_size: images a batch.
        image_size: height and width that images are resized to.
        resize: length of the shorter side from whose middle an image is cut (256 for ImageNet's
            usual 224); ``None``: the largest centred square is resized.
        in_channels: 3 (RGB) or 1 (grey), whatever the files hold.
        augment: a preset of `zoo.data.augmentation.presets`, for batches: ``none``, ``affine``,
            ``crop_flip``, ``crop_flip_colour``, ``alexnet``, ``randaugment``,
            ``crop_flip_erase``; or ``resized_crop_flip`` (a random part of 8 to 100 % of the
            image, resized, mirrored half the time), ``resized_crop_flip_colour`` or
            ``resized_crop_randaugment``, which start from the file each time and so need streaming.
        mixup: alpha of mixup in training; 0: none. With both, half the samples have either.
        cutmix: alpha of CutMix in training; 0: none.
        mean: of each channel, for values from 0 to 1; ``None``: ImageNet's.
        std: of each channel, likewise.
        class_names: names of the class folders in the order of the labels; ``auto``: sorted.
        in_memory: ``auto``: if all images together take at most 2 GiB and a quarter of the free
            memory of the device.
        num_workers: processes that read files while streaming.
        val_fraction: share for validation where there is no ``val`` folder.
        test_fraction: share for the test where there are no split folders at all; 0 for none.
        split_seed: another seed, another division.
    """

    changeable = ("root", "folder", "num_workers")

    def __init__(
        self,
        folder: str,
        *,
        root: str = "data",
        batch_size: int = 128,
        image_size: int = 32,
        resize: int | None = None,
        in_channels: int = 3,
        augment: FilePreset = "none",
        mixup: float = 0.0,
        cutmix: float = 0.0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        class_names: Literal["auto"] | Sequence[str] = "auto",
        in_memory: Literal["auto"] | bool = "auto",
        num_workers: int = 2,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            image_size=image_size,
            resize=resize,
            in_channels=in_channels,
            augment=augment,
            mixup=mixup,
            cutmix=cutmix,
            mean=mean,
            std=std,
            in_memory=in_memory,
            num_workers=num_workers,
        )
        check_fractions(val_fraction, test_fraction)
        self.folder = Path(root) / folder
        self.class_names = () if class_names == "auto" else tuple(class_names)
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.split_seed = split_seed

    @property
    def splits(self) -> tuple[str, ...]:
        """Train, val and, if the folder has one or is divided by us, test."""
        return folder_splits(self.folder, self.test_fraction)

    def _samples(self) -> dict[str, list[Sample]]:
        """Files and labels of each split."""
        if not self.folder.is_dir():
            raise DataError(
                f"{self.folder} is no folder: name one that holds a folder of images per class, "
                f"or train/<class> and val/<class>"
            )
        train_folder = self.folder / "train" if (self.folder / "train").is_dir() else self.folder
        found = class_folders(train_folder)
        if self.class_names and set(self.class_names) != set(found):
            raise DataError(
                f"{train_folder} holds the classes {', '.join(found)}, not "
                f"{', '.join(self.class_names)} as class_names says"
            )
        self.class_names = self.class_names or tuple(found)
        return divide_folder(
            self.folder,
            lambda folder: list_images(folder, self.class_names),
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            label=lambda sample: sample[1],
            seed=self.split_seed,
        )
