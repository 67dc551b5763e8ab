"""Layers of uncertain weights against torch.distributions and the certain layers."""

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from zoo.inference.draws import draw_outputs
from zoo.layers.bayesian import BayesianConv2d, BayesianLayer, BayesianLinear, total_kl


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def layers():
    return [
        (BayesianLinear(5, 4, prior_scale=0.7).double(), torch.randn(3, 5).double()),
        (BayesianConv2d(2, 3, 3, padding=1).double(), torch.randn(3, 2, 6, 6).double()),
    ]


def plain(layer, weight, bias, x):
    if isinstance(layer, BayesianLinear):
        return F.linear(x, weight, bias)
    return F.conv2d(x, weight, bias, padding=layer.padding)


def test_divergence_is_that_of_torch():
    for layer, _ in layers():
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.normal_()
        expected = 0.0
        for mean, rho in (
            (layer.weight_mean, layer.weight_rho),
            (layer.bias_mean, layer.bias_rho),
        ):
            q = Normal(mean, F.softplus(rho))
            expected += kl_divergence(q, Normal(torch.zeros_like(mean), layer.prior_scale)).sum()
        torch.testing.assert_close(layer.kl(), expected)
        assert layer.kl() > 0


def test_divergence_is_zero_for_the_prior_itself():
    layer = BayesianLinear(5, 4, prior_scale=0.7, initial_scale=0.7)
    nn.init.zeros_(layer.weight_mean)
    nn.init.zeros_(layer.bias_mean)
    assert layer.kl().item() == pytest.approx(0, abs=1e-5)
    assert total_kl(nn.Sequential(layer, nn.ReLU(), layer)) == layer.kl()


def test_evaluation_uses_the_means_and_training_draws_one_network_for_the_batch():
    for layer, x in layers():
        means = plain(layer, layer.weight_mean, layer.bias_mean, x)
        assert torch.equal(layer.eval()(x), means)
        layer.train()
        state = torch.get_rng_state()
        drawn = layer(x)
        assert not torch.equal(drawn, layer(x))
        torch.set_rng_state(state)
        noise = [torch.randn_like(layer.weight_mean), torch.randn_like(layer.bias_mean)]
        weight = layer.weight_mean + F.softplus(layer.weight_rho) * noise[0]
        bias = layer.bias_mean + F.softplus(layer.bias_rho) * noise[1]
        torch.testing.assert_close(drawn, plain(layer, weight, bias, x))


def test_begins_with_the_scale_that_was_asked_for():
    layer = BayesianLinear(5, 4, initial_scale=0.03)
    torch.testing.assert_close(F.softplus(layer.weight_rho), torch.full((4, 5), 0.03))
    certain = BayesianLinear(5, 4, initial_scale=1e-30)
    x = torch.randn(3, 5)
    torch.testing.assert_close(certain(x), certain.eval()(x))


def test_draws_are_those_of_a_seed_and_leave_mode_and_random_state_alone():
    model = nn.Sequential(BayesianLinear(5, 4), nn.Dropout(), BayesianLinear(4, 2)).eval()
    x, state = torch.randn(6, 5), torch.get_rng_state()
    drawn = draw_outputs(model, (x,), BayesianLayer, draws=3, seed=7)
    assert drawn.shape == (3, 6, 2) and not torch.equal(drawn[0], drawn[1])
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module.training for module in model.modules())
    part = draw_outputs(model, (x[2:4],), BayesianLayer, draws=3, seed=7)
    torch.testing.assert_close(part, drawn[:, 2:4])  # the same three networks
    assert not torch.equal(drawn, draw_outputs(model, (x,), BayesianLayer, draws=3, seed=8))


@pytest.mark.parametrize("name", ["prior_scale", "initial_scale"])
def test_scales_are_positive(name):
    with pytest.raises(ValueError, match=f"{name} must be greater than 0, not 0"):
        BayesianLinear(2, 2, **{name: 0})
