"""Your own graph, whose nodes are to be classified: a table of nodes and a list of edges."""

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from zoo.data.download import DataError
from zoo.data.files import locate
from zoo.data.graphs.batches import GraphBatch, split_loaders
from zoo.data.graphs.graph_tables import EdgeList, NodeTable, read_edges
from zoo.data.module import DataModule, Part
from zoo.data.splits import SPLITS, check_fractions, divide

UNKNOWN = -1
"""The class of a node that has no label."""


class GraphFolder(DataModule):
    """The graph of a folder with ``nodes.csv`` and ``edges.csv``, or of files of other names.

    The format is in `zoo/data/graphs/graph_tables.py`. Where no split is given, nodes with a label
    are divided at random, stratified; nodes without one are in no split, but pass messages.
    A graph without features has one: the logarithm of 1 + the number of edges into a node.

    Args:
        folder: the folder, from where you stand or within ``root``.
        root: folder of all data.
        nodes: file of the nodes, within ``folder``.
        edges: file of the edges.
        directed: whether an edge leads one way alone.
        id: column of the nodes' identifiers.
        source: column of the edges that says where they come from.
        target: column of the edges that says where they lead.
        weight: column of the edges' weights; ``auto``: ``weight``, if there is one; null: none.
        label: column of the classes; nodes that have none are to be predicted.
        split: column that says ``train``, ``val``, ``test`` or nothing; ``auto``: ``split``, if
            there is one; null: none, the nodes are divided at random.
        features: columns of numbers; ``auto``: all others.
        class_names: ``auto``: the labels of the training nodes, sorted.
        mean: what is subtracted from each feature; ``auto``: its mean over the training nodes;
            null: features stay as they are.
        std: what it is divided by; ``auto``: its standard deviation; null likewise.
        val_fraction: share of the nodes with a label for val, where they are divided at random.
        test_fraction: share for test; 0: there is no test split.
        split_seed: another seed, another division.

    Raises:
        ValueError: an argument is out of range.
    """

    changeable = ("root", "folder")

    def __init__(
        self,
        folder: str,
        *,
        root: str = "data",
        nodes: str = "nodes.csv",
        edges: str = "edges.csv",
        directed: bool = False,
        id: str = "id",
        source: str = "source",
        target: str = "target",
        weight: Literal["auto"] | str | None = "auto",
        label: str = "label",
        split: Literal["auto"] | str | None = "auto",
        features: Literal["auto"] | tuple[str, ...] = "auto",
        class_names: Literal["auto"] | tuple[str, ...] = "auto",
        mean: Literal["auto"] | tuple[float, ...] | None = "auto",
        std: Literal["auto"] | tuple[float, ...] | None = "auto",
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        split_seed: int = 0,
    ) -> None:
        super().__init__()
        check_fractions(val_fraction, test_fraction)
        if (mean is None) != (std is None):
            raise ValueError(f"std must be null if mean is, and not otherwise, not {std!r}")
        special = [name for name in (id, label, split) if name not in (None, "auto")]
        if len(set(special)) < len(special):
            raise ValueError(f"label must be another column than id and split, not {label!r}")
        self.folder = locate(folder, root)
        self.files = {"nodes": nodes, "edges": edges}
        self.directed = directed
        self.id, self.label, self.split = id, label, split
        self.source, self.target, self.weight = source, target, weight
        self.features = None if features == "auto" else tuple(features)
        self.class_names = () if class_names == "auto" else tuple(class_names)
        self.is_standardized = mean is not None
        self.mean = () if mean in ("auto", None) else tuple(mean)
        self.std = () if std in ("auto", None) else tuple(std)
        self.shares = {"val": val_fraction} | ({"test": test_fraction} if test_fraction else {})
        self.split_seed = split_seed
        self._num_nodes: int | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        """Train, val and, unless no node is in it, test."""
        column = self._split_column(self._nodes)
        if column is None:
            return SPLITS if "test" in self.shares else SPLITS[:2]
        return SPLITS if "test" in self._nodes.texts(column) else SPLITS[:2]

    @property
    def node_names(self) -> list[str]:
        """The identifiers of the nodes."""
        return self._nodes.ids

    @cached_property
    def _nodes(self) -> NodeTable:
        return NodeTable(self.folder / self.files["nodes"], self.id, self.label)

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        nodes = self._nodes
        edges = self._edges(self.folder / self.files["edges"], nodes)
        self.weight, self.split = edges.weight, self._split_column(nodes)
        labels = nodes.texts(self.label)
        splits = self._divided(nodes, labels)
        self._learn(nodes, edges, labels, splits["train"])
        numbers = {name: number for number, name in enumerate(self.class_names)}
        for split, index in splits.items():
            for i in index.tolist():
                if labels[i] not in numbers:
                    raise DataError(
                        f"{nodes.path}, line {nodes.line(i)}: the label {labels[i]!r} of this "
                        f"{split} node is not one of the training nodes' "
                        f"({', '.join(self.class_names[:20])})"
                    )
        classes = torch.tensor([numbers.get(label, UNKNOWN) for label in labels])
        self.loaders = split_loaders(
            self._standardized(self._values(nodes, edges)).float(),
            edges.edge_index,
            classes,
            splits,
            edge_weight=edges.edge_weight,
            device=device,
            part=part,
        )
        self._num_nodes = len(labels)
        self.notes = [self._summary(nodes, edges, splits, labels), *edges.notes]

    def read_inputs(self, path: Path) -> tuple[GraphBatch, list[dict[str, str]]]:
        """Another graph of the same kind, and what each of its nodes is called.

        Args:
            path: a folder like this one, or a file of nodes with that of the edges beside it. A
                column of labels is not needed.

        Raises:
            DataError: something is wrong with the files.
        """
        file, folder = (path, path.parent) if path.is_file() else (path / self.files["nodes"], path)
        nodes = NodeTable(file, self.id)
        edges = self._edges(folder / self.files["edges"], nodes)
        nothing = torch.zeros(len(nodes.ids), dtype=torch.bool)
        batch = GraphBatch(
            self._standardized(self._values(nodes, edges)).float(),
            edges.edge_index,
            nothing.long() + UNKNOWN,
            nothing,
            edges.edge_weight,
        )
        return batch, [{self.id: name} for name in nodes.ids]

    def facts(self) -> dict[str, Any]:
        if self._num_nodes is None:
            raise RuntimeError("GraphFolder.setup() must be called before its facts are known")
        return {
            "num_nodes": self._num_nodes,
            "in_features": len(self.features or ()) or 1,
            "num_classes": len(self.class_names),
            "class_names": list(self.class_names),
        }

    def resolved(self) -> dict[str, Any]:
        if self._num_nodes is None:
            return {}
        learned = ("features", "class_names", *(("mean", "std") if self.is_standardized else ()))
        found = {name: list(getattr(self, name)) for name in learned}
        return found | {"weight": self.weight, "split": self.split}

    def _edges(self, path: Path, nodes: NodeTable) -> EdgeList:
        return read_edges(
            path,
            nodes,
            source=self.source,
            target=self.target,
            weight=self.weight,
            directed=self.directed,
        )

    def _split_column(self, nodes: NodeTable) -> str | None:
        if self.split != "auto":
            return self.split
        return "split" if "split" in nodes.table.header else None

    def _divided(self, nodes: NodeTable, labels: list[str]) -> dict[str, Tensor]:
        """The nodes of each split, all of which have a label."""
        if self.split is None:
            labelled = torch.tensor([i for i, label in enumerate(labels) if label])
            if not len(labelled):
                raise DataError(f"{nodes.path}: no node has a label in the column {self.label!r}")
            names = sorted(set(labels))
            classes = [names.index(labels[i]) for i in labelled.tolist()]
            parts = divide(classes, self.shares, seed=self.split_seed, source=nodes.path)
            return {split: labelled[index] for split, index in parts.items()}
        found: dict[str, list[int]] = {split: [] for split in SPLITS}
        for i, name in enumerate(nodes.texts(self.split)):
            if name and name not in found:
                raise DataError(
                    f"{nodes.path}, line {nodes.line(i)}: the column {self.split!r} has {name!r}: "
                    "it must say train, val, test or nothing"
                )
            if name and not labels[i]:
                raise DataError(
                    f"{nodes.path}, line {nodes.line(i)}: the {name} node {nodes.ids[i]!r} has no "
                    f"label: write one, or leave its {self.split!r} empty"
                )
            if name:
                found[name].append(i)
        for split in SPLITS[:2]:
            if not found[split]:
                raise DataError(
                    f"{nodes.path}: no node is in {split} by the column {self.split!r}: write "
                    f"{split} there for some, or set data.split=null to divide them at random"
                )
        return {split: torch.tensor(index) for split, index in found.items() if index}

    def _learn(self, nodes: NodeTable, edges: EdgeList, labels: list[str], train: Tensor) -> None:
        """Finds out what is not given."""
        if not self.class_names:
            self.class_names = tuple(sorted({labels[i] for i in train.tolist()}))
        if len(self.class_names) < 2:
            raise DataError(
                f"{nodes.path}: all training nodes have the label {self.class_names[0]!r}: there "
                "must be two or more to tell apart"
            )
        if self.features is None:
            others = {self.id, self.label, self.split}
            self.features = tuple(name for name in nodes.table.header if name not in others)
        if not self.is_standardized:
            return
        values = self._values(nodes, edges)[train]
        std = values.std(0, correction=0)
        self.mean = self.mean or tuple(values.mean(0).tolist())
        # A feature that is the same everywhere becomes 0.
        self.std = self.std or tuple(std.where(std > 0, 1).tolist())
        for name, given in (("mean", self.mean), ("std", self.std)):
            if len(given) != len(std):
                raise DataError(
                    f"data.{name} must have a number for each of the {len(std)} features, not "
                    f"{len(given)}"
                )

    def _values(self, nodes: NodeTable, edges: EdgeList) -> Tensor:
        """The features as they are, float64 ``(nodes, in_features)``."""
        if self.features:
            return nodes.features(self.features)
        degrees = edges.edge_index[1].bincount(minlength=len(nodes.ids))
        return degrees.double().log1p().unsqueeze(1)

    def _standardized(self, values: Tensor) -> Tensor:
        if not self.is_standardized:
            return values
        mean, std = (torch.tensor(v, dtype=torch.float64) for v in (self.mean, self.std))
        return (values - mean) / std

    def _summary(
        self, nodes: NodeTable, edges: EdgeList, splits: dict[str, Tensor], labels: list[str]
    ) -> str:
        count = edges.edge_index.size(1)
        kind = f"{count:,} directed" if self.directed else f"{count // 2:,} undirected"
        sizes = ", ".join(f"{len(index):,} {split}" for split, index in splits.items())
        features = f"features {', '.join(self.features)}" if self.features else "degree as feature"
        note = f"graph of {self.folder}: {len(labels):,} nodes, {kind} edges, {features}; {sizes}"
        unlabelled = labels.count("")
        return note + (f"; {unlabelled:,} without a label" if unlabelled else "")
