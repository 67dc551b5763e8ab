r"""Graph convolutional network (Kipf and Welling, 2017).

"Semi-supervised classification with graph convolutional networks",
https://arxiv.org/abs/1609.02907

A layer replaces each node's features by a weighted mean of its own and its neighbours', then maps
them linearly. Two layers let a label speak for everything within two steps of it, so a few labelled
nodes suffice for a whole graph.

Differences from the paper: each layer has a bias, as in `torch_geometric`, whose checkpoints load
here. That the paper lets only the first layer's weights decay is left to the optimizer.

| graph | features | classes | `GCN` parameters |
|---|---|---|---|
| Cora | 1,433 | 7 | 23,063 |
| Citeseer | 3,703 | 6 | 59,366 |
| Pubmed | 500 | 3 | 8,067 |

`torch.compile` does not know the sparse products that this model is made of: it runs without it.
For `torch.func` and `torch.export`, which do not know them either, features must be dense, and the
products are sums over edges.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from zoo.layers.adjacency import normalized_adjacency
from zoo.layers.checks import check_at_least_one, check_probability
from zoo.layers.initialization import deferred_init, reset
from zoo.layers.sparse import LastSeen, SparseMatrix, dropout, features_of, linear


class GCNConv(nn.Module):
    r"""One graph convolution.

    .. math:: X' = \hat A X W^\top + b, \qquad \hat A = D^{-1/2} (A + I) D^{-1/2}

    (equation 2, without the non-linearity). :math:`W` starts as Glorot and Bengio (2010) say,
    :math:`b` at zero.

    Args:
        in_channels: features of a node.
        out_channels: features of a node after the layer.
        bias: whether there is a :math:`b`.

    Shape:
        - input: x ``(nodes, in_channels)``, dense or of CSR layout; edge_index ``(2, edges)`` and
          edge_weight ``(edges,)``, or instead of both what
          :func:`~zoo.layers.adjacency.normalized_adjacency` makes of them
        - output: ``(nodes, out_channels)``

    Raises:
        ValueError: if a size is smaller than 1; on a call, if ``edge_index`` is not a list of edges
            between the nodes of x.
    """

    bias: nn.Parameter | None

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__()
        check_at_least_one(in_channels=in_channels, out_channels=out_channels)
        self.lin = nn.Linear(in_channels, out_channels, bias=False)
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.lin.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(
        self,
        x: Tensor | SparseMatrix,
        edge_index: Tensor | SparseMatrix,
        edge_weight: Tensor | None = None,
    ) -> Tensor:
        # Features first, neighbours second: the product is narrower that way round.
        h = linear(x, self.lin.weight)
        if isinstance(edge_index, Tensor):
            graph = h.size(0), edge_weight, self.lin.weight.dtype
            edge_index = normalized_adjacency(edge_index, *graph)
        h = edge_index @ h  # (nodes, out_channels)
        return h if self.bias is None else h + self.bias


class GCN(nn.Module):
    r"""Graph convolutions with ReLU between them and dropout before each.

    .. math:: Z = \hat A\, \mathrm{relu}(\hat A X W_1^\top + b_1)\, W_2^\top + b_2

    Dropout of sparse features acts on the stored values, see :func:`~zoo.layers.sparse.dropout`.

    Args:
        in_features: features of a node.
        num_classes: width of the output.
        hidden_channels: width of the layers in between.
        num_layers: number of graph convolutions.
        dropout: probability of silencing each input of each layer during training.
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
        self.convs = nn.ModuleList(GCNConv(width, out) for width, out in pairwise(widths))
        self.dropout, self.cached = dropout, cached
        self._adjacency, self._features = LastSeen(), LastSeen()

    def init_weights(self) -> None:
        reset(self)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        h, adjacency = self._prepared(x, edge_index, edge_weight)
        for layer, conv in enumerate(self.convs):
            if layer > 0:
                h = torch.relu(h)
            h = dropout(h, self.dropout, self.training)
            h = conv(h, adjacency)
        return h  # (nodes, num_classes)

    def _prepared(
        self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None
    ) -> tuple[Any, SparseMatrix]:
        """Features and adjacency matrix as the layers take them."""
        graph = x.size(0), edge_weight, next(self.parameters()).dtype
        h = features_of(x, self._features, keep=self.cached)
        return h, self._adjacency(normalized_adjacency, edge_index, *graph, keep=self.cached)
