"""Graph classification: one class a graph, of many graphs in packed batches."""

from typing import Any

from torch import Tensor

from zoo.tasks.classification import Classification


class GraphClassification(Classification):
    """Cross-entropy between the predicted classes and the true ones, averaged over graphs.

    This is :class:`~zoo.tasks.classification.Classification`, whose arguments, metrics and tables
    it has, for batches ``(features, edge_index, batch, labels)`` of graphs packed into one, where
    ``batch`` says which graph a node belongs to.

    Shape:
        - features: ``(nodes, in_features)``
        - edge_index: ``(2, edges)``
        - batch: ``(nodes,)``
        - labels: ``(graphs,)``
        - logits, ``model(features, edge_index, batch, num_graphs)``: ``(graphs, classes)``
    """

    unit = "graphs"

    def example_inputs(self, batch: Any) -> tuple[Any, ...]:
        return graph_inputs(batch)

    def targets_of(self, batch: Any) -> Any:
        return batch[3]

    def next_steps(self, data: Any) -> list[str]:
        return own_graphs(data)


def own_graphs(data: Any) -> list[str]:
    """How to predict for graphs of one's own, where the data can read some."""
    return ["evaluate.py run={run} predict=<folder>"] if hasattr(data, "read_inputs") else []


def graph_inputs(batch: Any) -> tuple[Tensor, Tensor, Tensor, int]:
    """Features, edges, graph of each node and the number of graphs of a packed batch."""
    features, edge_index, graph_of, labels = batch[:4]
    return features, edge_index, graph_of, len(labels)
