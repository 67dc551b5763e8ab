"""A folder of pictures in class folders, in memory if they fit and streamed from disk if not.

Either ``folder/train/<class>/*.jpg`` with ``folder/val`` and ``folder/test`` alike (a missing
``val`` is taken from ``train``; a missing ``test`` stays missing), or ``folder/<class>/*.jpg``,
which is divided at random, stratified.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from zoo.data.augmentation import Augmentation, HorizontalFlip, RandomCrop
from zoo.data.download import DataError
from zoo.data.loaders import StreamLoader, TensorLoader
from zoo.data.module import check_batch_size
from zoo.data.picture import Normalize, PictureModule, fit_square
from zoo.data.picture_files import (
    PictureFiles,
    Sample,
    available_memory,
    class_folders,
    list_pictures,
    load_all,
)
from zoo.data.sampling import split_indices

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GREY_MEAN, GREY_STD = (0.449,), (0.226,)  # their averages
MEMORY_LIMIT = 2 * 2**30  # bytes of pictures beyond which "auto" streams them


class ImageFolder(PictureModule):
    """Batches of pictures, cut to the largest centred square and resized, and their classes.

    In memory or streamed, the batches are the same; only the time they take is not. In memory,
    pictures are kept as bytes on the training device.

    Args:
        folder: the folder, absolute or within ``root``.
        root: folder of all data.
        batch_size: pictures a batch.
        image_size: height and width that pictures are resized to.
        in_channels: 3 (RGB) or 1 (grey), whatever the files hold.
        augment: ``crop_flip``: pad by an eighth, crop at random, mirror half of them (CIFAR);
            ``resized_crop_flip``: a random part of 8 to 100 % of the picture, resized, mirrored
            half the time (ImageNet), which starts from the file each time and so needs streaming.
        mean: of each channel, for values from 0 to 1; ``None``: ImageNet's.
        std: of each channel, likewise.
        class_names: names of the class folders in the order of the labels; ``auto``: sorted.
        in_memory: ``auto``: if all pictures together take at most 2 GiB and a quarter of the free
            memory of the device.
        num_workers: processes that read files while streaming.
        val_fraction: share for validation where there is no ``val`` folder.
        test_fraction: share for the test where there are no split folders at all; 0 for none.
        split_seed: another seed, another division.
    """

    def __init__(
        self,
        folder: str,
        *,
        root: str = "data",
        batch_size: int = 128,
        image_size: int = 32,
        in_channels: int = 3,
        augment: Literal["none", "crop_flip", "resized_crop_flip"] = "none",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        class_names: Literal["auto"] | Sequence[str] = "auto",
        in_memory: Literal["auto"] | bool = "auto",
        num_workers: int = 2,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
    ) -> None:
        super().__init__()
        check_batch_size(batch_size)
        if image_size < 1:
            raise ValueError(f"image_size must be at least 1, not {image_size}")
        if in_channels not in (1, 3):
            raise ValueError(f"in_channels must be 1 or 3, not {in_channels}")
        if augment not in ("none", "crop_flip", "resized_crop_flip"):
            raise ValueError(
                f"augment must be 'none', 'crop_flip' or 'resized_crop_flip', not {augment!r}"
            )
        if in_memory not in ("auto", True, False):
            raise ValueError(f"in_memory must be 'auto', true or false, not {in_memory!r}")
        if in_memory is True and augment == "resized_crop_flip":
            raise ValueError("in_memory must not be true with augment 'resized_crop_flip'")
        if num_workers < 0:
            raise ValueError(f"num_workers must not be negative, not {num_workers}")
        if not 0 < val_fraction < 1:
            raise ValueError(f"val_fraction must be between 0 and 1, not {val_fraction}")
        if not 0 <= test_fraction < 1 - val_fraction:
            raise ValueError(
                f"test_fraction must be in [0, {1 - val_fraction:g}), so that something is left "
                f"for training, not {test_fraction}"
            )
        default_mean, default_std = (
            (GREY_MEAN, GREY_STD) if in_channels == 1 else (IMAGENET_MEAN, IMAGENET_STD)
        )
        self.normalize = Normalize(
            default_mean if mean is None else mean, default_std if std is None else std
        )
        if len(self.normalize.mean) != in_channels:
            raise ValueError(f"mean must have in_channels = {in_channels} values, not {mean}")
        self.folder = Path(root) / folder
        self.batch_size = batch_size
        self.image_size = image_size
        self.in_channels = in_channels
        self.augment = augment
        self.class_names = () if class_names == "auto" else tuple(class_names)
        self.in_memory = in_memory
        self.num_workers = num_workers
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.split_seed = split_seed

    @property
    def splits(self) -> tuple[str, ...]:
        """Train, val and, if the folder has one or is divided by us, test."""
        has_test = (
            (self.folder / "test").is_dir()
            if (self.folder / "train").is_dir()
            else self.test_fraction > 0
        )
        return ("train", "val", "test") if has_test else ("train", "val")

    def setup(self, *, seed: int = 0, device: torch.device | str = "cpu") -> None:
        samples = self._samples()
        in_memory = self._fits(samples, torch.device(device))
        for split, part in samples.items():
            train = split == "train"
            batches: dict[str, Any] = {
                "batch_size": self.batch_size,
                "shuffle": train,
                "seed": seed,
                "transform": self._finish,
                "augment": self._augmentations() if train else (),
                "device": device,
            }
            files = PictureFiles(
                part,
                image_size=self.image_size,
                in_channels=self.in_channels,
                random_part=train and self.augment == "resized_crop_flip",
            )
            if in_memory:
                self.loaders[split] = TensorLoader(load_all(files), **batches)
            else:
                self.loaders[split] = StreamLoader(files, num_workers=self.num_workers, **batches)

    def sizes(self) -> dict[str, int]:
        if not self.class_names:
            raise RuntimeError("ImageFolder.setup() must be called before its sizes are known")
        return super().sizes()

    def resolved(self) -> dict[str, Any]:
        return {"class_names": list(self.class_names)} if self.class_names else {}

    def preprocess(self, image: "Image") -> Tensor:
        """Prepares any picture: its largest centred square, resized and normalised."""
        pixels = fit_square(image, self.image_size, in_channels=self.in_channels, crop=True)
        return self.normalize(pixels.permute(2, 0, 1).unsqueeze(0))[0]  # (channels, height, width)

    def _samples(self) -> dict[str, list[Sample]]:
        """Files and labels of each split."""
        if not self.folder.is_dir():
            raise DataError(
                f"{self.folder} is no folder: name one that holds a folder of pictures per class, "
                f"or train/<class> and val/<class>"
            )
        has_splits = (self.folder / "train").is_dir()
        train_folder = self.folder / "train" if has_splits else self.folder
        found = class_folders(train_folder)
        if self.class_names and set(self.class_names) != set(found):
            raise DataError(
                f"{train_folder} holds the classes {', '.join(found)}, not "
                f"{', '.join(self.class_names)} as class_names says"
            )
        self.class_names = self.class_names or tuple(found)
        samples = {"train": list_pictures(train_folder, self.class_names)}
        if has_splits:
            for split in ("val", "test"):
                if (self.folder / split).is_dir():
                    samples[split] = list_pictures(self.folder / split, self.class_names)
        if "val" not in samples:
            shares = {"val": self.val_fraction}
            if not has_splits and self.test_fraction > 0:
                shares["test"] = self.test_fraction
            self._divide(samples, shares)
        return {split: samples[split] for split in self.splits}

    def _divide(self, samples: dict[str, list[Sample]], shares: dict[str, float]) -> None:
        """Takes the shares of other splits away from the training samples."""
        every = samples["train"]
        fractions = (1 - sum(shares.values()), *shares.values())
        indices = split_indices([label for _, label in every], fractions, seed=self.split_seed)
        for split, index in zip(("train", *shares), indices, strict=True):
            samples[split] = [every[i] for i in index.tolist()]
            if not samples[split]:
                raise DataError(
                    f"{self.folder} holds too few pictures ({len(every)}) to set some aside for "
                    f"{split}: add pictures, or raise {split}_fraction"
                )

    def _fits(self, samples: dict[str, list[Sample]], device: torch.device) -> bool:
        if self.in_memory != "auto":
            return self.in_memory
        if self.augment == "resized_crop_flip":
            return False
        count = sum(len(part) for part in samples.values())
        size = count * self.in_channels * self.image_size**2
        return size <= min(MEMORY_LIMIT, available_memory(device) // 4)

    def _finish(self, images: Tensor) -> Tensor:
        # Streamed pictures too: results may differ in the last bit between memory formats.
        return self.normalize(images.contiguous(memory_format=torch.channels_last))

    def _augmentations(self) -> tuple[Augmentation, ...]:
        if self.augment != "crop_flip":
            return ()
        return (RandomCrop(max(1, self.image_size // 8)), HorizontalFlip())
