"""What a run's latent variables are good for.

Images are made again, and one sees what lies between two, and what each of the variables does.

A task whose model has them has the methods `latents` (of images), `decode` and, if there is a prior
to draw from, `draw_latents`, see `zoo/tasks/generative/base.py`; nothing here knows which task that
is.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.app.predict import BATCH_SIZE, ability, image_files, read, readable
from zoo.app.prediction_files import COLUMNS, write_samples
from zoo.app.rebuild import Evaluation
from zoo.config.errors import ConfigError, as_config_error
from zoo.figures.grids import rescale
from zoo.tasks.generative.base import latents_of_seed

REACH = 3.0
"""Standard deviations of the prior that a latent variable is moved to either side."""

ROWS = 8
"""Latent variables that a traversal shows."""


def draw_reconstructions(
    parts: Evaluation, source: Path, *, out: Path | None, run: Path
) -> tuple[Path, list[str], int]:
    """Writes images and, below each, what the run's model makes of its latent variables.

    Args:
        parts: of the run.
        source: an image, or a folder of images.
        out: a new file, `.png` for the grid or `.pt` for a tensor of what was made; None:
            `reconstructions.png` in the run folder.
        run: the run folder.

    Returns:
        The file, a line for each image that cannot be used, and the number of the others.

    Raises:
        ConfigError: this run has no latent variables of images, no image can be used, or the file
            cannot be written.
    """
    check_encodes(parts, "reconstruct")
    omitted: list[str] = []
    files = image_files(source, key="reconstruct")
    images = [pixels for _, pixels in readable(parts, files, omitted, key="reconstruct")]
    if not images:
        raise ConfigError(f"reconstruct={source}: none of {len(files)} images can be used")
    made = [_decoded(parts, _latents(parts, part)) for part in _stacked(images, "reconstruct")]
    out = out or run / "reconstructions.png"
    if out.suffix.lower() == ".pt":
        write_samples(torch.cat(made), out)
    else:
        grid = in_layers(torch.stack(images), torch.cat(made).cpu())
        write_samples(grid, out, columns=min(COLUMNS, len(images)))
    return out, omitted, len(images)


def draw_interpolation(
    parts: Evaluation, ends: tuple[str, str], steps: int, *, out: Path | None, run: Path
) -> Path:
    """Writes the samples on the straight line between two points of the latent space.

    Args:
        parts: of the run.
        ends: two image files, or two seeds of latent variables that are drawn.
        steps: samples, the two ends included.
        out: a new file; None: `interpolation.png` in the run folder.
        run: the run folder.

    Returns:
        The file.

    Raises:
        ConfigError: this run has no latent variables, an image cannot be used, or the file cannot
            be written.
    """
    if is_seeds(ends):
        check_draws(parts, "interpolate")
        first, last = (latents_of_seed(parts.task, int(seed)) for seed in ends)  # type: ignore[arg-type]
    else:
        check_encodes(parts, "interpolate")
        images = [read(parts, Path(end), key="interpolate") for end in ends]
        (both,) = _stacked(images, "interpolate")
        first, last = _latents(parts, both).split(1)
    if not first.is_floating_point():
        raise ConfigError("interpolate: nothing lies between this run's latent variables: codes")
    weights = torch.linspace(0, 1, steps, device=first.device, dtype=first.dtype)
    weights = weights.view(-1, *[1] * (first.ndim - 1))  # (steps, 1, ...)
    samples = _decoded(parts, torch.lerp(first, last, weights))
    out = out or run / "interpolation.png"
    write_samples(samples, out)
    return out


def draw_traversal(
    parts: Evaluation, start: str, steps: int, *, out: Path | None, run: Path
) -> tuple[Path, list[int]]:
    """Writes what becomes of a sample if one of its latent variables moves and the others stay.

    Each row is one of the `ROWS` that change the sample most: in the variance of its pixels, meaned
    over them.

    Args:
        parts: of the run.
        start: an image file, or a seed of latent variables that are drawn.
        steps: samples a row.
        out: a new file, `.png` for the grid or `.pt` for a tensor ``(rows, steps, ...)``; None:
            `traversal.png` in the run folder.
        run: the run folder.

    Returns:
        The file, and the number of each row's latent variable, from 0.

    Raises:
        ConfigError: this run has no latent variables to move, the image cannot be used, or the file
            cannot be written.
    """
    task: Any = parts.task
    count: int | None = getattr(task, "normal_latents", None)
    if count is None:
        raise ConfigError(
            f"traverse: {type(task).__name__} has no vector of latent variables with a normal "
            "prior; name the run of a model that draws samples from one"
        )
    if is_seeds([start]):
        latents = latents_of_seed(task, int(start))
    else:
        check_encodes(parts, "traverse")
        latents = _latents(parts, read(parts, Path(start), key="traverse").unsqueeze(0))
    moved = traversal(latents, count, steps).flatten(0, 1)
    decoded = torch.cat([_decoded(parts, part) for part in moved.split(BATCH_SIZE)])
    samples = decoded.unflatten(0, (count, steps))
    change = samples.var(1, correction=0).flatten(1).mean(1)  # (count,)
    chosen = change.argsort(descending=True, stable=True)[:ROWS]
    samples = samples[chosen]
    out = out or run / "traversal.png"
    is_tensor = out.suffix.lower() == ".pt"
    write_samples(samples if is_tensor else samples.flatten(0, 1), out, columns=steps)
    return out, chosen.tolist()


def traversal(latents: Tensor, count: int, steps: int) -> Tensor:
    """Latent variables of which one moves from -`REACH` to `REACH`: each of the first in turn.

    Args:
        latents: where they start, ``(1, width)``.
        count: how many of them move.
        steps: of each.

    Returns:
        ``(count, steps, width)``.
    """
    moved = latents.repeat(count, steps, 1)
    values = torch.linspace(-REACH, REACH, steps, device=latents.device, dtype=latents.dtype)
    moved[:, :, :count].diagonal(dim1=0, dim2=2).copy_(values.unsqueeze(1))  # (steps, count)
    return moved


def is_seeds(ends: Sequence[str]) -> bool:
    """Whether the ends of an interpolation are seeds, not files."""
    return all(end.isdecimal() for end in ends)


def check_draws(parts: Evaluation, key: str) -> None:
    """Refuses a run whose model draws no latent variables.

    Raises:
        ConfigError: it is so.
    """
    for name in ("decode", "draw_latents"):
        ability(
            parts,
            name,
            f"{key}: {type(parts.task).__name__} draws no latent variables; name the run of a "
            "model with a prior, or two image files",
        )


def check_encodes(parts: Evaluation, key: str) -> None:
    """Refuses a run whose model has no latent variables of images.

    Raises:
        ConfigError: it is so.
    """
    for name in ("decode", "latents"):
        ability(
            parts,
            name,
            f"{key}: {type(parts.task).__name__} has no latent variables of an image; name the run "
            "of an autoencoder or of another model that encodes",
        )
    if not hasattr(parts.data, "preprocess"):
        raise ConfigError(
            f"{key}: {type(parts.data).__name__} cannot prepare an image for this run; name a run "
            "on images"
        )


def in_layers(*layers: Tensor) -> Tensor:
    """Images for a grid of `COLUMNS`: a row of the first layer above one of the second, and so on.

    Shape:
        - layers: ``(batch, channels, height, width)``
        - output: the same of all, black where the last rows are not full
    """
    columns = min(COLUMNS, len(layers[0]))
    images = rescale(torch.cat([layer.to(layers[0]) for layer in layers]))
    images = images.unflatten(0, (len(layers), -1))  # (layers, batch, ...)
    images = F.pad(images, (0,) * 7 + (-len(layers[0]) % columns,))  # (layers, rows * columns, ...)
    rows = images.unflatten(1, (-1, columns)).transpose(0, 1)  # (rows, layers, columns, ...)
    return rows.flatten(0, 2)


def _stacked(images: list[Tensor], key: str) -> list[Tensor]:
    """Batches of images.

    Raises:
        ConfigError: they have different sizes.
    """
    if len({image.shape for image in images}) > 1:
        raise ConfigError(f"{key}: the images must have one size")
    return list(torch.stack(images).split(BATCH_SIZE))


def _latents(parts: Evaluation, images: Tensor) -> Tensor:
    task: Any = parts.task
    with as_config_error(), torch.inference_mode(), parts.autocast:
        latents: Tensor = task.latents(images.to(parts.device))
    return latents


def _decoded(parts: Evaluation, latents: Tensor) -> Tensor:
    task: Any = parts.task
    with torch.inference_mode(), parts.autocast:
        samples: Tensor = task.decode(latents)
    return samples.float()
