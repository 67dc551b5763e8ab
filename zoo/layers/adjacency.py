r"""The normalised adjacency matrix through which spectral networks pass features on.

.. math:: \hat A = D^{-1/2} (A + I) D^{-1/2}, \qquad D_{ii} = \sum_j (A + I)_{ij}

Kipf and Welling, "Semi-supervised classification with graph convolutional networks", 2017,
https://arxiv.org/abs/1609.02907, equation 2.
"""

import torch
from torch import Tensor

from zoo.layers.message_passing import Ends, check_edge_index
from zoo.layers.sparse import SparseMatrix, sparse_matrix


def normalized_adjacency(
    edge_index: Tensor,
    num_nodes: int,
    edge_weight: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    add_self_loops: bool = True,
) -> SparseMatrix:
    r"""The adjacency matrix with self-loops, scaled so that high-degree nodes do not dominate.

    Row i holds what node i receives. Each node has one self-loop: of weight 1, or of the weight
    that ``edge_weight`` gives to the last one of the node in ``edge_index``. Any other edge that
    occurs twice counts twice.

    Args:
        edge_index: sources and targets of the edges, ``(2, edges)``, both directions of each.
        num_nodes: number of nodes.
        edge_weight: weight of each edge, ``(edges,)``; None: all are 1. Gets a gradient where it
            wants one.
        dtype: type of the values.
        add_self_loops: whether nodes have self-loops; if not, those in ``edge_index`` are edges
            like any other, and a node that no edge leads to receives nothing.

    Raises:
        ValueError: if ``edge_index`` or ``edge_weight`` has another shape or an edge names a node
            that does not exist (off the CPU, where a look at them would wait for the device, torch
            reports the latter).
    """
    check_edge_index(edge_index, num_nodes)
    weights = weights_or_ones(edge_index, edge_weight, dtype)
    if add_self_loops:
        edge_index, weights = _with_self_loops(edge_index, weights, num_nodes)
    source, target = Ends(edge_index[0], num_nodes), Ends(edge_index[1], num_nodes)
    scale = inverse_root(target.sum(weights))  # (nodes,)
    values = source.gather(scale) * target.gather(scale) * weights
    adjacency = sparse_matrix(target.node_of, source.node_of, values, size=num_nodes)
    return adjacency.with_values(adjacency.values.to(dtype))


def weights_or_ones(edge_index: Tensor, edge_weight: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The edges' weights, ``(edges,)``, in float32 at least, so that degrees are right.

    Raises:
        ValueError: if there is not one weight an edge.
    """
    dtype, edges = torch.promote_types(dtype, torch.float32), edge_index.size(1)
    if edge_weight is None:
        return torch.ones(edges, dtype=dtype, device=edge_index.device)
    if edge_weight.shape != (edges,):
        raise ValueError(f"edge_weight must be ({edges},), not {(*edge_weight.shape,)}")
    return edge_weight.to(dtype)


def inverse_root(degree: Tensor) -> Tensor:
    r""":math:`D^{-1/2}`, zero for nodes of degree zero."""
    is_empty = degree == 0
    return degree.masked_fill(is_empty, 1).rsqrt().masked_fill(is_empty, 0)


def _with_self_loops(edge_index: Tensor, weights: Tensor, num_nodes: int) -> tuple[Tensor, Tensor]:
    """One self-loop a node at the end; those that there were count nothing any more."""
    is_loop = edge_index[0] == edge_index[1]
    nodes, edges = torch.arange(num_nodes, device=edge_index.device), edge_index.size(1)
    # The last self-loop of each node, which no two edges are: the order of writes is no matter.
    numbers = torch.arange(edges, device=edge_index.device).masked_fill(~is_loop, -1)
    last = torch.full_like(nodes, -1).scatter_reduce_(0, edge_index[0], numbers, "amax")
    last = last.masked_fill(last < 0, edges)  # where there is none, the 1 behind all weights
    loops = torch.cat([weights, weights.new_ones(1)]).index_select(0, last)
    loop_index = torch.stack([nodes, nodes])
    kept = weights.masked_fill(is_loop, 0)
    return torch.cat([edge_index, loop_index], dim=1), torch.cat([kept, loops])
