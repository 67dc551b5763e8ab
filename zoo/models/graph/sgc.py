r"""Simple graph convolution (Wu, Zhang, de Souza, Fifty, Yu and Weinberger, 2019).

"Simplifying graph convolutional networks", https://arxiv.org/abs/1902.07153

A graph convolutional network without its non-linearities is a linear classifier of features that
were averaged over the neighbourhood K times (equation 8):

.. math:: \hat Y = \mathrm{softmax}(\hat A^K X \Theta), \qquad
    \hat A = D^{-1/2} (A + I) D^{-1/2}

The averaging has no weights: it is done once, and training is that of logistic regression.

Differences from the paper: there is a bias, as in `torch_geometric`, whose checkpoints load here,
and in the paper's own code.

| graph | features | classes | `SGC` parameters |
|---|---|---|---|
| Cora | 1,433 | 7 | 10,038 |
| Citeseer | 3,703 | 6 | 22,224 |
| Pubmed | 500 | 3 | 1,503 |
"""

import torch
from torch import Tensor, nn

from zoo.layers.adjacency import normalized_adjacency
from zoo.layers.checks import check_at_least_one
from zoo.layers.initialization import deferred_init, reset
from zoo.layers.sparse import LastSeen


def propagated(
    x: Tensor,
    edge_index: Tensor,
    edge_weight: Tensor | None = None,
    K: int = 1,
    add_self_loops: bool = True,
) -> Tensor:
    r""":math:`\hat A^K X`, dense: ``(nodes, channels)``."""
    x = x.to_dense() if x.layout == torch.sparse_csr else x
    graph = x.size(0), edge_weight, x.dtype, add_self_loops
    adjacency = normalized_adjacency(edge_index, *graph)
    for _ in range(K):
        x = adjacency @ x
    return x


class SGConv(nn.Module):
    r"""A linear map of features averaged over K steps.

    .. math:: X' = \hat A^K X W^\top + b

    Args:
        in_channels: features of a node.
        out_channels: features of a node after the layer.
        K: how often they are averaged.
        cached: keep :math:`\hat A^K X` until a call gets other tensors (or the same ones, changed
            in place). No copy or state dict has it.
        add_self_loops: whether nodes have self-loops.
        bias: whether there is a :math:`b`.

    Shape:
        - input: x ``(nodes, in_channels)``, dense or of CSR layout; edge_index ``(2, edges)``;
          edge_weight ``(edges,)``, 1 where there is none
        - output: ``(nodes, out_channels)``

    Raises:
        ValueError: if a size is smaller than 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        K: int = 1,
        *,
        cached: bool = False,
        add_self_loops: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        check_at_least_one(in_channels=in_channels, out_channels=out_channels, K=K)
        self.K, self.cached, self.add_self_loops = K, cached, add_self_loops
        self.lin = nn.Linear(in_channels, out_channels, bias=bias)
        self._averaged = LastSeen()

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        graph = edge_index, edge_weight, self.K, self.add_self_loops
        averaged = self._averaged(propagated, x, *graph, keep=self.cached)
        out: Tensor = self.lin(averaged)
        return out  # (nodes, out_channels)


class SGC(nn.Module):
    r"""Logistic regression on averaged features: one :class:`SGConv`.

    Args:
        in_features: features of a node.
        num_classes: width of the output.
        K: how often they are averaged.
        cached: whether the averages are kept, see :class:`SGConv`.

    Shape:
        - input: x ``(nodes, in_features)``, dense or of CSR layout; edge_index ``(2, edges)``;
          edge_weight ``(edges,)``, 1 where there is none
        - output: logits ``(nodes, num_classes)``

    Raises:
        ValueError: if a size is smaller than 1.
    """

    @deferred_init
    def __init__(
        self, in_features: int, num_classes: int, *, K: int = 2, cached: bool = True
    ) -> None:
        super().__init__()
        check_at_least_one(in_features=in_features, num_classes=num_classes)
        self.conv = SGConv(in_features, num_classes, K, cached=cached)

    def init_weights(self) -> None:
        reset(self)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        logits: Tensor = self.conv(x, edge_index, edge_weight)
        return logits  # (nodes, num_classes)
