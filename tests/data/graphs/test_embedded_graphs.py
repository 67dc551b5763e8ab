"""Graphs that need no download: drawn by a seed, or from scikit-learn and networkx."""

import pytest
import torch

from zoo.data.graphs.atlas import GraphAtlas
from zoo.data.graphs.batches import undirected
from zoo.data.graphs.block_model import BlockModel
from zoo.data.graphs.knn_digits import KNNDigits, nearest
from zoo.data.graphs.social import SocialNetwork


def made(module):
    module.setup()
    return module


def graph(module, split="train"):
    (batch,) = module.batches(split, 0)
    return batch


def parts(module):
    return {split: module.loaders[split].indices(0, 0) for split in module.splits}


SMALL = [
    lambda **named: BlockModel(num_nodes=200, **named),
    lambda **named: KNNDigits(labels_per_class=2, **named),
]


@pytest.mark.parametrize("make", SMALL)
def test_labels_are_drawn_by_data_seed_alone_and_every_node_is_in_one_split(make):
    module = made(make())
    batch, found = graph(module), parts(module)
    nodes = module.facts()["num_nodes"]
    assert sorted(i for part in found.values() for i in part) == list(range(nodes))
    counts = batch.labels[batch.mask].bincount()
    assert (counts == module.labels_per_class).all()
    assert len(counts) == module.facts()["num_classes"]
    assert batch.features.shape == (nodes, module.facts()["in_features"])
    assert torch.equal(batch.edge_index, undirected(batch.edge_index, nodes))
    again = make()
    again.setup(seed=7)
    assert parts(again) == found and torch.equal(graph(again).features, batch.features)
    assert parts(made(make(data_seed=1))) != found


def test_points_are_linked_with_their_nearest_as_scikit_learn_has_them():
    neighbors = pytest.importorskip("sklearn.neighbors")
    points = torch.randn(60, 5, generator=torch.Generator().manual_seed(0)).double()
    ours = nearest(points, 4)
    _, theirs = neighbors.NearestNeighbors(n_neighbors=5).fit(points).kneighbors(points)
    assert ours[1].view(60, 4).tolist() == theirs[:, 1:].tolist()
    assert ours[0].bincount().tolist() == [4] * 60


def test_of_equally_near_points_the_first_is_chosen():
    line = torch.arange(5.0).unsqueeze(1)
    assert nearest(line, 1).tolist() == [[0, 1, 2, 3, 4], [1, 0, 1, 2, 3]]


def test_digits_that_look_alike_are_mostly_the_same():
    batch = graph(made(KNNDigits()))
    source, target = batch.labels[batch.edge_index]
    assert (source == target).float().mean() == pytest.approx(0.965, abs=0.002)
    assert batch.features.min() == 0 and batch.features.max() == 1
    test = graph(made(KNNDigits()), "test").mask
    assert test.sum() == pytest.approx(0.8 * (1797 - 50), abs=1)


def test_block_model_has_the_degree_and_homophily_that_were_asked_for():
    module = made(BlockModel(num_nodes=2_000, degree=12.0, homophily=0.7, signal=2.0))
    batch = graph(module)
    source, target = batch.labels[batch.edge_index]
    # Standard deviations: 0.11 of the mean degree, 0.004 of the share.
    assert batch.edge_index.size(1) / 2_000 == pytest.approx(12, abs=0.5)
    assert (source == target).float().mean() == pytest.approx(0.7, abs=0.02)
    centres = torch.stack([batch.features[batch.labels == k].mean(0) for k in range(4)])
    torch.testing.assert_close(centres.norm(dim=1), torch.full((4,), 2.0), atol=0.4, rtol=0)


def test_block_model_without_homophily_has_no_links_within_a_class():
    batch = graph(made(BlockModel(num_nodes=100, homophily=0.0)))
    source, target = batch.labels[batch.edge_index]
    assert not (source == target).any()


@pytest.mark.parametrize(
    ("name", "nodes", "links", "someone"),
    [
        ("LesMiserables", 77, 254, "Valjean"),
        ("Davis", 32, 89, "Evelyn Jefferson"),
        ("Florentine", 15, 20, "Medici"),
    ],
)
def test_social_networks_have_their_published_sizes_and_names(name, nodes, links, someone):
    networkx = pytest.importorskip("networkx")
    module = made(SocialNetwork(name))
    batch = graph(module)
    assert batch.edge_index.shape == (2, 2 * links)
    assert torch.equal(batch.features, torch.eye(nodes))
    assert module.facts()["num_nodes"] == nodes
    assert someone in module.node_names
    assert sum(map(len, parts(module).values())) == nodes
    theirs = {
        "LesMiserables": networkx.les_miserables_graph,
        "Davis": networkx.davis_southern_women_graph,
        "Florentine": networkx.florentine_families_graph,
    }[name]()
    weights = [1.0] * 2 * links if batch.edge_weight is None else batch.edge_weight.tolist()
    for (i, j), weight in zip(batch.edge_index.T.tolist(), weights, strict=True):
        ends = module.node_names[i], module.node_names[j]
        assert theirs.edges[ends].get("weight", 1) == weight
    if name != "Davis":  # classes are communities: more links within them than by chance
        classes = [set() for _ in range(module.facts()["num_classes"])]
        for node, label in zip(module.node_names, batch.labels.tolist(), strict=True):
            classes[label].add(node)
        assert networkx.community.modularity(theirs, classes) > 0.35


def test_classes_of_davis_are_women_and_events_and_all_links_lead_from_one_to_the_other():
    module = made(SocialNetwork("Davis"))
    batch = graph(module)
    assert module.facts()["class_names"] == ["woman", "event"]
    assert batch.labels.bincount().tolist() == [18, 14]
    source, target = batch.labels[batch.edge_index]
    assert (source != target).all()


@pytest.mark.parametrize(
    ("question", "of_size"),
    [  # OEIS A001349, A033995 and A005470
        ("connected", [1, 1, 2, 6, 21, 112, 853]),
        ("bipartite", [1, 2, 3, 7, 13, 35, 88]),
        ("planar", [1, 2, 4, 11, 33, 142, 822]),
    ],
)
def test_the_atlas_has_the_published_number_of_graphs_of_each_size(question, of_size):
    module = made(GraphAtlas(question))
    found = []
    for split in module.splits:
        for packed in module.batches(split, 0):
            sizes = packed.batch.bincount(minlength=len(packed.labels))
            found += sizes[packed.labels == 1].tolist()
    assert torch.tensor(found).bincount()[1:].tolist() == of_size
    assert module.facts()["class_names"] == [f"not {question}", question]
    assert [module.loaders[split].num_samples for split in module.splits] == [1002, 125, 125]


def test_the_division_of_the_atlas_is_that_of_its_own_seed():
    def test_of(**options):
        return [batch.labels.tolist() for batch in made(GraphAtlas(**options)).batches("test", 0)]

    again = GraphAtlas()
    again.setup(seed=7)
    assert [batch.labels.tolist() for batch in again.batches("test", 0)] == test_of()
    assert test_of(split_seed=1) != test_of()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GraphAtlas("perfect"), "question must be one of connected, .*, not 'perfect'"),
        (lambda: SocialNetwork("Medici"), "name must be one of LesMiserables, .*, not 'Medici'"),
        (lambda: KNNDigits(labels_per_class=0), "labels_per_class must be from 1 to 87, not 0"),
        (lambda: KNNDigits(neighbours=1797), "neighbours must be from 1 to 1796, not 1797"),
        (lambda: BlockModel(num_classes=1), "num_classes must be at least 2, not 1"),
        (lambda: BlockModel(homophily=1.5), r"homophily must be in \[0, 1\], not 1.5"),
        (lambda: BlockModel(degree=400.0), "degree must be .* what 1,000 nodes allow, not 400"),
        (lambda: BlockModel(labels_per_class=200), "labels_per_class must be .*, not 200"),
        (lambda: BlockModel(in_features=0), "in_features must be at least 1, not 0"),
        (lambda: BlockModel(signal=-1.0), "signal must be at least 0, not -1"),
    ],
)
def test_nonsense_is_refused_with_the_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_facts_that_only_the_graph_knows_are_refused_before_setup():
    with pytest.raises(RuntimeError, match="setup"):
        SocialNetwork().facts()
