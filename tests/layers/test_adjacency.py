import pytest
import torch

from zoo.layers.adjacency import normalized_adjacency
from zoo.layers.sparse import LastSeen

# A triangle 0-1-2 with a tail 2-3-4, and node 5 alone.
EDGES = torch.tensor([[0, 1, 2, 2, 3], [1, 2, 0, 3, 4]])
EDGES = torch.cat([EDGES, EDGES.flip(0)], dim=1)


def dense(*arguments, **options):
    return normalized_adjacency(*arguments, dtype=torch.double, **options).matrix.to_dense()


def test_weights_of_one_equal_none():
    loops = torch.cat([EDGES, torch.tensor([[3, 3, 1], [3, 3, 1]])], dim=1)
    for edge_index in (EDGES, loops, torch.zeros(2, 0, dtype=torch.long)):
        for add in (True, False):
            ones = torch.ones(edge_index.size(1))
            found = dense(edge_index, 6, ones, add_self_loops=add)
            assert torch.equal(found, dense(edge_index, 6, add_self_loops=add))


def test_weighted_matrix_is_the_dense_formula():
    torch.manual_seed(0)
    weights = torch.rand(10, dtype=torch.double) + 0.1
    a = torch.zeros(6, 6, dtype=torch.double)
    a[EDGES[1], EDGES[0]] = weights
    a += torch.eye(6, dtype=torch.double)
    scale = a.sum(1).rsqrt()
    torch.testing.assert_close(dense(EDGES, 6, weights), scale[:, None] * a * scale)


def test_self_loop_keeps_its_weight_and_of_several_the_last_counts():
    one_edge = torch.tensor([[0, 0, 1], [0, 0, 0]])
    a = dense(one_edge, 2, torch.tensor([7.0, 3.0, 1.0]))
    expected = torch.tensor([[3 / 4, 1 / 2], [0, 1]], dtype=torch.double)
    torch.testing.assert_close(a, expected)


def test_without_self_loops_a_lonely_node_receives_nothing():
    a = dense(EDGES, 6, add_self_loops=False)
    assert not a[5].any() and not a[:, 5].any() and a.isfinite().all()
    degree = torch.tensor([2, 2, 3, 2, 1, 0], dtype=torch.double)
    torch.testing.assert_close(a[2, 3], (degree[2] * degree[3]).rsqrt())


@pytest.mark.parametrize("add_self_loops", [True, False])
def test_weights_get_their_gradient_also_of_lonely_nodes(add_self_loops):
    loops = torch.cat([EDGES[:, :7], torch.tensor([[3], [3]])], dim=1)
    torch.manual_seed(0)
    weights = (torch.rand(8, dtype=torch.double) + 0.5).requires_grad_()
    x = torch.randn(6, 3, dtype=torch.double, requires_grad=True)

    def product(weights, x):
        graph = 6, weights, torch.double, add_self_loops
        return normalized_adjacency(loops, *graph) @ x

    assert torch.autograd.gradcheck(product, (weights, x))
    assert torch.autograd.gradgradcheck(product, (weights, x))


def test_weights_of_another_number_are_refused():
    with pytest.raises(ValueError, match=r"edge_weight must be \(10,\), not \(9,\)"):
        normalized_adjacency(EDGES, 6, torch.ones(9))


def test_cache_of_two_tensors_notices_a_change_of_either():
    calls, cache = [], LastSeen()

    def total(first, factor, second):
        calls.append(1)
        return (first.sum() * factor * second.sum()).item()

    a, b = torch.ones(3), torch.ones(2)
    for _ in range(3):
        assert cache(total, a, 2, b) == 12
    assert len(calls) == 1
    b.mul_(2)
    assert cache(total, a, 2, b) == 24
    a.numpy()[0] = 4  # which leaves no trace but the value
    assert cache(total, a, 2, b) == 48
    b.numpy()[0] = 0
    assert cache(total, a, 2, b) == 24
    assert cache(total, a, 2, b.clone()) == 24
    assert len(calls) == 5


def test_cache_keeps_nothing_that_a_gradient_is_wanted_for():
    calls, cache = [], LastSeen()
    weights = torch.ones(10, requires_grad=True)
    for _ in range(2):
        cache(lambda *given: calls.append(1) or normalized_adjacency(*given), EDGES, 6, weights)
    assert len(calls) == 2
