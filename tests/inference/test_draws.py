"""Monte Carlo dropout: what it comes to where that is known, and what it leaves alone."""

import pytest
import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from zoo.inference.draws import DropoutDraws, draw_outputs
from zoo.tasks.classification import Classification


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def network(dropout):
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3)
    ).eval()


def test_dropout_of_0_is_the_plain_evaluation():
    model, x, classes = network(0.0), torch.randn(9, 6), torch.arange(9) % 3
    found = []
    for judged in (model, DropoutDraws(model, 5)):
        task = Classification(judged, num_classes=3)
        task.evaluate((x, classes))
        found.append(task.compute())
    assert found[1] == pytest.approx(found[0], rel=1e-6)
    torch.testing.assert_close(DropoutDraws(model, 5)(x).exp(), model(x).softmax(1))


def test_mean_of_a_linear_model_approaches_its_plain_output():
    model, x = nn.Sequential(nn.Dropout(0.3), nn.Linear(6, 2)).double().eval(), torch.ones(4, 6)
    drawn = draw_outputs(model, (x.double(),), _DropoutNd, draws=20_000)
    deviation = (model[1].weight.square().sum(1) * 0.3 / 0.7).sqrt()  # of one draw
    torch.testing.assert_close(drawn.std(0), deviation.expand(4, 2), rtol=0.02, atol=0)
    error = (drawn.mean(0) - model(x.double())).abs() / (deviation / 20_000**0.5)
    assert error.max() < 4


def test_it_is_the_mean_of_probabilities_over_passes_with_dropout():
    model, x = network(0.5), torch.randn(9, 6)
    found = DropoutDraws(model, 4, seed=3)(x)
    torch.manual_seed(3)
    model[3].train()
    expected = torch.stack([model(x).softmax(1) for _ in range(4)]).mean(0)
    torch.testing.assert_close(found.exp(), expected)
    torch.testing.assert_close(found.softmax(1), expected)


def test_only_dropout_is_at_work_and_only_meanwhile():
    model, x = network(0.5), torch.randn(9, 6)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = []
    model.register_forward_hook(lambda *_: modes.append([m.training for m in model]))
    state = torch.get_rng_state()
    first = DropoutDraws(model, 2)(x)
    assert modes == [[False, False, False, True, False]] * 2
    assert not any(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert torch.equal(DropoutDraws(model, 2)(x), first)
    assert not torch.equal(DropoutDraws(model, 2, seed=1)(x), first)


def test_refused():
    with pytest.raises(ValueError, match="mc_dropout=5: Linear has no dropout layers"):
        DropoutDraws(nn.Linear(2, 2), 5)
    with pytest.raises(ValueError, match="mc_dropout must be at least 1, not 0"):
        DropoutDraws(network(0.5), 0)
