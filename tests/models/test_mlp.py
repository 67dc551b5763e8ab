import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zoo.models.mlp import MLP, mlp_800, mlp_800_800


@pytest.mark.parametrize(
    ("model", "count"),
    [(MLP(784, 10), 203_530), (mlp_800(), 636_010), (mlp_800_800(), 1_276_810)],
)
def test_parameter_count_is_the_docstrings(model, count):
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize(
    ("activation", "function"), [("relu", torch.relu), ("tanh", torch.tanh), ("gelu", F.gelu)]
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
    ("arguments", "message"),
    [
        ({"hidden_sizes": (8, 0)}, r"hidden_sizes must all be at least 1, not \(8, 0\)"),
        ({"activation": "swish"}, "activation must be relu, tanh or gelu, not 'swish'"),
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
