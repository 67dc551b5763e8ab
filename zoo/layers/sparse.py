"""Products with a sparse matrix: a graph's adjacency, features that are mostly zero.

A matrix is kept in CSR form next to its transpose. torch's own product builds the transpose again
in each backward pass, which for the graph and the features of Cora costs several times as much as
all products together. `torch.compile` does not know CSR tensors.
"""

import copy
import warnings
from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any, TypeVar, overload

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.layers.checks import needs_plain_operations

T = TypeVar("T")


class SparseMatrix:
    """A matrix in CSR form and its transpose: ``matrix @ dense``.

    Args:
        row_of: row of each entry, in rising order.
        column_of: column of each.
        values: of the entries; where they want a gradient, they get it.
        shape: rows and columns of the matrix.
    """

    def __init__(
        self, row_of: Tensor, column_of: Tensor, values: Tensor, shape: tuple[int, int]
    ) -> None:
        rows, columns = shape
        in_order, self._by_column = column_of.sort(stable=True)
        self._row_of = row_of
        self._places = (starts_of(row_of, rows), column_of, (rows, columns))
        self._transposed_places = (
            starts_of(in_order, columns),
            row_of.index_select(0, self._by_column),
            (columns, rows),
        )
        self.values = values

    @classmethod
    def of(cls, matrix: Tensor) -> "SparseMatrix":
        """The same of a tensor of CSR layout."""
        rows, columns = matrix.shape
        column_of = matrix.col_indices()
        row_of = torch.arange(rows, device=matrix.device).repeat_interleave(
            matrix.crow_indices().diff(), output_size=len(column_of)
        )
        return cls(row_of, column_of, matrix.values(), (rows, columns))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self._places[2]

    def with_values(self, values: Tensor) -> "SparseMatrix":
        """The matrix with other values in the same places."""
        other = copy.copy(self)
        for made in ("matrix", "transpose"):
            other.__dict__.pop(made, None)
        other.values = values
        return other

    @cached_property
    def matrix(self) -> Tensor:
        """The matrix as a CSR tensor."""
        return csr(*self._places[:2], self.values.detach(), self._places[2])

    @cached_property
    def transpose(self) -> Tensor:
        """Its transpose as a CSR tensor, made when the first gradient asks for it."""
        places = self._transposed_places
        values = self.values.detach().index_select(0, self._by_column)
        return csr(*places[:2], values, places[2])

    def __matmul__(self, dense: Tensor) -> Tensor:
        """The product with a dense matrix, differentiable with respect to that and the values."""
        dense = dense.to(self.values.dtype)
        if needs_plain_operations():
            _, column_of, (rows, _) = self._places
            shares = self.values.unsqueeze(1) * dense[column_of]  # (entries, width)
            return dense.new_zeros(rows, dense.size(1)).index_add(0, self._row_of, shares)
        return _Product.apply(self, False, dense, self.values)


def starts_of(row_of: Tensor, rows: int) -> Tensor:
    """Where each row's entries start and the last one's end, ``(rows + 1,)``.

    Args:
        row_of: row of each entry, in rising order.
        rows: number of rows.
    """
    return torch.searchsorted(row_of, torch.arange(rows + 1, device=row_of.device))


def csr(starts: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """A matrix of CSR layout; a row's columns may come in any order, and more than once."""
    if max(*shape, len(values)) < 2**31:  # else the CPU's kernel converts them in every product
        starts, columns = starts.int(), columns.int()
    with warnings.catch_warnings():  # once a process, torch calls this layout a beta
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        return torch.sparse_csr_tensor(starts, columns, wide(values), shape, check_invariants=False)


def wide(values: Tensor) -> Tensor:
    """In float32 at least: sparse kernels know no half precision on a CPU."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def product(matrix: Tensor, dense: Tensor) -> Tensor:
    """``matrix @ dense`` without autocast, under which a backward pass may run, too."""
    if not torch.is_autocast_enabled(dense.device.type):  # for a small graph, half the time
        return matrix @ dense
    with torch.autocast(dense.device.type, enabled=False):
        return matrix @ dense


class _Product(torch.autograd.Function):
    """``matrix @ dense``, whose gradient is ``transpose @ gradient``."""

    @staticmethod
    def forward(
        ctx: Any, sparse: SparseMatrix, transposed: bool, dense: Tensor, values: Tensor
    ) -> Tensor:
        ctx.sparse, ctx.transposed = sparse, transposed
        if ctx.needs_input_grad[3]:
            ctx.save_for_backward(dense)
        matrix = sparse.transpose if transposed else sparse.matrix
        return product(matrix, wide(dense)).to(dense.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor | None, Tensor | None]:
        sparse, transposed = ctx.sparse, ctx.transposed
        for_dense = for_values = None
        if ctx.needs_input_grad[2]:
            for_dense = _Product.apply(sparse, not transposed, gradient, sparse.values)
        if ctx.needs_input_grad[3]:
            near, far = sparse._row_of, sparse._places[1]
            near, far = (far, near) if transposed else (near, far)
            (dense,) = ctx.saved_tensors
            products = gradient.index_select(0, near) * dense.index_select(0, far)
            for_values = products.sum(1).to(sparse.values.dtype)
        return None, None, for_dense, for_values


def sparse_matrix(rows: Tensor, columns: Tensor, values: Tensor, *, size: int) -> SparseMatrix:
    """A square matrix from its entries, in any order; several in one place are added up.

    Args:
        rows: row of each entry.
        columns: column of each.
        values: each entry's share.
        size: rows and columns of the matrix.
    """
    places, entry_of = (rows * size + columns).unique(return_inverse=True)
    sums = values.new_zeros(places.size(0)).index_add(0, entry_of, values)
    return SparseMatrix(places // size, places % size, sums, (size, size))


@overload
def dropout(x: Tensor, p: float, training: bool = True) -> Tensor: ...
@overload
def dropout(x: SparseMatrix, p: float, training: bool = True) -> SparseMatrix: ...
def dropout(x: Tensor | SparseMatrix, p: float, training: bool = True) -> Tensor | SparseMatrix:
    """Dropout of a dense matrix, or of the stored values of a sparse one; in training alone.

    The latter is the same in distribution as dropout of all values, since a zero stays zero, and
    on Cora, where 99 in 100 are zero, far cheaper.
    """
    if not training or p == 0:
        return x
    if isinstance(x, SparseMatrix):
        return x.with_values(dropout(x.values, p))
    # Several times as fast on a CPU as F.dropout, whose Bernoulli draws are slow there.
    return x * (torch.rand_like(x) >= p).to(x.dtype).div_(1 - p)


def _parts(tensor: Tensor) -> list[Tensor]:
    """The dense tensors that a tensor is made of."""
    if tensor.layout == torch.sparse_csr:
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    return [tensor]


def _equal(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return len(ours) == len(theirs) and all(map(torch.equal, ours, theirs))


class LastSeen:
    """What was computed from tensors, kept until the next call that is given others.

    The same tensor is the same object (so on the same device too), not changed in place since. On a
    CPU, where an array of NumPy may share its memory, its values tell. What a gradient is wanted
    for is computed anew each time. Copies and pickles of a cache are empty.
    """

    def __init__(self) -> None:
        self._tensor: Tensor | None = None
        self._more: list[Tensor] = []  # held here, so that no other tensor gets their ids
        self._values: list[Tensor] = []
        self._key: tuple[Hashable, ...] = ()
        self._result: Any = None

    def __call__(
        self, compute: Callable[..., T], tensor: Tensor, *arguments: Hashable, keep: bool = True
    ) -> T:
        """``compute(tensor, *arguments)``, unless that is what the last call computed.

        Without ``keep`` it is computed anew, and nothing is remembered.
        """
        more = [argument for argument in arguments if isinstance(argument, Tensor)]
        # Changes in place of the first leave no trace, a cached result would cut the second off
        # from its gradient, and what plain operations make has a short life.
        if (
            not keep
            or needs_plain_operations()
            or any(given.is_inference() or given.requires_grad for given in (tensor, *more))
        ):
            return compute(tensor, *arguments)
        key = (
            *(given._version for given in (tensor, *more)),
            *(id(known) if isinstance(known, Tensor) else known for known in arguments),
        )
        values = [part for given in (tensor, *more) if given.is_cpu for part in _parts(given)]
        if tensor is not self._tensor or key != self._key or not _equal(values, self._values):
            # What an evaluation leaves here must serve the next training step too.
            with torch.inference_mode(False), torch.no_grad():
                self._result = compute(tensor, *arguments)
                self._values = [part.clone() for part in values]
            self._tensor, self._more, self._key = tensor, more, key
        result: T = self._result
        return result

    def __reduce__(self) -> tuple[type["LastSeen"], tuple[()]]:
        return LastSeen, ()


def features_of(
    x: Tensor, cache: LastSeen | None = None, *, keep: bool = True
) -> Tensor | SparseMatrix:
    """Features as layers take them: dense ones as they are, others with their transpose.

    Args:
        x: dense or of CSR layout.
        cache: keeps where the entries of the latter lie.
        keep: whether it does.

    Raises:
        ValueError: features of CSR layout where they cannot be.
    """
    if x.layout != torch.sparse_csr:
        return x
    if x.requires_grad:
        raise ValueError("x must be dense to get a gradient, not of CSR layout")
    if needs_plain_operations():
        raise ValueError("x must be dense for torch.func and torch.export, not of CSR layout")
    if cache is None:
        return SparseMatrix.of(x)
    return cache(SparseMatrix.of, x, keep=keep).with_values(x.values())


def linear(x: Tensor | SparseMatrix, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``torch.nn.functional.linear`` that takes sparse features too."""
    if isinstance(x, Tensor) and x.layout == torch.sparse_csr:
        x = features_of(x)
    if isinstance(x, Tensor):
        return F.linear(x, weight, bias)
    h = x @ weight.t()
    return h if bias is None else h + bias
