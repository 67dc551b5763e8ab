"""Random walks over a graph as sentences of its nodes, for node embeddings."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.data.download import DataError
from zoo.data.graphs.named_graphs import SOURCES, GraphName, named_graph
from zoo.data.graphs.walk_loader import WalkLoader, node_counts
from zoo.data.graphs.walks import Walker, check_bias
from zoo.data.module import DataModule, Part, check_batch_size
from zoo.data.text.decisions import Output


class NodeNames:
    """The names of nodes by number, as a vocabulary without special tokens.

    Args:
        names: all of them, none twice.
    """

    pad = unknown = begin = end = mask = None

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self._numbers = {name: number for number, name in enumerate(names)}
        if len(self._numbers) != len(self._names):
            raise ValueError("names of nodes must differ from one another")

    def __len__(self) -> int:
        return len(self._names)

    def encode(self, text: str) -> list[int]:
        """The node that bears a name.

        Raises:
            ValueError: none does.
        """
        if text not in self._numbers:
            raise ValueError(f"no node is called {text!r}")
        return [self._numbers[text]]

    def decode(self, tokens: Tensor | Iterable[int]) -> str:
        """The names of nodes, with commas."""
        numbers = tokens.tolist() if isinstance(tokens, Tensor) else tokens
        return ", ".join(self._names[number] for number in numbers)

    def tokens(self) -> list[str]:
        """All names."""
        return list(self._names)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain Python."""
        return {"kind": "nodes", "names": self._names}


class NodeWalks(DataModule):
    """Pairs of nodes that are near one another on random walks (DeepWalk, node2vec).

    Every epoch walks anew from every node; val has walks of its own, the same each time. See
    `zoo/data/graphs/walks.py` for the walks. Every two nodes at most ``window`` places apart on a
    walk are a pair, as in the papers' algorithms; the programs published with them draw the reach
    of each place, as word2vec.c does. Negatives are drawn in proportion to how often walks visit a
    node, to the power of 3/4.

    Args:
        name: the graph, see :func:`~zoo.data.graphs.named_graphs.named_graph`.
        walks_per_node: walks from each node in an epoch.
        walk_length: number of nodes of a walk.
        window: largest distance of two nodes of a pair.
        p: return parameter; large: seldom straight back.
        q: in-out parameter; large: seldom away from where the walk has been.
        weighted: follow edges in proportion to their weights, where the graph has some.
        output: ``negative_sampling`` (node2vec) or ``hierarchical_softmax`` (DeepWalk).
        num_negatives: negatives drawn for each pair.
        batch_size: walks in a batch.

    Raises:
        ValueError: an argument is outside its range.
    """

    splits = ("train", "val")

    def __init__(
        self,
        *,
        name: GraphName = "Karate",
        walks_per_node: int = 10,
        walk_length: int = 80,
        window: int = 10,
        p: float = 1.0,
        q: float = 1.0,
        weighted: bool = True,
        output: Output = "negative_sampling",
        num_negatives: int = 5,
        batch_size: int = 32,
    ) -> None:
        super().__init__()
        check_batch_size(batch_size)
        check_bias(p, q)
        if name not in SOURCES:
            raise ValueError(f"name must be one of {', '.join(SOURCES)}, not {name!r}")
        sizes = {
            "walks_per_node": (walks_per_node, 1),
            "walk_length": (walk_length, 2),
            "window": (window, 1),
            "num_negatives": (num_negatives, 1),
        }
        for argument, (value, least) in sizes.items():
            if value < least:
                raise ValueError(f"{argument} must be at least {least}, not {value}")
        self.name = name
        self.walks_per_node = walks_per_node
        self.walk_length = walk_length
        self.window = window
        self.p, self.q = p, q
        self.weighted = weighted
        self.output = output
        self.num_negatives = num_negatives
        self.batch_size = batch_size
        self._classes: list[int] = []

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        graph = named_graph(self.name)
        self._classes = graph.classes.tolist()
        known = self.vocabularies.setdefault("vocabulary", NodeNames(graph.names))
        if known.tokens() != graph.names:
            raise DataError(
                f"the nodes of {self.name} are not those of this run: install the version of "
                "networkx that the run has in environment.json, or start another run"
            )
        weight = graph.edge_weight if self.weighted else None
        walker = Walker(graph.edge_index, len(graph.names), weight, p=self.p, q=self.q)
        counts = node_counts(walker, self.walks_per_node, self.walk_length)
        for split in self.splits:
            self.loaders[split] = WalkLoader(
                walker,
                counts,
                walks_per_node=self.walks_per_node,
                walk_length=self.walk_length,
                window=self.window,
                output=self.output,
                num_negatives=self.num_negatives,
                batch_size=self.batch_size,
                shuffle=split == "train",
                seed=seed,
                device=device,
                part=part,
            )

    def facts(self) -> dict[str, Any]:
        if not self._classes:
            raise RuntimeError("NodeWalks needs setup() before its facts are known")
        nodes = len(self._classes)
        rows = nodes if self.output == "negative_sampling" else nodes - 1
        return {
            "num_nodes": nodes,
            "vocab_size": nodes,
            "out_features": rows,
            "classes": list(self._classes),
        }

    def restore_vocabulary(self, stored: dict[str, Any]) -> NodeNames:
        if stored.get("kind") != "nodes":
            raise ValueError(f"kind must be 'nodes', not {stored.get('kind')!r}")
        return NodeNames(stored["names"])
