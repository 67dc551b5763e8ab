from collections import Counter
from itertools import pairwise

import pytest
import torch
from scipy.stats import chi2

from zoo.data.graphs.batches import undirected
from zoo.data.graphs.walks import Walker, pairs

# A triangle 0-1-2 with a tail 2-3-4, a second way from 2 to 4, and 5 alone.
LINKS = torch.tensor([[0, 0, 1, 2, 3, 2], [1, 2, 2, 3, 4, 4]])
WEIGHTS = {(0, 1): 1.0, (0, 2): 2.0, (1, 2): 0.5, (2, 3): 4.0, (3, 4): 1.0, (2, 4): 0.25}
EDGES = undirected(LINKS, 6)
EDGE_WEIGHT = torch.tensor([WEIGHTS[min(a, b), max(a, b)] for a, b in EDGES.T.tolist()])
PAIRS = set(map(tuple, EDGES.T.tolist()))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def weight(a, b, weighted):
    return (WEIGHTS[min(a, b), max(a, b)] if weighted else 1.0) if (a, b) in PAIRS else 0.0


def formula(previous, node, p, q, weighted):
    """Node2vec's section 3.2.1, one following node after the other."""
    chances = []
    for following in range(6):
        if following == previous:
            bias = 1 / p
        elif (previous, following) in PAIRS:
            bias = 1.0
        else:
            bias = 1 / q
        chances.append(bias * weight(node, following, weighted))
    return torch.tensor(chances, dtype=torch.float64) / sum(chances)


def is_plausible(counts, chances):
    """Pearson's test: what cannot be is never seen, and the rest differs by chance alone."""
    assert not counts[chances == 0].any()
    can_be = chances > 0
    expected = chances[can_be] * counts.sum()
    statistic = ((counts[can_be] - expected).square() / expected).sum().item()
    freedom = int(can_be.sum()) - 1
    return statistic == 0 if freedom == 0 else chi2.sf(statistic, freedom) > 1e-4


def transitions(walks):
    """How often each node follows each pair: (previous, node) to counts ``(6,)``."""
    found = {}
    for start in range(walks.shape[1] - 2):
        for (a, b, c), times in Counter(map(tuple, walks[:, start : start + 3].tolist())).items():
            found.setdefault((a, b), torch.zeros(6))[c] += times
    return found


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("p", "q"), [(1, 1), (0.25, 4), (4, 0.25), (1, 0.5), (3, 1)])
def test_second_order_transitions_have_the_probabilities_of_the_paper(p, q, weighted):
    walker = Walker(EDGES, 6, EDGE_WEIGHT if weighted else None, p=p, q=q)
    walks = walker.walk(torch.arange(5).repeat(2_000), 8, generator())
    found = transitions(walks)
    assert set(found) == PAIRS
    for (previous, node), counts in found.items():
        assert is_plausible(counts, formula(previous, node, p, q, weighted)), (previous, node)


def test_the_test_of_probabilities_notices_a_wrong_bias():
    walks = Walker(EDGES, 6, p=4, q=0.25).walk(torch.arange(5).repeat(2_000), 8, generator())
    found = transitions(walks)
    refuted = [pair for pair, c in found.items() if not is_plausible(c, formula(*pair, 4, 1, 0))]
    assert refuted


@pytest.mark.parametrize("weighted", [False, True])
def test_the_first_step_is_in_proportion_to_the_weights(weighted):
    walker = Walker(EDGES, 6, EDGE_WEIGHT if weighted else None, p=0.1, q=10)
    for node in range(5):
        steps = walker.walk(torch.full((5_000,), node), 2, generator(node))[:, 1]
        chances = torch.tensor([weight(node, x, weighted) for x in range(6)])
        assert is_plausible(steps.bincount(minlength=6), chances.double() / chances.sum())


def random_graph(nodes, share, seed=0):
    links = torch.rand(nodes, nodes, generator=generator(seed)).triu(1).gt(1 - share).nonzero().T
    return undirected(links, nodes)


def test_with_p_and_q_of_one_the_second_order_is_the_first():
    edges = random_graph(60, 0.1)
    edge_weight = torch.rand(edges.shape[1], generator=generator(1)) + 0.1
    for weights in (None, edge_weight):
        walker = Walker(edges, 60, weights)
        starts = walker.degrees.nonzero().squeeze(1).repeat(50)
        nodes = walker.walk(starts, 2, generator(2))[:, 1]
        uniform = torch.rand(len(starts), generator=generator(3), dtype=torch.float64)
        second = walker.second_step(starts, nodes, uniform)
        assert torch.equal(walker.step(nodes, uniform), second)


@pytest.mark.parametrize(("p", "q"), [(1, 1), (0.5, 2), (1e-6, 1e6), (1e6, 1e-6)])
def test_a_walk_takes_edges_of_the_graph_alone(p, q):
    edges = random_graph(80, 0.05)
    # Weights of all sizes, whose sums round.
    edge_weight = 10 ** (12 * torch.rand(edges.shape[1], generator=generator(1)) - 6)
    walker = Walker(edges, 80, edge_weight, p=p, q=q)
    starts = walker.degrees.nonzero().squeeze(1).repeat(20)
    walks = walker.walk(starts, 30, generator())
    assert (walks >= 0).all()
    steps = {(a, b) for walk in walks.tolist() for a, b in pairwise(walk)}
    assert steps <= set(map(tuple, edges.T.tolist()))


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
def test_the_ends_of_the_unit_interval_are_edges_too(uniform):
    edge_weight = torch.rand(EDGES.shape[1], generator=generator()) * 1e-3
    walker = Walker(EDGES, 6, edge_weight, p=0.3, q=7)
    previous, nodes = EDGES
    drawn = torch.full((len(nodes),), uniform, dtype=torch.float64)
    for following in (walker.step(nodes, drawn), walker.second_step(previous, nodes, drawn)):
        assert {*zip(nodes.tolist(), following.tolist(), strict=True)} <= PAIRS


@pytest.mark.parametrize(("p", "q"), [(1, 1), (0.5, 2)])
def test_an_isolated_node_stays_alone_and_is_never_visited(p, q):
    walks = Walker(EDGES, 6, p=p, q=q).walk(torch.arange(6).repeat(50), 5, generator())
    alone = walks[:, 0] == 5
    assert walks[alone].tolist() == [[5, -1, -1, -1, -1]] * 50
    assert (walks[~alone] != 5).all() and (walks[~alone] >= 0).all()


@pytest.mark.parametrize(("p", "q"), [(1, 1), (0.5, 2)])
def test_a_walk_ends_where_a_directed_graph_does(p, q):
    walker = Walker(torch.tensor([[0, 1, 2], [1, 2, 3]]), 4, p=p, q=q)
    walks = walker.walk(torch.tensor([0, 3, 2]), 5, generator())
    assert walks.tolist() == [[0, 1, 2, 3, -1], [3, -1, -1, -1, -1], [2, 3, -1, -1, -1]]
    # All walks over, with no choice left at all.
    nowhere = torch.tensor([-1, 3])
    assert walker.second_step(torch.tensor([3, 2]), nowhere, torch.rand(2)).tolist() == [-1, -1]


def test_order_of_the_edges_changes_nothing():
    order = torch.randperm(EDGES.shape[1], generator=generator())
    starts = torch.arange(5).repeat(20)
    walks = [
        Walker(edges, 6, weights, p=0.5, q=2).walk(starts, 10, generator())
        for edges, weights in ((EDGES, EDGE_WEIGHT), (EDGES[:, order], EDGE_WEIGHT[order]))
    ]
    assert torch.equal(*walks)


def test_visits_of_long_uniform_walks_are_in_proportion_to_degrees():
    # The stationary distribution of DeepWalk's walk.
    walker = Walker(EDGES, 6)
    last = walker.walk(torch.arange(5).repeat(4_000), 40, generator())[:, -1]
    assert is_plausible(last.bincount(minlength=6), walker.degrees.double() / EDGES.shape[1])


def test_pairs_are_those_of_a_loop_over_the_walks():
    walks = torch.tensor([[4, 2, 0, 1, 2], [5, -1, -1, -1, -1], [3, 4, 3, -1, -1]])
    for window in (1, 2, 4, 7):
        expected = [
            (walk[i], walk[j])
            for walk in walks.tolist()
            for i in range(5)
            for j in range(5)
            if i != j and abs(i - j) <= window and walk[i] >= 0 and walk[j] >= 0
        ]
        inputs, targets, sizes = pairs(walks, window)
        assert list(zip(inputs.tolist(), targets.tolist(), strict=True)) == expected
        assert sizes.tolist()[1] == 0 and sizes.sum() == len(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"p": 0}, "p must be above 0, not 0"),
        ({"q": -1}, "q must be above 0, not -1"),
        ({"p": float("nan")}, "p must be above 0, not nan"),
        ({"edge_weight": torch.zeros(12)}, "edge_weight must be finite and above 0"),
        ({"edge_weight": torch.full((12,), torch.inf)}, "edge_weight must be finite and above 0"),
        ({"edge_index": torch.empty(2, 0, dtype=torch.int64)}, "edge_index must hold an edge"),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Walker(**{"edge_index": EDGES, "num_nodes": 6, **arguments})
