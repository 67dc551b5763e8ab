r"""Random walks over a graph, of first order (DeepWalk) and second order (node2vec).

B. Perozzi, R. Al-Rfou and S. Skiena, "DeepWalk: online learning of social representations", 2014,
https://arxiv.org/abs/1403.6652, and A. Grover and J. Leskovec, "node2vec: scalable feature learning
for networks", 2016, https://arxiv.org/abs/1607.00653

A walk that has come from t to v goes on to a neighbour x of v with probability

.. math::
    P(x \mid v, t) \propto \alpha_{pq}(t, x)\, w_{vx}, \qquad
    \alpha_{pq}(t, x) = \begin{cases}
        1/p & x = t \\ 1 & x \text{ is a neighbour of } t \\ 1/q & \text{otherwise}
    \end{cases}

so a small p makes it turn back, and a small q leads it away from where it was. The first step, and
with p = q = 1 every step, is in proportion to the weights w alone; DeepWalk has no weights.

Difference from node2vec: no alias tables, which take memory in proportion to the sum of squared
degrees. A step adds up the weights of the edges that it may take and looks up one uniform number in
the sums, for all walks at once, in time in proportion to the degrees where the walks are. The
probabilities are the same.
"""

import torch
from torch import Tensor


class Walker:
    """Takes steps over the edges of a graph.

    Args:
        edge_index: sources and targets, ``(2, edges)``, both directions of every edge unless the
            graph is directed.
        num_nodes: number of nodes.
        edge_weight: ``(edges,)``; None: all edges count alike.
        p: return parameter; large: seldom straight back.
        q: in-out parameter; large: seldom away from where the walk has been.

    Attributes:
        degrees: edges out of each node, ``(nodes,)``.

    Raises:
        ValueError: there is no edge, a weight is not a positive number, or p or q is not.
    """

    def __init__(
        self,
        edge_index: Tensor,
        num_nodes: int,
        edge_weight: Tensor | None = None,
        *,
        p: float = 1.0,
        q: float = 1.0,
    ) -> None:
        check_bias(p, q)
        if not edge_index.numel():
            raise ValueError("edge_index must hold an edge: without one, there is nowhere to walk")
        source, target = edge_index
        weight = torch.ones(len(source)) if edge_weight is None else edge_weight
        if not bool((weight.isfinite() & (weight > 0)).all()):
            raise ValueError("edge_weight must be finite and above 0 everywhere")
        numbers = source * num_nodes + target
        self._edges, order = numbers.sort(stable=True)
        self._targets = target[order]
        self._weights = weight[order].double()
        self._sums = _sums(self._weights)  # (edges + 1,)
        self.degrees = source.bincount(minlength=num_nodes)
        self._ends = self.degrees.cumsum(0)  # (nodes,)
        self._p, self._q = p, q

    def walk(self, starts: Tensor, length: int, generator: torch.Generator) -> Tensor:
        """A walk from each of some nodes, a function of the generator's state alone.

        Args:
            starts: the first nodes, ``(walks,)``.
            length: number of nodes of a walk.
            generator: of random numbers, on the CPU.

        Returns:
            Nodes ``(walks, length)``; -1 from where a node has no edge to go on.
        """
        walks = torch.full((len(starts), length), -1)
        walks[:, 0] = starts
        has_memory = (self._p, self._q) != (1, 1)
        for time in range(1, length):
            uniform = torch.rand(len(starts), generator=generator, dtype=torch.float64)
            if has_memory and time > 1:
                walks[:, time] = self.second_step(walks[:, time - 2], walks[:, time - 1], uniform)
            else:
                walks[:, time] = self.step(walks[:, time - 1], uniform)
        return walks

    def step(self, nodes: Tensor, uniform: Tensor) -> Tensor:
        """A neighbour of each node in proportion to the weights, -1 for a node of -1 or without.

        Shape:
            - nodes, uniform (numbers in [0, 1)): ``(walks,)``
            - output: ``(walks,)``
        """
        first, degree = self._out(nodes)
        place = _pick(self._sums, first, first + degree, uniform)
        return self._targets[place].where(degree > 0, -1)

    def second_step(self, previous: Tensor, nodes: Tensor, uniform: Tensor) -> Tensor:
        """A neighbour of each node with the bias of p and q, given where the walk was before.

        Shape:
            - previous, nodes, uniform (numbers in [0, 1)): ``(walks,)``
            - output: ``(walks,)``
        """
        first, degree = self._out(nodes)
        ends = degree.cumsum(0)
        begins = ends - degree
        walk = torch.arange(len(nodes)).repeat_interleave(degree)  # (choices,)
        edges = torch.arange(len(walk)) + (first - begins)[walk]
        choices, before = self._targets[edges], previous[walk]
        bias = torch.full((len(walk),), 1 / self._q, dtype=torch.float64)
        bias[self._has_edge(before, choices)] = 1.0
        bias[choices == before] = 1 / self._p
        place = _pick(_sums(self._weights[edges] * bias), begins, ends, uniform)
        choices = torch.cat([choices, choices.new_tensor([-1])])  # if there is nothing to choose
        return choices[place].where(degree > 0, -1)

    def _out(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """The number of the first edge out of each node, and how many there are."""
        degree = self.degrees[nodes].where(nodes >= 0, 0)
        return self._ends[nodes] - self.degrees[nodes], degree

    def _has_edge(self, sources: Tensor, targets: Tensor) -> Tensor:
        numbers = sources * len(self.degrees) + targets
        place = torch.searchsorted(self._edges, numbers).clamp(max=len(self._edges) - 1)
        return self._edges[place] == numbers


def check_bias(p: float, q: float) -> None:
    """Refuses parameters of the second order that are not positive."""
    for name, value in (("p", p), ("q", q)):
        if not value > 0:
            raise ValueError(f"{name} must be above 0, not {value}")


def pairs(walks: Tensor, window: int) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes of walks, each with those at most ``window`` places away (DeepWalk, algorithm 2).

    Args:
        walks: ``(walks, length)``, -1 beyond an end.
        window: largest distance.

    Returns:
        Nodes and their contexts, ``(pairs,)`` each, and how many belong to each walk, in the order
        of the walks, ``(walks,)``.
    """
    padded = torch.nn.functional.pad(walks, (window, window), value=-1)
    around = padded.unfold(1, 2 * window + 1, 1)  # (walks, length, 2 * window + 1)
    centers = walks.unsqueeze(2).expand_as(around)
    is_pair = (centers >= 0) & (around >= 0)
    is_pair[:, :, window] = False  # the node itself
    return centers[is_pair], around[is_pair], is_pair.sum((1, 2))


def _sums(weights: Tensor) -> Tensor:
    """The sum of all weights before each place, and of all."""
    return torch.cat([weights.new_zeros(1), weights.cumsum(0)])


def _pick(sums: Tensor, begins: Tensor, ends: Tensor, uniform: Tensor) -> Tensor:
    """From each range of places one, in proportion to the weights there."""
    low = sums[begins]
    value = low + uniform * (sums[ends] - low)
    place = torch.searchsorted(sums, value, right=True) - 1
    # Rounding may reach the next range, of which the graph has no edge here.
    return place.clamp(begins, ends - 1).clamp(min=0)
