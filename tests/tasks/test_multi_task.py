"""Multi-task learning: it is what the tasks of its targets are alone, weighed and together."""

import pytest
import torch
from torch import nn

from zoo.models.mlp import MLP
from zoo.tasks.classification import Classification
from zoo.tasks.multi_task import MultiTask
from zoo.tasks.prediction import Classes, Values
from zoo.tasks.regression import Regression

NAMES, CLASSES = ("species", "mass"), (("a", "b", "c"), ())


@pytest.fixture
def model():
    torch.manual_seed(0)
    return MLP(5, 4, hidden_sizes=(7,)).double()


@pytest.fixture
def batch():
    torch.manual_seed(1)
    numbers = torch.randn(20, dtype=torch.float64)
    targets = torch.stack([torch.randint(3, (20,)).double(), numbers], 1)
    return torch.randn(20, 5, dtype=torch.float64), targets


class Head(nn.Module):
    """The outputs of one target: the shared layers, and its rows of the last one."""

    def __init__(self, model, start, stop):
        super().__init__()
        self.model, self.start, self.stop = model, start, stop

    def forward(self, x):
        return self.model(x)[:, self.start : self.stop]


def alone(model, batch):
    """Each target's own task, and its batch."""
    x, y = batch
    species = Classification(Head(model, 0, 3), num_classes=3, class_names=CLASSES[0])
    return {
        "species": (species, (x, y[:, 0].long())),
        "mass": (Regression(Head(model, 3, 4)), (x, y[:, 1:])),
    }


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("weights", [None, (3.0, 1.0), (0.0, 2.0)])
def test_loss_and_gradients_are_those_of_the_single_tasks_weighed(model, batch, weights):
    task = MultiTask(model, target_names=NAMES, target_classes=CLASSES, target_weights=weights)
    shares = [w / sum(weights) for w in weights] if weights else [0.5, 0.5]
    loss, count, terms = task.loss(batch)
    losses = {name: own.loss(b)[0] for name, (own, b) in alone(model, batch).items()}
    torch.testing.assert_close(
        loss, sum(s * v for s, v in zip(shares, losses.values(), strict=True))
    )
    assert count == 20 and terms.keys() == {"species_loss", "mass_loss"}
    assert {n: terms[f"{n}_loss"].item() for n in losses} == pytest.approx(
        {n: v.item() for n, v in losses.items()}
    )
    together = gradients(model, loss)
    single = [gradients(model, own.loss(b)[0]) for own, b in alone(model, batch).values()]
    for name, gradient in together.items():
        torch.testing.assert_close(
            gradient, sum(s * g[name] for s, g in zip(shares, single, strict=True))
        )
    # the trunk is shared, the heads are not
    assert all(g["layers.0.weight"].abs().sum() > 0 for g in single)
    assert single[0]["classifier.weight"][3:].abs().sum() == 0
    assert single[1]["classifier.weight"][:3].abs().sum() == 0


def test_numbers_alone_are_a_regression_of_several_targets(model, batch):
    x, _ = batch
    y = torch.randn(20, 4, dtype=torch.float64)
    weights = (1.0, 2.0, 0.5, 0.0)
    names = ("a", "b", "c", "d")
    task = MultiTask(model, target_names=names, target_classes=((),) * 4, target_weights=weights)
    expected = Regression(model, target_weights=weights).loss((x, y))[0]
    torch.testing.assert_close(task.loss((x, y))[0], expected)


def test_metrics_and_predictions_are_those_of_the_single_tasks(model, batch):
    task = MultiTask(model, target_names=NAMES, target_classes=CLASSES)
    for part in (slice(0, 12), slice(12, 20)):
        task.evaluate((batch[0][part], batch[1][part]))
    found = task.compute()
    for name, (own, own_batch) in alone(model, batch).items():
        own.evaluate(own_batch)
        for metric, value in own.compute().items():
            assert found[f"{name}_{metric}"] == pytest.approx(value, rel=1e-5), (name, metric)
    assert found["loss"] == pytest.approx((found["species_loss"] + found["mass_loss"]) / 2)
    assert (
        task.directions()["species_accuracy"] == "max" and task.directions()["mass_rmse"] == "min"
    )
    assert {"species_confusion_matrix", "mass_fit"} <= task.show().keys()
    parts = task.predict(batch[0]).parts
    assert isinstance(parts["species"], Classes) and parts["species"].class_names == CLASSES[0]
    assert isinstance(parts["mass"], Values) and parts["mass"].values.shape == (20, 1)
    task.reset()
    task.evaluate(batch)
    assert task.compute()["species_accuracy"] == found["species_accuracy"]


def test_it_learns_both():
    torch.manual_seed(0)
    x = torch.randn(64, 5)
    y = torch.stack([(x[:, 0] > 0).float() + (x[:, 1] > 0), x[:, 2] * x[:, 3]], 1)
    model = MLP(5, 4, hidden_sizes=(64,))
    task = MultiTask(model, target_names=NAMES, target_classes=CLASSES)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        task.loss((x, y))[0].backward()
        optimizer.step()
    task.evaluate((x, y))
    found = task.compute()
    assert found["species_accuracy"] == 1 and found["mass_r2"] > 0.99


def test_what_does_not_fit_is_refused(model, batch):
    def make(**changes):
        return MultiTask(model, **{"target_names": NAMES, "target_classes": CLASSES} | changes)

    with pytest.raises(ValueError, match="target_classes must be a list for each of 2 targets"):
        make(target_classes=((),))
    for weights in ((1.0,), (-1.0, 2.0), (0.0, 0.0)):
        with pytest.raises(ValueError, match="target_weights must be 2 numbers from 0 on, not all"):
            make(target_weights=weights)
    with pytest.raises(ValueError, match=r"must return 3 numbers a sample, 2 for species, 1 for"):
        make(target_classes=(("a", "b"), ())).loss(batch)
    with pytest.raises(ValueError, match=r"\(batch, 2\), a column for each of species, mass"):
        make().loss((batch[0], batch[1][:, 0]))
