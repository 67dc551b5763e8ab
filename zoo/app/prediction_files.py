"""The files that predictions are written to: tables, masks, samples, and lines of text.

A file is there only once it is complete. What others have made is never replaced.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.app.output import completed
from zoo.config.errors import ConfigError
from zoo.data.download import DataError
from zoo.data.images.opening import opened
from zoo.figures.grids import are_images, image_grid, rescale
from zoo.figures.palette import voc_colours
from zoo.tasks.prediction import Classes, Labels, Prediction, Several, Table, Texts, Values
from zoo.tasks.task import Image as Picture

if TYPE_CHECKING:
    from PIL.Image import Image

WRITER = "zoo evaluate.py"
"""Stands in every picture that is written, so that a later one knows what it may replace."""

COLUMNS = 8
"""Images a row of a grid."""


def rows_of(
    prediction: Prediction, value_names: Sequence[str] = ()
) -> list[dict[str, str | float]]:
    """A prediction as the rows of a table, one for each sample.

    Args:
        prediction: one row for each sample.
        value_names: what the values of a row are called, if they have names.

    Raises:
        ConfigError: it is not one row for each sample.
    """
    match prediction:
        case Classes(probabilities) if probabilities.ndim == 2:
            return [{"class": name, "probability": value} for name, value in prediction.best()]
        case Labels():
            return prediction.rows()
        case Values():
            return _rows_of_values(prediction, value_names)
        case Texts(texts):
            return [{"text": text} for text in texts]
        case Table(rows):
            return rows
        case Several(parts):
            groups = [_columns_of(name, part) for name, part in parts.items()]
            return [
                {k: v for row in rows for k, v in row.items()} for rows in zip(*groups, strict=True)
            ]
    raise ConfigError(f"predict: {type(prediction).__name__} cannot be written as a table")


def _columns_of(target: str, prediction: Classes | Values) -> list[dict[str, str | float]]:
    """The columns that belong to one of several targets, under its name."""
    if isinstance(prediction, Values):
        return _rows_of_values(prediction, [target])
    return [{target: name, f"{target}_probability": value} for name, value in prediction.best()]


def _rows_of_values(values: Values, names: Sequence[str]) -> list[dict[str, str | float]]:
    """A column for each value, and with intervals one for either end behind it."""
    columns: dict[str, list[float]] = {}
    parts = {"value": values.values, "low": values.low, "high": values.high}
    flat = {k: v.float().reshape(len(v), -1) for k, v in parts.items() if v is not None}
    width = flat["value"].size(1)
    for number in range(width):
        for name, part in flat.items():
            column = name if width == 1 else f"{name}_{number}"
            if names:
                column = names[number] if name == "value" else f"{names[number]}_{name}"
            columns[column] = part[:, number].tolist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def write_table(rows: Sequence[dict[str, str | float]], out: Path) -> None:
    """Writes rows as CSV.

    Raises:
        ConfigError: the file cannot be written.
    """
    with completed(out) as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(rows[0])
        for row in rows:
            writer.writerow([f"{v:.6f}" if isinstance(v, float) else v for v in row.values()])


def picture_files(
    source: Path, files: Sequence[Path], out: Path, *, kind: str = "mask"
) -> list[Path]:
    """Where the mask or image for each image goes: `<out>/<folder below source>/<stem>.png`.

    A single image's may be named itself: `out=<file>.png`. Nothing but pictures that were written
    here is ever replaced.

    Args:
        source: the image or folder that was asked for.
        files: the images.
        out: folder of the pictures.
        kind: what they are: `mask` or `image`.

    Raises:
        ConfigError: two would have one name, or a file is in the way.
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
                f"predict: the {kind}s of {taken[target]} and {file} would both be {target}; "
                "rename one of the images"
            )
        taken[target] = file
        if target.exists() and not _is_ours(target):
            raise ConfigError(
                f"out={out}: {target} exists, and it is not one that evaluate.py wrote; name "
                "another folder"
            )
    return targets


def _is_ours(path: Path) -> bool:
    try:
        with opened(path) as image:
            return image.info.get("Software") == WRITER
    except DataError:
        return False


def write_mask(mask: Tensor, target: Path) -> None:
    """Writes a mask ``(height, width)`` as an indexed PNG file.

    Raises:
        ConfigError: it cannot be written, or has a class that does not fit.
    """
    _write_picture(indexed(mask), target)


def write_translation(image: Tensor, target: Path) -> None:
    """Writes an image ``(1 or 3, height, width)`` in [0, 1] as a PNG file.

    Raises:
        ConfigError: it cannot be written.
    """
    _write_picture(_pillow(image), target)


def _write_picture(image: "Image", target: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    note = PngInfo()
    note.add_text("Software", WRITER)
    with completed(target) as part:
        image.save(part, format="PNG", pnginfo=note)


def _pillow(pixels: Tensor) -> "Image":
    """``(1 or 3, height, width)`` in [0, 1] as an image of 8 bits a value."""
    from PIL import Image

    values = pixels.mul(255).round().to("cpu", torch.uint8)
    return Image.fromarray((values[0] if len(values) == 1 else values.permute(1, 2, 0)).numpy())


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
    image.putpalette(voc_colours().flatten().tolist())
    return image


def write_samples(samples: Tensor, out: Path, *, columns: int = COLUMNS) -> None:
    """Writes images as a grid (`.png`), or any samples as a tensor (`.pt`).

    Raises:
        ConfigError: the file has another suffix, or the samples are not images.
    """
    if out.suffix.lower() not in (".png", ".pt"):
        raise ConfigError(f"out={out}: must end in .png (images in a grid) or .pt (a tensor)")
    if out.suffix.lower() == ".pt":
        content = io.BytesIO()  # To a file on a full disk, torch fails in words of its own.
        torch.save(samples.cpu(), content)
        with completed(out) as part:
            part.write_bytes(content.getvalue())
        return
    if not are_images(samples):
        raise ConfigError(f"out={out}: these samples are not images; write out=<file>.pt")
    write_image(image_grid(rescale(samples), columns=columns), out)


def write_image(pixels: Tensor, out: Path) -> None:
    """Writes an image ``(3, height, width)`` in [0, 1] as PNG.

    Raises:
        ConfigError: the file has another suffix, or cannot be written.
    """
    if out.suffix.lower() != ".png":
        raise ConfigError(f"out={out}: must end in .png")
    with completed(out) as part:
        part.write_bytes(Picture(pixels).png())
