"""Curves of how well scores tell positives: ``(3, height, width)`` in [0, 1]."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from zoo.figures.grids import render

MOST_CURVES = 10


class Counts(Protocol):
    """Positives (``hits``) and samples (``seen``) down to each threshold, ``(thresholds,)``."""

    @property
    def hits(self) -> Tensor: ...

    @property
    def seen(self) -> Tensor: ...


def ranking_image(curves: Sequence[Counts], names: Sequence[str]) -> Tensor:
    """Draws precision over recall and the ROC curve of the first ten labels.

    Args:
        curves: one for each label.
        names: of the labels.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    right.set(xlabel="false positive rate", ylabel="recall", xlim=(0, 1), ylim=(0, 1.02))
    right.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    for curve, name in zip(curves[:MOST_CURVES], names, strict=False):
        hits, seen = curve.hits.double().cpu().numpy(), curve.seen.double().cpu().numpy()
        if not len(hits) or hits[-1] in (0, seen[-1]):
            continue  # without positives or without negatives there is no curve
        recall, misses = hits / hits[-1], seen - hits
        label = name.replace("$", r"\$")
        left.step([0, *recall], [hits[0] / seen[0], *(hits / seen)], where="pre", label=label)
        right.plot([0, *(misses / misses[-1])], [0, *recall], label=label)
    if right.get_legend_handles_labels()[1]:
        right.legend(fontsize=8)
    return render(figure)
