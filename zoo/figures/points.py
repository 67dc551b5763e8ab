"""Charts of points: ``(3, height, width)`` in [0, 1]."""

import torch
from torch import Tensor

from zoo.figures.grids import render

MOST_EDGES = 2_000  # more lines than this hide the nodes


def fit_image(targets: Tensor, predictions: Tensor) -> Tensor:
    """Draws predictions against true values; a perfect one lies on the diagonal.

    Args:
        targets: true values, of any shape.
        predictions: likewise.
    """
    from matplotlib.figure import Figure

    true, predicted = (x.detach().flatten().float().cpu().numpy() for x in (targets, predictions))
    figure = Figure(figsize=(4.8, 4.4), layout="constrained")
    axes = figure.add_subplot(xlabel="true", ylabel="predicted")
    axes.scatter(true, predicted, s=12, alpha=0.5, linewidths=0)
    axes.axline((true.mean(), true.mean()), slope=1, color="grey", linewidth=1)
    return render(figure)


def scatter_image(points: Tensor, centres: Tensor) -> Tensor:
    """Draws points in the plane, and crosses where they should gather.

    The view is that of the centres with a margin; points beyond it are not seen.

    Args:
        points: ``(count, 2)``.
        centres: ``(modes, 2)``.
    """
    from matplotlib.figure import Figure

    places, marks = (x.detach().float().cpu().numpy() for x in (points, centres))
    low, high = marks.min(0), marks.max(0)
    margin = 0.25 * max(float((high - low).max()), 1.0)
    figure = Figure(figsize=(4.8, 4.8), layout="constrained")
    axes = figure.add_subplot(aspect="equal")
    axes.set_xlim(low[0] - margin, high[0] + margin)
    axes.set_ylim(low[1] - margin, high[1] + margin)
    axes.scatter(marks[:, 0], marks[:, 1], s=60, marker="+", color="0.6", linewidths=1)
    axes.scatter(places[:, 0], places[:, 1], s=4, alpha=0.4, linewidths=0)
    return render(figure)


def nodes_image(
    outputs: Tensor, labels: Tensor, edge_index: Tensor, *, is_classified: bool = True
) -> Tensor:
    """Draws the nodes of a graph where the network puts them, coloured by their true class.

    Each node lies at its output, projected on the two principal components of all outputs. Edges
    are drawn unless there are too many. A node that is classified wrongly has a black margin.

    Args:
        outputs: of the network, ``(nodes, classes)``; or vectors of the nodes, of any width.
        labels: true classes, ``(nodes,)``; below 0 where they are not known.
        edge_index: ``(2, edges)``.
        is_classified: whether the outputs are scores of the classes.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    outputs, labels, edges = outputs.detach().float().cpu(), labels.cpu(), edge_index.cpu()
    centred = outputs - outputs.mean(0)
    components = torch.linalg.svd(centred, full_matrices=False).Vh[:2]  # (2, classes)
    # Signs of principal components are arbitrary, and must not jump between two evaluations.
    components = components * components.sum(1, keepdim=True).sign()
    places = (centred @ components.mT).numpy()  # (nodes, 2)
    if places.shape[1] == 1:
        places = places.repeat(2, axis=1)
    figure = Figure(figsize=(5.6, 4.8), layout="constrained")
    axes = figure.add_subplot(xlabel="first component", ylabel="second component")
    if edges.size(1) <= MOST_EDGES:
        axes.add_collection(LineCollection(places[edges.T.numpy()], colors="0.8", linewidths=0.6))
    wrong = (outputs.argmax(1) != labels) & (labels >= 0) & is_classified
    axes.scatter(
        places[:, 0],
        places[:, 1],
        c=labels.numpy(),
        cmap="tab10",
        s=400 / len(labels) ** 0.5,
        edgecolors=["black" if w else "none" for w in wrong.tolist()],
        zorder=2,
    )
    return render(figure)
