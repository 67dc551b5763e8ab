"""Tensors to images that a logger can show: ``(3, height, width)`` in [0, 1].

Figures are drawn on matplotlib's Agg canvas without pyplot, so no global state is touched and no
display is needed.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_NAMED_CLASSES = 30  # more names than this do not fit on the axes
MAX_COUNTED_CLASSES = 12  # nor more numbers than this into the cells


def are_images(x: Any) -> TypeGuard[Tensor]:
    """Whether a tensor is a batch of grey or colour images."""
    return isinstance(x, Tensor) and x.ndim == 4 and x.shape[1] in (1, 3) and x.is_floating_point()


def rescale(images: Tensor) -> Tensor:
    """Maps the range of each channel over all images together to [0, 1].

    This undoes a normalisation by channel without knowing it, as far as the images hold both
    black and white.

    Shape:
        - input, output: ``(batch, channels, height, width)``
    """
    low = images.amin((0, 2, 3), keepdim=True)
    high = images.amax((0, 2, 3), keepdim=True)
    return ((images - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)


def image_grid(images: Tensor, *, columns: int, padding: int = 2) -> Tensor:
    """Lays images out in rows on black, each with a margin below and to its right.

    Shape:
        - input: ``(batch, 1 or 3, height, width)`` in [0, 1]
        - output: ``(3, rows * (height + padding), columns * (width + padding))``
    """
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    empty = rows * columns - len(images)
    tiles = F.pad(images.float(), (0, padding, 0, padding, 0, 0, 0, empty))
    tiles = tiles.expand(-1, 3, -1, -1).unflatten(0, (rows, columns))
    # (rows, columns, 3, height, width) -> (3, rows, height, columns, width)
    return tiles.permute(2, 0, 3, 1, 4).flatten(1, 2).flatten(2, 3)


def enlarge(images: Tensor, *, side: int = 64) -> Tensor:
    """Repeats the pixels of small images until their longer side has about ``side`` of them.

    A dashboard shows images as large as they are, and digits of 8x8 cannot be seen.

    Shape:
        - input: ``(batch, channels, height, width)``
        - output: ``(batch, channels, factor * height, factor * width)``
    """
    factor = max(1, round(side / max(images.shape[-2:])))
    return images.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def input_grid(inputs: Tensor) -> Tensor:
    """The first 16 inputs of a batch of images in a grid: ``(3, height, width)``."""
    return image_grid(enlarge(rescale(inputs[:16])), columns=4)


def render(figure: "Figure") -> Tensor:
    """Draws a matplotlib figure: ``(3, height, width)`` in [0, 1]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = torch.frombuffer(bytearray(canvas.buffer_rgba()), dtype=torch.uint8)
    width, height = canvas.get_width_height()
    return pixels.view(height, width, 4)[..., :3].permute(2, 0, 1) / 255  # (3, height, width)


def confusion_matrix_image(matrix: Tensor, class_names: Sequence[str] | None = None) -> Tensor:
    """Draws a confusion matrix, coloured by the share of each true class.

    Args:
        matrix: counts, ``(true, predicted)``.
        class_names: labels of the axes; the class numbers if None.
    """
    from matplotlib.figure import Figure

    counts = matrix.cpu()
    shares = counts / counts.sum(1, keepdim=True).clamp_min(1)
    side = max(3.4, 0.17 * min(len(counts), MAX_NAMED_CLASSES))
    figure = Figure(figsize=(side + 1, side + 0.5), layout="constrained")
    axes = figure.add_subplot(xlabel="predicted", ylabel="true")
    image = axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class")
    if len(counts) <= MAX_NAMED_CLASSES:
        names = list(class_names) if class_names is not None else range(len(counts))
        ticks, labels = range(len(counts)), [str(name) for name in names]
        # A name may hold a dollar sign, which is not mathematics.
        axes.set_xticks(ticks, labels, parse_math=False)
        axes.set_yticks(ticks, labels, parse_math=False)
        if max(map(len, labels)) > 2:
            axes.tick_params(axis="x", labelrotation=90)
        if len(counts) > MAX_COUNTED_CLASSES:
            axes.tick_params(labelsize=8)
    if len(counts) <= MAX_COUNTED_CLASSES:
        for row, values in enumerate(counts.tolist()):
            for column, count in enumerate(values):
                color = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=color)
    return render(figure)


def labelled_image_grid(images: Tensor, labels: Sequence[str], *, columns: int = 4) -> Tensor:
    """Draws images in rows, each under its label.

    Args:
        images: ``(batch, 1 or 3, height, width)`` in [0, 1].
        labels: one an image.
        columns: images a row.
    """
    from matplotlib.figure import Figure

    rows = -(-len(images) // columns)
    figure = Figure(figsize=(2.2 * columns, 2.3 * rows), layout="constrained")
    for place, (image, label) in enumerate(zip(images.cpu(), labels, strict=True), start=1):
        axes = figure.add_subplot(rows, columns, place)
        colours = image.float().expand(3, -1, -1).permute(1, 2, 0)  # (height, width, 3)
        axes.imshow(colours.numpy(), interpolation="nearest")
        axes.set_title(label, fontsize=9, parse_math=False)
        axes.set_axis_off()
    return render(figure)
