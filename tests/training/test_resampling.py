"""Intervals of metrics by drawing samples anew."""

import numpy as np
import pytest
import torch
from torch import nn

from zoo.tasks.classification import Classification
from zoo.tasks.regression import Regression
from zoo.tasks.sequence_classification import SequenceClassification
from zoo.tasks.sequence_regression import SequenceRegression
from zoo.training.evaluation import measure
from zoo.training.resampling import bootstrap, outputs_of


def of_scipy(statistic, *samples, resamples):
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    found = stats.bootstrap(
        samples,
        statistic,
        paired=True,
        vectorized=False,
        n_resamples=resamples,
        method="percentile",
        rng=np.random.default_rng(3),
    )
    return pytest.approx(tuple(found.confidence_interval), rel=1e-6)


def batches(targets):
    torch.manual_seed(0)
    return list(zip(torch.randn(40, 3).split(16), targets.split(16), strict=True))


def test_intervals_of_a_classification_are_scipys():
    data = batches(torch.arange(40) % 4)
    task = Classification(nn.Linear(3, 4), num_classes=4)
    logits, targets = (torch.cat(parts) for parts in outputs_of(task, data))
    found = bootstrap(task, logits, targets, resamples=200, seed=3)
    assert list(found) == ["loss", "accuracy"]  # of the calibration error nothing is said
    right = (logits.argmax(1) == targets).double().numpy()
    losses = nn.functional.cross_entropy(logits, targets, reduction="none").numpy()
    for name, values in (("accuracy", right), ("loss", losses)):
        assert found[name] == of_scipy(np.mean, values, resamples=200)


def test_intervals_of_a_regression_are_scipys():
    data = batches(torch.randn(40, 1, generator=torch.Generator().manual_seed(1)))
    task = Regression(nn.Linear(3, 1))
    outputs, targets = (torch.cat(parts) for parts in outputs_of(task, data))
    found = bootstrap(task, outputs, targets, resamples=200, seed=3)
    y, p = targets.squeeze(1).double().numpy(), outputs.squeeze(1).double().numpy()
    statistics = {
        "rmse": lambda y, p: ((y - p) ** 2).mean() ** 0.5,
        "mae": lambda y, p: np.abs(y - p).mean(),
        "bias": lambda y, p: (p - y).mean(),
        "r2": lambda y, p: 1 - ((y - p) ** 2).sum() / ((y - y.mean()) ** 2).sum(),
    }
    assert set(found) == {"loss", *statistics}
    for name, statistic in statistics.items():
        assert found[name] == of_scipy(statistic, y, p, resamples=200), name


def test_interval_of_an_accuracy_is_near_wilsons():
    right, count = 80, 100
    targets = (torch.arange(count) >= right).long()
    task = Classification(nn.Identity(), num_classes=2)
    logits = torch.tensor([[1.0, 0.0]]).expand(count, 2)
    low, high = bootstrap(task, logits, targets, resamples=500)["accuracy"]
    z, p = 1.96, right / count
    centre = (p + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = z / (1 + z**2 / count) * (p * (1 - p) / count + z**2 / (4 * count**2)) ** 0.5
    assert (low, high) == pytest.approx((centre - reach, centre + reach), abs=0.03)
    wider = bootstrap(task, logits, targets, resamples=500, level=0.99)["accuracy"]
    assert wider[0] < low and high < wider[1]


class OfSteps(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, x, lengths=None):
        return self.linear(x)


@pytest.mark.parametrize(
    ("task", "targets"),
    [
        (Classification(nn.Linear(3, 4), num_classes=4, top_k=(2,)), torch.arange(40) % 4),
        (Classification(nn.Linear(3, 4), num_classes=4, loss="hinge"), torch.arange(40) % 4),
        (SequenceClassification(OfSteps(), num_classes=4), torch.arange(40) % 4),
        (Regression(nn.Linear(3, 2), loss="gaussian_nll"), torch.arange(40.0)),
        (SequenceRegression(nn.Linear(3, 2)), torch.arange(80.0).view(40, 2)),
    ],
)
def test_outputs_are_judged_as_batches_are(task, targets):
    data = batches(targets)
    expected = measure(task, data)
    pairs = outputs_of(task, data)
    task.reset()
    task.judge(*map(torch.cat, pairs))
    assert task.compute() == pytest.approx(expected)


def test_model_keeps_its_mode_and_random_numbers_go_on():
    model = nn.Sequential(nn.Dropout(), nn.Linear(3, 4)).train()
    task = Classification(model, num_classes=4)
    data = batches(torch.arange(40) % 4)
    state = torch.get_rng_state()
    outputs, _ = outputs_of(task, data)
    assert model.training and torch.equal(torch.get_rng_state(), state)
    assert not outputs[0].requires_grad
    assert torch.equal(outputs[0], model.eval()(data[0][0]))
