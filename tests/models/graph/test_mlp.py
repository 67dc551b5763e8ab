import pytest
import torch

from zoo.models.graph.mlp import NodeMLP

EDGES = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])


@pytest.mark.parametrize(
    ("features", "classes", "count"), [(1433, 7, 23_063), (3703, 6, 59_366), (500, 3, 8_067)]
)
def test_parameter_count_is_the_docstrings(features, classes, count):
    assert sum(p.numel() for p in NodeMLP(features, classes).parameters()) == count


def test_edges_do_not_matter_and_nodes_do_not_see_one_another():
    torch.manual_seed(0)
    model, x = NodeMLP(5, 3).eval(), torch.rand(4, 5)
    expected = model.lins[1](model.lins[0](x).relu())
    for given in ((), (EDGES,), (EDGES, torch.rand(4))):
        assert torch.equal(model(x, *given), expected)
    torch.testing.assert_close(model(x[2:], EDGES), expected[2:])


def test_nonsense_is_refused_with_the_value():
    with pytest.raises(ValueError, match="num_layers must be at least 1, not 0"):
        NodeMLP(5, 3, num_layers=0)
