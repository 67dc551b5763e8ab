import pytest
import torch
from torch import nn

from zoo.metrics.calibration import CalibrationError
from zoo.tasks.classification import Classification


def sure(confidences, classes=2):
    """Logits whose first class has these probabilities, and the others the rest."""
    p = torch.tensor(confidences, dtype=torch.float64).unsqueeze(1)
    rest = ((1 - p) / (classes - 1)).expand(-1, classes - 1)
    return torch.cat((p, rest), 1).clamp_min(1e-300).log()


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("bins", [10, 15])
def test_error_is_that_of_torchmetrics(classes, bins):
    module = pytest.importorskip(
        "torchmetrics.functional.classification", reason="torchmetrics is not installed"
    )
    torch.manual_seed(0)
    logits = 2 * torch.randn(700, classes)
    targets = torch.where(torch.rand(700) < 0.5, logits.argmax(1), torch.randint(classes, (700,)))
    metric = CalibrationError(bins)
    for start in range(0, 700, 64):
        metric.update(logits[start : start + 64], targets[start : start + 64])
    expected = module.multiclass_calibration_error(
        logits.softmax(1), targets, num_classes=classes, n_bins=bins
    )
    assert metric.compute().item() == pytest.approx(expected.item(), abs=1e-6)


def test_error_of_a_handful_of_samples_is_the_equation():
    # Two bins: (.55 + .65) / 2 sure and one of two right; .95 sure and both of two right.
    metric = CalibrationError(4)
    metric.update(sure([0.55, 0.65, 0.95, 0.95]), torch.tensor([0, 1, 0, 0]))
    share, confidence, accuracy = metric.reliability()
    assert share.tolist() == [0, 0, 0.5, 0.5]
    assert confidence.tolist() == pytest.approx([0, 0, 0.6, 0.95])
    assert accuracy.tolist() == [0, 0, 0.5, 1]
    assert metric.compute().item() == pytest.approx(0.5 * 0.1 + 0.5 * 0.05)


def test_upper_edges_belong_to_their_bin_and_certainty_to_the_last():
    metric = CalibrationError(4)
    metric.update(sure([0.5, 1.0]), torch.tensor([0, 0]))
    assert metric.reliability().share.tolist() == [0, 0.5, 0, 0.5]


def test_targets_that_do_not_count_change_nothing():
    torch.manual_seed(0)
    logits, targets = torch.randn(20, 3), torch.randint(3, (20,))
    whole, part = CalibrationError(), CalibrationError()
    whole.update(logits, targets.where(torch.arange(20) < 12, -100))
    part.update(logits[:12], targets[:12])
    assert whole.compute() == part.compute()
    assert CalibrationError().compute().isnan()


def test_perfectly_calibrated_answers_have_none():
    metric = CalibrationError()
    metric.update(sure([0.8] * 10), torch.tensor([0] * 8 + [1] * 2))
    assert metric.compute().item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(("loss", "has_it"), [("focal", True), ("hinge", False)])
def test_logits_that_are_no_logarithms_are_not_judged_by_it(loss, has_it):
    task = Classification(nn.Linear(4, 3), num_classes=3, loss=loss)
    task.evaluate((torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 0])))
    assert ("calibration_error" in task.compute()) is has_it
    assert ("reliability" in task.show()) is has_it


def test_no_bins_are_refused():
    with pytest.raises(ValueError, match="bins must be at least 1, not 0"):
        CalibrationError(0)
