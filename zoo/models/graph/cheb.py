r"""Chebyshev spectral graph convolutions (Defferrard, Bresson and Vandergheynst, 2016).

"Convolutional neural networks on graphs with fast localized spectral filtering",
https://arxiv.org/abs/1606.09375

A filter of a graph's spectrum that is a polynomial of the Laplacian needs no eigenvectors, and of
degree K - 1 sees no further than K - 1 steps. In the basis of Chebyshev polynomials (equation 4)
it is stable to compute:

.. math::
    y = \sum_{k=0}^{K-1} T_k(\tilde L)\, X \Theta_k, \qquad
    \tilde L = \frac{2}{\lambda_{\max}} L - I, \qquad
    T_k(\tilde L) = 2 \tilde L\, T_{k-1}(\tilde L) - T_{k-2}(\tilde L)

with :math:`T_0 = I` and :math:`T_1 = \tilde L`.

The sum is computed from its end (Clenshaw, 1955, https://doi.org/10.1090/S0025-5718-1955-0071856-0):
with :math:`H_k = X \Theta_k`

.. math::
    B_k = H_k + 2 \tilde L B_{k+1} - B_{k+2}, \qquad y = H_0 + \tilde L B_1 - B_2,

so that the products with the Laplacian are as wide as the outputs and not as the inputs.

Differences from the paper: its networks classify whole graphs, with coarsening and pooling.
`ChebNet` classifies nodes, as in the comparison of Kipf and Welling (2017), table 3. Where no
largest eigenvalue is given, a bound on it stands in its place, as in `torch_geometric`, whose
checkpoints load here.

| graph | features | classes | `ChebNet` parameters |
|---|---|---|---|
| Cora | 1,433 | 7 | 69,143 |
| Citeseer | 3,703 | 6 | 178,054 |
| Pubmed | 500 | 3 | 24,163 |
"""

from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zoo.layers.adjacency import inverse_root, weights_or_ones
from zoo.layers.checks import check_at_least_one, check_probability
from zoo.layers.initialization import deferred_init, reset
from zoo.layers.message_passing import Ends, check_edge_index
from zoo.layers.sparse import (
    LastSeen,
    SparseMatrix,
    dropout,
    features_of,
    linear,
    sparse_matrix,
)

Normalization = Literal["sym", "rw"] | None


def scaled_laplacian(
    edge_index: Tensor,
    num_nodes: int,
    edge_weight: Tensor | None = None,
    normalization: Normalization = "sym",
    lambda_max: float | Tensor | None = None,
    batch: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> SparseMatrix:
    r"""The Laplacian with its eigenvalues moved from :math:`[0, \lambda_{\max}]` to [-1, 1].

    .. math::
        \tilde L = \frac{2}{\lambda_{\max}} L - I, \qquad L = I - D^{-1/2} A D^{-1/2}
        \;\text{(sym)}, \quad I - A D^{-1} \;\text{(rw)}, \quad D - A \;\text{(None)}

    Row i holds what node i receives, degrees are sums over the edges that leave a node, and
    self-loops in ``edge_index`` do not count.

    Args:
        edge_index: sources and targets of the edges, ``(2, edges)``, both directions of each.
        num_nodes: number of nodes.
        edge_weight: weight of each edge, ``(edges,)``; None: all are 1.
        normalization: which Laplacian.
        lambda_max: its largest eigenvalue, or one for each graph of ``batch``, ``(graphs,)``. None:
            twice its largest entry, which with weights that are not negative is no less (it is 2
            for the first two Laplacians and twice the largest degree for the third).
        batch: the graph of each node, ``(nodes,)``, where there are several eigenvalues.
        dtype: type of the values.

    Raises:
        ValueError: if an argument has another shape or is outside its range.
    """
    check_edge_index(edge_index, num_nodes)
    _check_normalization(normalization)
    edges, nodes = edge_index.size(1), torch.arange(num_nodes, device=edge_index.device)
    weights = weights_or_ones(edge_index, edge_weight, dtype)
    weights = weights.masked_fill(edge_index[0] == edge_index[1], 0)
    source, target = Ends(edge_index[0], num_nodes), Ends(edge_index[1], num_nodes)
    degree = source.sum(weights)  # (nodes,)
    diagonal = degree if normalization is None else torch.ones_like(degree)
    if normalization == "sym":
        scale = inverse_root(degree)
        weights = source.gather(scale) * target.gather(scale) * weights
    elif normalization == "rw":
        is_empty = degree == 0
        scale = degree.masked_fill(is_empty, 1).reciprocal().masked_fill(is_empty, 0)
        weights = source.gather(scale) * weights
    values = torch.cat([-weights, diagonal])  # (edges + nodes,)
    loops = torch.stack([nodes, nodes])
    source_of, target_of = torch.cat([edge_index, loops], dim=1)
    factor = _factor(values, lambda_max, source_of, batch)
    identity = torch.cat([values.new_zeros(edges), values.new_ones(num_nodes)])
    laplacian = sparse_matrix(target_of, source_of, factor * values - identity, size=num_nodes)
    return laplacian.with_values(laplacian.values.to(dtype))


def _factor(
    values: Tensor, lambda_max: float | Tensor | None, node_of: Tensor, batch: Tensor | None
) -> Tensor:
    """2 over the largest eigenvalue, of which there is one or one an entry."""
    if lambda_max is None:
        largest = 2 * values.max()
    elif isinstance(lambda_max, Tensor):
        largest = lambda_max.to(values)
        if largest.numel() > 1:
            if batch is None:
                raise ValueError(
                    f"lambda_max has {largest.numel()} values: batch must say which node has which"
                )
            largest = largest.index_select(0, batch.index_select(0, node_of))
    elif lambda_max > 0:
        largest = values.new_tensor(lambda_max)
    else:
        raise ValueError(f"lambda_max must be above 0, not {lambda_max}")
    # A graph without edges may have a Laplacian of zeros, which nothing need be scaled to.
    is_zero = largest == 0
    return (2 / largest.masked_fill(is_zero, 1)).masked_fill(is_zero, 0)


class ChebConv(nn.Module):
    r"""One Chebyshev filter for each pair of an input and an output channel.

    .. math:: X' = \sum_{k=0}^{K-1} T_k(\tilde L)\, X \Theta_k + b

    (equations 4 and 5). :math:`\Theta_k` start as Glorot and Bengio (2010) say, :math:`b` at zero.

    Args:
        in_channels: features of a node.
        out_channels: features of a node after the layer.
        K: size of the filter: it sees K - 1 steps far.
        normalization: the Laplacian, see :func:`scaled_laplacian`.
        bias: whether there is a :math:`b`.

    Shape:
        - input: x ``(nodes, in_channels)``, dense or of CSR layout; edge_index ``(2, edges)`` and
          edge_weight ``(edges,)``, or instead of both what :func:`scaled_laplacian` makes of them;
          batch and lambda_max as there
        - output: ``(nodes, out_channels)``

    Raises:
        ValueError: if a size is smaller than 1 or the normalization is unknown.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        K: int,
        *,
        normalization: Normalization = "sym",
        bias: bool = True,
    ) -> None:
        super().__init__()
        check_at_least_one(in_channels=in_channels, out_channels=out_channels, K=K)
        _check_normalization(normalization)
        self.normalization: Normalization = normalization
        self.lins = nn.ModuleList(
            nn.Linear(in_channels, out_channels, bias=False) for _ in range(K)
        )
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        lin: Any
        for lin in self.lins:
            nn.init.xavier_uniform_(lin.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(
        self,
        x: Tensor | SparseMatrix,
        edge_index: Tensor | SparseMatrix,
        edge_weight: Tensor | None = None,
        batch: Tensor | None = None,
        lambda_max: float | Tensor | None = None,
    ) -> Tensor:
        x = features_of(x) if isinstance(x, Tensor) else x
        lins: Any = self.lins
        h = [linear(x, lin.weight) for lin in lins]  # K times (nodes, out_channels)
        if isinstance(edge_index, Tensor):
            scaling = self.normalization, lambda_max, batch, lins[0].weight.dtype
            edge_index = scaled_laplacian(edge_index, h[0].size(0), edge_weight, *scaling)
        y = chebyshev_sum(edge_index, h)
        return y if self.bias is None else y + self.bias


def chebyshev_sum(laplacian: SparseMatrix, h: list[Tensor]) -> Tensor:
    r""":math:`\sum_k T_k(\tilde L) H_k` by Clenshaw's recurrence, K - 1 products in all."""
    if len(h) == 1:
        return h[0]
    after, b = None, h[-1]  # B_{k+2}, B_{k+1}
    for term in reversed(h[1:-1]):
        following = term + 2 * (laplacian @ b)
        after, b = b, following if after is None else following - after
    y = h[0] + laplacian @ b
    return y if after is None else y - after


class ChebNet(nn.Module):
    r"""Chebyshev convolutions with ReLU between them and dropout before each.

    Args:
        in_features: features of a node.
        num_classes: width of the output.
        hidden_channels: width of the layers in between.
        num_layers: number of convolutions.
        K: size of the filters.
        normalization: the Laplacian, see :func:`scaled_laplacian`.
        dropout: probability of silencing each input of each layer during training.
        cached: keep what depends on the graph alone, the Laplacian and where the entries of sparse
            features lie, until a call gets another tensor (or the same one, changed in place): for
            training on one whole graph. No copy or state dict has any of it.

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
        K: int = 3,
        normalization: Normalization = "sym",
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
        self.convs = nn.ModuleList(
            ChebConv(width, out, K, normalization=normalization) for width, out in pairwise(widths)
        )
        # All maps of the last layer add up to the classes.
        self.output_layers = [f"convs.{num_layers - 1}.lins.{k}" for k in range(K)]
        self.normalization: Normalization = normalization
        self.dropout, self.cached = dropout, cached
        self._laplacian, self._features = LastSeen(), LastSeen()

    def init_weights(self) -> None:
        reset(self)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        h, laplacian = self._prepared(x, edge_index, edge_weight)
        for layer, conv in enumerate(self.convs):
            if layer > 0:
                h = torch.relu(h)
            h = dropout(h, self.dropout, self.training)
            h = conv(h, laplacian)
        return h  # (nodes, num_classes)

    def _prepared(
        self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None
    ) -> tuple[Any, SparseMatrix]:
        """Features and Laplacian as the layers take them."""
        h: Any = features_of(x, self._features, keep=self.cached)
        dtype = next(self.parameters()).dtype
        graph = x.size(0), edge_weight, self.normalization, None, None, dtype
        return h, self._laplacian(scaled_laplacian, edge_index, *graph, keep=self.cached)


def _check_normalization(normalization: Normalization) -> None:
    if normalization not in ("sym", "rw", None):
        raise ValueError(f"normalization must be sym, rw or None, not {normalization!r}")
