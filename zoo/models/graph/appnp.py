r"""Personalised propagation of neural predictions (Gasteiger, Bojchevski and Günnemann, 2019).

"Predict then propagate: graph neural networks meet personalized PageRank",
https://arxiv.org/abs/1810.05997

A network predicts from each node's features alone, and its predictions are then spread over the
graph. Each step of the power iteration (equation 5) returns to the prediction itself with
probability :math:`\alpha`, so that many steps do not smooth everything to one value:

.. math::
    Z^{(0)} = H = f_\theta(X), \qquad
    Z^{(k+1)} = (1 - \alpha)\, \hat A Z^{(k)} + \alpha H, \qquad
    \hat A = D^{-1/2} (A + I) D^{-1/2}

It approximates :math:`\alpha (I - (1 - \alpha) \hat A)^{-1} H`, personalised PageRank, and has no
weights: how far a node sees costs none.

Differences from the paper: the layers of :math:`f_\theta` have biases, as in the benchmark of
`torch_geometric`. That only the first layer's weights decay is left to the optimizer.

| graph | features | classes | `APPNPNet` parameters |
|---|---|---|---|
| Cora | 1,433 | 7 | 92,231 |
| Citeseer | 3,703 | 6 | 237,446 |
| Pubmed | 500 | 3 | 32,259 |
"""

import torch
from torch import Tensor, nn

from zoo.layers.adjacency import normalized_adjacency
from zoo.layers.checks import check_at_least_one, check_probability
from zoo.layers.initialization import deferred_init
from zoo.layers.sparse import LastSeen, SparseMatrix, dropout
from zoo.models.graph.mlp import NodeMLP


class APPNP(nn.Module):
    r"""K steps of personalised PageRank from each node.

    .. math:: Z^{(k+1)} = (1 - \alpha)\, \hat A Z^{(k)} + \alpha X, \qquad Z^{(0)} = X

    Args:
        K: number of steps.
        alpha: probability of returning to where one began.
        dropout: probability of silencing each entry of :math:`\hat A` during training, drawn anew
            in each step.
        add_self_loops: whether nodes have self-loops.

    Shape:
        - input: x ``(nodes, channels)``; edge_index ``(2, edges)`` and edge_weight ``(edges,)``, or
          instead of both what :func:`~zoo.layers.adjacency.normalized_adjacency` makes of them
        - output: ``(nodes, channels)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    def __init__(
        self, K: int, alpha: float, *, dropout: float = 0.0, add_self_loops: bool = True
    ) -> None:
        super().__init__()
        check_at_least_one(K=K)
        check_probability(dropout=dropout)
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be in [0, 1], not {alpha}")
        self.K, self.alpha, self.dropout = K, alpha, dropout
        self.add_self_loops = add_self_loops

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor | SparseMatrix,
        edge_weight: Tensor | None = None,
    ) -> Tensor:
        if isinstance(edge_index, Tensor):
            graph = x.size(0), edge_weight, x.dtype, self.add_self_loops
            edge_index = normalized_adjacency(edge_index, *graph)
        z, start = x, self.alpha * x
        for _ in range(self.K):
            adjacency = dropout(edge_index, self.dropout, self.training)
            z = torch.add(start, adjacency @ z, alpha=1 - self.alpha)
        return z


class APPNPNet(NodeMLP):
    r"""A perceptron on each node's features, then :class:`APPNP` on what it predicts.

    Args:
        in_features: features of a node.
        num_classes: width of the output.
        hidden_channels: width of the perceptron's hidden layers.
        num_layers: number of the perceptron's layers.
        K: steps of propagation.
        alpha: probability of returning to a node's own prediction.
        dropout: probability of silencing each input of each layer during training.
        propagation_dropout: that of each entry of the adjacency matrix, in each step.
        cached: keep what depends on the graph alone, the normalised adjacency matrix and where the
            entries of sparse features lie, until a call gets another tensor (or the same one,
            changed in place): for training on one whole graph. No copy or state dict has any of it.

    Shape:
        - input: x ``(nodes, in_features)``, dense or of CSR layout; edge_index ``(2, edges)``;
          edge_weight ``(edges,)``, 1 where there is none
        - output: logits ``(nodes, num_classes)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    @deferred_init
    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        hidden_channels: int = 64,
        num_layers: int = 2,
        K: int = 10,
        alpha: float = 0.1,
        dropout: float = 0.5,
        propagation_dropout: float = 0.5,
        cached: bool = True,
    ) -> None:
        super().__init__(
            in_features,
            num_classes,
            hidden_channels=hidden_channels,
            num_layers=num_layers,
            dropout=dropout,
            cached=cached,
        )
        check_probability(propagation_dropout=propagation_dropout)
        self.propagation = APPNP(K, alpha, dropout=propagation_dropout)
        self._adjacency = LastSeen()

    def forward(  # type: ignore[override]  # the perceptron does without edges
        self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None
    ) -> Tensor:
        graph = x.size(0), edge_weight, next(self.parameters()).dtype
        adjacency = self._adjacency(normalized_adjacency, edge_index, *graph, keep=self.cached)
        logits: Tensor = self.propagation(super().forward(x), adjacency)
        return logits  # (nodes, num_classes)
