import pytest
import torch

from zoo.data.download import DataError
from zoo.data.graphs.batches import GraphBatch, GraphLoader, split_loaders, undirected
from zoo.data.graphs.karate import KarateClub
from zoo.data.graphs.links import Links, draw_negatives, pair_numbers
from zoo.data.module import DataModule
from zoo.data.sampling import seeded_generator


class Weighted(DataModule):
    """The karate club with the weight 100 i + j of the edge from i to j, i < j, both ways."""

    def __init__(self, *, directed=False):
        super().__init__()
        self.directed = directed

    def setup(self, **options):
        club = KarateClub()
        club.setup()
        (batch,) = club.batches("train", 0)
        edges = batch.edge_index[:, 1:] if self.directed else batch.edge_index
        low, high = edges.aminmax(dim=0)
        self.loaders = split_loaders(
            batch.features,
            edges,
            batch.labels,
            {"train": torch.arange(2)},
            edge_weight=100.0 * low + high,
            device="cpu",
        )

    def facts(self):
        return {"num_nodes": 34, "in_features": 34, "num_classes": 2}


def made(graph=None, seed=0, part=(0, 1), **arguments):
    module = Links(graph or KarateClub(), val_fraction=0.1, test_fraction=0.15, **arguments)
    module.setup(seed=seed, part=part)
    return module


def batch(module, split, epoch=0):
    (found,) = module.batches(split, epoch)
    return found


def numbers(found, label):
    return set(pair_numbers(found.pairs[:, found.labels == label], 34).tolist())


def edges_of(found):
    low, high = found.edge_index.aminmax(dim=0)
    return set(pair_numbers(torch.stack([low, high]), 34).tolist())


def whole():
    club = KarateClub()
    club.setup()
    (graph,) = club.batches("train", 0)
    return edges_of(graph)


def test_links_are_divided_and_none_of_val_and_test_passes_messages():
    module = made()
    links = {split: numbers(batch(module, split), 1) for split in module.splits}
    assert {split: len(found) for split, found in links.items()} == {
        "train": 58,
        "val": 8,
        "test": 12,
    }
    assert set.union(*links.values()) == whole() and sum(map(len, links.values())) == 78
    for split in module.splits:
        found = batch(module, split)
        assert edges_of(found) == links["train"]
        assert torch.equal(found.edge_index, undirected(found.edge_index, 34))
        assert found.edge_weight is None
        assert found.labels.sum() * 2 == len(found.labels) == module.loaders[split].num_samples
        assert (found.pairs[0] < found.pairs[1]).all()
    assert links != {split: numbers(batch(made(split_seed=1), split), 1) for split in links}
    assert module.facts() == {"num_nodes": 34, "in_features": 34}


def test_negatives_of_training_are_fresh_each_epoch_and_those_of_the_others_fixed():
    module, other = made(seed=0), made(seed=1)
    drawn = [numbers(batch(module, "train", epoch), 0) for epoch in range(3)]
    assert drawn[0] != drawn[1] != drawn[2]
    assert drawn == [numbers(batch(made(), "train", epoch), 0) for epoch in range(3)]
    assert drawn[0] != numbers(batch(other, "train"), 0)
    for split in ("val", "test"):
        fixed = numbers(batch(module, split), 0)
        assert fixed == numbers(batch(module, split, 5), 0) == numbers(batch(other, split), 0)
        assert fixed != numbers(batch(made(split_seed=1), split), 0)
        assert not fixed & whole()


def test_negatives_of_training_say_nothing_about_links_that_are_hidden():
    """Hidden links are drawn as often as pairs that have none; known links never."""
    module = made()
    hidden = numbers(batch(module, "val"), 1) | numbers(batch(module, "test"), 1)
    known = numbers(batch(module, "train"), 1)
    drawn = [number for epoch in range(200) for number in numbers(batch(module, "train", epoch), 0)]
    assert not known & set(drawn)
    expected = len(hidden) / (34 * 33 / 2 - len(known))
    assert sum(n in hidden for n in drawn) / len(drawn) == pytest.approx(expected, rel=0.1)


def test_negatives_are_different_and_equally_likely():
    known = torch.tensor([0 * 6 + 1, 2 * 6 + 5])
    counts = torch.zeros(36)
    for seed in range(3000):
        generator = seeded_generator("test", seed)
        pairs = draw_negatives(4, known, num_nodes=6, generator=generator)
        found = pair_numbers(pairs, 6)
        assert found.unique().numel() == 4 and (pairs[0] < pairs[1]).all()
        counts[found] += 1
    free = counts[counts > 0]
    assert len(free) == 13 and not counts[known].any()
    # 3,000 draws of 4 of 13: standard deviation below 26.
    assert (free - 3000 * 4 / 13).abs().max() < 110
    everything = draw_negatives(13, known, num_nodes=6, generator=seeded_generator("all"))
    assert pair_numbers(everything, 6).unique().numel() == 13
    with pytest.raises(DataError, match="13 pairs of nodes without a link, too few to draw 14"):
        draw_negatives(14, known, num_nodes=6, generator=seeded_generator("all"))


def test_weights_stay_with_the_edges_that_remain():
    found = batch(made(Weighted()), "val")
    low, high = found.edge_index.aminmax(dim=0)
    assert torch.equal(found.edge_weight, 100.0 * low + high)


def test_slices_of_two_parts_are_the_whole():
    together = batch(made(), "train", 3)
    parts = [batch(made(part=(rank, 2)), "train", 3) for rank in range(2)]
    assert torch.equal(torch.cat([p.pairs for p in parts], 1), together.pairs)
    assert torch.equal(torch.cat([p.labels for p in parts]), together.labels)
    assert all(torch.equal(p.edge_index, together.edge_index) for p in parts)


def test_another_graph_is_refused_by_its_checksum():
    module = made()
    again = made(**module.resolved())
    assert again.resolved() == module.resolved()
    with pytest.raises(DataError, match="the graph is not the one of this run"):
        made(sha256="0" * 64)


def test_what_has_no_links_to_predict_is_refused():
    with pytest.raises(DataError, match=r"undirected graphs alone.* set data.graph.directed=false"):
        made(Weighted(directed=True))
    with pytest.raises(ValueError, match="test_fraction must be above 0, not 0"):
        Links(KarateClub(), test_fraction=0)
    with pytest.raises(DataError, match=r"too few links \(78\) to have some in val"):
        Links(KarateClub(), val_fraction=0.001).setup()
    from zoo.data.tabular.diabetes import Diabetes

    with pytest.raises(ValueError, match="graph must be data of one graph, not Diabetes"):
        Links(Diabetes()).setup()


def test_graph_loader_keeps_the_weights():
    graph = GraphBatch(
        torch.eye(2), torch.tensor([[0, 1], [1, 0]]), torch.arange(2), torch.ones(2) > 0
    )
    weight = torch.tensor([2.0, 3.0])
    (found,) = GraphLoader(graph._replace(edge_weight=weight)).batches(0)
    assert torch.equal(found.edge_weight, weight)
