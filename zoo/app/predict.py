"""What `evaluate.py predict=...` writes: a table of classes, or a mask for each image."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.app.rebuild import Evaluation
from zoo.config.errors import ConfigError
from zoo.data.images.reading import SUFFIXES

if TYPE_CHECKING:
    from PIL.Image import Image

BATCH_SIZE = 64
WRITER = "zoo evaluate.py"
"""Stands in every mask that is written, so that a later prediction knows what it may replace."""


def images(path: Path, *, outside: Path | None = None) -> list[Path]:
    """The image files of a path: itself, or all below it.

    Args:
        path: an image or a folder.
        outside: a folder to leave out, since the results lie there.

    Raises:
        ConfigError: there is none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ConfigError(f"predict={path}: there is no such file or folder")
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
    if outside is not None and outside.resolve() != path.resolve():
        found = [p for p in found if not p.resolve().is_relative_to(outside.resolve())]
    if not found:
        raise ConfigError(f"predict={path}: holds no image ({', '.join(SUFFIXES)})")
    return found


def read(parts: Evaluation, file: Path) -> Tensor:
    """An image file as the model wants it: ``(channels, height, width)``.

    Raises:
        ConfigError: it is no image, or none for this run.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            pixels: Tensor = parts.data.preprocess(image)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ConfigError(f"predict: {file} is no readable image") from error
    except ValueError as error:
        raise ConfigError(f"predict: {file}: {error}") from error
    return pixels


def classes(parts: Evaluation, files: Sequence[Path]) -> Iterator[tuple[Path, str, float]]:
    """The most probable class of each image, with its probability."""
    names = parts.config["task"].get("class_names")
    for start in range(0, len(files), BATCH_SIZE):
        group = files[start : start + BATCH_SIZE]
        inputs = torch.stack([read(parts, file) for file in group])
        with torch.inference_mode(), parts.autocast:
            probabilities = parts.task.predict(inputs.to(parts.device))
        confidences, indices = probabilities.float().max(1)
        for file, index, confidence in zip(
            group, indices.tolist(), confidences.tolist(), strict=True
        ):
            yield file, names[index] if names else str(index), confidence


def write_table(rows: Sequence[tuple[Path, str, float]], out: Path) -> None:
    """Writes path, class and probability of every image as CSV, in one step.

    Raises:
        ConfigError: the file cannot be written.
    """
    temporary = out.with_name(out.name + ".tmp")
    try:
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "class", "probability"])
            writer.writerows([str(p), name, f"{value:.6f}"] for p, name, value in rows)
        temporary.replace(out)
    except OSError as error:
        raise ConfigError(f"out={out}: cannot be written ({error.strerror})") from error


def mask_files(source: Path, files: Sequence[Path], out: Path) -> list[Path]:
    """Where the mask of each image goes: `<out>/<folder below source>/<stem>.png`.

    A single image's may be named itself: `out=<file>.png`. Nothing but masks that were written
    here is ever replaced.

    Args:
        source: the image or folder that was asked for.
        files: the images.
        out: folder of the masks.

    Raises:
        ConfigError: two masks would have one name, or a file is in the way.
    """
    if source.is_file() and out.suffix.lower() == ".png":
        targets = [out]
    elif source.is_dir() and out.resolve() == source.resolve():
        raise ConfigError(f"out={out}: must be another folder than that of the images")
    else:
        base = source if source.is_dir() else source.parent
        targets = [out / file.relative_to(base).with_suffix(".png") for file in files]
    taken: dict[Path, Path] = {}
    for file, target in zip(files, targets, strict=True):
        if target in taken:
            raise ConfigError(
                f"predict: the masks of {taken[target]} and {file} would both be {target}; rename "
                "one of the images"
            )
        taken[target] = file
        if target.exists() and not _is_ours(target):
            raise ConfigError(
                f"out={out}: {target} is there, and it is no mask that evaluate.py wrote; name "
                "another folder"
            )
    return targets


def _is_ours(path: Path) -> bool:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.mode == "P" and image.info.get("Software") == WRITER
    except (OSError, SyntaxError):
        return False


def write_masks(
    parts: Evaluation, files: Sequence[Path], targets: Sequence[Path]
) -> Iterator[tuple[Path, Path]]:
    """Writes the mask of one image after the other, since their sizes differ.

    Yields:
        Each image with its mask, once that is complete.

    Raises:
        ConfigError: an image cannot be read, or a mask not be written.
    """
    from PIL.PngImagePlugin import PngInfo

    note = PngInfo()
    note.add_text("Software", WRITER)
    for file, target in zip(files, targets, strict=True):
        inputs = read(parts, file).unsqueeze(0).to(parts.device)  # (1, channels, height, width)
        with torch.inference_mode(), parts.autocast:
            mask = parts.task.predict(inputs)[0]  # (height, width)
        temporary = target.with_name(target.name + ".tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            indexed(mask).save(temporary, format="PNG", pnginfo=note)
            temporary.replace(target)
        except OSError as error:
            raise ConfigError(f"out={target}: cannot be written ({error.strerror})") from error
        yield file, target


def indexed(mask: Tensor) -> "Image":
    """A mask of class numbers as an image whose pixels are those numbers, in VOC's colours.

    Shape:
        - mask: ``(height, width)``

    Raises:
        ConfigError: a number does not fit into a byte.
    """
    from PIL import Image

    if mask.numel() and int(mask.max()) > 255:
        raise ConfigError(
            f"predict: class {int(mask.max())} does not fit a mask, which ends at 255"
        )
    image = Image.fromarray(mask.to("cpu", torch.uint8).numpy())
    image.putpalette(voc_palette())
    return image


def voc_palette() -> list[int]:
    """Red, green and blue of the 256 classes, as Pascal VOC colours them.

    The bits of the class number are dealt out in turn to red, green and blue, the lowest ones to
    the highest bits, so that small numbers have colours far apart.
    """
    return [
        sum((number >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8))
        for number in range(256)
        for channel in range(3)
    ]
