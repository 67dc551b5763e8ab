"""A folder of images in class folders, in memory if they fit and streamed from disk if not.

Either ``folder/train/<class>/*.jpg`` with ``folder/val`` and ``folder/test`` alike (a missing
``val`` is taken from ``train``; a missing ``test`` stays missing), or ``folder/<class>/*.jpg``,
which is divided at random, stratified.

ImageNet (`data=imagenet`) is such a folder, with ``train`` and ``val`` as torchvision and timm have
them. The labels of its test images are not public, so it has no test split here: as in every
published table, ``val`` selects and reports at once, which flatters a little.
"""

from typing import Unpack

from zoo.data.download import DataError
from zoo.data.files import own_path
from zoo.data.images.from_files import ImagesFromFiles, ReadingOptions
from zoo.data.images.reading import Sample, class_folders, list_images
from zoo.data.splits import check_fractions, divide_folder, folder_splits


class ImageFolder(ImagesFromFiles):
    """Batches of images, cut to a centred square and resized, and their classes.

    In memory or streamed, the batches are the same; only the time they take is not. In memory,
    images are kept as bytes on the training device.

    Args:
        folder: the folder, from where you stand or within ``root``.
        batch_size: images a batch.
        image_size: height and width that images are resized to.
        resize: length of the shorter side from whose middle an image is cut (256 for ImageNet's
            usual 224); ``None``: the largest centred square is resized.
        in_channels: 3 (RGB) or 1 (grey), whatever the files hold.
        val_fraction: share for validation where there is no ``val`` folder.
        test_fraction: share for the test where there are no split folders at all; 0 for none.
        split_seed: another seed, another division.
        options: see :class:`~zoo.data.images.from_files.ImagesFromFiles`; ``class_names`` are those
            of the class folders, ``auto``: sorted.
    """

    changeable = ("root", "folder", "num_workers")

    def __init__(
        self,
        folder: str,
        *,
        batch_size: int = 128,
        image_size: int = 32,
        resize: int | None = None,
        in_channels: int = 3,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        **options: Unpack[ReadingOptions],
    ) -> None:
        if in_channels not in (1, 3):
            raise ValueError(f"in_channels must be 1 or 3, not {in_channels}")
        self.in_channels = in_channels
        super().__init__(batch_size=batch_size, image_size=image_size, resize=resize, **options)
        check_fractions(val_fraction, test_fraction)
        self.folder = own_path(self.root, folder)
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
                f"{self.folder} is not a folder: name one that holds a folder of images per class, "
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
