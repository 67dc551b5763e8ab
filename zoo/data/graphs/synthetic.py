"""Many small graphs drawn from a seed, each data set a question about what a network can see.

| data set | asks for | answered by |
|---|---|---|
| `RandomGraphModels` | how degrees spread | counts of the degrees |
| `TriangleCounting` | which neighbours are neighbours | not by passing messages alone |
| `WeisfeilerLehman`, branches | how neighbours' degrees differ | passing messages |
| `WeisfeilerLehman`, cycles | whether all nodes are connected | no network that passes messages |

What passing messages can tell apart, the test of Weisfeiler and Lehman can, and the other way round
(Xu et al., 2019, https://arxiv.org/abs/1810.00826; Morris et al., 2019,
https://arxiv.org/abs/1810.02244).
"""

from abc import abstractmethod
from typing import Any, Literal, TypedDict, Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.data.graphs.batches import undirected
from zoo.data.graphs.packed import GraphStore, packed_loaders
from zoo.data.module import DataModule, Part, check_batch_size
from zoo.data.sampling import seeded_generator
from zoo.data.splits import SPLITS

Links = tuple[Tensor, int]
"""The links of a graph, each in one direction, ``(2, links)``, and its number of nodes."""


class GraphOptions(TypedDict, total=False):
    """Arguments of :class:`DrawnGraphs` whose defaults are the same for all data sets."""

    batch_size: int
    num_samples: int
    eval_samples: int
    max_degree: int
    data_seed: int
    drop_last: bool


class DrawnGraphs(DataModule):
    """Graphs that are drawn once, from a seed of their own, in pairs that must be told apart.

    A batch is :class:`~zoo.data.graphs.packed.PackedGraphs`. A node's features are its number of
    neighbours, one-hot.

    Args:
        batch_size: graphs a batch.
        num_samples: graphs to train on, an even number.
        eval_samples: graphs of val, and of test, an even number.
        max_degree: nodes with as many neighbours or more have the same feature; 0: all nodes.
        data_seed: another seed, other graphs.
        drop_last: omit the last training batch of an epoch if it is smaller.
    """

    splits = SPLITS
    class_names: tuple[str, str] = ("first", "second")

    def __init__(
        self,
        *,
        batch_size: int = 32,
        num_samples: int = 1_000,
        eval_samples: int = 200,
        max_degree: int = 10,
        data_seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        super().__init__()
        check_batch_size(batch_size)
        for name, value in (("num_samples", num_samples), ("eval_samples", eval_samples)):
            if value < 2 or value % 2:
                raise ValueError(f"{name} must be an even number of at least 2, not {value}")
        if max_degree < 0:
            raise ValueError(f"max_degree must be at least 0, not {max_degree}")
        self.batch_size = batch_size
        self.counts = {"train": num_samples, "val": eval_samples, "test": eval_samples}
        self.max_degree = max_degree
        self.data_seed = data_seed
        self.drop_last = drop_last

    @abstractmethod
    def draw(self, generator: torch.Generator) -> tuple[Links, Links]:
        """Two graphs, of which each data set says how they differ."""

    def label(self, links: Tensor, nodes: int, number: int) -> Any:
        """What is to be said of the first (0) or the second (1) graph of a pair."""
        return number

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        graphs: list[tuple[Tensor, Tensor]] = []
        labels: list[Any] = []
        splits: dict[str, Tensor] = {}
        for split, count in self.counts.items():
            generator = seeded_generator(type(self).__name__, self.data_seed, split)
            splits[split] = torch.arange(len(graphs), len(graphs) + count)
            for _ in range(count // 2):
                for number, (links, nodes) in enumerate(self.draw(generator)):
                    names = torch.randperm(nodes, generator=generator)
                    edges = undirected(names[links], nodes)
                    graphs.append((self._features(edges, nodes), edges))
                    labels.append(self.label(edges, nodes, number))
        self.loaders = packed_loaders(
            GraphStore.of(graphs, torch.tensor(labels)),
            splits,
            batch_size=self.batch_size,
            seed=seed,
            drop_last=self.drop_last,
            device=device,
            part=part,
        )

    def _features(self, edges: Tensor, nodes: int) -> Tensor:
        degrees = edges[1].bincount(minlength=nodes).clamp(max=self.max_degree)
        return F.one_hot(degrees, self.max_degree + 1).float()  # (nodes, max_degree + 1)

    def facts(self) -> dict[str, Any]:
        return {
            "in_features": self.max_degree + 1,
            "edge_features": None,
            "num_classes": 2,
            "class_names": list(self.class_names),
        }


class RandomGraphModels(DrawnGraphs):
    """Random graphs of Erdős and Rényi, or of Barabási and Albert, of the same numbers of edges.

    Links among all pairs of nodes alike (https://doi.org/10.5486/PMD.1959.6.3-4.12), or nodes that
    come one after the other and link to those that have many links already
    (https://doi.org/10.1126/science.286.5439.509), so that some get very many.

    Args:
        min_nodes: of the smallest graph.
        max_nodes: of the largest.
        links_per_node: how many links each new node begins with.
        options: see :class:`DrawnGraphs`; by default all nodes have the same feature.
    """

    class_names = ("Erdos-Renyi", "Barabasi-Albert")

    def __init__(
        self,
        *,
        min_nodes: int = 20,
        max_nodes: int = 40,
        links_per_node: int = 2,
        **options: Unpack[GraphOptions],
    ) -> None:
        options.setdefault("max_degree", 0)
        super().__init__(**options)
        check_nodes(min_nodes, max_nodes, least=links_per_node + 1)
        if links_per_node < 1:
            raise ValueError(f"links_per_node must be at least 1, not {links_per_node}")
        self.min_nodes, self.max_nodes = min_nodes, max_nodes
        self.links_per_node = links_per_node

    def draw(self, generator: torch.Generator) -> tuple[Links, Links]:
        nodes = between(self.min_nodes, self.max_nodes, generator)
        grown = preferential_attachment(nodes, self.links_per_node, generator)
        pairs = torch.triu_indices(nodes, nodes, 1)  # (2, pairs)
        chosen = torch.randperm(pairs.shape[1], generator=generator)[: grown.shape[1]]
        return (pairs[:, chosen], nodes), (grown, nodes)


class TriangleCounting(DrawnGraphs):
    r"""How many triangles a random graph has: :math:`\mathrm{tr}(A^3) / 6`, a regression.

    The graphs are those of Erdős and Rényi, every link there with the same probability. A network
    that passes messages cannot count triangles (Chen et al., 2020,
    https://arxiv.org/abs/2002.04025); it learns how many there are on average at such degrees.

    Args:
        min_nodes: of the smallest graph.
        max_nodes: of the largest.
        mean_degree: neighbours of a node on average.
        options: see :class:`DrawnGraphs`.
    """

    def __init__(
        self,
        *,
        min_nodes: int = 10,
        max_nodes: int = 30,
        mean_degree: float = 5.0,
        **options: Unpack[GraphOptions],
    ) -> None:
        super().__init__(**options)
        check_nodes(min_nodes, max_nodes, least=2)
        if not 0 < mean_degree <= min_nodes - 1:
            raise ValueError(
                f"mean_degree must be above 0 and at most {min_nodes - 1}, all others, not "
                f"{mean_degree}"
            )
        self.min_nodes, self.max_nodes = min_nodes, max_nodes
        self.mean_degree = mean_degree

    def draw(self, generator: torch.Generator) -> tuple[Links, Links]:
        return self._random(generator), self._random(generator)

    def _random(self, generator: torch.Generator) -> Links:
        nodes = between(self.min_nodes, self.max_nodes, generator)
        pairs = torch.triu_indices(nodes, nodes, 1)  # (2, pairs)
        there = torch.rand(pairs.shape[1], generator=generator) < self.mean_degree / (nodes - 1)
        return pairs[:, there], nodes

    def label(self, links: Tensor, nodes: int, number: int) -> list[float]:
        return [float(count_triangles(links, nodes))]

    def facts(self) -> dict[str, Any]:
        return {"in_features": self.max_degree + 1, "edge_features": None, "out_features": 1}

    def lacks(self) -> dict[str, str]:
        return {"num_classes": "these graphs have a number and no classes: set it to 1"}


class WeisfeilerLehman(DrawnGraphs):
    """Graphs whose degrees are equally frequent: what do more rounds of looking around tell?

    ``branches``: a path with a leaf at two of its inner nodes, which are apart or neighbours. One
    look at the neighbours' degrees tells which. ``cycles``: two cycles, or one with as many nodes.
    All nodes have two neighbours, each of which has two neighbours, ...: no number of rounds tells
    them apart.

    Args:
        pairs: ``branches`` or ``cycles``.
        min_nodes: of the smallest graph.
        max_nodes: of the largest.
        options: see :class:`DrawnGraphs`.
    """

    def __init__(
        self,
        *,
        pairs: Literal["branches", "cycles"] = "branches",
        min_nodes: int = 8,
        max_nodes: int = 20,
        **options: Unpack[GraphOptions],
    ) -> None:
        options.setdefault("max_degree", 3)
        super().__init__(**options)
        if pairs not in ("branches", "cycles"):
            raise ValueError(f"pairs must be branches or cycles, not {pairs!r}")
        check_nodes(min_nodes, max_nodes, least=7 if pairs == "branches" else 6)
        self.pairs = pairs
        self.min_nodes, self.max_nodes = min_nodes, max_nodes
        names = {"branches": ("apart", "neighbours"), "cycles": ("two cycles", "one cycle")}
        self.class_names = names[pairs]

    def draw(self, generator: torch.Generator) -> tuple[Links, Links]:
        nodes = between(self.min_nodes, self.max_nodes, generator)
        if self.pairs == "cycles":
            first = between(3, nodes - 3, generator)
            two = torch.cat([cycle(first), cycle(nodes - first) + first], 1)
            return (two, nodes), (cycle(nodes), nodes)
        last = nodes - 4  # inner nodes of the path are those from 1 on
        near = between(1, last - 2, generator)
        far = between(near + 2, last, generator)
        start = between(1, last - 1, generator)
        return (branched(nodes, near, far), nodes), (branched(nodes, start, start + 1), nodes)


def cycle(nodes: int) -> Tensor:
    """Links of each node to the next one, and of the last to the first: ``(2, nodes)``."""
    ring = torch.arange(nodes)
    return torch.stack([ring, ring.roll(-1)])


def branched(nodes: int, first: int, second: int) -> Tensor:
    """A path of all nodes but two, which hang on two of its nodes: ``(2, nodes - 1)``."""
    path = torch.arange(nodes - 2)
    leaves = torch.tensor([[first, second], [nodes - 2, nodes - 1]])
    return torch.cat([torch.stack([path[:-1], path[1:]]), leaves], 1)


def preferential_attachment(nodes: int, links: int, generator: torch.Generator) -> Tensor:
    """Each node from ``links`` on links to as many earlier ones, by their numbers of links.

    The first of them links to all before it.
    """
    ends = []  # Every node as often as it has links: to draw one of these is to draw by degree.
    found = []
    targets = set(range(links))
    for node in range(links, nodes):
        for target in sorted(targets):
            found.append((node, target))
            ends += [node, target]
        targets = set()
        while len(targets) < links:
            targets.add(ends[between(0, len(ends) - 1, generator)])
    return torch.tensor(found).T  # (2, links * (nodes - links))


def count_triangles(edges: Tensor, nodes: int) -> int:
    """Triangles of a graph, whose edges lead in both directions."""
    adjacency = torch.zeros(nodes, nodes, dtype=torch.float64)
    adjacency[edges[0], edges[1]] = 1
    return round(float((adjacency @ adjacency * adjacency).sum()) / 6)


def between(low: int, high: int, generator: torch.Generator) -> int:
    """A whole number from ``low`` to ``high``, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def check_nodes(min_nodes: int, max_nodes: int, *, least: int) -> None:
    """Refuses graphs that are too small, and an empty range of sizes."""
    if min_nodes < least:
        raise ValueError(f"min_nodes must be at least {least}, not {min_nodes}")
    if max_nodes < min_nodes:
        raise ValueError(f"max_nodes must be at least min_nodes {min_nodes}, not {max_nodes}")
