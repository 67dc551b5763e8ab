import pytest
import torch

from zoo.layers.adjacency import normalized_adjacency
from zoo.models.graph.appnp import APPNP, APPNPNet

EDGES = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])


@pytest.mark.parametrize(
    ("features", "classes", "count"), [(1433, 7, 92_231), (3703, 6, 237_446), (500, 3, 32_259)]
)
def test_parameter_count_is_the_docstrings(features, classes, count):
    assert sum(p.numel() for p in APPNPNet(features, classes).parameters()) == count


@pytest.mark.parametrize("alpha", [0.1, 0.5])
def test_many_steps_are_personalised_pagerank(alpha):
    torch.manual_seed(0)
    x = torch.randn(5, 3, dtype=torch.double)
    a = normalized_adjacency(EDGES, 5, dtype=torch.double).matrix.to_dense()
    limit = alpha * torch.linalg.solve(torch.eye(5) - (1 - alpha) * a, x)
    torch.testing.assert_close(APPNP(300, alpha)(x, EDGES), limit)


def test_certain_return_leaves_predictions_as_they_are():
    x = torch.randn(5, 3)
    assert torch.equal(APPNP(4, 1.0)(x, EDGES), x)


def test_without_return_it_is_the_matrix_power():
    x = torch.randn(5, 3, dtype=torch.double)
    a = normalized_adjacency(EDGES, 5, dtype=torch.double).matrix.to_dense()
    torch.testing.assert_close(APPNP(4, 0.0)(x, EDGES), a.matrix_power(4) @ x)


def test_dropped_edges_leave_the_mean_of_one_step_and_are_drawn_in_each_step():
    torch.manual_seed(0)
    x, layer = torch.rand(5, 1), APPNP(1, 0.2, dropout=0.5)
    draws = torch.stack([layer(x, EDGES) for _ in range(4000)])
    torch.testing.assert_close(draws.mean(0), layer.eval()(x, EDGES), atol=0.03, rtol=0)
    # Where node 4, alone with its loop, keeps it in one step of two, the steps differ.
    steps = APPNP(2, 0.0, dropout=0.5)
    kept = {round(steps(torch.ones(5, 1), EDGES)[4].item()) for _ in range(100)}
    assert kept == {0, 4}
    chance = sum(steps(torch.ones(5, 1), EDGES)[4].item() == 4 for _ in range(1000)) / 1000
    assert chance == pytest.approx(0.25, abs=0.05)


def test_nonsense_is_refused_with_the_value():
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\], not 1.5"):
        APPNPNet(5, 3, alpha=1.5)
    with pytest.raises(ValueError, match=r"propagation_dropout must be in \[0, 1\), not 1.0"):
        APPNPNet(5, 3, propagation_dropout=1.0)
    with pytest.raises(ValueError, match="K must be at least 1, not 0"):
        APPNP(0, 0.1)
