import pytest
import torch
from torch import nn

from zoo.layers.initialization import deferred_init, reset, start_


class Net(nn.Module):
    @deferred_init
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(width, 4), nn.BatchNorm1d(4)
        self.attention = nn.MultiheadAttention(4, 2)
        self.calls = 0

    def init_weights(self):
        self.calls += 1
        reset(self)


class Wider(Net):
    @deferred_init
    def __init__(self) -> None:
        super().__init__(5)
        self.last = nn.LSTM(4, 2)
        self.inner = Net()


def test_layers_start_as_their_constructors_start_them_in_their_order():
    torch.manual_seed(0)
    net = Wider()
    torch.manual_seed(0)
    layers = [nn.Linear(5, 4), nn.BatchNorm1d(4), nn.MultiheadAttention(4, 2), nn.LSTM(4, 2)]
    layers += [nn.Linear(3, 4), nn.BatchNorm1d(4), nn.MultiheadAttention(4, 2)]
    expected = [tensor for layer in layers for tensor in layer.state_dict().values()]
    for ours, theirs in zip(net.state_dict().values(), expected, strict=True):
        assert torch.equal(ours, theirs)


def test_each_network_is_initialised_once_however_constructors_call_one_another():
    net = Wider()
    assert (net.calls, net.inner.calls) == (1, 1)
    with torch.device("meta"):
        net = Wider()
    assert (net.calls, net.inner.calls) == (0, 0)
    assert all(tensor.is_meta for tensor in net.state_dict().values())


def test_weights_lie_on_the_default_device_in_the_default_type():
    torch.set_default_dtype(torch.float64)
    try:
        net = Net()
    finally:
        torch.set_default_dtype(torch.float32)
    assert {(p.device.type, p.dtype) for p in net.parameters()} == {("cpu", torch.float64)}
    assert isinstance(net.first.weight, nn.Parameter) and net.first.weight.requires_grad


def test_a_network_handed_to_the_constructor_keeps_its_memory():
    class Around(nn.Module):
        @deferred_init
        def __init__(self, net: Net) -> None:
            super().__init__()
            self.net, self.head = net, nn.Linear(4, 2)

        def init_weights(self):
            reset(self.head)

    net = Net()
    before = {name: (t.data_ptr(), t.clone()) for name, t in net.state_dict().items()}
    around = Around(net)
    for name, tensor in around.net.state_dict().items():
        assert tensor.data_ptr() == before[name][0] and torch.equal(tensor, before[name][1])
    assert around.head.weight.device.type == "cpu"


def test_subclass_whose_constructor_is_not_decorated_is_refused():
    class Forgotten(Net):
        def __init__(self) -> None:
            super().__init__()

    class Inherited(Net):
        pass

    assert Inherited().calls == 1
    with pytest.raises(TypeError, match=r"Forgotten.__init__ must be decorated: @deferred_init"):
        Forgotten()


def test_tensors_that_nothing_resets_are_refused_by_name():
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2))
            self.register_buffer("shift", torch.zeros(2))

    with pytest.raises(TypeError, match=r"Scale must have reset_parameters\(\).*scale, shift"):
        reset(nn.Sequential(nn.Linear(2, 2), Scale()))


@pytest.mark.parametrize(
    ("start", "variance"),
    [
        ("glorot", 0.005),  # 2 / (100 + 300)
        ("he", 0.02),  # 2 / 100
        ("lecun", 0.01),  # 1 / 100
        ("normal", 0.09),
        ("uniform", 0.09),
        ("zeros", 0),
    ],
)
def test_starts_have_the_variances_that_they_are_known_for(start, variance):
    torch.manual_seed(0)
    weight = torch.empty(300, 100)
    start_(weight, start, std=0.3)
    assert weight.var().item() == pytest.approx(variance, rel=0.02)
    assert weight.mean().abs() < 0.01


def test_a_leak_makes_the_variance_of_he_smaller():
    torch.manual_seed(0)
    weight = torch.empty(300, 100)
    start_(weight, "he", slope=1.0)
    assert weight.var().item() == pytest.approx(0.01, rel=0.02)


def test_orthogonal_starts_have_orthonormal_columns_or_rows():
    weight = torch.empty(30, 10, dtype=torch.double)
    start_(weight, "orthogonal")
    torch.testing.assert_close(weight.T @ weight, torch.eye(10, dtype=torch.double))
    start_(wide := torch.empty(4, 3, 2, 2, dtype=torch.double), "orthogonal")
    torch.testing.assert_close(wide.flatten(1) @ wide.flatten(1).T, torch.eye(4).double())


def test_the_fan_in_of_a_convolution_is_what_a_unit_sees():
    torch.manual_seed(0)
    weight = torch.empty(200, 8, 5, 5)
    start_(weight, "he")
    assert weight.var().item() == pytest.approx(2 / (8 * 25), rel=0.02)
