"""Masks as images, in the colours of Pascal VOC."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.figures.grids import MAX_NAMED_CLASSES, enlarge, image_grid, render, rescale
from zoo.figures.palette import voc_colours


class Sample(NamedTuple):
    """An image, what is in it, and what the model sees in it."""

    image: Tensor  # (1 or 3, height, width)
    target: Tensor  # (height, width)
    predicted: Tensor  # (height, width)


def colour_masks(masks: Tensor) -> Tensor:
    """Masks in colour: ``(*, height, width)`` to ``(*, 3, height, width)`` in [0, 1]."""
    return (voc_colours().to(masks.device)[masks].float() / 255).movedim(-1, -3)


def overlay(images: Tensor, masks: Tensor) -> Tensor:
    """Images in [0, 1] with the colours of all classes but 0 laid half over them."""
    mixed = (images + colour_masks(masks)) / 2
    return torch.where(masks.unsqueeze(-3) > 0, mixed, images)


def input_grid(images: Tensor, masks: Tensor, *, size: int = 8) -> Tensor:
    """The first images of a batch, each with its mask to its right: ``(3, height, width)``."""
    images, masks = rescale(images[:size]).float(), masks[:size]
    pairs = torch.stack((images.expand(-1, 3, -1, -1), colour_masks(masks)), dim=1)
    return image_grid(enlarge(pairs.flatten(0, 1)), columns=4)


def comparison(samples: Sequence[Sample], class_names: Sequence[str] | None = None) -> Tensor:
    """Draws input, target, prediction and overlay side by side, a row a sample.

    Args:
        samples: what to draw; their sizes may differ.
        class_names: for the legend; the class numbers if None.

    Returns:
        ``(3, height, width)`` in [0, 1].
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    heights = [2.5 * len(sample.target) / sample.target.size(1) for sample in samples]
    figure = Figure(figsize=(10, sum(heights) + 0.8), layout="constrained")
    grid = figure.subplots(len(samples), 4, squeeze=False, gridspec_kw={"height_ratios": heights})
    seen: set[int] = set()
    for number, (row, sample) in enumerate(zip(grid, samples, strict=True)):
        image, target, predicted = (entry.cpu() for entry in sample)
        seen |= {*target.unique().tolist(), *predicted.unique().tolist()}
        image = rescale(image.unsqueeze(0).float())[0].expand(3, -1, -1)
        columns = {
            "input": image,
            "target": colour_masks(target),
            "prediction": colour_masks(predicted),
            "overlay": overlay(image, predicted),
        }
        for axes, (title, colours) in zip(row, columns.items(), strict=True):
            axes.imshow(colours.permute(1, 2, 0).numpy(), interpolation="nearest")
            axes.set_axis_off()
            if number == 0:
                axes.set_title(title)
    colours = voc_colours() / 255
    known = range(256) if class_names is None else range(len(class_names))
    names = [
        "ignored" if k not in known else str(k) if class_names is None else class_names[k]
        for k in sorted(seen)
    ]
    if len(names) <= MAX_NAMED_CLASSES:
        legend = figure.legend(
            [Patch(facecolor=tuple(colours[k].tolist()), edgecolor="grey") for k in sorted(seen)],
            [f"class {name}" for name in names],
            loc="outside lower center",
            ncols=6,
            fontsize="small",
        )
        for text, name in zip(legend.get_texts(), names, strict=True):
            # Set here, since a label that begins with an underscore would be left out.
            text.set_text(name)
            text.set_parse_math(False)
    return render(figure)
