"""How metrics went over the steps of several runs: ``(3, height, width)`` in [0, 1]."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from zoo.figures.grids import render

Curve = tuple[Sequence[float], Sequence[float]]
"""Steps and values."""


def histories_image(
    metrics: Mapping[str, Mapping[str, Sequence[Curve]]], *, columns: int = 2
) -> Tensor:
    """Draws one chart a metric, in which the curves of one side have one colour.

    Args:
        metrics: the curves by metric and side; a side may have several, one a run.
        columns: charts a row.

    Raises:
        ValueError: there is no metric.
    """
    from matplotlib.figure import Figure

    if not metrics:
        raise ValueError("histories_image takes at least one metric")
    columns = min(columns, len(metrics))
    rows = -(-len(metrics) // columns)
    figure = Figure(figsize=(4.6 * columns, 2.8 * rows), layout="constrained")
    all_axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, (name, sides) in zip(all_axes, metrics.items(), strict=False):
        for number, (side, curves) in enumerate(sides.items()):
            for first, (steps, values) in enumerate(curves):
                mark = "o" if len(steps) == 1 else None  # a line of one point cannot be seen
                label = side if first == 0 else None
                axes.plot(
                    steps, values, color=f"C{number}", linewidth=1.2, marker=mark, label=label
                )
        axes.set(title=name, xlabel="step")
        axes.legend(fontsize=8)
    for axes in all_axes[len(metrics) :]:
        axes.set_axis_off()
    return render(figure)
