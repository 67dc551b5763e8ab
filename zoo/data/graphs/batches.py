"""Batches of graphs whose nodes are to be classified.

A batch is always the whole graph; the splits differ in which nodes count.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.data.loading.order import BatchOrder
from zoo.data.module import Loader, Part


class GraphBatch(NamedTuple):
    """A graph and the nodes that count.

    Attributes:
        features: ``(nodes, in_features)``, float32, dense or sparse CSR.
        edge_index: sources and targets, int64 ``(2, edges)``: both directions of every edge unless
            the graph is directed, no self-loops, sorted by target, then source.
        labels: int64 ``(nodes,)``.
        mask: bool ``(nodes,)``, the nodes of this split.
        edge_weight: float32 ``(edges,)``; None: all edges count alike.
    """

    features: Tensor
    edge_index: Tensor
    labels: Tensor
    mask: Tensor
    edge_weight: Tensor | None = None

    def to(self, device: torch.device | str) -> "GraphBatch":
        """The same on a device; what is there already stays the same tensor."""
        features, edge_index, labels, mask = (tensor.to(device) for tensor in self[:4])
        weight = None if self.edge_weight is None else self.edge_weight.to(device)
        return GraphBatch(features, edge_index, labels, mask, weight)


class StoredGraph(NamedTuple):
    """A graph whose edges are ordered by target, and which may be memory-mapped.

    Attributes:
        features: ``(nodes, in_features)``, float32.
        starts: where the edges into each node start and the last ones end, int64 ``(nodes + 1,)``.
        sources: where each edge comes from, int32 or int64 ``(edges,)``.
        labels: int64 ``(nodes,)``.
        mask: bool ``(nodes,)``, the nodes of this split.
    """

    features: Tensor
    starts: Tensor
    sources: Tensor
    labels: Tensor
    mask: Tensor

    def to(self, device: torch.device | str) -> "StoredGraph":
        """The same on a device; what is there already stays the same tensor."""
        return StoredGraph(*(tensor.to(device) for tensor in self))


class GraphLoader:
    """One batch an epoch, always the same: the graph. A sample is a node of the split.

    Every part has the whole graph, since each node needs its neighbours, and a slice of the nodes
    that count: the nodes of all parts together are those of the split.

    Args:
        batch: the graph and the split's mask.
        device: where it is put.
        part: ``(rank, world)``: only this slice of the nodes counts.
    """

    def __init__(
        self,
        batch: GraphBatch | StoredGraph,
        *,
        device: torch.device | str = "cpu",
        part: Part = (0, 1),
    ) -> None:
        nodes = batch.mask.nonzero().squeeze(1)
        self.num_samples = len(nodes)
        self._nodes: list[int] = nodes.tolist()
        self._order = BatchOrder(
            self.num_samples, self.num_samples, shuffle=False, seed=0, part=part
        )
        (own,) = self._order.chunks(0)  # places in the list of nodes
        mask = torch.zeros_like(batch.mask)
        mask[nodes[own]] = True
        self._batch = batch._replace(mask=mask).to(device)

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self._order)

    def indices(self, epoch: int, batch: int) -> list[int]:
        return [self._nodes[place] for place in self._order.indices(epoch, batch)]

    def batches(self, epoch: int, start: int = 0) -> Iterator[GraphBatch | StoredGraph | None]:
        for own in self._order.chunks(epoch, start):
            yield self._batch if len(own) else None


def split_loaders(
    features: Tensor,
    edge_index: Tensor,
    labels: Tensor,
    nodes: dict[str, Tensor],
    *,
    edge_weight: Tensor | None = None,
    device: torch.device | str,
    part: Part = (0, 1),
) -> dict[str, Loader]:
    """A loader for each split of one graph, given the nodes of each."""
    nothing = torch.zeros(len(labels), dtype=torch.bool)
    # Moved once, so that all splits have the same tensors: what a model caches by them is kept.
    graph = GraphBatch(features, edge_index, labels, nothing, edge_weight).to(device)
    loaders: dict[str, Loader] = {}
    for split, index in nodes.items():
        mask = nothing.clone()
        mask[index] = True
        loaders[split] = GraphLoader(graph._replace(mask=mask), device=device, part=part)
    return loaders


def undirected(links: Tensor, num_nodes: int) -> Tensor:
    """Both directions of every link once, without self-loops, sorted by target, then source.

    Shape:
        - links: ``(2, links)``
        - output: ``(2, edges)``
    """
    links = links[:, links[0] != links[1]]
    both = torch.cat((links, links.flip(0)), 1)
    numbers = (both[1] * num_nodes + both[0]).unique()
    return torch.stack((numbers % num_nodes, numbers // num_nodes))  # (2, edges)
