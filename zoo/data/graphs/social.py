"""Small social networks that come with networkx: Les Misérables, Southern women, Florence."""

from typing import Any, Literal, NamedTuple

import torch

from zoo.data.graphs.batches import split_loaders, undirected
from zoo.data.module import DataModule, Part
from zoo.data.splits import SPLITS, split_indices

Name = Literal["LesMiserables", "Davis", "Florentine"]


class _Source(NamedTuple):
    """The function of networkx, and the names of its two kinds of nodes, if it has two."""

    function: str
    kinds: tuple[str, ...] = ()


SOURCES: dict[str, _Source] = {
    "LesMiserables": _Source("les_miserables_graph"),
    "Davis": _Source("davis_southern_women_graph", ("woman", "event")),
    "Florentine": _Source("florentine_families_graph"),
}


class SocialNetwork(DataModule):
    """A small graph whose nodes have names; the only feature of a node is who it is (one-hot).

    | name | nodes | links | source |
    |---|---|---|---|
    | ``LesMiserables`` | 77 | 254, weighed by common scenes | Knuth, 1993, "Stanford GraphBase" |
    | ``Davis`` | 32 | 89, of women and events | Davis, Gardner and Gardner, 1941, "Deep South" |
    | ``Florentine`` | 15 | 20 marriages | Padgett and Ansell, 1993 |

    The classes of ``Davis`` are women and events. The others come without any: theirs are the
    communities that greedy maximisation of modularity finds (Clauset, Newman and Moore, 2004),
    which are computed from the links and so no truth that a network could miss.

    Args:
        name: which network.
        split_seed: another seed, another division into halves for train and quarters for val and
            test, stratified.

    Raises:
        ValueError: there is no such network.
    """

    splits = SPLITS

    def __init__(self, name: Name = "LesMiserables", *, split_seed: int = 0) -> None:
        super().__init__()
        if name not in SOURCES:
            raise ValueError(f"name must be one of {', '.join(SOURCES)}, not {name!r}")
        self.name = name
        self.split_seed = split_seed
        self.node_names: tuple[str, ...] = ()
        self._class_names: tuple[str, ...] = ()

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        import networkx

        source = SOURCES[self.name]
        graph = getattr(networkx, source.function)()
        self.node_names = tuple(graph.nodes)
        number_of = {name: number for number, name in enumerate(self.node_names)}
        size = len(self.node_names)
        if source.kinds:
            classes = [graph.nodes[name]["bipartite"] for name in self.node_names]
            self._class_names = source.kinds
        else:
            found = networkx.community.greedy_modularity_communities(graph)
            of = {name: number for number, members in enumerate(found) for name in members}
            classes = [of[name] for name in self.node_names]
            self._class_names = tuple(f"community {number}" for number in range(len(found)))
        labels = torch.tensor(classes)
        weights = {}
        for a, b, entry in graph.edges(data=True):
            pair = number_of[a], number_of[b]
            weights[pair] = weights[pair[::-1]] = float(entry.get("weight", 1))
        edge_index = undirected(torch.tensor(list(weights)).T, size)
        edge_weight = None
        if set(weights.values()) != {1.0}:
            edge_weight = torch.tensor([weights[a, b] for a, b in edge_index.T.tolist()])
        train, val, test = split_indices(labels, (0.5, 0.25, 0.25), seed=self.split_seed)
        self.loaders = split_loaders(
            torch.eye(size),
            edge_index,
            labels,
            {"train": train, "val": val, "test": test},
            edge_weight=edge_weight,
            device=device,
            part=part,
        )

    def facts(self) -> dict[str, Any]:
        if not self.node_names:
            raise RuntimeError("SocialNetwork.setup() must be called before its facts are known")
        return {
            "num_nodes": len(self.node_names),
            "in_features": len(self.node_names),
            "num_classes": len(self._class_names),
            "class_names": list(self._class_names),
        }
