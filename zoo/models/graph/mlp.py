r"""A perceptron on each node's features: what a graph network must beat.

.. math:: h_0 = x, \qquad h_l = \mathrm{relu}(W_l h_{l-1} + b_l), \qquad y = W_L h_{L-1} + b_L

The network of `GCN` without the graph (the baseline of Kipf and Welling, 2017, table 3,
https://arxiv.org/abs/1609.02907): it takes edges, as all networks here do, and ignores them.

| graph | features | classes | `NodeMLP` parameters |
|---|---|---|---|
| Cora | 1,433 | 7 | 23,063 |
| Citeseer | 3,703 | 6 | 59,366 |
| Pubmed | 500 | 3 | 8,067 |
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_probability
from zoo.layers.initialization import deferred_init, reset
from zoo.layers.sparse import LastSeen, dropout, features_of, linear


class NodeMLP(nn.Module):
    r"""Linear layers with ReLU between them and dropout before each, node by node.

    Weights start as Glorot and Bengio (2010) say, biases at zero, as in the `GCN`.

    Args:
        in_features: features of a node.
        num_classes: width of the output.
        hidden_channels: width of the layers in between.
        num_layers: number of linear layers.
        dropout: probability of silencing each input of each layer during training.
        cached: keep where the entries of sparse features lie until a call gets another tensor.

    Shape:
        - input: x ``(nodes, in_features)``, dense or of CSR layout; edges, which do not matter
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
        hidden_channels: int = 16,
        num_layers: int = 2,
        dropout: float = 0.5,
        cached: bool = True,
    ) -> None:
        super().__init__()
        check_at_least_one(
            in_features=in_features,
            num_classes=num_classes,
            hidden_channels=hidden_channels,
            num_layers=num_layers,
        )
        check_probability(dropout=dropout)
        widths = [in_features, *[hidden_channels] * (num_layers - 1), num_classes]
        self.lins = nn.ModuleList(nn.Linear(width, out) for width, out in pairwise(widths))
        self.dropout, self.cached = dropout, cached
        self._features = LastSeen()

    def init_weights(self) -> None:
        reset(self)
        lin: Any
        for lin in self.lins:
            nn.init.xavier_uniform_(lin.weight)
            nn.init.zeros_(lin.bias)

    def forward(
        self, x: Tensor, edge_index: Tensor | None = None, edge_weight: Tensor | None = None
    ) -> Tensor:
        h: Any = features_of(x, self._features, keep=self.cached)
        lin: Any
        for layer, lin in enumerate(self.lins):
            if layer > 0:
                h = torch.relu(h)
            h = dropout(h, self.dropout, self.training)
            h = linear(h, lin.weight, lin.bias)
        logits: Tensor = h
        return logits  # (nodes, num_classes)
