import pytest
import torch

from zoo.models.generative.flow_matching import VelocityMLP


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_parameter_count_is_the_docstrings():
    assert sum(p.numel() for p in VelocityMLP().parameters()) == 133_122


def test_output_depends_on_point_time_and_class():
    model = VelocityMLP(3, hidden_sizes=(8,), num_classes=2)
    x, times, labels = torch.randn(4, 3), torch.rand(4), torch.tensor([0, 1, 2, 1])
    found = model(x, times, labels)
    assert found.shape == (4, 3)
    for other in ((x + 1, times, labels), (x, times + 0.5, labels), (x, times, (labels + 1) % 3)):
        assert (model(*other) != found).any(1).all()
    assert torch.equal(model(x, times), model(x, times, torch.full((4,), 2)))


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="in_features must be at least 1, not 0"):
        VelocityMLP(0)
    with pytest.raises(ValueError, match=r"hidden_sizes must be at least 1, not \(0,\)"):
        VelocityMLP(hidden_sizes=(0,))
    with pytest.raises(ValueError, match="num_classes must be at least 1, not 0"):
        VelocityMLP(num_classes=0)
    with pytest.raises(ValueError, match=r"x must be \(batch, 2\), not \(4, 3\)"):
        VelocityMLP()(torch.zeros(4, 3), torch.zeros(4))
    with pytest.raises(ValueError, match="labels are for a network with num_classes"):
        VelocityMLP()(torch.zeros(4, 2), torch.zeros(4), torch.zeros(4, dtype=torch.int64))
