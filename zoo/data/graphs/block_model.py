"""The stochastic block model: a random graph whose nodes link with their own class more often."""

from typing import Any

import torch
from torch import Tensor

from zoo.data.graphs.batches import split_loaders, undirected
from zoo.data.module import DataModule, Part
from zoo.data.sampling import seeded_generator
from zoo.data.splits import SPLITS, check_fractions, split_indices


class BlockModel(DataModule):
    r"""A graph in which each node belongs to a class (a block) and little else is known of it.

    Holland, Laskey and Leinhardt, 1983, "Stochastic blockmodels: first steps",
    https://doi.org/10.1016/0378-8733(83)90021-7. Two nodes of one class are linked with a
    probability, two others with a smaller one, such that a node has ``degree`` neighbours on
    average, a share ``homophily`` of them of its own class. Features are normal, around a centre of
    norm ``signal`` for each class, so that a network without the graph knows something too.

    Args:
        num_nodes: nodes, as many of each class.
        num_classes: classes.
        degree: expected neighbours of a node.
        homophily: expected share of them that is of the node's class.
        in_features: features of a node.
        signal: distance of the classes' centres from 0, in standard deviations of a feature.
        labels_per_class: nodes of each class to train on.
        val_fraction: share of all nodes for val; the rest is test.
        data_seed: another seed, another graph.

    Raises:
        ValueError: an argument is out of range.
    """

    splits = SPLITS

    def __init__(
        self,
        *,
        num_nodes: int = 1_000,
        num_classes: int = 4,
        degree: float = 10.0,
        homophily: float = 0.8,
        in_features: int = 16,
        signal: float = 1.0,
        labels_per_class: int = 10,
        val_fraction: float = 0.2,
        data_seed: int = 0,
    ) -> None:
        super().__init__()
        check_fractions(val_fraction)
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, not {num_classes}")
        if in_features < 1:
            raise ValueError(f"in_features must be at least 1, not {in_features}")
        if not 1 <= labels_per_class < (1 - val_fraction) * num_nodes / num_classes - 1:
            raise ValueError(
                "labels_per_class must be at least 1 and leave nodes for val and test of "
                f"{num_nodes:,}, not {labels_per_class}"
            )
        if not 0 <= homophily <= 1:
            raise ValueError(f"homophily must be in [0, 1], not {homophily}")
        if not signal >= 0:
            raise ValueError(f"signal must be at least 0, not {signal}")
        size = num_nodes / num_classes
        within, between = homophily * degree / (size - 1), (1 - homophily) * degree
        between /= num_nodes - size
        if not degree > 0 or max(within, between) > 1:
            raise ValueError(
                f"degree must be above 0 and at most what {num_nodes:,} nodes allow, not {degree}"
            )
        self.num_nodes, self.num_classes = num_nodes, num_classes
        self.within, self.between = within, between
        self.in_features, self.signal = in_features, signal
        self.labels_per_class, self.val_fraction = labels_per_class, val_fraction
        self.data_seed = data_seed

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        generator = seeded_generator("block model", self.data_seed)
        labels = torch.arange(self.num_nodes) % self.num_classes
        labels = labels[torch.randperm(self.num_nodes, generator=generator)]
        centres = torch.randn(self.num_classes, self.in_features, generator=generator)
        centres = self.signal * centres / centres.norm(dim=1, keepdim=True)
        noise = torch.randn(self.num_nodes, self.in_features, generator=generator)
        links = self._links(labels, generator)
        nodes = self._splits(labels, generator)
        self.loaders = split_loaders(
            centres[labels] + noise,
            undirected(links, self.num_nodes),
            labels,
            nodes,
            device=device,
            part=part,
        )

    def _links(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Each pair of nodes once, if it is linked: ``(2, links)``."""
        rows = []
        for node in range(self.num_nodes - 1):  # a row at a time, so as not to hold all pairs
            others = labels[node + 1 :]
            chance = torch.where(others == labels[node], self.within, self.between)
            is_linked = torch.rand(len(others), generator=generator) < chance
            found = is_linked.nonzero().squeeze(1) + node + 1
            rows.append(torch.stack([torch.full_like(found, node), found]))
        return torch.cat(rows, 1)

    def _splits(self, labels: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        order = torch.randperm(self.num_nodes, generator=generator)
        shuffled = labels[order]
        drawn = [order[shuffled == label][: self.labels_per_class] for label in labels.unique()]
        train = torch.cat(drawn).sort().values
        is_rest = torch.ones(self.num_nodes, dtype=torch.bool)
        is_rest[train] = False
        rest = is_rest.nonzero().squeeze(1)
        share = self.val_fraction * self.num_nodes / len(rest)
        val, test = split_indices(labels[rest], (share, 1 - share), seed=self.data_seed)
        return {"train": train, "val": rest[val], "test": rest[test]}

    def facts(self) -> dict[str, Any]:
        return {
            "num_nodes": self.num_nodes,
            "in_features": self.in_features,
            "num_classes": self.num_classes,
            "class_names": None,
        }
