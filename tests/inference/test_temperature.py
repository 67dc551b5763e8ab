import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo.inference.temperature import Tempered, fit_temperature
from zoo.metrics.calibration import CalibrationError


def calibrated(samples=4_000, classes=5):
    """Logits, and targets drawn with the very probabilities that they say."""
    torch.manual_seed(0)
    logits = 2 * torch.randn(samples, classes)
    return logits, logits.softmax(1).multinomial(1).squeeze(1)


@pytest.mark.parametrize("factor", [0.25, 3.0])
def test_factor_of_the_logits_is_found_again(factor):
    logits, targets = calibrated()
    before = fit_temperature(logits, targets)
    assert before == pytest.approx(1, abs=0.05)
    assert fit_temperature(factor * logits, targets) == pytest.approx(factor * before, rel=1e-3)


def test_it_is_that_of_a_grid_and_stills_the_calibration_error():
    logits, targets = calibrated(400)
    logits = 3 * logits
    grid = torch.linspace(1, 6, 5_001, dtype=torch.float64)
    losses = torch.stack([F.cross_entropy(logits.double() / t, targets) for t in grid])
    temperature = fit_temperature(logits, targets)
    assert temperature == pytest.approx(grid[losses.argmin()].item(), abs=1e-3)
    errors = []
    for t in (1.0, temperature):
        metric = CalibrationError()
        metric.update(logits / t, targets)
        errors.append(metric.compute())
    assert errors[1] < 0.5 * errors[0]


def test_closed_form_of_two_classes():
    # Always the same two logits, and three of four right: sigmoid(2 / T) = 3 / 4.
    logits, targets = torch.tensor([[2.0, 0.0]]).expand(4, 2), torch.tensor([0, 0, 1, 0])
    assert fit_temperature(logits, targets) == pytest.approx(2 / math.log(3))


def test_targets_that_do_not_count_change_nothing():
    logits, targets = calibrated(300)
    masked = targets.where(torch.arange(300) < 200, -100)
    assert fit_temperature(logits, masked) == fit_temperature(logits[:200], targets[:200])


def test_where_there_is_none_it_is_said():
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    with pytest.raises(ValueError, match="nearly all answers are right"):
        fit_temperature(logits, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="no more probable than others"):
        fit_temperature(logits, torch.tensor([1, 0]))


def test_logits_are_divided_and_the_order_of_the_classes_stays():
    model = nn.Bilinear(3, 2, 4)
    x = torch.randn(6, 3), torch.randn(6, 2)
    tempered = Tempered(model, 2.5)
    assert torch.equal(tempered(*x), model(*x) / 2.5)
    for temperature in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=r"temperature=.*must be greater than 0"):
            Tempered(model, temperature)
