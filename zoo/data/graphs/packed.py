"""Batches of many small graphs, each batch packed into one graph without links between them.

The graphs of a data set lie one after the other in one store. A batch is gathered from it by a few
index operations on all its graphs at once, so that its cost hardly depends on how many there are.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.data.loading.order import BatchOrder
from zoo.data.module import Loader, Part


class PackedGraphs(NamedTuple):
    """Several graphs as one, whose nodes are numbered through.

    Attributes:
        features: of the nodes, float32 ``(nodes, in_features)``.
        edge_index: sources and targets, int64 ``(2, edges)``, sorted by target, then source.
        batch: which graph of the batch each node belongs to, int64 ``(nodes,)``, rising.
        labels: of the graphs: classes, int64 ``(graphs,)``, or values, float32 ``(graphs, *)``.
        edge_features: float32 ``(edges, edge_features)``; None: there are none.
    """

    features: Tensor
    edge_index: Tensor
    batch: Tensor
    labels: Tensor
    edge_features: Tensor | None = None

    def to(self, device: torch.device | str) -> "PackedGraphs":
        """The same on a device."""
        return PackedGraphs(*(None if t is None else t.to(device) for t in self))  # type: ignore[arg-type]


class GraphStore:
    """Many graphs, one after the other.

    Args:
        features: of all nodes, those of one graph after those of another: ``(nodes, in_features)``.
        edge_index: int64 ``(2, edges)``, in the numbers of all nodes; edges of one graph after
            those of another.
        batch: which graph each node belongs to, int64 ``(nodes,)``, rising.
        labels: of the graphs, ``(graphs, *)``.
        edge_features: ``(edges, edge_features)``; None: there are none.
    """

    def __init__(
        self,
        features: Tensor,
        edge_index: Tensor,
        batch: Tensor,
        labels: Tensor,
        edge_features: Tensor | None = None,
    ) -> None:
        graphs = torch.arange(len(labels) + 1)
        starts = [torch.searchsorted(where, graphs) for where in (batch, batch[edge_index[1]])]
        self._starts = torch.stack(starts)  # of each graph's nodes, and of its edges: (2, graphs+1)
        self._counts = self._starts.diff()  # (2, graphs), always on the CPU
        self.features, self.labels = features, labels
        self.edge_index, self.edge_features = edge_index, edge_features

    @classmethod
    def of(cls, graphs: Sequence[tuple[Tensor, Tensor]], labels: Tensor) -> "GraphStore":
        """Of graphs given one by one, each as its nodes' features and its edges."""
        counts = torch.tensor([len(features) for features, _ in graphs])
        starts = (counts.cumsum(0) - counts).tolist()
        edges = [edge_index + start for (_, edge_index), start in zip(graphs, starts, strict=True)]
        features = torch.cat([features for features, _ in graphs])
        batch = torch.repeat_interleave(torch.arange(len(graphs)), counts)
        return cls(features, torch.cat(edges, 1), batch, labels)

    def __len__(self) -> int:
        """The number of graphs."""
        return len(self.labels)

    def to(self, device: torch.device | str) -> "GraphStore":
        """The same on a device."""
        other = object.__new__(GraphStore)
        other._counts, other._starts = self._counts, self._starts.to(device)
        other.features, other.labels = self.features.to(device), self.labels.to(device)
        other.edge_index = self.edge_index.to(device)
        edge_features = self.edge_features
        other.edge_features = None if edge_features is None else edge_features.to(device)
        return other

    def pack(self, graphs: Tensor, there: Tensor | None = None) -> PackedGraphs:
        """Some of the graphs as one.

        Args:
            graphs: their numbers in any order, int64 on the CPU, where their sizes are added up.
            there: the same on the device of the store, so that nothing waits for it; None: they
                are copied.
        """
        totals = self._counts.index_select(1, graphs).sum(1).tolist()
        there = graphs.to(self.labels.device) if there is None else there
        nodes, node_counts, shifts = _ranges(self._starts[0], there, totals[0])
        edges, edge_counts, _ = _ranges(self._starts[1], there, totals[1])
        ends = self.edge_index.index_select(1, edges)  # (2, edges), in the store's numbers
        ends -= torch.repeat_interleave(shifts, edge_counts, output_size=totals[1])
        given = self.edge_features
        return PackedGraphs(
            self.features.index_select(0, nodes),
            ends,
            torch.repeat_interleave(node_counts, output_size=totals[0]),
            self.labels.index_select(0, there),
            None if given is None else given.index_select(0, edges),
        )


def _ranges(starts: Tensor, chosen: Tensor, total: int) -> tuple[Tensor, Tensor, Tensor]:
    """What lies in the chosen ranges, one after the other.

    Args:
        starts: where each range begins, and the last one ends.
        chosen: numbers of ranges.
        total: members of all together.

    Returns:
        The members, how many each range has, and by how much each moves to its new place.
    """
    first = starts.index_select(0, chosen)
    counts = starts.index_select(0, chosen + 1) - first
    shifts = first - (counts.cumsum(0) - counts)
    members = torch.repeat_interleave(shifts, counts, output_size=total)
    return members + torch.arange(total, device=starts.device), counts, shifts


class PackedLoader:
    """Batches of the graphs of one split. A sample is a graph.

    Args:
        store: all graphs, on the device where the batches are wanted.
        graphs: which of them are in this split, int64 on the CPU.
        batch_size: graphs a batch.
        shuffle: visit them in another order each epoch.
        seed: together with the epoch, all that the order depends on.
        drop_last: omit the last batch of an epoch if it is smaller. Not for evaluation.
        part: ``(rank, world)``: give this slice of each batch, ``None`` where it is empty.
    """

    def __init__(
        self,
        store: GraphStore,
        graphs: Tensor,
        *,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        part: Part = (0, 1),
    ) -> None:
        self.num_samples = len(graphs)
        self._store, self._graphs = store, graphs
        self._there = graphs.to(store.labels.device)
        self._order = BatchOrder(
            len(graphs), batch_size, shuffle=shuffle, seed=seed, drop_last=drop_last, part=part
        )

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self._order)

    def indices(self, epoch: int, batch: int) -> list[int]:
        """Which graphs of the data set are in the batch."""
        found: list[int] = self._graphs[self._order.indices(epoch, batch)].tolist()
        return found

    def batches(self, epoch: int, start: int = 0) -> Iterator[PackedGraphs | None]:
        chunks = self._order.chunks(epoch, start)
        device = self._there.device
        there = chunks if device.type == "cpu" else self._order.chunks(epoch, start, device=device)
        for own, same in zip(chunks, there, strict=True):
            if len(own):
                yield self._store.pack(self._graphs[own], self._there.index_select(0, same))
            else:
                yield None


def packed_loaders(
    store: GraphStore,
    graphs: dict[str, Tensor],
    *,
    batch_size: int,
    seed: int,
    drop_last: bool,
    device: torch.device | str,
    part: Part = (0, 1),
) -> dict[str, Loader]:
    """A loader for each split of many graphs, given the graphs of each; train is shuffled."""
    store = store.to(device)  # once for all splits
    return {
        split: PackedLoader(
            store,
            chosen,
            batch_size=batch_size,
            shuffle=split == "train",
            seed=seed,
            drop_last=drop_last and split == "train",
            part=part,
        )
        for split, chosen in graphs.items()
    }
