r"""Graph convolutional network (Kipf and Welling, 2017).

"Semi-supervised classification with graph convolutional networks",
https://arxiv.org/abs/1609.02907

A layer replaces each node's features by a weighted mean of its own and its neighbours', then maps
them linearly. Two layers let a label speak for everything within two steps of it, so a few labelled
nodes suffice for a whole graph.

Differences from the paper: each layer has a bias, as in `torch_geometric`, whose checkpoints load
here. That the paper lets only the first layer's weights decay is the optimizer's affair.

| graph | features | classes | `GCN` parameters |
|---|---|---|---|
| Cora | 1,433 | 7 | 23,063 |
| Citeseer | 3,703 | 6 | 59,366 |
| Pubmed | 500 | 3 | 8,067 |

What depends on the graph alone is computed once for each ``edge_index`` tensor and kept beside it,
as long as that tensor lives: the normalised adjacency matrix and its transpose (gradients flow
against the edges). The same holds for where the entries of sparse features lie. It is found again
by the identity of the tensor, which stands for its device too, and computed anew if the tensor was
changed in place. No state dict, copy or pickle of a model contains any of it. `torch.compile` does
not know CSR tensors: this model runs without it.
"""

import warnings
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from zoo.layers.checks import check_at_least_one, check_probability

# Said of every CSR tensor since torch 1.9; the two operations used here are compared with dense
# ones in the tests.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")


class SparseMatrix:
    """A constant matrix in CSR form beside its transpose, for products with dense matrices.

    torch's own product builds the transpose again in each backward pass, which for the graph and
    the features of Cora costs several times as much as all products together.

    Args:
        matrix: the matrix, of CSR layout.
    """

    def __init__(self, matrix: Tensor) -> None:
        rows, columns = matrix.shape
        row_starts, column_of = matrix.crow_indices(), matrix.col_indices()
        row_of = torch.arange(rows, device=matrix.device).repeat_interleave(row_starts.diff())
        counts = column_of.bincount(minlength=columns).cumsum(0)
        column_starts = torch.cat([counts.new_zeros(1), counts])
        self._by_column = column_of.argsort(stable=True)
        self._places = (row_starts, column_of, (rows, columns))
        self._transposed_places = (column_starts, row_of[self._by_column], (columns, rows))
        # Detached, since a view would keep the tensor alive whose end empties the cache below.
        self.values = matrix.values().detach()

    def with_values(self, values: Tensor) -> "SparseMatrix":
        """The matrix with other values in the same places."""
        other = object.__new__(SparseMatrix)
        other._by_column = self._by_column
        other._places, other._transposed_places = self._places, self._transposed_places
        other.values = values
        return other

    @cached_property
    def matrix(self) -> Tensor:
        """The matrix as a CSR tensor."""
        return _csr(self._places, self.values)

    @cached_property
    def transpose(self) -> Tensor:
        """Its transpose as a CSR tensor, made when the first gradient asks for it."""
        return _csr(self._transposed_places, self.values[self._by_column])

    def product(self, dense: Tensor) -> Tensor:
        """The matrix times a dense one, differentiable with respect to the latter."""
        # Sparse kernels know no half precision on a CPU, so autocast passes them by.
        with torch.autocast(dense.device.type, enabled=False):
            return _Product.apply(self, False, dense.to(self.values.dtype))


def _csr(places: tuple[Tensor, Tensor, tuple[int, int]], values: Tensor) -> Tensor:
    return torch.sparse_csr_tensor(*places[:2], values, places[2], check_invariants=False)


class _Product(torch.autograd.Function):
    """``matrix @ dense``, whose gradient is ``transpose @ gradient``."""

    @staticmethod
    def forward(ctx: Any, sparse: SparseMatrix, transposed: bool, dense: Tensor) -> Tensor:
        ctx.sparse, ctx.transposed = sparse, transposed
        return (sparse.transpose if transposed else sparse.matrix) @ dense

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor]:
        return None, None, _Product.apply(ctx.sparse, not ctx.transposed, gradient)


def normalized_adjacency(
    edge_index: Tensor, num_nodes: int, *, dtype: torch.dtype = torch.float32
) -> SparseMatrix:
    r"""The adjacency matrix with self-loops, scaled so that no node shouts.

    .. math:: \hat A = D^{-1/2} (A + I) D^{-1/2}, \qquad D_{ii} = \sum_j (A + I)_{ij}

    Row i holds what node i receives. Self-loops in ``edge_index`` are not counted twice; an edge
    that occurs twice is.

    Args:
        edge_index: sources and targets of the edges, ``(2, edges)``, both directions of each.
        num_nodes: number of nodes.
        dtype: type of the values.

    Raises:
        ValueError: if ``edge_index`` has another shape or names a node that does not exist.
    """
    if edge_index.dim() != 2 or edge_index.size(0) != 2:
        raise ValueError(f"edge_index must be (2, edges), not {(*edge_index.shape,)}")
    if edge_index.numel() > 0:
        low, high = (int(extreme) for extreme in edge_index.aminmax())
        if low < 0 or high >= num_nodes:
            wrong = low if low < 0 else high
            raise ValueError(f"edge_index must name nodes 0 to {num_nodes - 1}, not {wrong}")
    nodes = torch.arange(num_nodes, device=edge_index.device)
    edges = edge_index[:, edge_index[0] != edge_index[1]]
    source, target = torch.cat([edges, torch.stack([nodes, nodes])], dim=1)
    scale = target.bincount(minlength=num_nodes).to(dtype).rsqrt()
    places = torch.stack([target, source])
    shape = (num_nodes, num_nodes)
    values = scale[source] * scale[target]
    entries = torch.sparse_coo_tensor(places, values, shape, check_invariants=False)
    return SparseMatrix(entries.coalesce().to_sparse_csr())


_adjacencies = WeakTensorKeyDictionary()  # edge_index -> (what it was computed for, adjacency)
_features = WeakTensorKeyDictionary()  # features -> SparseMatrix


def _adjacency(edge_index: Tensor, num_nodes: int, dtype: torch.dtype) -> SparseMatrix:
    """The normalised adjacency matrix, computed once for each state of ``edge_index``."""
    if edge_index.is_inference():  # then changes in place leave no trace
        return normalized_adjacency(edge_index, num_nodes, dtype=dtype)
    key = (edge_index._version, num_nodes, dtype)
    found = _adjacencies.get(edge_index)
    if found is None or found[0] != key:
        # What an evaluation leaves here must serve the next training step too.
        with torch.inference_mode(False), torch.no_grad():
            found = key, normalized_adjacency(edge_index, num_nodes, dtype=dtype)
        _adjacencies[edge_index] = found
    return found[1]


def _sparse(features: Tensor) -> SparseMatrix:
    """Features of CSR layout with their transpose; only where the entries lie is remembered."""
    if features.requires_grad:
        raise ValueError("x must be dense to get a gradient, not of CSR layout")
    if features.is_inference():
        return SparseMatrix(features)
    found = _features.get(features)
    if found is None:
        with torch.inference_mode(False), torch.no_grad():
            found = SparseMatrix(features)
        _features[features] = found
    return found.with_values(features.values())


def _dropout(x: Tensor, p: float) -> Tensor:
    # Several times as fast on a CPU as F.dropout, whose Bernoulli draws are slow there.
    return x * (torch.rand_like(x) >= p).to(x.dtype).div_(1 - p)


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
        - input: x ``(nodes, in_channels)``, dense or of CSR layout; edge_index ``(2, edges)``
        - output: ``(nodes, out_channels)``

    Raises:
        ValueError: if a size is smaller than 1; on a call, if ``edge_index`` is no list of edges
            between the nodes of x.
    """

    bias: nn.Parameter | None

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__()
        check_at_least_one(in_channels=in_channels, out_channels=out_channels)
        self.lin = nn.Linear(in_channels, out_channels, bias=False)
        nn.init.xavier_uniform_(self.lin.weight)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(self, x: Tensor | SparseMatrix, edge_index: Tensor) -> Tensor:
        if isinstance(x, Tensor) and x.layout == torch.sparse_csr:
            x = _sparse(x)
        # Features first, neighbours second: the product is narrower that way round.
        h = self.lin(x) if isinstance(x, Tensor) else x.product(self.lin.weight.t())
        adjacency = _adjacency(edge_index, h.size(0), self.lin.weight.dtype)
        h = adjacency.product(h)  # (nodes, out_channels)
        return h if self.bias is None else h + self.bias


class GCN(nn.Module):
    r"""Graph convolutions with ReLU between them and dropout before each.

    .. math:: Z = \hat A\, \mathrm{relu}(\hat A X W_1^\top + b_1)\, W_2^\top + b_2

    Dropout of sparse features acts on the stored values. That is the same in law as dropout of all
    of them, since a zero stays zero, and on Cora, where 99 in 100 are zero, far cheaper.

    Args:
        in_features: features of a node.
        num_classes: width of the output.
        hidden_channels: width of the layers in between.
        num_layers: number of graph convolutions.
        dropout: probability of silencing each input of each layer during training.

    Shape:
        - input: x ``(nodes, in_features)``, dense or of CSR layout; edge_index ``(2, edges)``
        - output: logits ``(nodes, num_classes)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        hidden_channels: int = 16,
        num_layers: int = 2,
        dropout: float = 0.5,
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
        self.dropout = dropout

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        h: Tensor | SparseMatrix = _sparse(x) if x.layout == torch.sparse_csr else x
        for layer, conv in enumerate(self.convs):
            if layer > 0:
                assert isinstance(h, Tensor)
                h = torch.relu(h)
            if self.training and self.dropout > 0:
                if isinstance(h, Tensor):
                    h = _dropout(h, self.dropout)
                else:
                    h = h.with_values(_dropout(h.values, self.dropout))
            h = conv(h, edge_index)
        assert isinstance(h, Tensor)
        return h  # (nodes, num_classes)
