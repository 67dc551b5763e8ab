from itertools import islice

import pytest
import torch

from tests.training.tiny import (
    Rows,
    Samples,
    differences,
    mlp,
    trainer_of,
    weights,
)
from zoo.tasks.classification import Classification
from zoo.training.reproducibility import SEED, random_state


def test_an_evaluation_has_the_same_random_state_every_time_and_changes_nothing():
    draws = []

    class Noisy(Classification):
        def evaluate(self, batch):
            draws.append(torch.rand(1).item())
            assert not self.model.training
            assert not torch.is_grad_enabled()
            super().evaluate(batch)

    model = mlp()
    trainer = trainer_of(model, task=Noisy(model, num_classes=3))
    model.train()
    before = random_state()
    first, second = trainer.evaluate("val"), trainer.evaluate("val")
    assert differences(random_state(), before) == []
    assert first == second
    assert draws[:3] == draws[3:]
    assert model.training
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        assert draws[0] == torch.rand(1).item()


def evaluations(trainer):
    rows = Rows()
    results = trainer.fit(callbacks=[rows])
    return results["steps"], [row["step"] for row in rows.of("val")]


@pytest.mark.parametrize(
    ("settings", "steps", "evaluated"),
    [
        ({"epochs": 3}, 18, [6, 12, 18]),
        ({"epochs": None, "steps": 8}, 8, [6, 8]),
        ({"epochs": 2, "steps": 8}, 8, [6, 8]),
        ({"epochs": 1, "steps": 8}, 6, [6]),
        ({"epochs": 2, "evaluate_every": 5}, 12, [5, 10, 12]),
        ({"epochs": 2, "evaluate_every": 4}, 12, [4, 8, 12]),
        ({"epochs": 1, "evaluate_every": 100}, 6, [6]),
        ({"epochs": 2, "limit_train_batches": 2}, 4, [2, 4]),
        ({"epochs": 2, "limit_train_batches": 100}, 12, [6, 12]),
        ({"epochs": 2, "accumulate": 4}, 4, [2, 4]),
        ({"epochs": 2, "accumulate": 100}, 2, [1, 2]),
        ({"epochs": None, "steps": 3, "overfit": True}, 3, [1, 2, 3]),
        ({"epochs": None, "steps": 3, "overfit": True, "evaluate_every": 3}, 3, [3]),
    ],
)
def test_a_run_has_this_many_steps_and_is_evaluated_at(settings, steps, evaluated):
    assert evaluations(trainer_of(**settings)) == (steps, evaluated)


def test_evaluation_takes_all_batches_unless_limited():
    counts = []

    class Counting(Classification):
        def evaluate(self, batch):
            counts.append(len(batch[1]))
            super().evaluate(batch)

    for limit, expected in ((None, [4, 4, 2]), (2, [4, 4]), (100, [4, 4, 2])):
        counts.clear()
        model = mlp()
        task = Counting(model, num_classes=3)
        trainer_of(model, task=task, limit_eval_batches=limit).evaluate("val")
        assert counts == expected


@pytest.mark.parametrize(
    ("limits", "batches"),
    [({}, 3), ({"limit_eval_batches": 1}, 1), ({"limit_train_batches": 2}, 2)],
)
def test_training_has_the_metrics_of_validation_on_as_many_of_its_batches(limits, batches):
    evaluated = []

    class Noted(Classification):
        def evaluate(self, batch):
            assert not self.model.training
            evaluated.append(batch)
            super().evaluate(batch)

    model, rows = mlp(), Rows()
    task = Noted(model, num_classes=3)
    trainer = trainer_of(model, task=task, epochs=1, log_every=50, train_metrics=True, **limits)
    trainer.fit(callbacks=[rows])
    row = next(row for row in rows.of("train") if "accuracy" in row)
    # The loss has a curve already.
    assert set(row) == {"step", "epoch", "split", "accuracy", "calibration_error"}
    first = islice(Samples().setup().batches("train", 0), batches)
    assert differences(evaluated[:batches], list(first)) == []


def test_the_metrics_of_training_change_nothing_else():
    found = []
    for wanted in (False, True):
        model, rows = mlp(dropout=0.3), Rows()
        trainer_of(model, train_metrics=wanted, ema_decay=0.8).fit(callbacks=[rows])
        wanted_only = {"accuracy", "calibration_error"}
        others = [r for r in rows.rows if set(r) - {"step", "epoch", "split"} != wanted_only]
        found.append((weights(model).tolist(), others))
    assert found[0] == found[1]
