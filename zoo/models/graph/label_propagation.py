r"""Label propagation (Zhou, Bousquet, Lal, Weston and Schölkopf, 2003).

"Learning with local and global consistency",
https://papers.nips.cc/paper/2506-learning-with-local-and-global-consistency

Labels flow along the edges, and the known ones flow in again in each step, so that neighbours come
to agree with one another and with what is known:

.. math::
    F^{(t+1)} = \alpha S F^{(t)} + (1 - \alpha) Y, \qquad S = D^{-1/2} A D^{-1/2}

Nothing is learned and features play no part: a baseline. The limit is
:math:`(1 - \alpha) (I - \alpha S)^{-1} Y`, which is what scikit-learn's `LabelSpreading` computes.
`python scripts/label_propagation.py data=planetoid` says how well it does.

Differences from the paper: as in `torch_geometric`, a number of steps is set, and after each of
them values are kept in [0, 1]. Weighted edges are normalised too, which `torch_geometric` leaves to
its user.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.adjacency import normalized_adjacency
from zoo.layers.checks import check_at_least_one
from zoo.layers.sparse import SparseMatrix


class LabelPropagation(nn.Module):
    r"""Spreads the labels of some nodes over a graph.

    .. math:: F^{(t+1)} = \alpha S F^{(t)} + (1 - \alpha) Y, \qquad F^{(0)} = Y

    Args:
        num_layers: number of steps.
        alpha: share of what comes from the neighbours.

    Shape:
        - input: y, labels ``(nodes,)`` of whole numbers or scores ``(nodes, classes)``; edge_index
          ``(2, edges)`` or, instead of edge_index and edge_weight, a matrix by which to propagate;
          mask ``(nodes,)``, the nodes whose labels are known, all if there is none; edge_weight
          ``(edges,)``, 1 where there is none
        - output: scores ``(nodes, classes)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    def __init__(self, num_layers: int, alpha: float) -> None:
        super().__init__()
        check_at_least_one(num_layers=num_layers)
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be in [0, 1], not {alpha}")
        self.num_layers, self.alpha = num_layers, alpha

    @torch.no_grad()
    def forward(
        self,
        y: Tensor,
        edge_index: Tensor | SparseMatrix,
        mask: Tensor | None = None,
        edge_weight: Tensor | None = None,
        post_step: Callable[[Tensor], Tensor] = lambda scores: scores.clamp(0, 1),
    ) -> Tensor:
        known = F.one_hot(y).float() if y.ndim == 1 and not y.is_floating_point() else y
        if mask is not None:
            known = known.where(mask.unsqueeze(1), 0)
        if isinstance(edge_index, Tensor):
            graph = len(known), edge_weight, known.dtype, False
            edge_index = normalized_adjacency(edge_index, *graph)
        scores, start = known, (1 - self.alpha) * known
        for _ in range(self.num_layers):
            scores = post_step(self.alpha * (edge_index @ scores) + start)
        return scores
