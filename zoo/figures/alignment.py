"""Attention between two sequences as an image."""

from collections.abc import Sequence

from torch import Tensor

from zoo.figures.grids import render

MOST_HEADS = 4  # one below the other, as a dashboard's column is too narrow for two


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
    side = max(2.8, 0.17 * max(len(source), len(target)) + 0.9)
    figure = Figure(figsize=(side, side * len(heads)), layout="constrained")
    panels = figure.subplots(len(heads), sharex=True, sharey=True, squeeze=False).flat
    for number, axes in enumerate(panels):
        axes.imshow(heads[number].numpy(), cmap="Greys", vmin=0, vmax=1, aspect="auto")
        # A token may hold a dollar sign, which is not mathematics.
        axes.set_xticks(range(len(source)), source, parse_math=False)
        axes.set_yticks(range(len(target)), target, parse_math=False)
        axes.tick_params(axis="x", labelrotation=90)
        axes.tick_params(labelsize=8, length=0)
        if len(heads) > 1:
            axes.set_title(f"head {number}", fontsize=8)
    return render(figure)
