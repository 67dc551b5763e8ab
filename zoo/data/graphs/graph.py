"""Graphs whose nodes are to be classified: the karate club, and the citation networks of Planetoid.

A batch is always the whole graph; the splits differ in which nodes count.
"""

import hashlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from zoo.data.download import DataError, download, file_digest
from zoo.data.graphs.planetoid import CHECKSUMS, PARTS, URL, read_planetoid
from zoo.data.module import DataModule, Loader
from zoo.data.sampling import seeded_generator, split_indices


class GraphBatch(NamedTuple):
    """A graph and the nodes that count.

    Attributes:
        features: ``(nodes, in_features)``, float32, dense or sparse CSR.
        edge_index: sources and targets, int64 ``(2, edges)``: both directions of every edge, no
            self-loops, sorted by target, then source.
        labels: int64 ``(nodes,)``.
        mask: bool ``(nodes,)``, the nodes of this split.
    """

    features: Tensor
    edge_index: Tensor
    labels: Tensor
    mask: Tensor


class GraphLoader:
    """One batch an epoch, always the same: the graph. A sample is a node of the split.

    Args:
        batch: the graph and the split's mask.
        device: where it is put.
    """

    def __init__(self, batch: GraphBatch, *, device: torch.device | str = "cpu") -> None:
        self._batch = GraphBatch(*(tensor.to(device) for tensor in batch))
        self._indices: list[int] = batch.mask.nonzero().squeeze(1).tolist()
        self.num_samples = len(self._indices)

    def __len__(self) -> int:
        """Batches an epoch."""
        return 1

    def indices(self, epoch: int, batch: int) -> list[int]:
        return list(self._indices)

    def batches(self, epoch: int, start: int = 0) -> Iterator[GraphBatch]:
        if start < 1:
            yield self._batch


def split_loaders(
    features: Tensor,
    edge_index: Tensor,
    labels: Tensor,
    nodes: dict[str, Tensor],
    *,
    device: torch.device | str,
) -> dict[str, Loader]:
    """A loader for each split of one graph, given the nodes of each."""
    # Moved once, so that all splits have the same tensors: what a model caches by them is kept.
    features, edge_index, labels = (t.to(device) for t in (features, edge_index, labels))
    loaders: dict[str, Loader] = {}
    for split, index in nodes.items():
        mask = torch.zeros(len(labels), dtype=torch.bool)
        mask[index] = True
        batch = GraphBatch(features, edge_index, labels, mask)
        loaders[split] = GraphLoader(batch, device=device)
    return loaders


def undirected(links: Tensor, num_nodes: int) -> Tensor:
    """Both directions of every link once, without self-loops, sorted by target, then source.

    Shape:
        - links: ``(2, links)``
        - output: ``(2, edges)``
    """
    links = links[:, links[0] != links[1]]
    both = torch.cat((links, links.flip(0)), 1)
    numbers = (both[1] * num_nodes + both[0]).unique()
    return torch.stack((numbers % num_nodes, numbers // num_nodes))  # (2, edges)


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

    def setup(self, *, seed: int = 0, device: torch.device | str = "cpu") -> None:
        import networkx

        club = networkx.karate_club_graph()
        labels = torch.tensor([self.class_names.index(club.nodes[i]["club"]) for i in range(34)])
        order = torch.randperm(34, generator=seeded_generator("karate", self.split_seed)).tolist()
        train = list(self.heads)
        for label, head in enumerate(self.heads):
            others = [i for i in order if labels[i] == label and i != head]
            train += others[: self.labels_per_class - 1]
        rest = torch.tensor([i for i in range(34) if i not in train])
        val, test = split_indices(labels[rest], (0.5, 0.5), seed=self.split_seed)
        nodes = {"train": torch.tensor(train), "val": rest[val], "test": rest[test]}
        edge_index = undirected(torch.tensor(list(club.edges)).T, 34)
        self.loaders = split_loaders(torch.eye(34), edge_index, labels, nodes, device=device)

    def sizes(self) -> dict[str, int]:
        return {"num_nodes": 34, "in_features": 34, "num_classes": 2}


class Planetoid(DataModule):
    """Papers that cite one another: Cora, Citeseer and PubMed, with the split of Planetoid.

    Yang, Cohen and Salakhutdinov, 2016, https://arxiv.org/abs/1603.08861. 20 papers of each class
    to train on, 500 for val, 1,000 for the test. Features are bags of words, each row divided by
    its sum, as in Kipf and Welling's GCN.

    Files lie in ``root/<name>/raw``, where PyG keeps them too. Those of Cora are compared with
    checksums. For Citeseer and PubMed none are known to us: the checksum of what was found is part
    of the run (see :meth:`resolved`), which then refuses any other files.

    Args:
        name: which network.
        root: folder of all downloads.
        sparse_features: features as a sparse CSR matrix (98.7 % of Cora's are zero), else dense.
        sha256: checksum over all eight files; ``auto``: take what is there.
    """

    splits = ("train", "val", "test")

    def __init__(
        self,
        name: Literal["Cora", "Citeseer", "PubMed"] = "Cora",
        *,
        root: str = "data",
        sparse_features: bool = True,
        sha256: Literal["auto"] | str = "auto",
    ) -> None:
        super().__init__()
        if name not in ("Cora", "Citeseer", "PubMed"):
            raise ValueError(f"name must be 'Cora', 'Citeseer' or 'PubMed', not {name!r}")
        self.name = name
        self.root = root
        self.sparse_features = sparse_features
        self.sha256 = "" if sha256 == "auto" else sha256
        self._sizes: dict[str, int] = {}

    def setup(self, *, seed: int = 0, device: torch.device | str = "cpu") -> None:
        network = read_planetoid(self._files(), self.name.lower())
        num_nodes = len(network.labels)
        features = _row_normalized(network.features)
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
        self.loaders = split_loaders(features, edge_index, network.labels, nodes, device=device)
        self._sizes = {
            "num_nodes": num_nodes,
            "in_features": features.shape[1],
            "num_classes": network.num_classes,
        }

    def sizes(self) -> dict[str, int]:
        if not self._sizes:
            raise RuntimeError("Planetoid.setup() must be called before its sizes are known")
        return self._sizes

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
