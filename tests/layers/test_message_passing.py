import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from zoo.layers.message_passing import Edges, Ends, check_edge_index

NODES, WIDTH, HEADS = 7, 3, 2
# Unsorted, an edge that occurs twice, a self-loop, node 6 without edges.
EDGES = torch.tensor([[3, 0, 1, 2, 0, 5, 4, 0, 2], [1, 1, 0, 2, 5, 4, 1, 1, 3]])


def numbers(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.double, generator=generator, requires_grad=True)


def by_node(values, node_of=EDGES[1], nodes=NODES):
    return [values[node_of == node] for node in range(nodes)]


@pytest.fixture
def edges():
    return Edges(EDGES, NODES)


@pytest.mark.parametrize("shape", [(), (WIDTH,), (HEADS, WIDTH)])
def test_sums_means_and_maxima_are_those_of_each_nodes_edges(edges, shape):
    values = numbers(len(edges), *shape)
    zero = torch.zeros(shape, dtype=torch.double)
    found = {how: edges.target.aggregate(values, how) for how in ("sum", "mean", "max")}
    for node, own in enumerate(by_node(values)):
        torch.testing.assert_close(found["sum"][node], own.sum(0))
        torch.testing.assert_close(found["mean"][node], own.mean(0) if len(own) else zero)
        torch.testing.assert_close(found["max"][node], own.amax(0) if len(own) else zero)


def test_gather_takes_the_value_of_each_edges_node(edges):
    x = numbers(NODES, HEADS, WIDTH)
    assert torch.equal(edges.source.gather(x), x[EDGES[0]])
    assert torch.equal(edges.target.gather(x), x[EDGES[1]])


def test_first_and_second_gradients_are_those_of_finite_differences(edges):
    values, x, weights = numbers(9, WIDTH), numbers(NODES, WIDTH), numbers(9)
    for operation, arguments in [
        (edges.target.sum, (values,)),
        (edges.target.mean, (values,)),
        (edges.source.gather, (x,)),
        (edges.softmax, (values,)),
        (edges.propagate, (x,)),
        (edges.propagate, (x, weights)),
        (edges.propagate, (numbers(NODES, HEADS, WIDTH), numbers(9, HEADS))),
    ]:
        assert gradcheck(operation, arguments)
        assert gradgradcheck(operation, arguments)
    assert gradcheck(edges.target.max, (values,))


def test_equally_large_values_share_the_gradient():
    values = torch.tensor([2.0, 2.0, 1.0, 5.0], requires_grad=True)
    Ends(torch.tensor([0, 0, 0, 1]), 2).max(values).sum().backward()
    assert values.grad.tolist() == [0.5, 0.5, 0, 1]


def test_softmax_is_that_of_each_nodes_edges_and_of_those_that_count(edges):
    scores = numbers(len(edges), HEADS)
    weights = by_node(edges.softmax(scores))
    for own, found in zip(by_node(scores), weights, strict=True):
        torch.testing.assert_close(found, own.softmax(0))
    looped = edges.with_self_loops()
    assert len(looped) == len(edges) + NODES
    scores = numbers(len(looped), HEADS)
    found = looped.softmax(scores)
    is_old_loop = torch.arange(len(looped)) == 3
    assert (found[is_old_loop] == 0).all()
    kept = ~is_old_loop
    assert torch.equal(looped.edge_index[0][is_old_loop], looped.edge_index[1][is_old_loop])
    for own, expected in zip(
        by_node(found[kept], looped.target.node_of[kept]),
        by_node(scores[kept], looped.target.node_of[kept]),
        strict=True,
    ):
        torch.testing.assert_close(own, expected.softmax(0))


def test_softmax_of_large_scores_is_finite():
    weights = Ends(torch.tensor([0, 0, 1]), 2).softmax(torch.tensor([1e4, 1e4, -1e4]))
    assert weights.tolist() == [0.5, 0.5, 1]


@pytest.mark.parametrize("heads", [None, HEADS])
def test_propagation_equals_the_product_with_a_dense_matrix(edges, heads):
    shape = () if heads is None else (heads,)
    x, weights = numbers(NODES, *shape, WIDTH), numbers(len(edges), *shape, seed=1)
    adjacency = torch.zeros(NODES, NODES, *shape, dtype=torch.double)
    ones = torch.zeros_like(adjacency)
    for edge, (source, target) in enumerate(EDGES.T.tolist()):
        adjacency[target, source] += weights[edge]
        ones[target, source] += 1
    formula = "ij,jc->ic" if heads is None else "ijh,jhc->ihc"
    expected = torch.einsum(formula, adjacency, x)
    torch.testing.assert_close(edges.propagate(x, weights), expected)
    if heads is None:
        torch.testing.assert_close(edges.propagate(x), ones @ x)


def test_what_sends_may_be_others_than_what_receives():
    edges = Edges(torch.tensor([[4, 0, 4], [1, 1, 0]]), 2, num_sources=5)
    x = numbers(5, WIDTH)
    expected = torch.stack([x[4], x[4] + x[0]])
    torch.testing.assert_close(edges.propagate(x), expected)
    torch.testing.assert_close(edges.propagate(x, numbers(3).new_ones(3)), expected)
    torch.testing.assert_close(edges.target.sum(edges.source.gather(x)), expected)
    assert gradcheck(edges.propagate, (x, numbers(3)))


def test_segmented_sums_equal_those_by_a_matrix(edges):
    values = numbers(len(edges), WIDTH).detach()
    for end in (edges.source, edges.target):
        torch.testing.assert_close(end.summed_in_segments(values), end.summed(values))


def test_plain_operations_give_the_same(edges):
    x, weights = numbers(NODES, HEADS, WIDTH), numbers(len(edges), HEADS)

    def network(x, weights):
        out = edges.propagate(x, edges.softmax(weights))
        return edges.target.mean(edges.source.gather(out)).square().sum()

    expected = torch.autograd.grad(network(x, weights), (x, weights))
    found = torch.func.grad(network, argnums=(0, 1))(x, weights)
    torch.testing.assert_close(found, expected)


def test_not_a_bit_depends_on_the_run_or_on_the_number_of_threads():
    generator = torch.Generator().manual_seed(0)
    nodes, count = 2_000, 60_000
    edge_index = torch.randint(nodes, (2, count), generator=generator)
    x = torch.randn(nodes, 4, 16, generator=generator, requires_grad=True)
    scores = torch.randn(count, 4, generator=generator, requires_grad=True)

    def results():
        edges = Edges(edge_index, nodes)
        out = edges.propagate(x, edges.softmax(scores))
        for how in ("sum", "mean", "max"):
            out = out + edges.target.aggregate(edges.source.gather(out), how)
        out = out.flatten(1) + edges.propagate(out.flatten(1))
        return [out, *torch.autograd.grad(out.square().sum(), (x, scores))]

    before = torch.get_num_threads()
    try:
        runs = []
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            runs.append(results())
    finally:
        torch.set_num_threads(before)
    for other in runs[1:]:
        assert all(map(torch.equal, runs[0], other))


def test_half_precision_sums_are_taken_in_single_precision(edges):
    values = numbers(len(edges), WIDTH).detach()
    found = edges.target.sum(values.bfloat16())
    assert found.dtype == torch.bfloat16
    expected = edges.target.sum(values.bfloat16().float()).bfloat16()
    assert torch.equal(found, expected)


def test_graphs_without_edges_give_zeros():
    edges = Edges(torch.zeros(2, 0, dtype=torch.long), 3)
    x = numbers(3, WIDTH)
    for found in (
        edges.propagate(x),
        edges.propagate(x, numbers(0)),
        edges.target.mean(edges.source.gather(x)),
        edges.target.max(edges.source.gather(x)),
    ):
        assert found.shape == x.shape and not found.any()


@pytest.mark.parametrize(
    ("edge_index", "sentence"),
    [
        (torch.zeros(3, 2, dtype=torch.long), r"must be \(2, edges\), not \(3, 2\)"),
        (torch.zeros(2, 2), r"must be whole numbers, not torch.float32"),
        (torch.tensor([[0], [4]]), "must name nodes 0 to 3, not 4"),
        (torch.tensor([[-1], [0]]), "must name nodes 0 to 3, not -1"),
    ],
)
def test_what_is_no_list_of_edges_is_refused(edge_index, sentence):
    with pytest.raises(ValueError, match=sentence):
        check_edge_index(edge_index, 4)
    with pytest.raises(ValueError, match=sentence):
        Edges(edge_index, 4)


@pytest.mark.parametrize("back", [False, True])
def test_products_are_those_of_each_edges_two_nodes(edges, back):
    x, y = numbers(NODES, 3), numbers(NODES, 3, seed=1)
    source, target = edges.edge_index
    near, far = (source, target) if back else (target, source)
    expected = (x[near] * y[far]).sum(1)
    torch.testing.assert_close(edges.products(x, y, back=back), expected)


def test_softmax_of_bfloat16_has_its_type_and_its_value(edges):
    scores = numbers(len(edges), 2).bfloat16()
    found = edges.softmax(scores)
    assert found.dtype == torch.bfloat16
    expected = edges.softmax(scores.double())
    torch.testing.assert_close(found.double(), expected, rtol=2e-2, atol=1e-2)
