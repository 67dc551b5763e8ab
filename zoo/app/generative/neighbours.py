"""Whether a generative model has learned its training images by heart: samples and their nearest.

A copy is as good as on top of its original. How near an image is that the model has never seen,
those of the validation split tell.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.app.generative.latents import in_layers
from zoo.app.predict import ability
from zoo.app.prediction_files import COLUMNS, write_samples
from zoo.app.rebuild import Evaluation
from zoo.config.errors import ConfigError
from zoo.figures.grids import are_images
from zoo.tasks.task import inputs_of

NEAREST = 3
"""Training images that are shown below a sample."""


def draw_neighbours(
    parts: Evaluation, count: int, *, seed: int, out: Path | None, run: Path
) -> tuple[Path, str]:
    """Writes samples and, below each, the training images that are nearest to it.

    Args:
        parts: of the run, with its data set up.
        count: how many samples.
        seed: of their random numbers.
        out: a new file, `.png` for the grid or `.pt` for a tensor ``(count, 1 + NEAREST, ...)``;
            None: `neighbours.png` in the run folder.
        run: the run folder.

    Returns:
        The file, and a sentence about the distances.

    Raises:
        ConfigError: the samples are not images of the training images' shape, or the file cannot be
            written.
    """
    task: Any = parts.task
    with parts.autocast:
        samples = task.sample(count, seed=seed).samples.float()
    batches = (inputs_of(batch) for batch in parts.data.batches("train", 0))
    first = next(batches)
    if not are_images(samples) or first.shape[1:] != samples.shape[1:]:
        raise ConfigError(
            f"neighbours: samples of shape {tuple(samples.shape[1:])} cannot be compared with "
            f"training images of shape {tuple(first.shape[1:])}; name the run of a model that "
            "draws images"
        )
    unseen = _some(parts, count) if "val" in parts.data.splits else samples[:0]
    queries = torch.cat([samples, unseen.to(samples)])
    images, distances = nearest(queries, chain([first], batches), NEAREST)
    said = f"nearest training image: {distances[:count, 0].mean():.3f} away on average"
    if len(unseen):
        said += f", of {len(unseen)} val images {distances[count:, 0].mean():.3f}"
    layers = torch.cat([samples.unsqueeze(1), images[:count]], 1).cpu()  # (count, 1 + k, ...)
    out = out or run / "neighbours.png"
    if out.suffix.lower() == ".pt":
        write_samples(layers, out)
    else:
        write_samples(in_layers(*layers.unbind(1)), out, columns=min(COLUMNS, count))
    return out, said


def check_neighbours(parts: Evaluation) -> None:
    """Refuses a run whose samples have no training images to be compared with.

    Raises:
        ConfigError: it is so.
    """
    ability(parts, "sample", "neighbours: this run draws no samples; name a generator's")
    if not hasattr(parts.data, "preprocess"):
        raise ConfigError(
            f"neighbours: {type(parts.data).__name__} gives no images; name a run on images"
        )


def nearest(queries: Tensor, batches: Iterable[Tensor], count: int) -> tuple[Tensor, Tensor]:
    """The samples that are nearest to each query, and how far they are, in Euclidean distance.

    Only one batch is looked at at a time. Of equally near samples the earlier comes first.

    Args:
        queries: ``(queries, *)``.
        batches: all samples, in batches ``(batch, *)``.
        count: how many to find; there may be fewer.

    Returns:
        The samples ``(queries, count, *)``, the nearest first, and the distances
        ``(queries, count)``.
    """
    flat = queries.flatten(1)
    distances = flat.new_empty(len(flat), 0)
    samples = queries.new_empty(len(queries), 0, *queries.shape[1:])
    rows = torch.arange(len(queries), device=queries.device).unsqueeze(1)
    for batch in batches:
        others = batch.to(queries)
        # Not by a matrix product, in which the distance of a copy from its original is lost.
        found = torch.cdist(
            flat, others.flatten(1), compute_mode="donot_use_mm_for_euclid_dist"
        )  # (queries, batch)
        before = distances.size(1)
        distances, places = torch.cat([distances, found], 1).sort(dim=1, stable=True)
        distances, places = distances[:, :count], places[:, :count]  # (queries, count)
        chosen = others[(places - before).clamp_min(0)]  # (queries, count, *)
        kept = places < before
        if before:
            old = samples[rows, places.clamp_max(before - 1)]
            samples = torch.where(kept.view(*kept.shape, *[1] * (queries.ndim - 1)), old, chosen)
        else:
            samples = chosen
    return samples, distances


def _some(parts: Evaluation, count: int) -> Tensor:
    """The first images of the validation split."""

    def images() -> Iterator[Tensor]:
        seen = 0
        for batch in parts.data.batches("val", 0):
            yield inputs_of(batch)
            if (seen := seen + len(inputs_of(batch))) >= count:
                return

    return torch.cat(list(images()))[:count]
