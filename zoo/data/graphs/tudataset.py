"""Many small graphs, each with a class or with real numbers: TUDataset, or a folder of your own."""

import hashlib
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.data.download import DataError, download, file_digest
from zoo.data.files import locate, made_folder, whole_file
from zoo.data.graphs.packed import GraphStore, PackedGraphs, packed_loaders
from zoo.data.graphs.tudataset_files import PARTS, GraphFiles, find_name, path_of, read_graphs
from zoo.data.module import DataModule, Part, check_batch_size
from zoo.data.splits import SPLITS, check_folds, check_fractions, cross_validation

URL = "https://www.chrsmrrs.com/graphkerneldatasets/"
MOST_DEGREES = 100
Kinds = tuple[tuple[int, ...], ...]
NodeFeatures = Literal["auto", "labels", "attributes", "both", "degrees"]


class TUDataset(DataModule):
    """Batches of molecules, proteins, circles of people, ..., each a graph; or of your own graphs.

    Morris et al., 2020, https://arxiv.org/abs/2007.08663; names and descriptions:
    https://chrsmrrs.github.io/datasets. A batch is
    :class:`~zoo.data.graphs.packed.PackedGraphs`.

    The data come without splits. They are divided into stratified folds: one is the test, and val
    is taken from the others (`zoo.data.splits.cross_validation`). The folds depend on
    ``split_seed`` alone, so that all models have the same; results are means over all folds::

        python train.py -m experiment=gin_mutag "data.fold=range(10)"

    Files lie in ``root/<name>/raw``, where PyG keeps them too, and are downloaded if they are not
    there. No checksums of the source are known to us: that of what was found is part of the run
    (see :meth:`resolved`), which then refuses any other files. The format of the files is that of
    `zoo.data.graphs.tudataset_files`.

    Args:
        name: which data set; None: the one in ``folder``.
        folder: files of your own, from where you stand or within ``root``; None: those of ``name``.
        root: folder of all downloads.
        batch_size: graphs a batch.
        fold: which fold is the test.
        num_folds: how many there are.
        val_fraction: share of val among the graphs outside the test.
        split_seed: another seed, other folds.
        node_features: ``labels`` (one-hot), ``attributes`` (numbers as they are), ``both``, or
            ``degrees`` (one-hot); ``auto``: labels, where there are none attributes, else degrees.
        node_kinds: the labels of nodes in the order of their features, for each column of them;
            ``auto``: those that there are.
        max_degree: nodes with as many neighbours or more have the same feature; ``auto``: the most
            that there are, but no more than 100.
        target: ``labels``, the classes of the graphs, or ``attributes``, their real numbers;
            ``auto``: labels where there are any.
        directed: edges may lead one way; else each must be there in both directions.
        drop_last: omit the last training batch of an epoch if it is smaller.
        sha256: checksum over all files; ``auto``: take what is there.
    """

    splits = SPLITS
    changeable = ("root", "folder")
    repeated = ("fold",)

    def __init__(
        self,
        name: str | None = "MUTAG",
        *,
        folder: str | None = None,
        root: str = "data",
        batch_size: int = 32,
        fold: int = 0,
        num_folds: int = 10,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        node_features: NodeFeatures = "auto",
        node_kinds: Literal["auto"] | Kinds = "auto",
        max_degree: Literal["auto"] | int = "auto",
        target: Literal["auto", "labels", "attributes"] = "auto",
        directed: bool = False,
        drop_last: bool = False,
        sha256: Literal["auto"] | str = "auto",
    ) -> None:
        super().__init__()
        check_batch_size(batch_size)
        check_folds(fold, num_folds)
        check_fractions(val_fraction)
        if (name is None) == (folder is None):
            raise ValueError(
                f"one of name and folder must be given and the other null, not name={name} and "
                f"folder={folder}"
            )
        if node_features not in get_args(NodeFeatures):
            raise ValueError(
                f"node_features must be one of {', '.join(get_args(NodeFeatures))}, not "
                f"{node_features!r}"
            )
        if target not in ("auto", "labels", "attributes"):
            raise ValueError(f"target must be auto, labels or attributes, not {target!r}")
        if name is not None and not re.fullmatch(r"\w[\w.+-]*", name):
            raise ValueError(f"name must be that of a data set, as in MUTAG, not {name!r}")
        if not isinstance(max_degree, str) and max_degree < 0:
            raise ValueError(f"max_degree must be at least 0, not {max_degree}")
        self.name, self.folder, self.root = name, folder, root
        self.batch_size = batch_size
        self.fold, self.num_folds = fold, num_folds
        self.val_fraction, self.split_seed = val_fraction, split_seed
        self.node_features = node_features
        self.node_kinds = None if node_kinds == "auto" else node_kinds
        self.max_degree = None if max_degree == "auto" else max_degree
        self.target = target
        self.directed = directed
        self.drop_last = drop_last
        self.sha256 = "" if sha256 == "auto" else sha256
        self._facts: dict[str, Any] = {}

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        folder, name = self._place()
        files = read_graphs(folder, name, directed=self.directed)
        self._learn(files)
        features = self._features(files, folder / name)
        labels = self._labels(files, folder / name)
        edge_kinds = _kinds(files.edge_labels)
        edge_features = _joined(files.edge_labels, edge_kinds, files.edge_attributes)
        is_classes = not labels.is_floating_point()
        splits = cross_validation(
            labels if is_classes else len(labels),
            fold=self.fold,
            num_folds=self.num_folds,
            val_fraction=self.val_fraction,
            seed=self.split_seed,
            source=folder,
        )
        self.loaders = packed_loaders(
            GraphStore(features, files.edge_index, files.batch, labels, edge_features),
            splits,
            batch_size=self.batch_size,
            seed=seed,
            drop_last=self.drop_last,
            device=device,
            part=part,
        )
        self._facts = {
            "num_graphs": len(labels),
            "in_features": features.shape[1],
            "edge_features": None if edge_features is None else edge_features.shape[1],
        }
        if is_classes and files.graph_labels is not None:
            names = [str(label) for label in files.graph_labels.unique().tolist()]
            self._facts |= {"num_classes": len(names), "class_names": names}
        else:
            self._facts |= {"out_features": labels.shape[1]}
        if self.folder is not None:
            self.notes = [
                f"graphs of {folder}: {len(labels)}, with {len(features)} nodes and "
                f"{files.edge_index.shape[1]} edges; {features.shape[1]} features of a node: "
                f"{self.node_features}"
            ]

    def facts(self) -> dict[str, Any]:
        if not self._facts:
            raise RuntimeError("TUDataset.setup() must be called before its facts are known")
        return self._facts

    def lacks(self) -> dict[str, str]:
        if not self._facts or "num_classes" in self._facts:
            return {}
        return {"num_classes": "these graphs have real numbers and no classes: set it to how many"}

    def resolved(self) -> dict[str, Any]:
        if not self._facts:
            return {}
        found: dict[str, Any] = {"sha256": self.sha256, "node_features": self.node_features}
        if self.node_kinds is not None:
            found["node_kinds"] = [list(kinds) for kinds in self.node_kinds]
        return found | ({} if self.max_degree is None else {"max_degree": self.max_degree})

    def read_inputs(self, path: Path) -> tuple[PackedGraphs, list[dict[str, str]]]:
        """Other graphs of the same kind in one batch, and the number of each.

        Args:
            path: a folder with files in the same format; no labels of graphs are needed.

        Raises:
            DataError: something is wrong with the files.
        """
        name = find_name(path)
        files = read_graphs(path, name, directed=self.directed, has_targets=False)
        count = int(files.batch[-1]) + 1
        batch = PackedGraphs(
            self._features(files, path / name),
            files.edge_index,
            files.batch,
            torch.zeros(count, dtype=torch.int64),
        )
        return batch, [{"graph": str(number)} for number in range(1, count + 1)]

    def _place(self) -> tuple[Path, str]:
        """Makes sure of the files; returns their folder and what their names begin with."""
        if self.folder is not None:
            folder = locate(self.folder, self.root)
            if not folder.is_dir():
                raise DataError(
                    f"{folder} is not a folder: name one with TU text files (NAME_A.txt, "
                    "NAME_graph_indicator.txt, NAME_graph_labels.txt)"
                )
            name = find_name(folder)
        else:
            assert self.name is not None
            folder, name = Path(self.root) / self.name / "raw", self.name
            if not path_of(folder, name, "A").is_file():
                archive = download(f"{URL}{name}.zip", folder.parent / f"{name}.zip")
                _unpack(archive, folder, name)
        paths = [p for part in PARTS if (p := path_of(folder, name, part)).is_file()]
        total = hashlib.sha256()
        for path in paths:
            total.update(f"{path.name} {file_digest(path)}\n".encode())
        found = total.hexdigest()
        if self.sha256 and found != self.sha256:
            raise DataError(
                f"the files in {folder} are not those of this run (sha256 {found} over all of "
                f"them, not {self.sha256}): put back the files that the run began with"
            )
        self.sha256 = found
        return folder, name

    def _learn(self, files: GraphFiles) -> None:
        """Settles what the features of nodes are, where that was left to the files."""
        if self.node_features == "auto":
            given = {"labels": files.node_labels, "attributes": files.node_attributes}
            there: list[Any] = [what for what, table in given.items() if table is not None]
            self.node_features = there[0] if there else "degrees"
        if self.node_features == "degrees" and self.max_degree is None:
            self.max_degree = min(int(_degrees(files).max()), MOST_DEGREES)
        if self.node_features in ("labels", "both") and self.node_kinds is None:
            self.node_kinds = _kinds(files.node_labels)

    def _features(self, files: GraphFiles, source: Path) -> Tensor:
        """Those of the nodes, float32 ``(nodes, in_features)``."""
        if self.max_degree is not None and self.node_features == "degrees":
            degrees = _degrees(files).clamp(max=self.max_degree)
            return F.one_hot(degrees, self.max_degree + 1).float()
        both = self.node_features == "both"
        wanted = ("labels", "attributes") if both else (self.node_features,)
        given = {"labels": files.node_labels, "attributes": files.node_attributes}
        for what in wanted:
            if given[what] is None:
                raise DataError(
                    f"{source}_node_{what}.txt is missing: put it there, or set node_features to "
                    f"other than {self.node_features}"
                )
        labels, attributes = (given[what] if what in wanted else None for what in given)
        if labels is not None:
            self._check_kinds(labels, Path(f"{source}_node_labels.txt"))
        features = _joined(labels, self.node_kinds, attributes)
        assert features is not None
        return features

    def _check_kinds(self, labels: Tensor, path: Path) -> None:
        kinds = self.node_kinds or ()
        if labels.shape[1] != len(kinds):
            raise DataError(
                f"{path} has {labels.shape[1]} labels a line, not the {len(kinds)} of node_kinds"
            )
        for column, known in zip(labels.T, kinds, strict=True):
            strange = (~torch.isin(column, torch.tensor(known))).nonzero().flatten()
            if len(strange):
                line = int(strange[0])
                raise DataError(
                    f"{path}, line {line + 1}: the label {int(column[line])} is none of those that "
                    f"are known ({', '.join(map(str, known))}): write one of them"
                )

    def _labels(self, files: GraphFiles, source: Path) -> Tensor:
        """Classes, int64 ``(graphs,)``, or values, float32 ``(graphs, attributes)``."""
        labels, attributes = files.graph_labels, files.graph_attributes
        target = self.target
        if target == "auto":
            target = "attributes" if labels is None else "labels"
        chosen = labels if target == "labels" else attributes
        if chosen is None:
            raise DataError(
                f"{source}_graph_{target}.txt is missing: put it there, or set target to other "
                f"than {target}"
            )
        return chosen.unique(return_inverse=True)[1] if target == "labels" else chosen


def _degrees(files: GraphFiles) -> Tensor:
    return files.edge_index[1].bincount(minlength=len(files.batch))


def _kinds(labels: Tensor | None) -> Kinds | None:
    """The labels that there are, for each column of them."""
    return None if labels is None else tuple(tuple(c.unique().tolist()) for c in labels.T)


def _joined(labels: Tensor | None, kinds: Kinds | None, attributes: Tensor | None) -> Tensor | None:
    """Labels as one-hot vectors, and attributes behind them: ``(rows, features)``."""
    parts = [] if attributes is None else [attributes]
    if labels is not None:
        columns = zip(labels.T, kinds or (), strict=True)
        vectors = [
            (column.unsqueeze(1) == torch.tensor(known)).float() for column, known in columns
        ]
        parts = [*vectors, *parts]
    return torch.cat(parts, 1) if parts else None


def _unpack(archive: Path, folder: Path, name: str) -> None:
    """Takes the files of a data set out of its archive; the edges last, whose file means whole."""
    try:
        with zipfile.ZipFile(archive) as content, made_folder(folder):
            members = {Path(member).name: member for member in content.namelist()}
            for part in reversed(PARTS):
                path = path_of(folder, name, part)
                if path.name in members and not path.exists():
                    with whole_file(path) as new:
                        new.write_bytes(content.read(members[path.name]))
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError) as error:
        raise DataError(
            f"{archive} is damaged ({error}): delete it, so that it is downloaded again"
        ) from error
