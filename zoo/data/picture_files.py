"""Finding and reading picture files in class folders."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from zoo.data.download import DataError, import_torchvision
from zoo.data.picture import fit_square

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}
LARGE_FILE = 20_000  # bytes from which on threads pay
Sample = tuple[str, int]  # path of the file, label


class PictureFiles:
    """A map-style data set ``(image, label)``, image uint8 ``(channels, height, width)``.

    Args:
        samples: file and label of each picture.
        image_size: height and width to resize to.
        in_channels: 1 (grey) or 3 (RGB).
        random_part: show a random part of the picture, mirrored half the time, instead of the
            largest centred square. Random numbers come from torch's global state, which the
            loader seeds for each sample.

    Raises:
        DataError: on taking a sample whose file is no readable picture.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        image_size: int,
        in_channels: int,
        random_part: bool = False,
    ) -> None:
        self.samples = samples
        self.image_size = image_size
        self.in_channels = in_channels
        self._random_part = None
        if random_part:
            import_torchvision()
            from torchvision.transforms import v2

            self._random_part = v2.Compose(
                [v2.RandomResizedCrop(image_size, antialias=True), v2.RandomHorizontalFlip()]
            )

    def __len__(self) -> int:
        """How many pictures there are."""
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Reads one picture."""
        path, label = self.samples[index]
        return self.pixels(path).permute(2, 0, 1), label  # (channels, height, width)

    def pixels(self, path: str) -> Tensor:
        """Reads a file as uint8 ``(height, width, channels)``."""
        from PIL import Image

        try:
            with Image.open(path) as image:
                image.load()
                if self._random_part is not None:
                    image = self._random_part(image.convert("RGB"))
                return fit_square(image, self.image_size, in_channels=self.in_channels, crop=True)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(
                f"{path} cannot be read as a picture ({error}): replace or remove it"
            ) from error


def load_all(files: PictureFiles) -> tuple[Tensor, Tensor]:
    """Reads all pictures at once: images ``(n, c, h, w)``, channels last in memory, and labels."""
    size = files.image_size
    images = torch.empty((len(files), size, size, files.in_channels), dtype=torch.uint8)

    def load(first: int, step: int) -> None:
        for index in range(first, len(files), step):
            images[index] = files.pixels(files.samples[index][0])

    # Decoding and resizing let go of Python's lock; for small files, fighting over it costs more
    # than a second thread gains.
    sizes = [os.path.getsize(path) for path, _ in files.samples[:100]]
    threads = (os.cpu_count() or 1) if sum(sizes) > LARGE_FILE * len(sizes) else 1
    with ThreadPoolExecutor(threads) as pool:
        for thread in [pool.submit(load, first, threads) for first in range(threads)]:
            thread.result()
    labels = torch.tensor([label for _, label in files.samples])
    return images.permute(0, 3, 1, 2), labels


def class_folders(folder: Path) -> list[str]:
    """The sorted names of the class folders within ``folder``."""
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not names:
        raise DataError(f"{folder} holds no folders: put the pictures of each class into their own")
    return names


def list_pictures(folder: Path, class_names: Sequence[str]) -> list[Sample]:
    """All picture files of the classes, in the order of class and file name.

    Raises:
        DataError: if there is a class that is not among ``class_names``, or one has no pictures
            while ``folder`` is where the classes come from.
    """
    unknown = [name for name in class_folders(folder) if name not in class_names]
    if unknown:
        raise DataError(
            f"{folder} holds the class {unknown[0]!r}, which the training pictures lack "
            f"(they have {', '.join(class_names)})"
        )
    samples: list[Sample] = []
    for label, name in enumerate(class_names):
        if not (folder / name).is_dir():
            continue  # a small validation or test split need not show every class
        files = sorted(p for p in (folder / name).rglob("*") if p.suffix.lower() in SUFFIXES)
        if not files:
            raise DataError(
                f"{folder / name} holds no pictures ({', '.join(sorted(SUFFIXES))}): "
                f"add some, or remove the folder"
            )
        samples += [(str(path), label) for path in files]
    return samples


def available_memory(device: torch.device) -> int:
    """Free memory of a device in bytes; without limit where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo") as file:
            fields = dict(line.split(":") for line in file)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 2**63 - 1
