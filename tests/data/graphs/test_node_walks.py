import itertools
import os
import subprocess
import sys
from pathlib import Path

import networkx
import pytest
import torch

from zoo.data.download import DataError
from zoo.data.graphs.named_graphs import SOURCES, named_graph
from zoo.data.graphs.node_walks import NodeNames, NodeWalks
from zoo.data.graphs.walk_loader import WalkLoader, node_counts
from zoo.data.graphs.walks import Walker, pairs
from zoo.data.sampling import seeded_generator
from zoo.data.text.huffman import huffman_tree

ROOT = Path(__file__).parents[3]
OUTPUTS = ["negative_sampling", "hierarchical_softmax"]
CHAIN = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])  # 0-1-2-3, and 4 alone


def node_walks(seed=3, part=(0, 1), **arguments):
    small = {"walks_per_node": 2, "walk_length": 8, "window": 3, "batch_size": 10}
    data = NodeWalks(**small | arguments)
    data.setup(seed=seed, part=part)
    return data


def chain_loader(**arguments):
    walker = Walker(CHAIN, 5)
    options = {"walks_per_node": 3, "walk_length": 4, "window": 2, "batch_size": 5}
    return WalkLoader(walker, node_counts(walker, 100, 4), **options | arguments)


def equal(batch, other):
    return all(torch.equal(a, b) for a, b in zip(batch[:3], other[:3], strict=True))


def near(graph, window):
    """Which nodes are at most some steps apart, a node and itself by way of a neighbour."""
    step = torch.zeros(len(graph.names), len(graph.names))
    step[tuple(graph.edge_index)] = 1
    return sum(torch.linalg.matrix_power(step, k) for k in range(1, window + 1)) > 0


@pytest.mark.parametrize("name", SOURCES)
def test_a_named_graph_is_networkxs(name):
    graph, theirs = named_graph(name), getattr(networkx, SOURCES[name].function)()
    assert graph.names == [str(node) for node in theirs]
    weights = [1.0] * graph.edge_index.shape[1]
    weights = weights if graph.edge_weight is None else graph.edge_weight.tolist()
    ends = [[graph.names[node] for node in side] for side in graph.edge_index.tolist()]
    found = dict(zip(zip(*ends, strict=True), weights, strict=True))
    expected = {}
    for a, b, value in theirs.edges(data="weight", default=1.0):
        expected[str(a), str(b)] = expected[str(b), str(a)] = value
    assert found == expected
    assert (graph.edge_weight is None) == (name in ("Davis", "Florentine"))


def test_classes_of_the_karate_club_are_the_clubs():
    graph, theirs = named_graph("Karate"), networkx.karate_club_graph()
    clubs = [graph.class_names[number] for number in graph.classes.tolist()]
    assert clubs == [club for _, club in theirs.nodes(data="club")]


def test_communities_do_not_change_from_process_to_process():
    program = (
        "from zoo.data.graphs.named_graphs import named_graph; "
        "print([named_graph(n).classes.tolist() for n in ('LesMiserables', 'Florentine')])"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (1, 2)
    }
    assert len(found) == 1
    assert set(named_graph("LesMiserables").classes.tolist()) == set(range(5))


def test_facts_and_vocabulary_are_the_nodes():
    data = node_walks(name="LesMiserables")
    facts = data.facts()
    assert facts["num_nodes"] == facts["vocab_size"] == facts["out_features"] == 77
    assert len(facts["classes"]) == 77
    vocabulary = data.vocabularies["vocabulary"]
    assert vocabulary.tokens() == named_graph("LesMiserables").names
    assert vocabulary.encode("Javert") == [vocabulary.tokens().index("Javert")]
    assert vocabulary.decode(torch.tensor([0, 1])) == "Napoleon, Myriel"
    with pytest.raises(ValueError, match="no node is called 'Jean'"):
        vocabulary.encode("Jean")
    assert node_walks(output="hierarchical_softmax").facts()["out_features"] == 33


def test_names_come_back_from_the_folder_of_a_run_and_must_be_the_graphs(tmp_path):
    for name, text in node_walks().artifacts().items():
        (tmp_path / name).write_text(text)
    again = NodeWalks()
    again.load_artifacts(tmp_path)
    assert again.artifacts() == node_walks().artifacts()
    again.setup()
    other = NodeWalks(name="Davis")
    other.load_artifacts(tmp_path)
    with pytest.raises(DataError, match="nodes of Davis are not those of this run"):
        other.setup()
    (tmp_path / "vocabulary.json").write_text('{"kind": "words"}')
    with pytest.raises(ValueError, match=r"vocabulary.json .*kind must be 'nodes', not 'words'"):
        other.load_artifacts(tmp_path)
    with pytest.raises(ValueError, match="must differ from one another"):
        NodeNames(["a", "a"])


@pytest.mark.parametrize("split", ["train", "val"])
def test_pairs_are_at_most_a_window_of_steps_apart(split):
    data, graph = node_walks(name="Davis", window=2), named_graph("Davis")
    is_near = near(graph, 2)
    assert not is_near.all()
    for batch in data.batches(split, 0):
        assert is_near[batch.inputs, batch.outputs[:, 0]].all()


def test_a_window_ends_with_its_walk():
    # With walks of two nodes there is one pair in either direction, however wide the window.
    data = node_walks(walk_length=2, window=10)
    edges = set(map(tuple, named_graph("Karate").edge_index.T.tolist()))
    for batch in data.batches("train", 0):
        assert {*zip(batch.inputs.tolist(), batch.outputs[:, 0].tolist(), strict=True)} <= edges
    assert sum(len(batch.inputs) for batch in data.batches("train", 0)) == 2 * 2 * 34


@pytest.mark.parametrize("split", ["train", "val"])
def test_every_node_starts_as_many_walks_an_epoch_as_asked(split):
    data = node_walks(walks_per_node=3)
    loader = data.loaders[split]
    walks = [i for number in range(len(loader)) for i in loader.indices(1, number)]
    assert sorted(walks) == list(range(3 * 34)) and loader.num_samples == 3 * 34
    # The first rows of a walk are the contexts of its first node.
    starts = torch.zeros(34)
    for batch in node_walks(walks_per_node=3, walk_length=2, batch_size=1).batches(split, 1):
        starts[batch.inputs[0]] += 1
    assert starts.tolist() == [3.0] * 34


def test_nodes_without_edges_are_in_no_batch():
    loader = chain_loader(shuffle=True)
    assert loader.num_samples == 12
    for batch in loader.batches(0):
        assert batch.inputs.max() < 4 and batch.outputs.max() < 4


def test_negatives_have_the_smoothed_frequencies_of_the_walks():
    walker = Walker(CHAIN, 5)
    counts = node_counts(walker, 100, 4)
    assert counts.tolist()[4] == 0 and counts.sum() == 100 * 4 * 4
    batches = list(chain_loader(walks_per_node=200, num_negatives=8, batch_size=100).batches(0))
    drawn = torch.cat([batch.outputs[:, 1:].flatten() for batch in batches])
    found = drawn.bincount(minlength=5)
    expected = counts.double() ** 0.75
    expected *= drawn.numel() / expected.sum()
    statistic = ((found - expected).square() / expected)[:4].sum().item()
    assert drawn.numel() > 50_000 and statistic < 16.3  # 3 degrees of freedom, p = 0.001
    assert all(batch.signs.unique(dim=0).tolist() == [[1] + [-1] * 8] for batch in batches)


def test_counts_are_those_of_the_walks_on_average():
    # Exactly: the chances of where a walk is, summed over its places.
    walker = Walker(CHAIN, 5)
    step = torch.zeros(5, 5, dtype=torch.float64)
    step[tuple(CHAIN)] = 1 / walker.degrees[CHAIN[0]].double()
    place = torch.tensor([1.0, 1, 1, 1, 0], dtype=torch.float64)
    expected = sum(place @ torch.linalg.matrix_power(step, time) for time in range(4))
    found = node_counts(walker, 2_000, 4) / 2_000
    torch.testing.assert_close(found.double(), expected, rtol=0.05, atol=0)


def test_hierarchical_softmax_gives_the_path_of_the_node_to_be_told():
    walker = Walker(CHAIN, 5)
    tree = huffman_tree(node_counts(walker, 100, 4))
    for batch in chain_loader(output="hierarchical_softmax").batches(0):
        assert batch.is_tree
        paths = torch.cat([batch.outputs, batch.signs.long()], 1).tolist()
        known = torch.cat([tree.nodes, tree.signs.long()], 1).tolist()
        assert all(path in known for path in paths)


@pytest.mark.parametrize("q", [1.0, 0.5])
@pytest.mark.parametrize("output", OUTPUTS)
def test_epochs_differ_and_can_be_entered_anywhere(output, q):
    data, again = (node_walks(output=output, q=q) for _ in range(2))
    epochs = [list(data.batches("train", epoch)) for epoch in range(2)]
    assert [len(batches) for batches in epochs] == [data.num_batches("train")] * 2
    assert not any(map(equal, *epochs))
    for epoch, start in itertools.product((1, 0), (0, 1, 6, 7)):
        rest = list(again.batches("train", epoch, start))
        assert len(rest) == 7 - start and all(map(equal, rest, epochs[epoch][start:]))
    other = node_walks(output=output, q=q, seed=4)
    assert not equal(next(other.batches("train", 0)), epochs[0][0])


def test_val_is_the_same_in_every_epoch_and_for_every_seed_and_not_train():
    data, other = node_walks(), node_walks(seed=4)
    batches = list(data.batches("val", 0))
    assert len(batches) == data.num_batches("val")
    for found in (data.batches("val", 5), other.batches("val", 0)):
        assert all(map(equal, list(found), batches))
    assert not any(map(equal, data.batches("train", 0), batches))


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("output", OUTPUTS)
def test_parts_together_are_the_batch(output, split, world):
    whole = list(node_walks(output=output).batches(split, 1))
    parts = [
        list(node_walks(output=output, part=(rank, world)).batches(split, 1))
        for rank in range(world)
    ]
    for batch, *slices in zip(whole, *parts, strict=True):
        for number in range(3):
            joined = torch.cat([part[number] for part in slices if part is not None])
            assert torch.equal(joined, batch[number])


def test_global_random_state_is_left_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(node_walks(q=0.5).batches("train", 0))
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_are_followed_only_where_asked():
    graph = named_graph("LesMiserables")
    unweighted = Walker(graph.edge_index, 77)
    for weighted, same in ((False, True), (True, False)):
        data = node_walks(name="LesMiserables", weighted=weighted, batch_size=154)
        (batch,) = data.batches("val", 0)
        starts = torch.arange(77).repeat(2)
        walks = unweighted.walk(starts, 8, seeded_generator("walks", "evaluation", 0, 0))
        assert torch.equal(pairs(walks, 3)[0], batch.inputs) is same


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "zachary"}, "name must be one of Karate, LesMiserables, Davis, Florentine"),
        ({"walks_per_node": 0}, "walks_per_node must be at least 1, not 0"),
        ({"walk_length": 1}, "walk_length must be at least 2, not 1"),
        ({"window": 0}, "window must be at least 1, not 0"),
        ({"num_negatives": 0}, "num_negatives must be at least 1, not 0"),
        ({"p": 0.0}, "p must be above 0, not 0.0"),
        ({"q": -2.0}, "q must be above 0, not -2.0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        NodeWalks(**arguments)


def test_a_graph_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(ValueError, match=r"name must be one of Karate, .*, not 'zachary'"):
        named_graph("zachary")


def test_facts_are_refused_before_setup():
    with pytest.raises(RuntimeError, match=r"NodeWalks needs setup\(\)"):
        NodeWalks().facts()
