from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zoo.layers.activations import Activation
from zoo.models.mlp import MLP, mlp_800, mlp_800_800


@pytest.mark.parametrize(
    ("model", "count"),
    [(MLP(784, 10), 203_530), (mlp_800(), 636_010), (mlp_800_800(), 1_276_810)],
)
def test_parameter_count_is_the_docstrings(model, count):
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize(
    ("activation", "function"),
    [("relu", torch.relu), ("tanh", torch.tanh), ("gelu", F.gelu), ("sigmoid", torch.sigmoid)],
)
def test_network_equals_the_equation(activation, function):
    torch.manual_seed(0)
    model = MLP(6, 3, hidden_sizes=(5, 4), activation=activation)
    x = torch.randn(2, 2, 3)
    h = x.flatten(1)
    for linear in (layer for layer in model.layers if isinstance(layer, nn.Linear)):
        h = function(h @ linear.weight.T + linear.bias)
    expected = h @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(model(x), expected)


def test_weights_start_with_the_variances_of_he_and_glorot():
    torch.manual_seed(0)
    he, glorot = (MLP(400, 10, hidden_sizes=(600,), activation=a) for a in ("relu", "tanh"))
    assert he.layers[0].weight.var().item() == pytest.approx(2 / 400, rel=0.05)
    assert glorot.layers[0].weight.var().item() == pytest.approx(2 / 1000, rel=0.05)
    assert glorot.layers[0].weight.abs().max() <= (6 / 1000) ** 0.5
    assert he.classifier.weight.var().item() == pytest.approx(2 / 610, rel=0.1)
    assert all(p.eq(0).all() for name, p in he.named_parameters() if name.endswith("bias"))


def test_activations_keep_their_size_through_ten_rectified_layers():
    torch.manual_seed(0)
    model = MLP(512, 2, hidden_sizes=(512,) * 10)
    h = model.layers(torch.randn(64, 512))
    assert 0.3 < h.square().mean() < 3


def test_no_hidden_layer_is_softmax_regression():
    model = MLP(4, 3, hidden_sizes=())
    assert [name for name, _ in model.named_parameters()] == [
        "classifier.weight",
        "classifier.bias",
    ]


def test_permuting_pixels_and_weight_columns_alike_changes_nothing():
    torch.manual_seed(0)
    model, x, order = MLP(9, 2), torch.randn(3, 9), torch.randperm(9)
    before = model(x)
    with torch.no_grad():
        model.layers[0].weight.copy_(model.layers[0].weight[:, order])
    torch.testing.assert_close(model(x[:, order]), before)


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    model, x = MLP(4, 3, dropout=0.5), torch.randn(2, 4)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize(
    ("sizes", "count"),
    [((3, (4,), 2), 26), ((3, (4, 4), 2), 46), ((2, (4,), 1), 17), ((16, (), 10), 170)],
)
def test_small_networks_have_the_parameters_that_are_counted_by_hand(sizes, count):
    inputs, hidden, outputs = sizes
    network = MLP(inputs, outputs, hidden_sizes=hidden, activation="sigmoid")
    assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize("activation", get_args(Activation))
@pytest.mark.parametrize("batch_norm", ["none", "before", "after"])
def test_every_activation_learns_with_and_without_batch_norm(activation, batch_norm):
    torch.manual_seed(0)
    model = MLP(6, 3, hidden_sizes=(5, 4), activation=activation, batch_norm=batch_norm)
    model(torch.randn(8, 6)).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert all(p.grad.any() for n, p in model.named_parameters() if n.endswith("weight"))


def test_linear_units_make_one_matrix_of_all_of_them():
    torch.manual_seed(0)
    model = MLP(6, 3, hidden_sizes=(5, 4), activation="linear").double()
    first, second = (layer for layer in model.layers if isinstance(layer, nn.Linear))
    product = model.classifier.weight @ second.weight @ first.weight
    x = torch.randn(7, 6, dtype=torch.double)
    torch.testing.assert_close(model(x) - model(torch.zeros_like(x)), x @ product.T)


def test_batch_norm_stands_before_or_after_the_non_linearity():
    before, after = (MLP(4, 2, batch_norm=where).layers for where in ("before", "after"))
    assert [type(layer).__name__ for layer in before] == ["Linear", "BatchNorm1d", "ReLU"]
    assert [type(layer).__name__ for layer in after] == ["Linear", "ReLU", "BatchNorm1d"]


def test_batch_norm_before_a_rectifier_makes_half_of_the_units_zero():
    torch.manual_seed(0)
    network = MLP(64, 2, hidden_sizes=(64,), batch_norm="before")
    units = network.layers(5 + 3 * torch.randn(4096, 64))
    assert units.eq(0).float().mean().item() == pytest.approx(0.5, abs=0.005)


def test_batch_norm_after_makes_units_of_mean_zero_and_variance_one():
    torch.manual_seed(0)
    units = MLP(64, 2, batch_norm="after").layers(torch.randn(512, 64))
    torch.testing.assert_close(units.mean(0), torch.zeros(256), atol=1e-5, rtol=0)
    torch.testing.assert_close(units.var(0, correction=0), torch.ones(256), atol=1e-3, rtol=0)


def test_zeros_everywhere_give_every_gradient_but_the_last_bias_zero():
    network = MLP(6, 3, hidden_sizes=(5, 4), init="zeros")
    F.cross_entropy(network(torch.randn(8, 6)), torch.arange(8) % 3).backward()
    moved = {name for name, p in network.named_parameters() if p.grad.any()}
    assert moved == {"classifier.bias"}


def test_a_named_start_is_that_of_all_weights_and_keeps_biases_at_zero():
    torch.manual_seed(0)
    network = MLP(400, 100, hidden_sizes=(300,), init="normal", init_std=0.3)
    for weight in (network.layers[0].weight, network.classifier.weight):
        assert weight.std().item() == pytest.approx(0.3, rel=0.02)
    assert not network.layers[0].bias.any() and not network.classifier.bias.any()


def test_rectifiers_with_set_weights_are_a_hat_and_a_clipped_line():
    network = MLP(1, 1, hidden_sizes=(2,))
    x = torch.linspace(-3, 3, 25)[:, None]
    with torch.no_grad():
        network.layers[0].weight.fill_(1)
        network.classifier.weight.copy_(torch.tensor([[1.0, -1.0]]))
        for c in (1.0, 0.5):
            network.layers[0].bias.copy_(torch.tensor([c, -c]))
            torch.testing.assert_close(network(x), (x + c).clamp(0, 2 * c))  # 0, x + c, 2c
        network.layers[0].bias.copy_(torch.tensor([1.0, -1.0]))
        network.classifier.bias.fill_(-1)
    torch.testing.assert_close(network(x), F.hardtanh(x))


def test_two_rectifiers_compute_the_exclusive_or():
    network = MLP(2, 1, hidden_sizes=(2,))
    with torch.no_grad():
        network.layers[0].weight.fill_(1)
        network.layers[0].bias.copy_(torch.tensor([0.0, -1.0]))
        network.classifier.weight.copy_(torch.tensor([[1.0, -2.0]]))
    corners = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    assert network(corners).flatten().tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "elu"])
def test_back_propagation_by_hand_equals_autograd(activation):
    r"""delta_l = g'(z_l) * W_{l+1}^T delta_{l+1}, dW_l = delta_l h_{l-1}^T."""
    torch.manual_seed(0)
    network = MLP(5, 3, hidden_sizes=(4, 6), activation=activation).double()
    x, targets = torch.randn(7, 5, dtype=torch.double), torch.randn(7, 3, dtype=torch.double)
    linears = [m for m in network.modules() if isinstance(m, nn.Linear)]
    function = network.layers[1]
    hs, zs = [x], []
    for linear in linears[:-1]:
        zs.append(hs[-1] @ linear.weight.T + linear.bias)
        hs.append(function(zs[-1]))
    output = network(x)
    (output - targets).square().sum().div(2).backward()
    derivative = {
        "sigmoid": lambda z: z.sigmoid() * (1 - z.sigmoid()),
        "tanh": lambda z: 1 - z.tanh() ** 2,
        "elu": lambda z: torch.where(z > 0, 1.0, z.exp()),
    }[activation]
    delta = (output - targets).detach()
    for depth in reversed(range(len(linears))):
        torch.testing.assert_close(linears[depth].weight.grad, delta.T @ hs[depth])
        torch.testing.assert_close(linears[depth].bias.grad, delta.sum(0))
        if depth:
            delta = delta @ linears[depth].weight * derivative(zs[depth - 1])
            delta = delta.detach()


def test_options_that_the_others_leave_without_effect_are_known():
    arguments = {"activation": "relu", "slope": None, "init": None, "init_std": 0.01}
    assert set(MLP.without_effect(arguments)) == {"slope", "init_std"}
    assert not MLP.without_effect(arguments | {"activation": "prelu", "init": "uniform"})
    assert not MLP.without_effect({"in_features": 784})  # as of `mlp_800`


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden_sizes": (8, 0)}, r"hidden_sizes must all be at least 1, not \(8, 0\)"),
        ({"activation": "swish"}, "activation must be one of linear, .*, maxout, not 'swish'"),
        ({"batch_norm": "both"}, "batch_norm must be none, before or after, not 'both'"),
        ({"init": "random"}, "init must be one of he, glorot, .*, not 'random'"),
        ({"init_std": -1.0}, "init_std must be at least 0, not -1.0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        MLP(4, 3, **arguments)
    with pytest.raises(ValueError, match="in_features must be at least 1, not 0"):
        MLP(0, 3)
    with pytest.raises(ValueError, match="num_classes must be at least 1, not 0"):
        MLP(4, 0)
