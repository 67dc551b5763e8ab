"""The citation networks of Planetoid: Cora, Citeseer and PubMed."""

import hashlib
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from zoo.data.download import DataError, download, file_digest
from zoo.data.graphs.batches import split_loaders, undirected
from zoo.data.graphs.planetoid_files import CHECKSUMS, PARTS, URL, read_planetoid
from zoo.data.module import DataModule, Part


class Planetoid(DataModule):
    """Papers that cite one another: Cora, Citeseer and PubMed, with the split of Planetoid.

    Yang, Cohen and Salakhutdinov, 2016, https://arxiv.org/abs/1603.08861. 20 papers of each class
    to train on, 500 for val, 1,000 for the test. Features are bags of words.

    Files lie in ``root/<name>/raw``, where PyG keeps them too. Those of Cora are compared with
    checksums. For Citeseer and PubMed none are known to us: the checksum of what was found is part
    of the run (see :meth:`resolved`), which then refuses any other files.

    Args:
        name: which network.
        root: folder of all downloads.
        sparse_features: features as a sparse CSR matrix (98.7 % of Cora's are zero), else dense.
        row_normalized: divide each node's features by their sum, as for Kipf and Welling's GCN.
        sha256: checksum over all eight files; ``auto``: take what is there.
    """

    splits = ("train", "val", "test")
    changeable = ("root",)

    def __init__(
        self,
        name: Literal["Cora", "Citeseer", "PubMed"] = "Cora",
        *,
        root: str = "data",
        sparse_features: bool = True,
        row_normalized: bool = True,
        sha256: Literal["auto"] | str = "auto",
    ) -> None:
        super().__init__()
        if name not in ("Cora", "Citeseer", "PubMed"):
            raise ValueError(f"name must be 'Cora', 'Citeseer' or 'PubMed', not {name!r}")
        self.name = name
        self.root = root
        self.sparse_features = sparse_features
        self.row_normalized = row_normalized
        self.sha256 = "" if sha256 == "auto" else sha256
        self._facts: dict[str, Any] = {}

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        network = read_planetoid(self._files(), self.name.lower())
        num_nodes = len(network.labels)
        features = network.features
        if self.row_normalized:
            features = _row_normalized(features)
        if self.sparse_features:
            with warnings.catch_warnings():  # once a process, torch calls this layout a beta
                warnings.simplefilter("ignore", UserWarning)
                features = features.to_sparse_csr()
        else:
            features = features.to_dense()
        labelled = network.num_labelled
        nodes = {
            "train": torch.arange(labelled),
            "val": torch.arange(labelled, labelled + 500),
            "test": network.test,
        }
        edge_index = undirected(network.links, num_nodes)
        self.loaders = split_loaders(
            features, edge_index, network.labels, nodes, device=device, part=part
        )
        self._facts = {
            "num_nodes": num_nodes,
            "in_features": features.shape[1],
            "num_classes": network.num_classes,
            "class_names": None,  # the files do not say
        }

    def facts(self) -> dict[str, Any]:
        if not self._facts:
            raise RuntimeError("Planetoid.setup() must be called before its facts are known")
        return self._facts

    def resolved(self) -> dict[str, Any]:
        return {"sha256": self.sha256} if self.sha256 else {}

    def _files(self) -> Path:
        """Makes sure of the eight files and returns their folder."""
        folder = Path(self.root) / self.name / "raw"
        total = hashlib.sha256()
        for part in PARTS:
            file = f"ind.{self.name.lower()}.{part}"
            path = download(URL + file, folder / file, sha256=CHECKSUMS.get(file))
            total.update(file_digest(path).encode())
        found = total.hexdigest()
        if self.sha256 and found != self.sha256:
            raise DataError(
                f"the files in {folder} are not those of this run (sha256 {found} over all of "
                f"them, not {self.sha256}): put back the files that the run began with"
            )
        self.sha256 = found
        return folder


def _row_normalized(features: Tensor) -> Tensor:
    """Divides each row of a coalesced COO matrix by its sum; empty rows stay empty."""
    indices, values = features.indices(), features.values()
    total = torch.zeros(features.shape[0]).index_add_(0, indices[0], values)
    values = values / total.where(total != 0, torch.ones(()))[indices[0]]
    return torch.sparse_coo_tensor(
        indices, values, features.shape, is_coalesced=True, check_invariants=True
    )
