import numpy as np
import pytest
import torch

from zoo.data.graphs.stored_block_model import StoredBlockModel
from zoo.models.graph.gcn import GCN
from zoo.models.graph.graph_sage import GraphSAGE
from zoo.tasks.node_classification import NodeClassification

SMALL = {
    "num_nodes": 2000,
    "num_links": 8000,
    "num_classes": 4,
    "in_features": 16,
    "train_size": 300,
    "val_size": 100,
    "test_size": 200,
    "fan_out": (5, 5),
    "batch_size": 100,
}


def made(tmp_path, **options):
    data = StoredBlockModel(root=str(tmp_path), **SMALL | options)
    data.setup(seed=0)
    return data


def graph_of(data):
    (graph,) = data.batches("test", 0)
    return graph


def test_links_go_both_ways_and_mostly_within_classes(tmp_path):
    graph = graph_of(made(tmp_path))
    target = torch.arange(2000).repeat_interleave(graph.starts.diff())
    pairs = set(zip(graph.sources.tolist(), target.tolist(), strict=True))
    assert len(pairs) == len(graph.sources)
    assert pairs == {(t, s) for s, t in pairs} and all(s != t for s, t in pairs)
    is_within = graph.labels[graph.sources.long()] == graph.labels[target]
    assert is_within.double().mean().item() == pytest.approx(0.8 + 0.2 / 4, abs=0.02)
    assert len(pairs) == pytest.approx(16_000, rel=0.01)


def test_features_are_a_mean_of_the_class_and_noise(tmp_path):
    graph = graph_of(made(tmp_path, signal=2.0, num_nodes=8000, num_links=100))
    means = torch.stack([graph.features[graph.labels == c].mean(0) for c in range(4)])
    torch.testing.assert_close(means.norm(dim=1), torch.full((4,), 2.0), rtol=0, atol=0.15)
    noise = graph.features - means[graph.labels]
    torch.testing.assert_close(noise.std(0), torch.ones(16), rtol=0, atol=0.05)


def test_the_graph_is_a_function_of_its_seed_and_is_made_once(tmp_path):
    first, again = graph_of(made(tmp_path)), graph_of(made(tmp_path))
    assert all(map(torch.equal, first, again))
    (folder,) = (tmp_path / "block_model").iterdir()
    elsewhere = graph_of(made(tmp_path / "other"))
    assert all(map(torch.equal, first, elsewhere))
    other = graph_of(made(tmp_path, data_seed=1))
    assert not torch.equal(first.features, other.features)
    assert len(list((tmp_path / "block_model").iterdir())) == 2
    assert sorted(path.name for path in folder.iterdir()) == [
        "features.npy",
        "labels.npy",
        "recipe.json",
        "sources.npy",
        "starts.npy",
    ]


def test_a_graph_that_was_not_finished_is_made_again(tmp_path):
    expected = graph_of(made(tmp_path)).features.clone()
    (folder,) = (tmp_path / "block_model").iterdir()
    (folder / "recipe.json").unlink()
    np.save(folder / "features.npy", np.zeros((1, 1), np.float32))
    assert torch.equal(graph_of(made(tmp_path)).features, expected)


def test_splits_are_apart_and_of_the_sizes_asked_for(tmp_path):
    data = made(tmp_path)
    nodes = {split: set() for split in data.splits}
    for split in data.splits:
        for number in range(data.num_batches(split)):
            nodes[split] |= set(data.loaders[split].indices(0, number))
    assert {split: len(found) for split, found in nodes.items()} == {
        "train": 300,
        "val": 100,
        "test": 200,
    }
    assert len(set.union(*nodes.values())) == 600
    assert set(graph_of(data).mask.nonzero().flatten().tolist()) == nodes["test"]


def test_sampled_training_learns_what_features_alone_do_not_tell(tmp_path):
    data = made(tmp_path)
    torch.manual_seed(0)
    model = GraphSAGE(16, 4, hidden_channels=16, dropout=0.0, cached=False)
    task = NodeClassification(model, num_classes=4)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for epoch in range(20):
        for batch in data.batches("train", epoch):
            loss, _ = task.loss(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        task.evaluate(graph_of(data))
    graph = graph_of(data)
    means = torch.stack([graph.features[graph.labels == c].mean(0) for c in range(4)])
    alone = torch.cdist(graph.features, means).argmin(1) == graph.labels
    assert task.compute()["accuracy"] > 0.9 > 0.75 > alone.double().mean()


def test_other_networks_are_refused_in_one_sentence(tmp_path):
    task = NodeClassification(GCN(16, 4), num_classes=4)
    with pytest.raises(ValueError, match="GCN cannot be evaluated on a graph this large"):
        task.evaluate(graph_of(made(tmp_path)))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_links": 0}, "num_links must be at least 1, not 0"),
        ({"train_size": 1900}, "must be at most num_nodes=2000 together, not 2200"),
        ({"within": 1.5}, "within must be from 0 to 1, not 1.5"),
        ({"signal": -1.0}, "signal must be at least 0"),
        ({"fan_out": (0,)}, "fan_out must be numbers from 1"),
        ({"num_classes": 3000}, "num_classes must be at most num_nodes=2000"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        made(tmp_path, **options)
