"""Node classification: one class a node of one graph, of which some nodes are labelled."""

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.figures.points import nodes_image
from zoo.metrics.sums import IGNORED, Accuracy, Mean
from zoo.tasks.prediction import Classes
from zoo.tasks.task import Image, Shown, Task, mean_over


class NodeClassification(Task):
    """Cross-entropy over the nodes of a mask, given all features and edges.

    The whole graph is one batch ``(features, edge_index, labels, mask)``; training and evaluation
    differ in the mask alone. The metrics are ``loss`` and ``accuracy`` over the masked nodes.

    Args:
        model: features and edges to logits, ``model(features, edge_index)``.
        num_classes: number of logits.

    Shape:
        - features: ``(nodes, in_features)``
        - edge_index: ``(2, edges)``
        - labels, mask: ``(nodes,)``
    """

    monitor = "accuracy"
    mode: Literal["min", "max"] = "max"
    predicts = Classes
    unit = "nodes"

    def __init__(self, model: nn.Module, *, num_classes: int) -> None:
        super().__init__(model)
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, not {num_classes}")
        self.num_classes = num_classes
        self.metrics = {
            "loss": Mean(higher_is_better=False),
            "accuracy": Accuracy(ignore_index=IGNORED),
        }
        self._graph: tuple[Tensor, Tensor, Tensor] | None = None  # of the last evaluation

    def loss(self, batch: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        features, edge_index, labels, mask = batch
        logits = self._logits(features, edge_index)
        return _cross_entropy(logits, _targets(labels, mask), mask.sum())

    def evaluate(self, batch: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        features, edge_index, labels, mask = batch
        logits, targets = self._logits(features, edge_index), _targets(labels, mask)
        self.metrics["loss"].update(*_cross_entropy(logits, targets, mask.sum()))
        self.metrics["accuracy"].update(logits, targets)
        self._graph = logits.detach(), labels, edge_index

    def show(self) -> dict[str, Shown]:
        """``nodes``, in the plane that their logits span; those of all splits."""
        return {} if self._graph is None else {"nodes": Image(partial(nodes_image, *self._graph))}

    def example_inputs(self, batch: Any) -> tuple[Any, ...]:
        return tuple(batch[:2])

    def predict(self, batch: Any) -> Classes:
        """Probabilities of the classes for every node: ``(nodes, classes)``."""
        features, edge_index = batch[:2]
        return Classes(self._logits(features, edge_index).softmax(1, dtype=torch.float32))

    def _logits(self, features: Tensor, edge_index: Tensor) -> Tensor:
        logits = self.model(features, edge_index)
        if logits.shape[1:] != (self.num_classes,):
            raise ValueError(
                f"num_classes is {self.num_classes}, so the model must return logits of shape "
                f"(nodes, {self.num_classes}), not {tuple(logits.shape)}"
            )
        return logits


def _cross_entropy(logits: Tensor, targets: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    total = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
    return mean_over(total, count), count


def _targets(labels: Tensor, mask: Tensor) -> Tensor:
    # Indexing by the mask would wait for the device to learn how many nodes it selects.
    return labels.where(mask, IGNORED)  # (nodes,)
