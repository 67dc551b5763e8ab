import pytest
import torch

from zoo.layers.adjacency import normalized_adjacency
from zoo.models.graph import sgc
from zoo.models.graph.sgc import SGC, SGConv

EDGES = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])


@pytest.mark.parametrize(
    ("features", "classes", "count"), [(1433, 7, 10_038), (3703, 6, 22_224), (500, 3, 1_503)]
)
def test_parameter_count_is_the_docstrings(features, classes, count):
    assert sum(p.numel() for p in SGC(features, classes).parameters()) == count


def test_it_is_logistic_regression_on_a_power_of_the_matrix_times_the_features():
    torch.manual_seed(0)
    x, conv = torch.randn(4, 5, dtype=torch.double), SGConv(5, 3, 3).double()
    power = normalized_adjacency(EDGES, 4, dtype=torch.double).matrix.to_dense().matrix_power(3)
    torch.testing.assert_close(conv(x, EDGES), conv.lin(power @ x))


def test_features_are_averaged_once_for_a_graph(monkeypatch):
    calls, compute = [], sgc.propagated
    monkeypatch.setattr(sgc, "propagated", lambda *given: calls.append(1) or compute(*given))
    model, x, weights = SGC(5, 3), torch.rand(4, 5).to_sparse_csr(), torch.ones(6)
    for _ in range(3):
        model(x, EDGES, weights)
    assert len(calls) == 1
    x.values().mul_(2)
    torch.testing.assert_close(model(x, EDGES, weights), SGC.forward(model, x.clone(), EDGES))
    assert len(calls) == 3
    weights[0] = 3
    model(x, EDGES, weights)
    assert len(calls) == 4
    other = SGC(5, 3, cached=False)
    for _ in range(2):
        other(x, EDGES)
    assert len(calls) == 6


def test_sizes_below_one_are_refused():
    with pytest.raises(ValueError, match="K must be at least 1, not 0"):
        SGC(5, 3, K=0)
