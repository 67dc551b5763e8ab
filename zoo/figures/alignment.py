"""Attention between two sequences as an image."""

from collections.abc import Sequence

from torch import Tensor

from zoo.figures.grids import render

MOST_HEADS = 8  # more panels than this are too small to be read
COLUMNS = 4


def alignment_image(weights: Tensor, source: Sequence[str], target: Sequence[str]) -> Tensor:
    """Draws which tokens of the source each token of the target was written from.

    Args:
        weights: of each head, ``(heads, target, source)``.
        source: its tokens, from left to right.
        target: its tokens, from top to bottom.

    Returns:
        The image, ``(3, height, width)`` in [0, 1].
    """
    from matplotlib.figure import Figure

    heads = weights[:MOST_HEADS].float().cpu()
    columns = min(COLUMNS, len(heads))
    rows = -(-len(heads) // columns)
    side = max(2.4, 0.16 * max(len(source), len(target)) + 0.9)
    figure = Figure(figsize=(side * columns, side * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
    for number, axes in enumerate(panels):
        if number >= len(heads):
            axes.set_axis_off()
            continue
        axes.imshow(heads[number].numpy(), cmap="Greys", vmin=0, vmax=1, aspect="auto")
        # A token may hold a dollar sign, which is not mathematics.
        axes.set_xticks(range(len(source)), source, parse_math=False)
        axes.set_yticks(range(len(target)), target, parse_math=False)
        axes.tick_params(axis="x", labelrotation=90)
        axes.tick_params(labelsize=7, length=0)
        if len(heads) > 1:
            axes.set_title(f"head {number}", fontsize=8)
    return render(figure)
