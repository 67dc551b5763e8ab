import collections
import json
import os
import pickle
import struct
import sys
from typing import ClassVar

import numpy as np
import pytest
import torch

from zoo.data.download import DataError
from zoo.data.graphs import planetoid
from zoo.data.graphs.batches import GraphBatch, undirected
from zoo.data.graphs.karate import KarateClub
from zoo.data.graphs.planetoid import Planetoid
from zoo.data.graphs.planetoid_files import load_pickle, read_planetoid

KNOWN, TRAIN, CLASSES, WORDS = 520, 6, 3, 5


def test_links_become_both_directions_once_sorted_and_without_loops():
    links = torch.tensor([[0, 1, 2, 2, 0, 3], [1, 0, 2, 0, 2, 3]])
    assert undirected(links, 4).tolist() == [[1, 2, 0, 0], [0, 0, 1, 2]]


def test_karate_club_is_zacharys():
    module = KarateClub()
    module.setup()
    (batch,) = module.batches("train", 0)
    assert isinstance(batch, GraphBatch)
    assert batch.edge_index.shape == (2, 156)
    assert torch.equal(batch.features, torch.eye(34))
    assert batch.labels.bincount().tolist() == [17, 17]
    assert batch.mask.nonzero().squeeze(1).tolist() == [0, 33]
    assert batch.labels[[0, 33]].tolist() == [0, 1]
    assert module.facts() == {
        "num_nodes": 34,
        "in_features": 34,
        "num_classes": 2,
        "class_names": ["Mr. Hi", "Officer"],
    }
    networkx = pytest.importorskip("networkx")
    edges = {(i, j) for i, j in batch.edge_index.T.tolist() if i < j}
    assert edges == {tuple(sorted(edge)) for edge in networkx.karate_club_graph().edges}


@pytest.mark.parametrize("labels_per_class", [1, 4, 15])
def test_karate_splits_are_disjoint_complete_and_balanced(labels_per_class):
    module = KarateClub(labels_per_class=labels_per_class, split_seed=2)
    module.setup()
    masks = {split: next(module.batches(split, 0)).mask for split in module.splits}
    assert torch.stack(list(masks.values())).sum(0).tolist() == [1] * 34
    labels = next(module.batches("train", 0)).labels
    assert labels[masks["train"]].bincount().tolist() == [labels_per_class] * 2
    assert abs(masks["val"].sum() - masks["test"].sum()) <= 1
    for split in module.splits:
        assert module.loaders[split].indices(0, 0) == masks[split].nonzero().squeeze(1).tolist()
        assert module.loaders[split].num_samples == masks[split].sum()
        assert list(module.batches(split, 0, 1)) == []


class CsrMatrix:
    """Pickles as scipy's csr_matrix did in the files."""

    def __init__(self, dense):
        row, column = np.nonzero(dense)
        self.data = dense[row, column].astype(np.float32)
        self.indices = column.astype(np.int32)
        self.indptr = np.searchsorted(row, np.arange(len(dense) + 1)).astype(np.int32)
        self._shape = dense.shape


CsrMatrix.__module__, CsrMatrix.__qualname__, CsrMatrix.__name__ = (
    "scipy.sparse.csr",
    "csr_matrix",
    "csr_matrix",
)


class Python2Pickler(pickle._Pickler):
    """Writes byte strings as Python 2 did, which had no others."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_string(self, value):
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch[bytes] = save_string


def pickled(value, path, monkeypatch):
    module = type(sys)("scipy.sparse.csr")
    module.csr_matrix = CsrMatrix
    monkeypatch.setitem(sys.modules, "scipy.sparse.csr", module)
    with open(path, "wb") as file:
        Python2Pickler(file, protocol=2).dump(value)


def network(folder, name, monkeypatch, *, missing=()):
    """A made-up network of 528 nodes whose last eight are the test nodes, in disorder."""
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True)
    test = [n for n in (523, 520, 527, 521, 526, 522, 525, 524) if n not in missing]
    features = generator.integers(0, 2, (528, WORDS)) * (1.0 + np.arange(WORDS))
    features[list(missing)] = 0
    features[3] = 0
    labels = np.eye(CLASSES, dtype=np.int32)[np.arange(528) % CLASSES]
    links = collections.defaultdict(list)
    for i in range(528):
        if i not in missing:
            links[i] += [j for j in ((i + 1) % 528, (i * 7) % 528) if j not in missing]
    links[0] += [0, 1, 1]
    parts = {
        "x": CsrMatrix(features[:TRAIN]),
        "tx": CsrMatrix(features[test]),
        "allx": CsrMatrix(features[:KNOWN]),
        "y": labels[:TRAIN],
        "ty": labels[test],
        "ally": labels[:KNOWN],
        "graph": links,
    }
    for part, value in parts.items():
        pickled(value, folder / f"ind.{name}.{part}", monkeypatch)
    (folder / f"ind.{name}.test.index").write_text("".join(f"{n}\n" for n in test))
    return features, labels, links, test


@pytest.mark.parametrize("missing", [(), (522, 527)])
@pytest.mark.parametrize("sparse", [True, False])
def test_a_network_is_put_together_with_its_missing_nodes_isolated(
    missing, sparse, tmp_path, monkeypatch
):
    folder = tmp_path / "Citeseer" / "raw"
    features, labels, links, test = network(folder, "citeseer", monkeypatch, missing=missing)
    module = Planetoid("Citeseer", root=str(tmp_path), sparse_features=sparse)
    module.setup()
    (batch,) = module.batches("train", 0)
    nodes = 527 if 527 in missing else 528
    sizes = {"num_nodes": nodes, "in_features": WORDS, "num_classes": CLASSES}
    assert module.facts() == sizes | {"class_names": None}
    assert batch.features.layout == (torch.sparse_csr if sparse else torch.strided)
    totals = features.sum(1, keepdims=True)
    expected = torch.from_numpy(features / np.where(totals == 0, 1, totals))[:nodes].float()
    torch.testing.assert_close(batch.features.to_dense() if sparse else batch.features, expected)
    there = [n for n in range(nodes) if n not in missing]
    assert batch.labels[there].tolist() == labels.argmax(1)[there].tolist()
    edges = {(i, j) for i, row in links.items() for j in row if i != j}
    edges |= {(j, i) for i, j in edges}
    assert [tuple(edge) for edge in batch.edge_index.T.tolist()] == sorted(
        edges, key=lambda edge: edge[::-1]
    )
    assert not set(missing) & set(batch.edge_index.unique().tolist())
    masks = {split: module.loaders[split].indices(0, 0) for split in module.splits}
    assert masks == {
        "train": list(range(TRAIN)),
        "val": list(range(TRAIN, TRAIN + 500)),
        "test": sorted(test),
    }


@pytest.mark.parity
@pytest.mark.parametrize("missing", [(), (522, 525)])
def test_a_network_with_gaps_in_its_test_index_equals_torch_geometrics(
    missing, tmp_path, monkeypatch
):
    theirs_io = pytest.importorskip("torch_geometric.io")
    pytest.importorskip("scipy")
    folder = tmp_path / "Citeseer" / "raw"
    network(folder, "citeseer", monkeypatch, missing=missing)
    monkeypatch.undo()  # they unpickle with scipy itself
    theirs = theirs_io.read_planetoid_data(str(folder), "citeseer")
    ours = read_planetoid(folder, "citeseer")
    torch.testing.assert_close(ours.features.to_dense(), theirs.x)
    assert torch.equal(ours.labels, theirs.y)
    nodes = len(ours.labels)
    edge_index = undirected(theirs.edge_index, nodes)
    assert torch.equal(undirected(ours.links, nodes), edge_index)
    assert not set(missing) & set(edge_index.unique().tolist())
    assert torch.equal(ours.test, theirs.test_mask.nonzero().squeeze(1))
    assert ours.num_labelled == theirs.train_mask.sum()


def test_an_experiment_trains_on_a_network_whose_test_index_has_gaps(tmp_path, monkeypatch):
    import train

    network(tmp_path / "Citeseer" / "raw", "citeseer", monkeypatch, missing=(522, 525))
    words = ("data.name=Citeseer", f"data.root={tmp_path}", f"paths.runs_dir={tmp_path}/runs")
    words = (*words, "trainer.epochs=2", "trainer.device=cpu", "logger=off")
    assert train.main(["experiment=gcn_cora", *words]) == 0
    (results,) = (tmp_path / "runs").rglob("results.json")
    assert json.loads(results.read_text())["test"]["loss"] < 10


def test_features_are_as_they_are_where_rows_are_not_normalized(tmp_path, monkeypatch):
    folder = tmp_path / "PubMed" / "raw"
    features, *_ = network(folder, "pubmed", monkeypatch)
    module = Planetoid("PubMed", root=str(tmp_path), row_normalized=False)
    module.setup()
    (batch,) = module.batches("train", 0)
    assert torch.equal(batch.features.to_dense(), torch.from_numpy(features).float())


def test_the_checksum_of_files_without_a_known_one_is_in_the_run(tmp_path, monkeypatch):
    network(tmp_path / "PubMed" / "raw", "pubmed", monkeypatch)
    module = Planetoid("PubMed", root=str(tmp_path))
    assert module.resolved() == {}
    module.setup()
    again = Planetoid("PubMed", root=str(tmp_path), **module.resolved())
    again.setup()
    path = tmp_path / "PubMed" / "raw" / "ind.pubmed.test.index"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(DataError, match="are not those of this run"):
        again.setup()


def test_files_are_downloaded_once(web, tmp_path, monkeypatch):
    network(tmp_path / "made", "citeseer", monkeypatch)
    for path in (tmp_path / "made").iterdir():
        path.rename(web.folder / path.name)
    monkeypatch.setattr(planetoid, "URL", f"{web.url}/")
    for _ in range(2):
        Planetoid("Citeseer", root=str(tmp_path / "data")).setup()
    assert len(web.requests) == 8


def test_without_a_connection_one_sentence_says_what_to_do(dead_url, tmp_path, monkeypatch):
    monkeypatch.setattr(planetoid, "URL", f"{dead_url}/")
    with pytest.raises(DataError, match=r"could not download .*ind\.cora\.x .*by hand \(sha256"):
        Planetoid(root=str(tmp_path)).setup()


class Hostile:
    def __reduce__(self):
        return os.system, ("touch hacked",)


def test_a_hostile_pickle_is_refused_by_name_and_does_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for value in (Hostile(), {"a": [Hostile()]}, eval, np.memmap):
        (tmp_path / "file").write_bytes(pickle.dumps(value))
        with pytest.raises(DataError, match=r"not safe to read: it asks for .*\.\w+, which no"):
            load_pickle(tmp_path / "file")
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("content", [b"", b"no pickle", b"\x80\x02]q\x00(K\x01"])
def test_a_damaged_pickle_is_named(content, tmp_path):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataError, match="file is damaged"):
        load_pickle(tmp_path / "file")


def test_files_that_do_not_belong_together_are_told(tmp_path, monkeypatch):
    folder = tmp_path / "raw"
    network(folder, "cora", monkeypatch)
    pickled({0: [1], 5: [9999]}, folder / "ind.cora.graph", monkeypatch)
    with pytest.raises(DataError, match=r"do not make a network .*link leads to node 9999"):
        read_planetoid(folder, "cora")
    pickled([1, 2], folder / "ind.cora.allx", monkeypatch)
    with pytest.raises(DataError, match="do not make a network"):
        read_planetoid(folder, "cora")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KarateClub(labels_per_class=0), "labels_per_class must be from 1 to 15, not 0"),
        (lambda: Planetoid("cora"), "name must be 'Cora', 'Citeseer' or 'PubMed', not 'cora'"),
    ],
)
def test_nonsense_is_refused_with_the_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.fixture
def cora(data_dir):
    if not (data_dir / "Cora" / "raw").is_dir():
        pytest.skip(f"no Cora in {data_dir}")
    module = Planetoid(root=str(data_dir))
    module.setup()
    return module


@pytest.mark.data
def test_real_cora_has_its_published_sizes(cora):
    sizes = {"num_nodes": 2708, "in_features": 1433, "num_classes": 7}
    assert cora.facts() == sizes | {"class_names": None}
    (batch,) = cora.batches("train", 0)
    assert batch.edge_index.shape == (2, 10_556)
    assert batch.labels[batch.mask].bincount().tolist() == [20] * 7
    counts = {split: cora.loaders[split].num_samples for split in cora.splits}
    assert counts == {"train": 140, "val": 500, "test": 1000}
    torch.testing.assert_close(batch.features.to_dense().sum(1), torch.ones(2708))


@pytest.mark.data
@pytest.mark.parity
def test_real_cora_equals_torch_geometrics(cora, data_dir, tmp_path):
    datasets = pytest.importorskip("torch_geometric.datasets")
    transforms = pytest.importorskip("torch_geometric.transforms")
    (tmp_path / "Cora").mkdir()
    (tmp_path / "Cora" / "raw").symlink_to(data_dir / "Cora" / "raw")
    theirs = datasets.Planetoid(str(tmp_path), "Cora", transform=transforms.NormalizeFeatures())[0]
    for split in cora.splits:
        (batch,) = cora.batches(split, 0)
        torch.testing.assert_close(batch.features.to_dense(), theirs.x)
        assert torch.equal(batch.edge_index, theirs.edge_index)
        assert torch.equal(batch.labels, theirs.y)
        assert torch.equal(batch.mask, theirs[f"{split}_mask"])
