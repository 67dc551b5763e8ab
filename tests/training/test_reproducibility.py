import random

import numpy as np
import pytest
import torch

from tests.training.tiny import (
    At,
    Rows,
    Samples,
    build,
    mlp,
    trainer_of,
    weights,
)
from zoo.tasks.classification import Classification
from zoo.training.callback import Callback


def test_two_runs_in_one_process_equal_each_alone(tmp_path):
    alone = []
    for kind in ("classification", "adversarial"):
        trainer, callbacks = build(kind)
        rows = Rows()
        trainer.fit(callbacks=[*callbacks, rows])
        alone.append((rows.rows, weights(trainer.task.model)))
    torch.rand(7), random.random(), np.random.rand()  # noqa: NPY002
    for kind, (rows, final) in zip(("adversarial", "classification"), alone[::-1], strict=True):
        trainer, callbacks = build(kind)
        again = Rows()
        trainer.fit(callbacks=[*callbacks, again])
        assert again.rows == rows
        assert torch.equal(weights(trainer.task.model), final)


def test_a_run_depends_on_its_seed_and_not_on_what_was_drawn_before_it():
    found = []
    for before, seed in ((1, 0), (2, 0), (1, 5)):
        trainer = trainer_of(mlp(dropout=0.4), Samples().setup(), seed=seed)
        torch.manual_seed(before)
        trainer.fit()
        found.append(weights(trainer.task.model))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


class Greedy(Callback):
    """Draws random numbers at every event but that of a step."""

    def draw(self):
        torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002

    def on_fit_start(self, trainer):
        self.draw()

    def on_evaluation_end(self, trainer, split, metrics):
        self.draw()


def test_evaluations_and_callbacks_leave_the_random_state_untouched():
    class Noisy(Classification):
        def evaluate(self, batch):
            torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002
            super().evaluate(batch)

    found = []
    for kind, every, callbacks in (
        (Classification, None, []),
        (Noisy, 1, [Greedy()]),
    ):
        model = mlp(dropout=0.4)
        task = kind(model, num_classes=3)
        trainer_of(model, task=task, epochs=2, evaluate_every=every).fit(callbacks=callbacks)
        found.append(weights(model))
    assert torch.equal(*found)


def test_deterministic_is_set_for_the_run_and_reset_after_it():
    seen = []
    model = mlp()
    trainer = trainer_of(model, deterministic=True, threads=1, epochs=1)
    threads = torch.get_num_threads()
    note = At(
        1,
        lambda t: seen.append(
            (torch.are_deterministic_algorithms_enabled(), torch.get_num_threads())
        ),
    )
    trainer.fit(callbacks=[note])
    assert seen == [(True, 1)]
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == threads


def test_deterministic_names_the_operation_that_has_no_deterministic_form():
    class Restless(Classification):
        def loss(self, batch):
            loss, count = super().loss(batch)
            torch.empty(1).resize_(2).put_(torch.tensor([0]), torch.ones(1), accumulate=False)
            return loss, count

    model = mlp()
    trainer = trainer_of(model, task=Restless(model, num_classes=3), deterministic=True)
    with pytest.raises(RuntimeError, match="put_ does not have a deterministic implementation"):
        trainer.fit()
    assert not torch.are_deterministic_algorithms_enabled()
