"""Single image files: finding them in class folders, and `ImageFiles`, which opens them.

The data sets that are made of them are in `zoo.data.images.from_files`.
"""

import os
from collections import Counter
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from zoo.data.download import DataError, import_torchvision
from zoo.data.folders import list_files, split_of, subfolders
from zoo.data.images.base import fit_square
from zoo.data.images.cache import Store
from zoo.data.images.opening import SUFFIXES, ImageReader, shown

StreamedPreset = Literal[
    "resized_crop_flip", "resized_crop_flip_colour", "resized_crop_randaugment"
]
STREAMED: tuple[str, ...] = get_args(StreamedPreset)
WHOLE = "."
"""In place of the names of class folders: images of no class, that lie in the folder itself."""
LARGE_FILE = 20_000  # bytes from which on threads pay
Sample = tuple[str, Any]
"""Path of the file, and its class, or its labels or numbers as a tuple."""


class ImageFiles:
    """A map-style data set ``(image, label)``, image uint8 ``(channels, height, width)``.

    A label is a class, or float32 ``(columns,)`` where a sample has several numbers.

    Args:
        samples: file and label of each image.
        image_size: height and width to resize to.
        in_channels: 1 (grey) or 3 (RGB).
        resize: length of the shorter side before the middle is cut out; ``None``: the largest
            centred square.
        augment: a preset of :func:`streamed_preset`, instead of the middle of the image.
        reader: opens the files.
        store: images that have been decoded already.

    Raises:
        DataError: on taking a sample whose file is not a readable image.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        image_size: int,
        in_channels: int,
        resize: int | None = None,
        augment: str | None = None,
        reader: ImageReader = ImageReader(),  # noqa: B008 (it never changes)
        store: Store | None = None,
    ) -> None:
        self.samples = samples
        self.store = store
        self.reader = reader
        self.image_size = image_size
        self.in_channels = in_channels
        self.resize = resize
        self._augment = None if augment is None else streamed_preset(augment, image_size)

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int | Tensor]:
        """Reads one image."""
        path, label = self.samples[index]
        pixels = self.pixels(path).permute(2, 0, 1)  # (channels, height, width)
        return pixels, label if isinstance(label, int) else torch.tensor(label)

    def pixels(self, path: str) -> Tensor:
        """The image of a file as uint8 ``(height, width, channels)``."""
        found = None if self.store is None else self.store.find(path)
        return self.decode(path) if found is None else found

    def decode(self, path: str) -> Tensor:
        """Reads a file as uint8 ``(height, width, channels)``."""
        image, resize = self.reader.read(path), self.resize
        if self._augment is not None:
            image, resize = self._augment(image.convert("RGB")), None
        return fit_square(
            image, self.image_size, in_channels=self.in_channels, crop=True, resize=resize
        )


def streamed_preset(name: str, image_size: int) -> Any:
    """A transform of PIL images, which draws from torch's global state, seeded by the loader.

    Each begins with a random part of 8 to 100 % of the image, resized, and mirrored half the time
    (Szegedy et al. 2015). `colour` then changes brightness, contrast, saturation and hue;
    `randaugment` applies two of 14 operations of magnitude 9 of 30.
    """
    import_torchvision()
    from torchvision.transforms import v2

    changes = [v2.RandomResizedCrop(image_size, antialias=True), v2.RandomHorizontalFlip()]
    if name == "resized_crop_flip_colour":
        changes.append(v2.ColorJitter(0.4, 0.4, 0.4, 0.1))
    elif name == "resized_crop_randaugment":
        changes.append(v2.RandAugment(2, 9))
    return v2.Compose(changes)


def load_all(files: ImageFiles) -> tuple[Tensor, Tensor]:
    """Reads all images at once: images ``(n, c, h, w)``, channels last in memory, and labels."""
    size = files.image_size
    images = torch.empty((len(files), size, size, files.in_channels), dtype=torch.uint8)
    array = images.numpy()  # for small images, writing rows of a tensor takes longer

    def load(first: int, step: int) -> None:
        for index in range(first, len(files), step):
            array[index] = files.pixels(files.samples[index][0])

    # Decoding and resizing let go of Python's lock; for small files, fighting over it costs more
    # than a second thread gains.
    sizes = [os.path.getsize(path) for path, _ in files.samples[:100]]
    threads = (os.cpu_count() or 1) if sum(sizes) > LARGE_FILE * len(sizes) else 1
    with ThreadPoolExecutor(threads) as pool:
        for thread in [pool.submit(load, first, threads) for first in range(threads)]:
            thread.result()
    labels = torch.tensor([label for _, label in files.samples])
    return images.permute(0, 3, 1, 2), labels


def class_folders(
    folder: Path, known: Collection[str] = (), *, any_name: bool = False
) -> list[str]:
    """The sorted names of the class folders within ``folder``.

    Args:
        folder: where they are.
        known: names that the user has said to be classes.
        any_name: whether the user has said so of all that there are.

    Raises:
        DataError: one looks like a split, or is not UTF-8.
    """
    names = subfolders(folder)
    for name in names:
        if shown(name) != name:
            raise DataError(
                f"{folder / shown(name)} is a class whose name is not UTF-8, so that no file of "
                "text can hold it: rename the folder"
            )
        if split_of(name) and name not in known and not any_name:
            raise DataError(
                f"{folder / name} looks like a split where a class should be: set data.folder to "
                "the folder that holds the splits, or data.class_names=[...] to all classes if it "
                "is one"
            )
    return names


def list_images(
    folder: Path,
    class_names: Sequence[str],
    *,
    skipped: Counter[str] | None = None,
    any_name: bool = False,
) -> list[Sample]:
    """All image files of the classes, in the order of class and file name.

    Args:
        folder: that of the class folders.
        class_names: of the folders; `WHOLE` alone is the folder itself.
        skipped: counts files that are not read, see :func:`~zoo.data.folders.list_files`.
        any_name: whether folders within a class may have the names of splits.

    Raises:
        DataError: there is a class that is not among ``class_names``, one has no images, or there
            is a split within one.
    """

    def enter(place: Path) -> bool:
        if split_of(place.name) and not any_name:
            raise DataError(
                f"{place} looks like a split, but it is within what would be a class: set "
                "data.folder to the folder that holds the splits (they stand above the classes), "
                "or data.splits={train: .} if it is none"
            )
        return True

    found = class_folders(folder, class_names, any_name=any_name)
    unknown = [name for name in found if name not in class_names]
    if unknown and list(class_names) != [WHOLE]:
        raise DataError(
            f"{folder} holds the class {unknown[0]!r}, which the training images lack "
            f"(they have {', '.join(class_names)})"
        )
    samples: list[Sample] = []
    for label, name in enumerate(class_names):
        if not (folder / name).is_dir():
            continue  # a small validation or test split need not show every class
        files = list_files(folder / name, SUFFIXES, skipped=skipped, enter=enter)
        if not files:
            raise DataError(
                f"{folder / name} holds no images ({', '.join(SUFFIXES)}): "
                f"add some, or remove the folder"
            )
        samples += [(path, label) for path in files]
    return samples
