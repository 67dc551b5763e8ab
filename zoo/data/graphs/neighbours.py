"""Batches of a graph that is too large for one: nodes with a sample of their neighbourhood.

W. L. Hamilton, R. Ying and J. Leskovec, "Inductive representation learning on large graphs", 2017,
https://arxiv.org/abs/1706.02216, algorithm 2.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.data.graphs.batches import GraphBatch
from zoo.data.loading.order import BatchOrder
from zoo.data.module import Part
from zoo.data.sampling import seeded_generator


class IncomingEdges(NamedTuple):
    """The edges of a graph, ordered by their targets; both may be memory-mapped.

    Attributes:
        starts: where the edges into each node start, and the last ones end, int64 ``(nodes + 1,)``.
        sources: of the edges, int32 or int64 ``(edges,)``.
    """

    starts: Tensor
    sources: Tensor

    @property
    def num_nodes(self) -> int:
        return len(self.starts) - 1

    @classmethod
    def of(cls, edge_index: Tensor, num_nodes: int) -> "IncomingEdges":
        """The same of a list of edges, ``(2, edges)``."""
        source, target = edge_index
        order = target.argsort(stable=True)
        starts = torch.zeros(num_nodes + 1, dtype=torch.int64)
        starts[1:] = target.bincount(minlength=num_nodes).cumsum(0)
        return cls(starts, source[order])

    def edge_index(self) -> Tensor:
        """The list of edges, sorted by target: int64 ``(2, edges)``."""
        nodes = torch.arange(self.num_nodes)
        target = nodes.repeat_interleave(self.starts.diff(), output_size=len(self.sources))
        return torch.stack([self.sources.long(), target])


class Neighbourhood(NamedTuple):
    """A part of a graph, with numbers of its own for the nodes.

    Attributes:
        nodes: number of each node in the whole graph, those that were asked for first, ``(n,)``.
        edge_index: edges between them, sorted by target, int64 ``(2, edges)``.
    """

    nodes: Tensor
    edge_index: Tensor


class NeighbourSampler:
    """Draws, for some nodes, edges into them, then edges into where those come from, and so on.

    Every node is drawn for once, in the step in which it is first reached: a node's edges are a
    uniform sample without replacement, all of them if there are no more than asked for.

    Args:
        edges: of the graph.
        fan_out: the most edges into a node in each step; None: all of them.

    Raises:
        ValueError: a fan-out is below 1, or there is none.
    """

    def __init__(self, edges: IncomingEdges, fan_out: Sequence[int | None]) -> None:
        if not fan_out or any(most is not None and most < 1 for most in fan_out):
            raise ValueError(
                f"fan_out must be numbers from 1 (or null for all), one for each layer, "
                f"not {list(fan_out)}"
            )
        self.edges, self.fan_out = edges, tuple(fan_out)
        # What is where in the part being made; -1 elsewhere. Kept, since the graph may be large.
        self._place = torch.full((edges.num_nodes,), -1, dtype=torch.int32)

    def sample(self, seeds: Tensor, generator: torch.Generator) -> Neighbourhood:
        """The neighbourhood of nodes, a function of the generator's state alone.

        Args:
            seeds: the nodes, none twice, ``(n,)``.
            generator: of random numbers, on the CPU.
        """
        self._place[seeds] = torch.arange(len(seeds), dtype=torch.int32)
        reached, total = [seeds], len(seeds)
        sources: list[Tensor] = []
        targets: list[Tensor] = []
        front, begin = seeds, 0
        for most in self.fan_out:
            drawn, counts = self._draw(front, most, generator)
            numbers = torch.arange(begin, begin + len(front))
            targets.append(numbers.repeat_interleave(counts, output_size=len(drawn)))
            source = self.edges.sources.index_select(0, drawn).long()
            (front, places), begin = self._placed(source, total), total
            reached.append(front)
            total += len(front)
            sources.append(places)
        nodes = torch.cat(reached)
        self._place.index_fill_(0, nodes, -1)
        return Neighbourhood(nodes, torch.stack([torch.cat(sources), torch.cat(targets)]))

    def _placed(self, nodes: Tensor, total: int) -> tuple[Tensor, Tensor]:
        """Those of the nodes that are new, each once, and the places of all; ``total`` are taken.

        Each pass over `_place` waits for memory, once a node: there are no more than must be.
        """
        places = self._place.index_select(0, nodes)
        is_new = places < 0
        new = nodes.masked_select(is_new)
        numbers = torch.arange(len(new), dtype=torch.int32)
        # By NumPy, one after the other: with torch the last of several threads would win.
        self._place.numpy()[new.numpy()] = numbers.numpy()
        last = self._place.index_select(0, new)
        is_last = last == numbers
        place_of = is_last.cumsum(0, dtype=torch.int32) + (total - 1)
        places.masked_scatter_(is_new, place_of.index_select(0, last))
        new = new.masked_select(is_last)
        self._place.scatter_(0, new, torch.arange(total, total + len(new), dtype=torch.int32))
        return new, places.long()

    def _draw(
        self, nodes: Tensor, most: int | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Edges into nodes, one node after the other, and how many of each."""
        first = self.edges.starts.index_select(0, nodes)
        degree = self.edges.starts.index_select(0, nodes + 1) - first
        if most is None:
            before = degree.cumsum(0) - degree
            places = torch.arange(int(degree.sum()))
            return places + (first - before).repeat_interleave(degree), degree
        counts = degree.clamp_max(most)
        picks = _without_replacement(degree, most, generator)
        is_drawn = torch.arange(most) < counts.unsqueeze(1)
        return (first.unsqueeze(1) + picks).masked_select(is_drawn), counts


def _without_replacement(sizes: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Of each set {0, ..., size - 1} ``most`` elements, or the whole of a smaller one, first.

    Floyd's algorithm, for all sets at once: the j-th draw is from the first size - most + j + 1
    elements, and gives the last of them where it falls on one that has been drawn (J. Bentley and
    R. Floyd, "A sample of brilliance", 1987, https://doi.org/10.1145/30401.315746).

    Shape:
        - sizes: ``(sets,)``
        - output: ``(sets, most)``
    """
    random = torch.rand(len(sizes), most, generator=generator, dtype=torch.float64)
    last = (sizes - most).clamp_min(0) + torch.arange(most).unsqueeze(1)  # (most, sets)
    drawn = (random.t() * (last + 1)).long()
    for j in range(1, most):  # every draw up to here is final
        is_taken = (drawn[:j] == drawn[j]).any(0)
        drawn[j] = torch.where(is_taken, last[j], drawn[j])
    return drawn.t().where((sizes > most).unsqueeze(1), torch.arange(most))


class NeighbourLoader:
    """Batches of nodes with sampled neighbourhoods, the nodes that count first.

    What is drawn is a function of (seed, epoch, batch).

    Args:
        features: of all nodes, ``(nodes, in_features)``; may be memory-mapped.
        edges: of the graph.
        labels: of all nodes, ``(nodes,)``.
        nodes: those of the split, ``(n,)``.
        fan_out: see :class:`NeighbourSampler`.
        batch_size: nodes a batch that count.
        shuffle: visit the nodes in another order each epoch.
        seed: of order and sampling.
        device: where batches are put.
        part: ``(rank, world)``: give this slice of each batch, ``None`` where it is empty.
    """

    def __init__(
        self,
        features: Tensor,
        edges: IncomingEdges,
        labels: Tensor,
        nodes: Tensor,
        *,
        fan_out: Sequence[int | None],
        batch_size: int,
        shuffle: bool,
        seed: int,
        device: torch.device | str = "cpu",
        part: Part = (0, 1),
    ) -> None:
        self.num_samples = len(nodes)
        self._order = BatchOrder(len(nodes), batch_size, shuffle=shuffle, seed=seed, part=part)
        self._sampler = NeighbourSampler(edges, fan_out)
        self._features, self._labels, self._nodes = features, labels, nodes
        self._seed, self._device, self._rank = seed, device, part[0]

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self._order)

    def indices(self, epoch: int, batch: int) -> list[int]:
        nodes: list[int] = self._nodes[self._order.indices(epoch, batch)].tolist()
        return nodes

    def batches(self, epoch: int, start: int = 0) -> Iterator[GraphBatch | None]:
        for number, own in enumerate(self._order.chunks(epoch, start), start):
            if not len(own):
                yield None
                continue
            generator = seeded_generator("neighbours", self._seed, epoch, number, self._rank)
            nodes, edge_index = self._sampler.sample(self._nodes[own], generator)
            mask = torch.arange(len(nodes)) < len(own)
            parts = self._features[nodes], edge_index, self._labels[nodes], mask
            yield GraphBatch(*parts).to(self._device)
