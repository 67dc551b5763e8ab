"""Node classification: one class a node of one graph, of which some nodes are labelled."""

from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.figures.points import nodes_image
from zoo.inference.layerwise import Layered, layerwise
from zoo.metrics.sums import IGNORED, Accuracy, Mean
from zoo.tasks.prediction import Classes
from zoo.tasks.task import Image, Shown, Task, mean_over


class NodeClassification(Task):
    """Cross-entropy over the nodes of a mask, given all features and edges.

    The whole graph is one batch ``(features, edge_index, labels, mask, edge_weight)``, the last of
    which may be None or missing; training and evaluation differ in the mask alone. The metrics are
    ``loss`` and ``accuracy`` over the masked nodes.

    A graph too large for that is evaluated layer by layer: its batch is ``(features, starts,
    sources, labels, mask)``, with the edges ordered by target, and the model must be a
    :class:`~zoo.inference.layerwise.Layered`.

    Args:
        model: features and edges to logits, ``model(features, edge_index)``, or ``model(features,
            edge_index, edge_weight)`` where the edges have weights.
        num_classes: number of logits.
        class_names: for predictions; the class numbers if None.

    Shape:
        - features: ``(nodes, in_features)``
        - edge_index: ``(2, edges)``
        - labels, mask: ``(nodes,)``
        - edge_weight: ``(edges,)``
    """

    monitor = "accuracy"
    mode: Literal["min", "max"] = "max"
    predicts = Classes
    output_kind = "logits"
    unit = "nodes"

    def __init__(
        self,
        model: nn.Module,
        *,
        num_classes: int,
        class_names: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(model)
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, not {num_classes}")
        if class_names is not None and len(class_names) != num_classes:
            raise ValueError(
                f"class_names must name {num_classes} classes (num_classes), not {len(class_names)}"
            )
        self.num_classes = num_classes
        self.class_names = class_names
        self.metrics = {
            "loss": Mean(higher_is_better=False),
            "accuracy": Accuracy(ignore_index=IGNORED),
        }
        self._graph: tuple[Tensor, Tensor, Tensor] | None = None  # of the last evaluation

    def loss(self, batch: Any) -> tuple[Tensor, Tensor]:
        labels, mask = batch[2:4]
        logits = self._logits(batch)
        return _cross_entropy(logits, _targets(labels, mask), mask.sum())

    def evaluate(self, batch: Any) -> None:
        if hasattr(batch, "starts"):
            self._evaluate_by_layer(batch)
            return
        edge_index, labels, mask = batch[1:4]
        logits, targets = self._logits(batch), _targets(labels, mask)
        self.metrics["loss"].update(*_cross_entropy(logits, targets, mask.sum()))
        self.metrics["accuracy"].update(logits, targets)
        self._graph = logits.detach(), labels, edge_index

    def _evaluate_by_layer(self, batch: Any) -> None:
        features, starts, sources, labels, mask = batch
        # Not isinstance: from Python 3.12 on, that does not see the modules within a module.
        if not hasattr(self.model, "apply_layer"):
            raise ValueError(
                f"{type(self.model).__name__} cannot be evaluated on a graph this large, layer by "
                "layer: choose model=graph_sage, or data that fit in memory"
            )
        logits = layerwise(cast(Layered, self.model), features, starts, sources)
        targets = _targets(labels, mask)
        self.metrics["loss"].update(*_cross_entropy(logits, targets, mask.sum()))
        self.metrics["accuracy"].update(logits, targets)

    def show(self) -> dict[str, Shown]:
        """``nodes``, in the plane that their logits span; those of all splits."""
        return {} if self._graph is None else {"nodes": Image(partial(nodes_image, *self._graph))}

    def next_steps(self, data: Any) -> list[str]:
        if not hasattr(data, "read_inputs"):
            return []
        return ["evaluate.py run={run} predict=<folder>"]

    def example_inputs(self, batch: Any) -> tuple[Any, ...]:
        return graph_of(batch)

    def targets_of(self, batch: Any) -> Tensor:
        """The labels of the mask's nodes, and -100 for all others."""
        return _targets(*batch[-2:] if hasattr(batch, "starts") else batch[2:4])

    def predict(self, batch: Any) -> Classes:
        """Probabilities of the classes for every node: ``(nodes, classes)``."""
        return Classes(self._logits(batch).softmax(1, dtype=torch.float32), self.class_names)

    def _logits(self, batch: Any) -> Tensor:
        logits: Tensor = self.model(*graph_of(batch))
        if logits.shape[1:] != (self.num_classes,):
            raise ValueError(
                f"num_classes is {self.num_classes}, so the model must return logits of shape "
                f"(nodes, {self.num_classes}), not {tuple(logits.shape)}"
            )
        return logits


def graph_of(batch: Any) -> tuple[Tensor, ...]:
    """Features and edges of a batch and, unless all edges count alike, their weights."""
    weights = [weight for weight in batch[4:5] if weight is not None]
    return (*batch[:2], *weights)


def _cross_entropy(logits: Tensor, targets: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    total = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
    return mean_over(total, count), count


def _targets(labels: Tensor, mask: Tensor) -> Tensor:
    # Indexing by the mask would wait for the device to learn how many nodes it selects.
    return labels.where(mask, IGNORED)  # (nodes,)
