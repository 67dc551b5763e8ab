"""A folder of images in class folders, in memory if they fit and streamed from disk if not.

Either ``folder/train/<class>/*.jpg`` with ``folder/val`` and ``folder/test`` alike (a missing
``val`` is taken from ``train``; a missing ``test`` stays missing), or ``folder/<class>/*.jpg``,
which is divided at random, stratified.

ImageNet (`data=imagenet`) is such a folder, with ``train`` and ``val`` as torchvision and timm have
them. The labels of its test images are not public, so it has no test split here: as in every
published table, ``val`` selects and reports at once, which flatters a little.
"""

from collections import Counter
from pathlib import Path
from typing import Any, Unpack

from zoo.data.download import DataError
from zoo.data.files import locate
from zoo.data.folders import (
    SplitFolders,
    check_beside,
    check_splits,
    divide_folder,
    skipped_note,
    split_folders,
    splits_of,
    subfolders,
)
from zoo.data.images.from_files import ImagesFromFiles, ReadingOptions
from zoo.data.images.opening import SUFFIXES, ImageReader
from zoo.data.images.reading import WHOLE, Sample, class_folders, list_images
from zoo.data.splits import check_fractions

MOST_CLASSES = 12  # that are named at the start
LABELS = ("num_classes", "class_names")  # facts that there are only with two classes or more


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
        max_value: see :class:`~zoo.data.images.opening.ImageReader`.
        background: likewise.
        val_fraction: share for validation where there is no ``val`` folder.
        test_fraction: share for the test where there are no split folders at all; 0 for none.
        split_seed: another seed, another division.
        splits: the folder of each split, ``{train: part1, val: part2}`` for example; ``auto``:
            by the usual names, see `zoo.data.folders`.
        options: see :class:`~zoo.data.images.from_files.ImagesFromFiles`; ``class_names`` are those
            of the class folders, ``auto``: sorted. One that looks like a split must be named there.
    """

    changeable = ("root", "folder", "cache", "num_workers")

    def __init__(
        self,
        folder: str,
        *,
        batch_size: int = 128,
        image_size: int = 32,
        resize: int | None = None,
        in_channels: int = 3,
        max_value: int | None = None,
        background: str = "white",
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        splits: SplitFolders = "auto",
        **options: Unpack[ReadingOptions],
    ) -> None:
        if in_channels not in (1, 3):
            raise ValueError(f"in_channels must be 1 or 3, not {in_channels}")
        self.in_channels = in_channels
        super().__init__(batch_size=batch_size, image_size=image_size, resize=resize, **options)
        check_fractions(val_fraction, test_fraction)
        self.reader = ImageReader(max_value, background)
        check_splits(splits)
        self.folder = locate(folder, self.root)
        self.given = splits
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.split_seed = split_seed

    @property
    def splits(self) -> tuple[str, ...]:
        """Train, val and, if the folder has one or is divided by us, test."""
        return splits_of(self._split_folders(), self.test_fraction)

    def _split_folders(self) -> dict[str, Path]:
        return split_folders(self.folder, self.given, not_splits=self.class_names)

    def _samples(self) -> dict[str, list[Sample]]:
        """Files and labels of each split."""
        if not self.folder.is_dir():
            raise DataError(
                f"{self.folder} is not a folder: name one that holds a folder of images per class, "
                f"or train/<class> and val/<class>"
            )
        places, by_name = self._split_folders(), self.given == "auto"
        if places and by_name:
            check_beside(self.folder, places, SUFFIXES)
        train_folder = places.get("train", self.folder)
        found = class_folders(train_folder, self.class_names, any_name=not by_name) or [WHOLE]
        if self.class_names and set(self.class_names) != set(found):
            raise DataError(
                f"{train_folder} holds the classes {', '.join(found)}, not "
                f"{', '.join(self.class_names)} as class_names says"
            )
        self.class_names = self.class_names or tuple(found)
        skipped: Counter[str] = Counter()
        samples = divide_folder(
            self.folder,
            places,
            lambda folder: list_images(
                folder, self.class_names, skipped=skipped, any_name=not by_name
            ),
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            label=lambda sample: sample[1],
            seed=self.split_seed,
        )
        self.notes.append(self._summary(samples, places))
        self.notes += filter(None, [skipped_note(skipped)])
        return samples

    def _summary(self, samples: dict[str, list[Sample]], places: dict[str, Path]) -> str:
        """How many images there are in each split, and of each class in training."""
        splits = []
        for split, found in samples.items():
            name = places[split].name if split in places else split
            splits.append(f"{len(found):,} {split}" + (f" ({name})" if name != split else ""))
        counts = Counter(label for _, label in samples["train"])
        classes = [f"{name} {counts[i]:,}" for i, name in enumerate(self.class_names)]
        if len(classes) > MOST_CLASSES:
            more = len(classes) - MOST_CLASSES
            classes = [*classes[:MOST_CLASSES], f"and {more:,} more classes"]
        if self.class_names == (WHOLE,):
            classes = ["no classes"]
        return f"images of {self.folder}: {', '.join(splits)}; in train: {', '.join(classes)}"

    def facts(self) -> dict[str, Any]:
        facts = super().facts()
        without = LABELS if len(self.class_names) == 1 else ()
        return {name: fact for name, fact in facts.items() if name not in without}

    def lacks(self) -> dict[str, str]:
        if len(self.class_names) > 1:
            return {}
        place, (name,) = self._split_folders().get("train", self.folder), self.class_names
        within = subfolders(place / name)
        if name == WHOLE:
            reason = f"{place} holds images, but no folder for each class: make them"
        elif not within:
            reason = f"{place} holds one class, {name}, and at least 2 are needed: add another"
        else:
            names = ", ".join(within[:5]) + (", ..." if len(within) > 5 else "")
            advice = f"set data.folder={place / name}" if place == self.folder else "move them up"
            reason = (
                f"{place} holds one folder, {name}, and with it one class: if the folders in "
                f"that one ({names}) are the classes, {advice}"
            )
        return dict.fromkeys(LABELS, reason)
