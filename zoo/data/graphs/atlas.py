"""All graphs of up to seven nodes, from the atlas that comes with networkx."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch.nn import functional as F

from zoo.data.graphs.batches import undirected
from zoo.data.graphs.packed import GraphStore, packed_loaders
from zoo.data.module import DataModule, Part, check_batch_size
from zoo.data.splits import SPLITS, split_indices

MAX_DEGREE = 6
"""Neighbours that a node of seven can have."""

Question = Literal["connected", "bipartite", "planar"]


class GraphAtlas(DataModule):
    """The 1,252 graphs of one to seven nodes, no two alike (Read and Wilson, 1998).

    A batch is :class:`~zoo.data.graphs.packed.PackedGraphs`. A node's features are its number of
    neighbours, one-hot. The class is the answer to a question about the whole graph, which networkx
    finds:

    | question | yes | no |
    |---|---|---|
    | ``connected`` | 996 | 256 |
    | ``bipartite`` | 149 | 1,103 |
    | ``planar`` | 1,015 | 237 |

    Args:
        question: whether a graph is ``connected``, ``bipartite`` (two sets of nodes without links
            within), or ``planar`` (can be drawn without links that cross).
        batch_size: graphs a batch.
        split_seed: another seed, another division into 80 % train, 10 % val and 10 % test, each in
            proportion to the answers.
        drop_last: omit the last training batch of an epoch if it is smaller.

    Raises:
        ValueError: there is no such question.
    """

    splits = SPLITS

    def __init__(
        self,
        question: Question = "planar",
        *,
        batch_size: int = 32,
        split_seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        super().__init__()
        if question not in get_args(Question):
            raise ValueError(
                f"question must be one of {', '.join(get_args(Question))}, not {question!r}"
            )
        check_batch_size(batch_size)
        self.question = question
        self.batch_size = batch_size
        self.split_seed = split_seed
        self.drop_last = drop_last

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        import networkx

        answers: dict[str, Callable[[Any], bool]] = {
            "connected": networkx.is_connected,
            "bipartite": networkx.is_bipartite,
            "planar": networkx.is_planar,
        }
        graphs, labels = [], []
        for graph in networkx.graph_atlas_g()[1:]:  # The first has no node.
            nodes = graph.number_of_nodes()
            links = torch.tensor(list(graph.edges), dtype=torch.long).view(-1, 2)
            edges = undirected(links.T, nodes)
            degrees = edges[1].bincount(minlength=nodes)
            graphs.append((F.one_hot(degrees, MAX_DEGREE + 1).float(), edges))
            labels.append(int(answers[self.question](graph)))
        classes = torch.tensor(labels)
        parts = split_indices(classes, (0.8, 0.1, 0.1), seed=self.split_seed)
        self.loaders = packed_loaders(
            GraphStore.of(graphs, classes),
            dict(zip(SPLITS, parts, strict=True)),
            batch_size=self.batch_size,
            seed=seed,
            drop_last=self.drop_last,
            device=device,
            part=part,
        )

    def facts(self) -> dict[str, Any]:
        return {
            "in_features": MAX_DEGREE + 1,
            "edge_features": None,
            "num_classes": 2,
            "class_names": [f"not {self.question}", self.question],
        }
