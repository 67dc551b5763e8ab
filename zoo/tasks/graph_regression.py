"""Graph regression: real numbers for each graph, of many graphs in packed batches."""

from typing import Any

from zoo.tasks.graph_classification import graph_inputs, own_graphs
from zoo.tasks.regression import Regression


class GraphRegression(Regression):
    """Squared error, averaged over graphs and values.

    This is :class:`~zoo.tasks.regression.Regression`, whose metrics and image it has, for batches
    ``(features, edge_index, batch, values)`` of graphs packed into one, where ``batch`` says which
    graph a node belongs to.

    Shape:
        - features: ``(nodes, in_features)``
        - edge_index: ``(2, edges)``
        - batch: ``(nodes,)``
        - values: ``(graphs, outputs)``
        - predictions, ``model(features, edge_index, batch, num_graphs)``: as the values
    """

    unit = "graphs"

    def example_inputs(self, batch: Any) -> tuple[Any, ...]:
        return graph_inputs(batch)

    def targets_of(self, batch: Any) -> Any:
        return batch[3]

    def next_steps(self, data: Any) -> list[str]:
        return own_graphs(data)
