"""Products with a constant sparse matrix: a graph's adjacency, features that are mostly zero.

A matrix is kept in CSR form next to its transpose. torch's own product builds the transpose again
in each backward pass, which for the graph and the features of Cora costs several times as much as
all products together. `torch.compile` does not know CSR tensors.
"""

import warnings
from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any, TypeVar, overload

import torch
from torch import Tensor

T = TypeVar("T")


class SparseMatrix:
    """A constant matrix in CSR form and its transpose: ``matrix @ dense``.

    Args:
        matrix: the matrix, of CSR layout.
    """

    def __init__(self, matrix: Tensor) -> None:
        rows, columns = matrix.shape
        row_starts, column_of = matrix.crow_indices(), matrix.col_indices()
        row_of = torch.arange(rows, device=matrix.device).repeat_interleave(
            row_starts.diff(), output_size=len(column_of)
        )
        column_starts = row_starts.new_zeros(columns + 1)
        column_starts[1:].scatter_add_(0, column_of, torch.ones_like(column_of))
        self._by_column = column_of.argsort(stable=True)
        self._places = (row_starts, column_of, (rows, columns))
        self._transposed_places = (
            column_starts.cumsum(0),
            row_of[self._by_column],
            (columns, rows),
        )
        self.values = matrix.values()

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

    def __matmul__(self, dense: Tensor) -> Tensor:
        """The product with a dense matrix, differentiable with respect to the latter."""
        # Sparse kernels know no half precision on a CPU, so autocast passes them by.
        with torch.autocast(dense.device.type, enabled=False):
            return _Product.apply(self, False, dense.to(self.values.dtype))


def _csr(places: tuple[Tensor, Tensor, tuple[int, int]], values: Tensor) -> Tensor:
    with warnings.catch_warnings():  # once a process, torch calls this layout a beta
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
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


def sparse_matrix(rows: Tensor, columns: Tensor, values: Tensor, *, size: int) -> SparseMatrix:
    """A square matrix from its entries, in any order; several in one place are added up.

    Args:
        rows: row of each entry.
        columns: column of each.
        values: each entry's share.
        size: rows and columns of the matrix.
    """
    places = torch.stack([rows, columns])
    entries = torch.sparse_coo_tensor(places, values, (size, size), check_invariants=False)
    with warnings.catch_warnings():  # as above
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        return SparseMatrix(entries.coalesce().to_sparse_csr())


@overload
def dropout(x: Tensor, p: float) -> Tensor: ...
@overload
def dropout(x: SparseMatrix, p: float) -> SparseMatrix: ...
def dropout(x: Tensor | SparseMatrix, p: float) -> Tensor | SparseMatrix:
    """Dropout of a dense matrix, or of the stored values of a sparse one.

    The latter is the same in distribution as dropout of all values, since a zero stays zero, and
    on Cora, where 99 in 100 are zero, far cheaper.
    """
    if isinstance(x, SparseMatrix):
        return x.with_values(dropout(x.values, p))
    # Several times as fast on a CPU as F.dropout, whose Bernoulli draws are slow there.
    return x * (torch.rand_like(x) >= p).to(x.dtype).div_(1 - p)


class LastSeen:
    """What was computed from a tensor, kept until the next call that is given another one.

    The same tensor is the same object (so on the same device too), not changed in place since.
    Copies and pickles of a cache are empty.
    """

    def __init__(self) -> None:
        self._tensor: Tensor | None = None
        self._key: tuple[Hashable, ...] = ()
        self._result: Any = None

    def __call__(self, compute: Callable[..., T], tensor: Tensor, *arguments: Hashable) -> T:
        """``compute(tensor, *arguments)``, unless that is what the last call computed."""
        if tensor.is_inference():  # then changes in place leave no trace
            return compute(tensor, *arguments)
        key = (tensor._version, *arguments)
        if tensor is not self._tensor or key != self._key:
            # What an evaluation leaves here must serve the next training step too.
            with torch.inference_mode(False), torch.no_grad():
                self._result = compute(tensor, *arguments)
            self._tensor, self._key = tensor, key
        result: T = self._result
        return result

    def __reduce__(self) -> tuple[type["LastSeen"], tuple[()]]:
        return LastSeen, ()
