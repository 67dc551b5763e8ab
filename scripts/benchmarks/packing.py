"""A batch of many small graphs against PyG's `Batch.from_data_list`."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import interleave, ratio
from zoo.data.graphs.batches import undirected
from zoo.data.graphs.packed import GraphStore

GRAPHS, CHOSEN, WIDTH = 4_000, 1_000, 8


def _graph() -> tuple[Tensor, Tensor]:
    """The size of a molecule: 10 to 39 nodes, as many links."""
    nodes = int(torch.randint(10, 40, ()))
    return torch.rand(nodes, WIDTH), undirected(torch.randint(nodes, (2, nodes)), nodes)


def packing(blocks: int) -> list[dict[str, Any]]:
    """A thousand of four thousand graphs, another thousand each time."""
    from torch_geometric.data import Batch, Data

    torch.manual_seed(0)
    graphs, labels = [_graph() for _ in range(GRAPHS)], torch.randint(2, (GRAPHS,))
    store = GraphStore.of(graphs, labels)
    theirs = [Data(x, edges, y=labels[i : i + 1]) for i, (x, edges) in enumerate(graphs)]
    chosen = torch.randperm(GRAPHS)[:CHOSEN]
    ours, other = store.pack(chosen), Batch.from_data_list([theirs[i] for i in chosen])
    for a, b in zip(ours[:4], (other.x, other.edge_index, other.batch, other.y), strict=True):
        if not torch.equal(a, b):
            raise SystemExit("packing: the two batches disagree")

    def timed(pack: Callable[[Tensor], Any]) -> Callable[[], float]:
        def side() -> float:
            chosen = torch.randperm(GRAPHS)[:CHOSEN]
            began = time.perf_counter()
            pack(chosen)
            return time.perf_counter() - began

        return side

    packed, collated = "1,000 graphs, packed", "1,000 graphs, PyG's"
    sides = {
        packed: timed(store.pack),
        collated: timed(lambda some: Batch.from_data_list([theirs[i] for i in some.tolist()])),
    }
    return [ratio(interleave(sides, blocks), packed, collated, 0.3)]
