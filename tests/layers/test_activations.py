import math
from typing import get_args

import pytest
import torch
from torch import nn

from zoo.layers.activations import (
    Activation,
    check_activation,
    make_activation,
    negative_slope,
    suitable_start,
)
from zoo.layers.initialization import start_


@pytest.mark.parametrize(
    ("name", "slope", "value"),
    [
        ("linear", None, -1),
        ("sigmoid", None, 1 / (1 + math.e)),
        ("tanh", None, math.tanh(-1)),
        ("relu", None, 0),
        ("leaky_relu", None, -0.01),
        ("leaky_relu", 0.1, -0.1),
        ("prelu", None, -0.25),
        ("prelu", 0.1, -0.1),
        ("elu", None, -0.6321),
        ("selu", None, -1.1113),
        ("gelu", None, -0.1587),
        ("silu", None, -1 / (1 + math.e)),
        ("softplus", None, 0.3133),
    ],
)
def test_values_at_minus_one(name, slope, value):
    output = make_activation(name, slope=slope)(torch.tensor([-1.0]))
    assert output.item() == pytest.approx(value, abs=5e-5)


def test_maxout_returns_the_larger_of_two():
    x = torch.tensor([[1.0, -2.0, 0.5, 3.0]])
    assert make_activation("maxout")(x).tolist() == [[1, 3]]


@pytest.mark.parametrize("name", ["relu", "selu", "maxout", "leaky_relu", "prelu"])
def test_the_suitable_start_keeps_the_mean_square_through_deep_networks(name):
    torch.manual_seed(0)
    x, width = torch.randn(256, 512), 512
    activation = make_activation(name, slope=0.3)
    with torch.no_grad():
        for _ in range(10):
            layer = nn.Linear(512, 2 * width if name == "maxout" else width, bias=False)
            start_(layer.weight, suitable_start(name), slope=negative_slope(name, 0.3))
            x = activation(layer(x))
    assert 0.5 < x.square().mean() < 2


def test_unknown_names_are_refused_with_those_that_there_are():
    for name in get_args(Activation):
        check_activation(name)
    with pytest.raises(ValueError, match=r"activation must be one of linear, .*, not 'swish'"):
        make_activation("swish")
