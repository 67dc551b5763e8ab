import torch

from tests.figures.test_grids import assert_shows
from zoo.figures.reliability import reliability_image
from zoo.metrics.calibration import CalibrationError


def test_reliability_is_drawn_with_and_without_samples():
    metric = CalibrationError()
    assert_shows(reliability_image(*metric.reliability()))
    metric.update(torch.randn(50, 3), torch.randint(3, (50,)))
    assert_shows(reliability_image(*metric.reliability()))
