import pytest
import torch

from zoo.data.graphs.synthetic import (
    RandomGraphModels,
    TriangleCounting,
    WeisfeilerLehman,
    branched,
    count_triangles,
    cycle,
    preferential_attachment,
)

networkx = pytest.importorskip("networkx")

ALL = {
    "models": RandomGraphModels,
    "triangles": TriangleCounting,
    "branches": WeisfeilerLehman,
    "cycles": lambda **options: WeisfeilerLehman(pairs="cycles", **options),
}


def made(name, **options):
    module = ALL[name](**{"num_samples": 40, "eval_samples": 20, "batch_size": 40} | options)
    module.setup()
    return module


def graphs(module, split="test"):
    """Each graph of a split as networkx has it, with its label, in the order of the split."""
    found = {}
    for number, packed in enumerate(module.batches(split, 0)):
        for place, index in enumerate(module.loaders[split].indices(0, number)):
            nodes = (packed.batch == place).nonzero().flatten().tolist()
            graph = networkx.DiGraph()
            graph.add_nodes_from(nodes)
            graph.add_edges_from(e for e in packed.edge_index.T.tolist() if e[1] in set(nodes))
            assert graph.number_of_edges() == 2 * graph.to_undirected().number_of_edges()
            found[index] = graph.to_undirected(), packed.labels[place].tolist()
    return [found[index] for index in sorted(found)]


def pairs(module):
    entries = graphs(module)
    assert [label for _, label in entries] == [0, 1] * (len(entries) // 2)
    return [(a, b) for (a, _), (b, _) in zip(entries[::2], entries[1::2], strict=True)]


def degrees(graph):
    return sorted(degree for _, degree in graph.degree)


def colours(graph, rounds):
    """How often each colour is there after rounds of Weisfeiler and Lehman's refinement."""
    colour = dict.fromkeys(graph, ())
    for _ in range(rounds):
        colour = {
            node: hash((colour[node], tuple(sorted(hash(colour[other]) for other in graph[node]))))
            for node in graph
        }
    return sorted(map(hash, colour.values()))


def test_branches_have_equal_degrees_and_one_round_beyond_them_tells_them_apart():
    for apart, near in pairs(made("branches")):
        assert degrees(apart) == degrees(near)
        assert networkx.is_tree(apart) and networkx.is_tree(near)
        assert colours(apart, 1) == colours(near, 1)  # the degrees
        assert colours(apart, 2) != colours(near, 2)


def test_cycles_differ_and_no_number_of_rounds_tells_them_apart():
    for two, one in pairs(made("cycles")):
        assert networkx.number_connected_components(two) == 2
        assert networkx.is_connected(one)
        assert degrees(two) == degrees(one) == [2] * len(one)
        assert colours(two, len(two)) == colours(one, len(one))


def test_random_models_have_as_many_nodes_and_edges_and_different_degrees():
    tails = [[], []]
    for uniform, grown in pairs(made("models", eval_samples=60)):
        nodes = len(grown)
        assert len(uniform) == nodes and 20 <= nodes <= 40
        edges = uniform.number_of_edges()
        assert edges == grown.number_of_edges() == 2 * (nodes - 2)
        for tail, graph in zip(tails, (uniform, grown), strict=True):
            tail.append(max(degrees(graph)))
    assert sum(tails[1]) > 1.3 * sum(tails[0])


def test_attachment_prefers_nodes_as_networkx_does():
    """The mean of the largest degree over many graphs, and that of the first nodes."""
    generator = torch.Generator().manual_seed(0)
    ours = [
        preferential_attachment(40, 2, generator).flatten().bincount().sort().values.float()
        for _ in range(150)
    ]
    theirs = [
        torch.tensor(degrees(networkx.barabasi_albert_graph(40, 2, seed=seed))).float()
        for seed in range(150)
    ]
    ours, theirs = torch.stack(ours).mean(0), torch.stack(theirs).mean(0)
    assert (ours[:-1] - theirs[:-1]).abs().max() < 0.6
    assert abs(ours[-1] - theirs[-1]) < 1.5


def test_triangles_are_those_that_networkx_counts():
    for graph, label in graphs(made("triangles")):
        assert label == [sum(networkx.triangles(graph).values()) / 3]


def test_triangles_of_known_graphs():
    complete = torch.combinations(torch.arange(5)).T
    for links, nodes, count in ((complete, 5, 10), (cycle(3), 3, 1), (cycle(4), 4, 0)):
        assert count_triangles(torch.cat([links, links.flip(0)], 1), nodes) == count


def test_a_branched_path_is_one():
    assert branched(7, 1, 3).T.tolist() == [[0, 1], [1, 2], [2, 3], [3, 4], [1, 5], [3, 6]]


@pytest.mark.parametrize("name", ALL)
def test_features_are_degrees_and_the_seed_decides(name):
    module = made(name)
    (packed,) = module.batches("val", 0)
    most = module.max_degree
    assert packed.features.shape[1] == most + 1 == module.facts()["in_features"]
    counts = packed.edge_index[1].bincount(minlength=len(packed.batch)).clamp(max=most)
    assert torch.equal(packed.features.argmax(1), counts)
    (again,) = made(name).batches("val", 0)
    (other,) = made(name, data_seed=1).batches("val", 0)
    assert torch.equal(packed.edge_index, again.edge_index)
    assert not torch.equal(packed.edge_index[:, :50], other.edge_index[:, :50])
    counts = {split: loader.num_samples for split, loader in module.loaders.items()}
    assert counts == {"train": 40, "val": 20, "test": 20}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomGraphModels(num_samples=3), "num_samples must be an even number .* not 3"),
        (lambda: RandomGraphModels(min_nodes=2), "min_nodes must be at least 3, not 2"),
        (lambda: RandomGraphModels(links_per_node=0), "links_per_node must be at least 1, not 0"),
        (lambda: TriangleCounting(max_nodes=5), "max_nodes must be at least min_nodes 10, not 5"),
        (lambda: TriangleCounting(mean_degree=10.0), "mean_degree must be above 0 and at most 9"),
        (lambda: TriangleCounting(max_degree=-1), "max_degree must be at least 0, not -1"),
        (lambda: WeisfeilerLehman(pairs="x"), "pairs must be branches or cycles, not 'x'"),
        (lambda: WeisfeilerLehman(min_nodes=6), "min_nodes must be at least 7, not 6"),
        (lambda: WeisfeilerLehman(pairs="cycles", min_nodes=5), "min_nodes must be at least 6"),
    ],
)
def test_nonsense_is_refused_with_the_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()
