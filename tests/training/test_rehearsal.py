import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.training.tiny import (
    Samples,
    build,
    differences,
    mlp,
    normed,
    trainer_of,
)
from zoo.data.download import DataError
from zoo.tasks.classification import Classification
from zoo.tasks.task import Objective
from zoo.training.reproducibility import random_state
from zoo.training.trainer import Trainer


class Penalised(Classification):
    """Differentiates inside its loss."""

    def loss(self, batch):
        inputs, targets = batch
        inputs = inputs.clone().requires_grad_()
        logits = self.model(inputs)
        (slope,) = torch.autograd.grad(logits.sum(), inputs, create_graph=True)
        return F.cross_entropy(logits, targets) + slope.square().sum(), len(inputs)


def test_a_task_that_differentiates_passes_and_is_recognised():
    model = mlp()
    assert trainer_of(model, task=Penalised(model, num_classes=3)).dry_run().differentiates
    assert not trainer_of().dry_run().differentiates


@pytest.mark.parametrize("kind", ["classification", "adversarial", "language_modeling", "frozen"])
def test_a_dry_run_changes_nothing(kind):
    trainer, _ = build(kind)
    trainer.task.model.eval()
    next(trainer.task.model.children()).train()

    def everything():
        modes = [module.training for module in trainer.task.model.modules()]
        wanted = [p.requires_grad for p in trainer.task.model.parameters()]
        state = {k: v.clone() for k, v in trainer.task.model.state_dict().items()}
        grads = [p.grad for p in trainer.task.model.parameters()]
        return modes, wanted, state, grads, trainer.task.state_dict(), random_state()

    before = everything()
    trainer.dry_run()
    assert differences(everything(), before) == []


def test_a_layer_that_initialises_itself_with_its_first_batch_is_put_back():
    class Lazy(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(6))
            self.register_buffer("is_ready", torch.tensor(False))

        def forward(self, x):
            if not self.is_ready:
                with torch.no_grad():
                    self.scale.copy_(x.std(0))
                    self.is_ready.fill_(True)
            return x * self.scale

    model = nn.Sequential(Lazy(), nn.Linear(6, 3))
    trainer_of(model).dry_run()
    assert torch.equal(model[0].scale, torch.ones(6))
    assert not model[0].is_ready


def test_a_last_batch_that_is_too_small_is_refused_before_the_run():
    data = Samples(sizes=(21, 10, 7)).setup()  # batches of four, and one of a single sample
    with pytest.raises(ValueError, match="1 sample: Expected more than 1 value per") as caught:
        trainer_of(normed(), data).dry_run()
    assert "another data.batch_size or set data.drop_last=true" in str(caught.value)
    trainer_of(normed(), data, limit_train_batches=5).dry_run()  # that batch is not used
    trainer_of(normed()).dry_run()


def test_what_does_not_fit_in_any_batch_is_not_blamed_on_its_size():
    with pytest.raises(ValueError, match=r"do not fit together: .*mat1 and mat2") as caught:
        trainer_of(mlp(in_features=5)).dry_run()
    assert "drop_last" not in str(caught.value)


def test_an_objective_of_one_of_several_networks_must_be_announced():
    trainer, _ = build("adversarial")

    def objectives(batch):
        with trainer.task.turn("generator"):
            loss = trainer.task.generator(torch.randn(2, 4)).sum()
        yield Objective(loss, 2, "discriminator")

    trainer.task.objectives = trainer.task.every_objective = objectives
    sentence = r"'discriminator' that it has not announced; write `with self.turn\('discr"
    with pytest.raises(ValueError, match=sentence):
        trainer.dry_run()
    assert trainer.task.announced is None
    with pytest.raises(ValueError, match=sentence):  # nor is it trained without a dry run
        trainer.fit()


def test_a_dry_run_costs_two_batches_at_most():
    seen = []

    class Noted(Classification):
        def loss(self, batch):
            seen.append(len(batch[1]))
            return super().loss(batch)

    model = mlp()
    trainer: Trainer = trainer_of(model, task=Noted(model, num_classes=3))
    trainer.dry_run()
    assert seen == [4, 2]


def test_what_is_wrong_with_the_data_is_not_said_to_be_a_misfit():
    trainer = trainer_of()

    def batches(split, epoch, start=0):
        raise DataError("a.png cannot be read: replace or remove it")

    trainer.data.batches = batches
    with pytest.raises(DataError, match=r"^a\.png cannot be read: replace or remove it$"):
        trainer.dry_run()


class Misjudged(Classification):
    """Learns, and cannot be evaluated."""

    def evaluate(self, batch):
        raise KeyError("labels")


def test_what_cannot_be_evaluated_is_refused_before_the_run():
    model = mlp()
    with pytest.raises(ValueError, match=r"do not fit together: in evaluation: 'labels'"):
        trainer_of(model, task=Misjudged(model, num_classes=3)).dry_run()
    data = Samples(splits=("train",)).setup()  # of which nothing is ever evaluated
    trainer_of(model, data, task=Misjudged(model, num_classes=3)).dry_run()


def test_one_batch_is_evaluated_in_evaluation_mode_and_forgotten():
    seen = []

    class Noted(Classification):
        def evaluate(self, batch):
            seen.append((len(batch[1]), self.model.training, torch.is_grad_enabled()))
            super().evaluate(batch)

    model = normed()
    task = Noted(model, num_classes=3, class_weights="balanced")
    model.train()
    trainer = trainer_of(model, task=task)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    trainer.dry_run()
    assert seen == [(4, False, False)]
    assert model.training
    assert differences(dict(task.state_dict()), before) == []
    assert all(value != value for value in task.compute().values())  # of nothing


def test_a_rehearsed_run_equals_one_that_was_not():
    for kind in ("classification", "adversarial", "language_modeling", "node_classification"):
        results = []
        for rehearsed in (False, True):
            trainer, callbacks = build(kind)
            if rehearsed:
                trainer.dry_run()
            found = trainer.fit(callbacks=callbacks)
            results.append({k: v for k, v in found.items() if k in ("val", "test")})
        assert differences(*results) == []
