r"""Message passing: what nodes of a graph learn from their neighbours.

.. math:: x_i' = \mathrm{update}\Big(x_i,\; \mathrm{aggregate}_{(j, i) \in E}\;
    \mathrm{message}(x_i, x_j, e_{ji})\Big)

Gilmer et al., "Neural message passing for quantum chemistry", 2017,
https://arxiv.org/abs/1704.01212. In code::

    edges = Edges(edge_index, num_nodes)
    messages = message(edges.source.gather(x))    # (edges, width)
    x = update(x, edges.target.sum(messages))     # (nodes, width)

A sum is taken in the order of the edges, one node after the other, and so is the gradient of
``gather``, which is a sum: neither the number of threads nor another run changes a bit. On a CPU it
is a product with a sparse matrix, elsewhere a segmented sum, and nowhere an atomic addition (but
where `torch.func`, `torch.export` and `torch.compile` ask for plain operations).
"""

import math
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from zoo.layers.checks import needs_plain_operations
from zoo.layers.sparse import SparseMatrix, csr, product, starts_of, wide

Aggregation = Literal["sum", "mean", "max"]


class Ends:
    """One end of each edge, the source or the target: takes values from nodes to edges and back.

    Args:
        node_of: the node at this end of each edge, int64 ``(edges,)``.
        num_nodes: number of nodes.
    """

    def __init__(self, node_of: Tensor, num_nodes: int) -> None:
        self.node_of, self.num_nodes = node_of, num_nodes
        self._ones: dict[torch.dtype, Tensor] = {}

    @cached_property
    def in_order(self) -> tuple[Tensor, Tensor]:
        """The nodes in rising order and the edge of each, both ``(edges,)``."""
        nodes = self.node_of
        if nodes.is_cpu and bool((nodes[1:] >= nodes[:-1]).all()):  # as packed graphs have them
            return nodes, torch.arange(len(nodes))
        return nodes.sort(stable=True)

    @property
    def order(self) -> Tensor:
        """The edges node by node, those of one node in the order given: ``(edges,)``."""
        return self.in_order[1]

    @cached_property
    def starts(self) -> Tensor:
        """Where the edges of each node start in this order, and the last ones end."""
        return starts_of(self.in_order[0], self.num_nodes)  # (nodes + 1,)

    @cached_property
    def counts(self) -> Tensor:
        """How many edges each node has at this end: int64 ``(nodes,)``."""
        return self.starts.diff()

    def gather(self, x: Tensor) -> Tensor:
        """Each edge's node's value.

        Shape:
            - x: ``(nodes, *)``
            - output: ``(edges, *)``
        """
        if _is_plain():
            return x.index_select(0, self.node_of)
        found: Tensor = _Gather.apply(self, x)
        return found

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the edges of each node, zero where there are none.

        Shape:
            - values: ``(edges, *)``
            - output: ``(nodes, *)``
        """
        if _is_plain():
            return _zeros(values, self.num_nodes).index_add(0, self.node_of, values)
        found: Tensor = _Sum.apply(self, values)
        return found

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the edges of each node, zero where there are none; shapes as in `sum`."""
        counts = self.counts.clamp_min(1).view(-1, *[1] * (values.ndim - 1))
        return self.sum(values) / counts

    def max(self, values: Tensor) -> Tensor:
        """The largest over the edges of each node, zero where there are none; shapes as in `sum`.

        Values that are equally large share the gradient.
        """
        places = self.node_of.view(-1, *[1] * (values.ndim - 1)).expand_as(values)
        zeros = _zeros(values, self.num_nodes)
        return zeros.scatter_reduce(0, places, values, "amax", include_self=False)

    def aggregate(self, values: Tensor, how: Aggregation) -> Tensor:
        """`sum`, `mean` or `max`."""
        found: Tensor = {"sum": self.sum, "mean": self.mean, "max": self.max}[how](values)
        return found

    def softmax(self, scores: Tensor) -> Tensor:
        """Positive weights that sum to 1 over the edges of each node, ``(edges, *)``."""
        if _is_plain():
            largest = self.max(scores.detach())
            weights = (scores - largest.index_select(0, self.node_of)).exp()
            return weights / self.gather(self.sum(weights))
        found: Tensor = _Softmax.apply(self, scores)
        return found

    def summed(self, values: Tensor) -> Tensor:
        """`sum`, without a gradient."""
        flat = values.reshape(len(values), math.prod(values.shape[1:]))
        if values.is_cpu:
            total = product(self._matrix(wide(flat).dtype), wide(flat)).to(values.dtype)
        else:
            total = self.summed_in_segments(flat)
        return total.view(self.num_nodes, *values.shape[1:])

    def summed_in_segments(self, values: Tensor) -> Tensor:
        """`summed` where products with sparse matrices may add in any order."""
        return self._reduced(values, "sum", initial=0)

    def softmaxed(self, scores: Tensor) -> Tensor:
        """`softmax`, without a gradient."""
        largest = self._reduced(scores, "max", initial=-math.inf)  # several times as fast as `max`
        weights = (scores - largest.index_select(0, self.node_of)).exp_()
        return weights.div_(self.summed(weights).index_select(0, self.node_of))

    def _reduced(self, values: Tensor, how: str, initial: float) -> Tensor:
        ordered = values.index_select(0, self.order)
        return torch.segment_reduce(ordered, how, offsets=self.starts, initial=initial)

    def _matrix(self, dtype: torch.dtype) -> Tensor:
        """A one in each node's row where its edges are: ``(nodes, edges)``."""
        if dtype not in self._ones:
            with torch.inference_mode(False):  # training may find it here later
                ones = torch.ones(len(self.node_of), dtype=dtype, device=self.node_of.device)
                shape = self.num_nodes, len(self.node_of)
                self._ones[dtype] = csr(self.starts, self.order, ones, shape)
        return self._ones[dtype]


class Edges:
    """The edges of a graph, prepared for message passing.

    Args:
        edge_index: the source and the target of each edge, int64 ``(2, edges)``.
        num_nodes: number of nodes that receive.
        num_sources: number of nodes that send, where they are others; None: the same nodes.

    Raises:
        ValueError: ``edge_index`` has another shape or names a node that does not exist (off the
            CPU, where a look at them would wait for the device, torch reports the latter).
    """

    def __init__(self, edge_index: Tensor, num_nodes: int, num_sources: int | None = None) -> None:
        sources = num_nodes if num_sources is None else num_sources
        check_edge_index(edge_index, num_nodes, sources)
        self.source, self.target = Ends(edge_index[0], sources), Ends(edge_index[1], num_nodes)
        self.counts: Tensor | None = None
        """Which edges count, bool ``(edges,)``; None: all."""
        self._heads: dict[int, Edges] = {}
        self._far: dict[bool, Tensor] = {}
        self._adjacencies: dict[torch.dtype, SparseMatrix] = {}

    def __len__(self) -> int:
        """The number of edges."""
        return len(self.target.node_of)

    @property
    def edge_index(self) -> Tensor:
        """The source and the target of each edge, ``(2, edges)``."""
        return torch.stack([self.source.node_of, self.target.node_of])

    @cached_property
    def adjacency(self) -> SparseMatrix:
        """Each node's row has a one where an edge comes from."""
        target, order = self.target.in_order
        source = self.source.node_of.index_select(0, order)
        ones = torch.ones(len(self), device=order.device)
        return SparseMatrix(target, source, ones, (self.target.num_nodes, self.source.num_nodes))

    def with_self_loops(self) -> "Edges":
        """The same with one self-loop a node at the end; those that there were do not count."""
        source, target = self.source.node_of, self.target.node_of
        nodes = torch.arange(self.target.num_nodes, device=target.device)
        more = torch.stack([torch.cat([source, nodes]), torch.cat([target, nodes])])
        edges = Edges(more, self.target.num_nodes)
        edges.counts = torch.cat([source != target, torch.ones_like(nodes, dtype=torch.bool)])
        return edges

    def softmax(self, scores: Tensor) -> Tensor:
        """Weights of the edges into each node that sum to 1, zero for edges that do not count.

        Shape:
            - scores, output: ``(edges, *)``
        """
        if self.counts is not None:
            counts = self.counts.view(-1, *[1] * (scores.ndim - 1))
            scores = scores.masked_fill(~counts, -torch.inf)
        return self.target.softmax(scores)

    def propagate(self, x: Tensor, weights: Tensor | None = None) -> Tensor:
        r""":math:`\sum_{(j, i) \in E} w_{ji}\, x_j`, without a tensor of all messages.

        Differentiable in both arguments. Several weights an edge belong to as many heads; without
        any, all are 1.

        Shape:
            - x: ``(nodes, width)`` or, with heads, ``(nodes, heads, width)``
            - weights: ``(edges,)`` or ``(edges, heads)``
            - output: as x
        """
        if weights is None:
            if x.dtype not in self._adjacencies:
                with torch.inference_mode(False):  # training may find it here later
                    matrix, ones = self.adjacency, self.adjacency.values.to(x.dtype)
                    is_made = ones is matrix.values
                    self._adjacencies[x.dtype] = matrix if is_made else matrix.with_values(ones)
            return self._adjacencies[x.dtype] @ x
        if weights.ndim == 2:
            heads = self._for_heads(weights.size(1))
            found = heads.propagate(x.flatten(0, 1), weights.flatten())
            return found.unflatten(0, (-1, weights.size(1)))
        if _is_plain():
            return self.target.sum(weights.unsqueeze(1) * self.source.gather(x))
        product: Tensor = _Weighted.apply(self, False, x, weights)
        return product

    def weighted(self, x: Tensor, weights: Tensor, *, back: bool) -> Tensor:
        """`propagate` of one head without a gradient; `back`: from targets to sources."""
        near, far = self._ends(back)
        if x.is_cpu:
            values = wide(weights.index_select(0, near.order))
            return product(self._matrix(values, back), x.to(values.dtype)).to(x.dtype)
        return near.summed(weights.unsqueeze(1) * x.index_select(0, far.node_of))

    def products(self, x: Tensor, y: Tensor, *, back: bool) -> Tensor:
        """The inner product of the target's x and the source's y, without a gradient.

        Shape:
            - x, y: ``(nodes, width)``
            - output: ``(edges,)``
        """
        near, far = self._ends(back)
        if not x.is_cpu:
            return (x.index_select(0, near.node_of) * y.index_select(0, far.node_of)).sum(1)
        # Without tensors of all edges' x and y.
        places = self._matrix(wide(x).new_zeros(len(self)), back)
        with torch.autocast("cpu", enabled=False):
            found = torch.sparse.sampled_addmm(places, wide(x), wide(y).t(), beta=0).values()
        return torch.empty_like(found).scatter_(0, near.order, found).to(x.dtype)

    def _ends(self, back: bool) -> tuple[Ends, Ends]:
        """Where messages arrive and where they come from."""
        return (self.source, self.target) if back else (self.target, self.source)

    def _matrix(self, values: Tensor, back: bool) -> Tensor:
        """A matrix of values of the edges, in the order of where messages arrive."""
        near, far = self._ends(back)
        if back not in self._far:
            with torch.inference_mode(False):  # training may find it here later
                self._far[back] = far.node_of.index_select(0, near.order)
        return csr(near.starts, self._far[back], values, (near.num_nodes, far.num_nodes))

    def _for_heads(self, heads: int) -> "Edges":
        """The graph that has each node once for each head."""
        if heads not in self._heads:
            with torch.inference_mode(False):  # training may find it here later
                head = torch.arange(heads, device=self.target.node_of.device)
                ends = (self.edge_index.unsqueeze(2) * heads + head).flatten(1)
                sizes = self.target.num_nodes * heads, self.source.num_nodes * heads
                self._heads[heads] = Edges(ends, *sizes)
        return self._heads[heads]


def check_edge_index(edge_index: Tensor, num_nodes: int, num_sources: int | None = None) -> None:
    """Refuses what is no list of edges between nodes that exist.

    Raises:
        ValueError: naming what is wrong.
    """
    if edge_index.dim() != 2 or edge_index.size(0) != 2:
        raise ValueError(f"edge_index must be (2, edges), not {(*edge_index.shape,)}")
    if edge_index.is_floating_point():
        raise ValueError(f"edge_index must be whole numbers, not {edge_index.dtype}")
    if not edge_index.is_cpu or torch.compiler.is_compiling() or edge_index.numel() == 0:
        return
    extremes = zip(*(extreme.tolist() for extreme in edge_index.aminmax(dim=1)), strict=True)
    for (low, high), count in zip(extremes, (num_sources or num_nodes, num_nodes), strict=True):
        if low < 0 or high >= count:
            wrong = low if low < 0 else high
            raise ValueError(f"edge_index must name nodes 0 to {count - 1}, not {wrong}")


def _is_plain() -> bool:
    return needs_plain_operations() or torch.compiler.is_compiling()


def _zeros(values: Tensor, num_nodes: int) -> Tensor:
    return values.new_zeros(num_nodes, *values.shape[1:])


class _Gather(torch.autograd.Function):
    """`Ends.gather`, whose gradient is `Ends.sum`."""

    @staticmethod
    def forward(ctx: Any, ends: Ends, x: Tensor) -> Tensor:
        ctx.ends = ends
        return x.index_select(0, ends.node_of)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, _Sum.apply(ctx.ends, gradient)


class _Sum(torch.autograd.Function):
    """`Ends.sum`, whose gradient is `Ends.gather`."""

    @staticmethod
    def forward(ctx: Any, ends: Ends, values: Tensor) -> Tensor:
        ctx.ends = ends
        return ends.summed(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, _Gather.apply(ctx.ends, gradient)


class _Weighted(torch.autograd.Function):
    """`Edges.weighted`, whose gradients are itself, backwards, and the products at both ends."""

    @staticmethod
    def forward(ctx: Any, edges: Edges, back: bool, x: Tensor, weights: Tensor) -> Tensor:
        ctx.edges, ctx.back = edges, back
        ctx.save_for_backward(x, weights)
        return edges.weighted(x, weights, back=back)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor | None, Tensor | None]:
        edges, back = ctx.edges, ctx.back
        x, weights = ctx.saved_tensors
        for_x = for_weights = None
        if ctx.needs_input_grad[2]:
            for_x = _Weighted.apply(edges, not back, gradient, weights)
        if ctx.needs_input_grad[3]:
            found = _Products.apply(edges, back, gradient.to(x.dtype), x)
            for_weights = found.to(weights.dtype)
        return None, None, for_x, for_weights


class _Products(torch.autograd.Function):
    """`Edges.products`, whose gradients are `Edges.weighted`."""

    @staticmethod
    def forward(ctx: Any, edges: Edges, back: bool, x: Tensor, y: Tensor) -> Tensor:
        ctx.edges, ctx.back = edges, back
        ctx.save_for_backward(x, y)
        return edges.products(x, y, back=back)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor, Tensor]:
        edges, back = ctx.edges, ctx.back
        x, y = ctx.saved_tensors
        for_x = _Weighted.apply(edges, back, y, gradient)
        return None, None, for_x, _Weighted.apply(edges, not back, x, gradient)


class _Softmax(torch.autograd.Function):
    """`Ends.softmax`, whose gradient needs no more than the weights."""

    @staticmethod
    def forward(ctx: Any, ends: Ends, scores: Tensor) -> Tensor:
        ctx.ends = ends
        weights = ends.softmaxed(scores)
        ctx.save_for_backward(weights)
        return weights

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        (weights,) = ctx.saved_tensors
        shares = weights * gradient
        return None, shares - weights * ctx.ends.gather(ctx.ends.sum(shares))
