"""The karate club: 34 nodes in two classes, from networkx."""

from typing import Any

import torch

from zoo.data.graphs.batches import split_loaders
from zoo.data.graphs.named_graphs import named_graph
from zoo.data.module import DataModule, Part
from zoo.data.sampling import seeded_generator
from zoo.data.splits import split_indices


class KarateClub(DataModule):
    """The 34 members of a karate club that split in two, and the 78 friendships among them.

    Zachary, 1977, "An information flow model for conflict and fission in small groups",
    https://doi.org/10.1086/jar.33.4.3629752; comes with networkx, nothing to download. The class
    of a member is the club joined afterwards; the only feature is who it is (one-hot).

    Args:
        labels_per_class: members of each club to train on; the first of them is the club's head,
            the instructor (node 0) and the administrator (node 33), the others are drawn. The rest
            is divided evenly into val and test, stratified.
        split_seed: another seed, another division.
    """

    splits = ("train", "val", "test")
    class_names = ("Mr. Hi", "Officer")
    heads = (0, 33)

    def __init__(self, *, labels_per_class: int = 1, split_seed: int = 0) -> None:
        super().__init__()
        if not 1 <= labels_per_class <= 15:
            raise ValueError(f"labels_per_class must be from 1 to 15, not {labels_per_class}")
        self.labels_per_class = labels_per_class
        self.split_seed = split_seed

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        club = named_graph("Karate")
        labels = club.classes
        order = torch.randperm(34, generator=seeded_generator("karate", self.split_seed)).tolist()
        train = list(self.heads)
        for label, head in enumerate(self.heads):
            others = [i for i in order if labels[i] == label and i != head]
            train += others[: self.labels_per_class - 1]
        rest = torch.tensor([i for i in range(34) if i not in train])
        val, test = split_indices(labels[rest], (0.5, 0.5), seed=self.split_seed)
        nodes = {"train": torch.tensor(train), "val": rest[val], "test": rest[test]}
        self.loaders = split_loaders(
            torch.eye(34), club.edge_index, labels, nodes, device=device, part=part
        )

    def facts(self) -> dict[str, Any]:
        return {
            "num_nodes": 34,
            "in_features": 34,
            "num_classes": 2,
            "class_names": list(self.class_names),
        }
