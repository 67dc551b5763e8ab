"""What a run predicts, from its folder alone: for images, from a text, or out of noise.

A task says which kind of prediction it makes (:mod:`zoo.tasks.prediction`); nothing here knows
which task that is. :class:`Predictor` is for Python, the rest for the programs.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.app.commands import relative
from zoo.app.output import check_new, text_output
from zoo.app.prediction_files import (
    picture_files,
    rows_of,
    write_mask,
    write_samples,
    write_table,
    write_translation,
)
from zoo.app.rebuild import Evaluation, prepare_evaluation
from zoo.config.errors import ConfigError, as_config_error
from zoo.data.download import DataError
from zoo.data.folders import list_files
from zoo.data.images.opening import SUFFIXES, prepared, shown
from zoo.figures.grids import are_images
from zoo.tasks.prediction import Images, Masks, Prediction, Samples

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    AnyImage = str | os.PathLike[str] | Image | np.ndarray[Any, Any]

BATCH_SIZE = 64


class Predictor:
    """Predicts with a trained run.

    ::

        predictor = Predictor("runs/lenet_digits/<run>")
        prediction = predictor("digit.png")
        print(prediction.best())  # [("7", 0.98)]

    Args:
        run: the run folder.
        checkpoint: `best`, `last` or a path.
        device: where to compute: `auto`, `cpu`, `cuda`, ...
        trusted: packages of your own whose components the run uses.

    Raises:
        ConfigError: it is not a run folder, or the run does not predict from images.
        CheckpointError: the checkpoint cannot be used.
    """

    def __init__(
        self,
        run: str | os.PathLike[str],
        *,
        checkpoint: str = "best",
        device: str = "auto",
        trusted: Sequence[str] = (),
    ) -> None:
        self.parts = prepare_evaluation(
            run, [f"trainer.device={device}"], checkpoint=checkpoint, trusted=trusted
        )
        check_takes_images(self.parts)

    def __call__(self, image: "AnyImage") -> Prediction:
        """The prediction for one image, as a batch of one.

        Args:
            image: a path, a PIL image, or uint8 ``(height, width)`` or ``(height, width, 3)``.

        Raises:
            ConfigError: the file is not a readable image.
            ValueError: the image does not suit this run, or is an array of another kind.
        """
        if isinstance(image, str | os.PathLike):
            pixels = read(self.parts, Path(image))
        else:
            pixels = self.parts.data.preprocess(_as_image(image))
        return predicted(self.parts, pixels.unsqueeze(0))


def _as_image(image: Any) -> "Image":
    from PIL import Image

    if isinstance(image, Image.Image):
        return image
    with suppress(TypeError, AttributeError, ValueError):
        if image.dtype == "uint8":
            return Image.fromarray(image)
    raise ValueError(
        "image must be a path, a PIL image or a uint8 array (height, width) or (height, width, 3), "
        f"not {type(image).__name__}{getattr(image, 'shape', '')}"
    )


def predicted(parts: Evaluation, inputs: Any) -> Prediction:
    """The prediction for a batch of inputs."""
    with torch.inference_mode(), parts.autocast:
        return parts.task.predict(inputs.to(parts.device))


def check_takes_images(parts: Evaluation) -> None:
    """Refuses a run that predicts nothing for an image.

    Raises:
        ConfigError: it is so.
    """
    task, data = parts.task, parts.data
    if task.predicts is None:
        raise ConfigError(f"predict: {type(task).__name__} does not predict anything")
    if task.predicts is Samples:
        raise ConfigError("predict: this run draws samples; write sample=<count> instead")
    if not hasattr(data, "preprocess"):
        raise ConfigError(
            f"predict: {type(data).__name__} cannot prepare an image for this run; name a run on "
            "images"
        )


def ability(parts: Evaluation, name: str, refusal: str) -> Callable[..., Any]:
    """A method that only some tasks have.

    Raises:
        ConfigError: this run's does not have it.
    """
    method: Callable[..., Any] | None = getattr(parts.task, name, None)
    if method is None:
        raise ConfigError(refusal)
    return method


def image_files(path: Path, *, outside: Path | None = None, key: str = "predict") -> list[Path]:
    """The image files of a path: itself, or all below it.

    Args:
        path: an image or a folder.
        outside: a folder to leave out, since the results lie there.
        key: what the command line calls the path.

    Raises:
        ConfigError: there is none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ConfigError(f"{key}={path}: there is no such file or folder")
    found = [Path(file) for file in list_files(path, SUFFIXES)]
    if outside is not None and outside.resolve() != path.resolve():
        found = [p for p in found if not p.resolve().is_relative_to(outside.resolve())]
    if not found:
        raise ConfigError(f"{key}={path}: holds no image ({', '.join(sorted(SUFFIXES))})")
    return found


def read(parts: Evaluation, file: Path, *, key: str = "predict") -> Tensor:
    """An image file as the model wants it: ``(channels, height, width)``.

    Raises:
        ConfigError: it is not an image, or not one for this run.
    """
    try:
        pixels: Tensor = prepared(parts.data, file)
    except DataError as error:
        raise ConfigError(f"{key}: {error}") from error
    except ValueError as error:
        raise ConfigError(f"{key}: {shown(file)}: {error}") from error
    return pixels


def readable(
    parts: Evaluation, files: Sequence[Path], omitted: list[str], *, key: str = "predict"
) -> Iterator[tuple[Path, Tensor]]:
    """Each image file with what the model wants; of several, one that cannot be used is omitted.

    Args:
        parts: of the run.
        files: the images.
        omitted: what is wrong with the others is added here.
        key: what the command line calls the files.

    Raises:
        ConfigError: there is one file, and it cannot be used.
    """
    for file in files:
        try:
            yield file, read(parts, file, key=key)
        except ConfigError as error:
            if len(files) == 1:
                raise
            omitted.append(str(error))


def predict_images(
    parts: Evaluation, source: Path, *, out: Path | None, run: Path
) -> tuple[list[str], list[str], Path]:
    """Writes what a run predicts for images: a mask or an image for each, or a table of all.

    Args:
        parts: of the run.
        source: an image, or a folder of images.
        out: where to; None: in the run folder.
        run: the run folder.

    Returns:
        A line for each image, one for each that cannot be used, and where the results are.

    Raises:
        ConfigError: this run predicts nothing for images, none can be used, or a file is in the way
            or cannot be written.
    """
    check_takes_images(parts)
    omitted: list[str] = []
    if parts.task.predicts in (Masks, Images):
        out = out or run / "predictions"
        done = [
            f"{shown(file)}: {shown(relative(target))}"
            for file, target in _pictures(parts, source, out, omitted)
        ]
        return done, omitted, out
    if out is not None:
        check_new(out)
    out = out or run / "predictions.csv"
    table = list(_rows(parts, image_files(source), omitted))
    if table:
        write_table(table, out)
    return [_line(row) for row in table], omitted, out


def predict_own(
    parts: Evaluation, source: Path, *, out: Path | None, run: Path
) -> tuple[list[str], Path]:
    """Writes a table of what a run predicts for files of a user.

    The data module knows how to read them: `read_inputs(path)` gives a batch and, for each row of
    its prediction, what it is called (`zoo/data/graphs/graph_folder.py` has one), or pairs of
    these, one after the other (`zoo/data/text/labelled_text.py`); what there is to say of the files
    is in its `notes`. If it trains in other units than the user's, `in_units(prediction)` turns a
    prediction into theirs, and `value_names` are the names of the values of a row
    (`zoo/data/sequences/series.py` has both).

    Args:
        parts: of the run.
        source: a file or folder.
        out: a new file; None: in the run folder.
        run: the run folder.

    Returns:
        A line for each row, and where the table is.

    Raises:
        ConfigError: the files cannot be used, or the table cannot be written.
    """
    if out is not None:
        check_new(out)
    out = out or run / "predictions.csv"
    rows = []
    try:
        given = parts.data.read_inputs(source)
        for batch, names in [given] if isinstance(given, tuple) else given:
            prediction, value_names = predicted(parts, batch), ()
            if hasattr(parts.data, "in_units"):
                prediction, value_names = parts.data.in_units(prediction), parts.data.value_names
            found = rows_of(prediction, value_names)
            rows += [{**name, **row} for name, row in zip(names, found, strict=True)]
    except DataError as error:
        raise ConfigError(f"predict: {error}") from error
    write_table(rows, out)
    return [_line(row) for row in rows], out


def _rows(
    parts: Evaluation, files: Sequence[Path], omitted: list[str]
) -> Iterator[dict[str, str | float]]:
    """A row for each image; those that have one size are predicted together."""
    images = readable(parts, files, omitted)
    for _, same in groupby(images, lambda pair: pair[1].shape):
        while group := list(islice(same, BATCH_SIZE)):
            prediction = predicted(parts, torch.stack([pixels for _, pixels in group]))
            for (file, _), row in zip(group, rows_of(prediction), strict=True):
                yield {"path": shown(file), **row}


def _line(row: dict[str, Any]) -> str:
    path, *values = (f"{v:.3f}" if isinstance(v, float) else v for v in row.values())
    if "probability" in row:
        values[-1] = f"({values[-1]})"
    return f"{path}: {' '.join(values)}"


def _pictures(
    parts: Evaluation, source: Path, out: Path, omitted: list[str]
) -> Iterator[tuple[Path, Path]]:
    """Writes the mask or image for one image after the other, since their sizes differ."""
    files = image_files(source, outside=out)
    kind = "mask" if parts.task.predicts is Masks else "image"
    targets = dict(zip(files, picture_files(source, files, out, kind=kind), strict=True))
    for file, pixels in readable(parts, files, omitted):
        prediction = predicted(parts, pixels.unsqueeze(0))
        assert isinstance(prediction, Masks | Images)
        if isinstance(prediction, Masks):
            write_mask(prediction.masks[0], targets[file])
        else:
            write_translation(prediction.images[0], targets[file])
        yield file, targets[file]


def draw_samples(parts: Evaluation, count: int, *, seed: int, out: Path | None, run: Path) -> Path:
    """Writes samples that a generative model draws, and returns the file.

    Args:
        parts: of the run.
        count: how many.
        seed: of the random numbers.
        out: a new file; None: `samples.png` or, if they are not images, `samples.pt` in the run
            folder.
        run: the run folder.

    Raises:
        ConfigError: this run draws no samples, or the file cannot be written.
    """
    refusal = "sample: this run draws no samples; name a generator's"
    if parts.task.predicts is Images:
        refusal = "sample: this run makes images of images; write predict=<image or folder> instead"
    draw = ability(parts, "sample", refusal)
    with parts.autocast:
        samples = draw(count, seed=seed).samples
    out = out or run / f"samples.{'png' if are_images(samples) else 'pt'}"
    write_samples(samples, out)
    return out


def write_text(
    parts: Evaluation,
    name: str,
    refusal: str,
    *arguments: Any,
    out: Path | None = None,
    end: str = "",
    **options: Any,
) -> None:
    """Writes the text that a task makes piece by piece, as it is made.

    Args:
        parts: of the run.
        name: the task's method that makes the text.
        refusal: what to say where the task has no such method.
        *arguments: of the method.
        out: a new file; None: standard output.
        end: what follows each piece.
        **options: keyword arguments of the method.

    Raises:
        ConfigError: the task writes no such text, or refuses the arguments.
    """
    pieces = ability(parts, name, refusal)(*arguments, **options)
    with as_config_error(), parts.autocast, text_output(out) as file:
        for piece in pieces:
            print(piece, end=end, file=file, flush=True)
