"""Small social networks that come with networkx: Les Misérables, Southern women, Florence."""

from typing import Any, Literal, get_args

import torch

from zoo.data.graphs.batches import split_loaders
from zoo.data.graphs.named_graphs import named_graph
from zoo.data.module import DataModule, Part
from zoo.data.splits import SPLITS, split_indices

Name = Literal["LesMiserables", "Davis", "Florentine"]


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
        if name not in get_args(Name):
            raise ValueError(f"name must be one of {', '.join(get_args(Name))}, not {name!r}")
        self.name = name
        self.split_seed = split_seed
        self.node_names: tuple[str, ...] = ()
        self._class_names: tuple[str, ...] = ()

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        graph = named_graph(self.name)
        self.node_names, self._class_names = tuple(graph.names), graph.class_names
        train, val, test = split_indices(graph.classes, (0.5, 0.25, 0.25), seed=self.split_seed)
        self.loaders = split_loaders(
            torch.eye(len(graph.names)),
            graph.edge_index,
            graph.classes,
            {"train": train, "val": val, "test": test},
            edge_weight=graph.edge_weight,
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
