"""Images of sequences of numbers: ``(3, height, width)`` in [0, 1]."""

from torch import Tensor

from zoo.figures.grids import render


def curves_image(
    given: Tensor | None, targets: Tensor, predictions: Tensor, *, columns: int = 2
) -> Tensor:
    """Draws what was given, what followed and what was predicted, one small chart a sample.

    Args:
        given: the beginning of each series, ``(samples, window)``; None where there is none.
        targets: what followed, ``(samples, time)``.
        predictions: likewise.
        columns: charts a row.
    """
    from matplotlib.figure import Figure

    columns = min(columns, len(targets))
    rows = -(-len(targets) // columns)
    window = 0 if given is None else given.size(1)
    steps = range(window, window + targets.size(1))
    mark = "o" if targets.size(1) == 1 else None  # a line of one point cannot be seen
    figure = Figure(figsize=(4.0 * columns, 2.2 * rows), layout="constrained")
    all_axes = list(figure.subplots(rows, columns, squeeze=False, sharex=True).flat)
    for number, axes in zip(range(len(targets)), all_axes, strict=False):
        if given is not None:
            axes.plot(range(window), given[number].float().cpu().numpy(), color="grey")
        for name, values, style in (("true", targets, "-"), ("predicted", predictions, "--")):
            curve = values[number].float().cpu().numpy()
            axes.plot(steps, curve, style, marker=mark, label=name)
    for axes in all_axes[len(targets) :]:
        axes.set_axis_off()
    figure.axes[0].legend(fontsize=8)
    return render(figure)
