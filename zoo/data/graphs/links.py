"""Links of a graph to be predicted: some are taken away, and pairs without a link are drawn.

As in Kipf and Welling, "Variational graph auto-encoders", 2016, https://arxiv.org/abs/1611.07308:
the links of val and test are no edges for the network, in no split. Fresh negatives are drawn each
epoch; those of val and test are drawn once.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from zoo.data.download import DataError
from zoo.data.graphs.batches import GraphBatch, undirected
from zoo.data.loading.order import BatchOrder
from zoo.data.module import DataModule, Part
from zoo.data.sampling import seeded_generator
from zoo.data.splits import SPLITS, check_fractions, split_indices
from zoo.data.tables import read_table


class LinkBatch(NamedTuple):
    """A graph, and pairs of its nodes that have a link or not.

    Attributes:
        features: ``(nodes, in_features)``, float32, dense or sparse CSR.
        edge_index: the links of train alone, both directions, int64 ``(2, edges)``.
        pairs: int64 ``(2, pairs)``, the first node's number below the second's; as many without a
            link as with one.
        labels: float32 ``(pairs,)``, 1 for a link.
        edge_weight: float32 ``(edges,)``; None: all edges count alike.
    """

    features: Tensor
    edge_index: Tensor
    pairs: Tensor
    labels: Tensor
    edge_weight: Tensor | None = None

    def to(self, device: torch.device | str) -> "LinkBatch":
        """The same on a device."""
        features, edge_index, pairs, labels = (tensor.to(device) for tensor in self[:4])
        weight = None if self.edge_weight is None else self.edge_weight.to(device)
        return LinkBatch(features, edge_index, pairs, labels, weight)


class LinkLoader:
    """One batch an epoch: all links of a split and as many pairs without one.

    Every part has the whole graph and a slice of the pairs.

    Args:
        graph: the graph that the network sees, on the device.
        links: those of the split, ``(2, links)``, lower number first.
        known: numbers of pairs (see :func:`pair_numbers`) that are no negatives.
        num_nodes: number of nodes.
        seed: of the negatives.
        fresh: draw others in every epoch.
        part: ``(rank, world)``.
    """

    def __init__(
        self,
        graph: GraphBatch,
        links: Tensor,
        known: Tensor,
        *,
        num_nodes: int,
        seed: tuple[int | str, ...],
        fresh: bool,
        part: Part = (0, 1),
    ) -> None:
        self.num_samples = 2 * links.size(1)
        self._graph, self._links, self._known = graph, links, known
        self._num_nodes, self._seed = num_nodes, seed
        self._drawn = None if fresh else self._negatives(0)
        self._order = BatchOrder(
            self.num_samples, self.num_samples, shuffle=False, seed=0, part=part
        )

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self._order)

    def indices(self, epoch: int, batch: int) -> list[int]:
        return self._order.indices(epoch, batch)

    def batches(self, epoch: int, start: int = 0) -> Iterator[LinkBatch | None]:
        for own in self._order.chunks(epoch, start):
            if not len(own):
                yield None
                continue
            negatives = self._negatives(epoch) if self._drawn is None else self._drawn
            pairs = torch.cat([self._links, negatives], 1)[:, own]  # (2, own pairs)
            labels = (own < self._links.size(1)).float()
            features, edge_index, _, _, edge_weight = self._graph
            pairs, labels = (tensor.to(edge_index.device) for tensor in (pairs, labels))
            yield LinkBatch(features, edge_index, pairs, labels, edge_weight)

    def _negatives(self, epoch: int) -> Tensor:
        generator = seeded_generator(*self._seed, epoch)
        count = self._links.size(1)
        return draw_negatives(count, self._known, num_nodes=self._num_nodes, generator=generator)


class Links(DataModule):
    """Pairs of nodes of another data set's graph, half of which are linked.

    Args:
        graph: the data set, undirected; its own labels and splits are not used.
        val_fraction: share of the links for val.
        test_fraction: share of the links for test.
        split_seed: another seed, another division, and other negatives of val and test.
        sha256: checksum of the graph's edges; ``auto``: take it as it is. It is part of the run,
            which then refuses to continue with another graph.

    Raises:
        ValueError: a share is out of range.
    """

    splits = SPLITS
    changeable = ("graph.root", "graph.folder")

    def __init__(
        self,
        graph: DataModule,
        *,
        val_fraction: float = 0.05,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        sha256: Literal["auto"] | str = "auto",
    ) -> None:
        super().__init__()
        check_fractions(val_fraction, test_fraction)
        if test_fraction == 0:
            raise ValueError("test_fraction must be above 0, not 0")
        self._graph = graph
        self._num_nodes = 0
        self.fractions = (1 - val_fraction - test_fraction, val_fraction, test_fraction)
        self.split_seed = split_seed
        self.sha256 = "" if sha256 == "auto" else sha256

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        self._graph.setup(seed=seed, device=device)
        graph = next(self._graph.batches("train", 0))
        if not isinstance(graph, GraphBatch):
            raise ValueError(
                f"graph must be data of one graph, not {type(self._graph).__name__}: choose "
                "another data set"
            )
        num_nodes, edge_index = len(graph.labels), graph.edge_index.cpu()
        if not torch.equal(edge_index, undirected(edge_index, num_nodes)):
            raise DataError(
                "links are predicted in undirected graphs alone, and this one has edges that lead "
                "one way: set data.graph.directed=false, or choose another graph"
            )
        self._check(edge_index)
        self._num_nodes = num_nodes
        forward = edge_index[0] < edge_index[1]
        links = edge_index[:, forward]  # (2, links)
        index = split_indices(links.size(1), self.fractions, seed=self.split_seed)
        own = {split: links[:, part_] for split, part_ in zip(SPLITS, index, strict=True)}
        for split, found in own.items():
            if not found.size(1):
                raise DataError(
                    f"the graph has too few links ({links.size(1)}) to have some in {split}: "
                    "choose a larger graph, or raise data.val_fraction and data.test_fraction"
                )
        seen = self._seen(graph, own["train"], num_nodes)
        everything = pair_numbers(links, num_nodes)
        for split, found in own.items():
            is_training = split == "train"
            # A network must not learn from the negatives which pairs val and test are about.
            known = pair_numbers(found, num_nodes) if is_training else everything
            self.loaders[split] = LinkLoader(
                seen,
                found,
                known,
                num_nodes=num_nodes,
                seed=("negatives", split, seed if is_training else self.split_seed),
                fresh=is_training,
                part=part,
            )

    def _check(self, edge_index: Tensor) -> None:
        """Refuses a graph that is not the one of this run."""
        found = hashlib.sha256(edge_index.contiguous().numpy().tobytes()).hexdigest()
        if self.sha256 not in ("", found):
            raise DataError(
                f"the graph is not the one of this run (sha256 of its edges {found}, not "
                f"{self.sha256}): restore it, or start another run"
            )
        self.sha256 = found

    @staticmethod
    def _seen(graph: GraphBatch, links: Tensor, num_nodes: int) -> GraphBatch:
        """The graph with the links of train alone."""
        device = graph.edge_index.device
        edge_index = undirected(links, num_nodes)
        if graph.edge_weight is None:
            return graph._replace(edge_index=edge_index.to(device))
        before, after = (e[1] * num_nodes + e[0] for e in (graph.edge_index.cpu(), edge_index))
        places = torch.searchsorted(before, after).to(device)
        return graph._replace(
            edge_index=edge_index.to(device), edge_weight=graph.edge_weight[places]
        )

    def read_inputs(self, path: Path) -> tuple[LinkBatch, list[dict[str, str]]]:
        """Pairs of the graph's nodes, and what each is called.

        Nodes have the names that the data set gives them, else their numbers from 0 on.

        Args:
            path: a table with the columns ``source`` and ``target``.

        Raises:
            DataError: something is wrong with the file, or with the graph.
        """
        if not self.loaders:
            self.setup()
        names = getattr(self._graph, "node_names", None) or range(self._num_nodes)
        number_of = {str(name): number for number, name in enumerate(names)}
        table = read_table(path, "source", "target")
        ends = [table.column(name) for name in ("source", "target")]
        named = [[row.fields[end] for end in ends] for row in table.rows]
        for row, pair in zip(table.rows, named, strict=True):
            for name in pair:
                if name not in number_of:
                    raise DataError(
                        f"{path}, line {row.line}: there is no node {name!r} in the graph: its "
                        f"nodes are {', '.join(list(number_of)[:5])}, ..."
                    )
        if not named:
            raise DataError(f"{path} holds no pair below its header")
        pairs = torch.tensor([[number_of[name] for name in pair] for pair in named]).T
        batch = next(self.batches("test", 0))
        batch = batch._replace(pairs=pairs, labels=torch.zeros(len(named)))
        return batch, [dict(zip(("source", "target"), pair, strict=True)) for pair in named]

    def facts(self) -> dict[str, Any]:
        facts = self._graph.facts()
        return {name: facts[name] for name in ("num_nodes", "in_features")}

    def resolved(self) -> dict[str, Any]:
        return {"sha256": self.sha256} if self.sha256 else {}


def pair_numbers(pairs: Tensor, num_nodes: int) -> Tensor:
    """A number for each pair of nodes, whose lower number comes first: ``(pairs,)``."""
    return pairs[0] * num_nodes + pairs[1]


def draw_negatives(
    count: int, known: Tensor, *, num_nodes: int, generator: torch.Generator
) -> Tensor:
    """Different pairs of different nodes, each as likely as any other.

    Args:
        count: how many.
        known: numbers of pairs that must not be drawn, all different.
        num_nodes: number of nodes.
        generator: of the random numbers.

    Returns:
        ``(2, count)``, the lower number first.

    Raises:
        DataError: there are not so many.
    """
    free = num_nodes * (num_nodes - 1) // 2 - len(known)
    if free < count:
        raise DataError(
            f"the graph has {free:,} pairs of nodes without a link, too few to draw {count:,} "
            "negatives: choose a graph that is less dense"
        )
    found = known.new_zeros(0)
    while len(found) < count:
        ends = torch.randint(num_nodes, (2, 2 * count + 16), generator=generator)
        low, high = ends.aminmax(dim=0)
        numbers = low * num_nodes + high
        is_free = (low < high) & ~torch.isin(numbers, known)
        found = torch.cat([found, numbers[is_free]]).unique()
    # Sorted by now: a random choice of them is not.
    found = found[torch.randperm(len(found), generator=generator)[:count]]
    return torch.stack([found // num_nodes, found % num_nodes])  # (2, count)
