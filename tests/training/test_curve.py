import math

import pytest
import torch

from tests.training.tiny import (
    Rows,
    build,
    mlp,
    trainer_of,
)
from zoo.tasks.classification import Classification
from zoo.tasks.task import Objective
from zoo.training.curve import TrainingCurve


def test_curves_have_a_line_every_so_many_steps_and_one_at_the_end():
    rows = Rows()
    trainer_of(epochs=None, steps=8, log_every=3).fit(callbacks=[rows])
    assert [row["step"] for row in rows.of("train")] == [3, 6, 8]
    assert [row["epoch"] for row in rows.of("train")] == [0.5, 1.0, round(8 / 6, 4)]


def test_the_line_of_a_curve_is_the_mean_over_the_samples_since_the_last_line():
    losses = []

    class Noted(Classification):
        def loss(self, batch):
            loss, count = super().loss(batch)
            losses.append((loss.item(), count))
            return loss, count

    model, rows = mlp(), Rows()
    task = Noted(model, num_classes=3)
    trainer_of(model, task=task, epochs=1, log_every=4).fit(callbacks=[rows])
    for row, part in zip(rows.of("train"), (losses[:4], losses[4:]), strict=True):
        mean = sum(value * count for value, count in part) / sum(count for _, count in part)
        assert row["loss"] == pytest.approx(mean, rel=1e-6)


def test_curves_of_two_networks_bear_their_names():
    trainer, callbacks = build("adversarial")
    rows = Rows()
    trainer.fit(callbacks=[*callbacks, rows])
    parts = ("loss", "lr", "grad_norm")
    names = {f"{network}_{part}" for network in ("generator", "discriminator") for part in parts}
    assert names <= set(rows.of("train")[0])


def test_gradient_norms_of_every_layer_are_in_the_curve_on_request():
    model, rows = mlp(), Rows()
    trainer = trainer_of(model, epochs=1, log_every=6, layer_gradients=True)
    trainer.fit(callbacks=[rows])
    (row,) = rows.of("train")
    layers = [row[f"grad_norm/{name}"] for name, _ in model.named_parameters()]
    assert math.sqrt(sum(norm**2 for norm in layers)) == pytest.approx(row["grad_norm"], rel=1e-5)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_parts_of_a_loss_are_means_over_the_same_samples_as_the_loss(accumulate):
    class Parts(Classification):
        def objectives(self, batch):
            loss, count = self.loss(batch)
            terms = {"half": loss.detach() / 2, "rest": loss.detach() - 1}
            yield Objective(loss, count, terms=terms)

    model, rows = mlp(), Rows()
    task = Parts(model, num_classes=3)
    trainer_of(model, task=task, log_every=2, accumulate=accumulate).fit(callbacks=[rows])
    for row in rows.of("train"):
        assert row["half"] == pytest.approx(row["loss"] / 2, rel=1e-6)
        assert row["rest"] == pytest.approx(row["loss"] - 1, rel=1e-5)


def test_a_window_of_a_million_losses_keeps_its_digits():
    curve = TrainingCurve(["model"], torch.device("cpu"))
    curve._sums["model"] += 1e8
    curve.add("model", torch.tensor(0.25), 1)
    assert float(curve._sums["model"]) == 1e8 + 0.25


def test_a_line_of_which_nothing_was_learned_has_no_loss():
    curve = TrainingCurve(["model"], torch.device("cpu"))
    curve.add_terms("model", {"penalty": torch.tensor(1.0)}, 0)
    row = curve.read({"model": {"": 0.1}}, {}, {})
    assert "loss" not in row and "penalty" not in row and row["lr"] == 0.1
    curve.add("model", torch.tensor(0.5), 4)
    assert curve.read({"model": {"": 0.1}}, {}, {})["loss"] == 0.5
