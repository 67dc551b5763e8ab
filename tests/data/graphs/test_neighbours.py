import pytest
import torch

from zoo.data.graphs.batches import undirected
from zoo.data.graphs.neighbours import (
    IncomingEdges,
    NeighbourLoader,
    NeighbourSampler,
    _without_replacement,
)

NODES = 300


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def edge_index():
    """A graph with a hub (node 0), chains and a node alone (the last)."""
    links = torch.randint(NODES - 1, (2, 900), generator=generator())
    hub = torch.stack([torch.zeros(80, dtype=torch.int64), torch.arange(1, 81)])
    return undirected(torch.cat([links, hub], 1), NODES)


@pytest.fixture
def edges(edge_index):
    return IncomingEdges.of(edge_index, NODES)


def links_of(edge_index):
    return set(map(tuple, edge_index.T.tolist()))


def test_edges_go_there_and_back(edge_index, edges):
    assert torch.equal(edges.edge_index(), edge_index)


def test_sampled_edges_are_edges_into_nodes_that_were_reached(edge_index, edges):
    seeds = torch.tensor([0, 7, NODES - 1, 42])
    nodes, found = NeighbourSampler(edges, (5, 3)).sample(seeds, generator())
    assert nodes[:4].tolist() == seeds.tolist()
    assert len(nodes.unique()) == len(nodes)
    originals = nodes[found]
    assert links_of(originals) <= links_of(edge_index)
    assert len(links_of(originals)) == originals.size(1)
    assert (found[1].diff() >= 0).all()
    degree = edges.starts.diff()
    counts = found[1].bincount(minlength=len(nodes))
    assert counts[:4].tolist() == degree[seeds].clamp_max(5).tolist()
    # The next nodes are those that the first edges come from; the last ones receive nothing.
    first = found[0][found[1] < 4]
    second = range(4, int(first.max()) + 1)
    assert set(second) == set(first[first >= 4].tolist())
    assert counts[list(second)].tolist() == degree[nodes[list(second)]].clamp_max(3).tolist()
    assert not counts[second.stop :].any()


def test_whole_neighbourhoods_are_all_within_so_many_steps(edge_index, edges):
    for seed in (0, 5, NODES - 1):
        within = {seed}
        expected = set()
        for _ in range(2):
            new = {(s, t) for s, t in edge_index.T.tolist() if t in within}
            expected |= new
            within |= {s for s, _ in new}
        nodes, found = NeighbourSampler(edges, (None, None)).sample(
            torch.tensor([seed]), generator()
        )
        assert set(nodes.tolist()) == within
        assert links_of(nodes[found]) == expected if found.numel() else not expected


def test_draws_without_replacement_are_uniform_over_all_subsets():
    sizes = torch.full((60_000,), 5)
    picks = _without_replacement(sizes, 2, generator())
    assert (picks[:, 0] != picks[:, 1]).all()
    pairs = picks.sort(1).values
    counts = (pairs[:, 0] * 5 + pairs[:, 1]).bincount(minlength=25)
    counts = counts[counts > 0].double()
    assert len(counts) == 10
    chi_square = ((counts - 6_000) ** 2 / 6_000).sum()
    assert chi_square < 27.9  # 9 degrees of freedom: exceeded once in a thousand


def test_small_sets_are_taken_whole():
    picks = _without_replacement(torch.tensor([3, 0, 4]), 4, generator())
    assert picks[:, :3].tolist()[0] == [0, 1, 2] and picks[2].tolist() == [0, 1, 2, 3]


def test_the_same_is_drawn_with_any_number_of_threads(edges):
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            sampler = NeighbourSampler(edges, (5, 5))
            found.append(sampler.sample(torch.arange(40), generator(3)))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


def loader(edges, **options):
    features = torch.arange(NODES, dtype=torch.float32).unsqueeze(1).expand(-1, 3)
    nodes = torch.arange(0, NODES, 2)
    labels = torch.arange(NODES) % 4
    settings = {"fan_out": (4, 2), "batch_size": 32, "shuffle": True, "seed": 0} | options
    return NeighbourLoader(features, edges, labels, nodes, **settings)


def test_batches_hold_what_belongs_to_their_nodes(edges):
    data = loader(edges)
    seen = []
    for number, batch in enumerate(data.batches(2)):
        own = data.indices(2, number)
        assert batch.features[batch.mask][:, 0].tolist() == own
        assert (batch.labels == batch.features[:, 0].long() % 4).all()
        seen += own
    assert sorted(seen) == list(range(0, NODES, 2)) and len(data) == number + 1 == 5


def test_a_batch_is_a_function_of_seed_epoch_and_number(edges):
    whole = list(loader(edges).batches(1))
    late = list(loader(edges).batches(1, 3))
    for one, other in zip(whole[3:], late, strict=True):
        assert all(map(torch.equal, one[:4], other[:4]))
    other_epoch = list(loader(edges).batches(2))
    other_seed = list(loader(edges, seed=1).batches(1))
    for other in (other_epoch, other_seed):
        assert not torch.equal(whole[0].features, other[0].features)


def test_parts_share_each_batch(edges):
    whole = loader(edges, batch_size=50)
    parts = [loader(edges, batch_size=50, part=(rank, 3)) for rank in range(3)]
    for number, batches in enumerate(zip(*(part.batches(0) for part in parts), strict=True)):
        nodes = torch.cat([b.features[b.mask][:, 0] for b in batches])
        assert nodes.tolist() == whole.indices(0, number)


@pytest.mark.parametrize("fan_out", [(), (0,), (5, -1)])
def test_impossible_fan_outs_are_refused(edges, fan_out):
    with pytest.raises(ValueError, match="fan_out must be numbers from 1"):
        NeighbourSampler(edges, fan_out)
