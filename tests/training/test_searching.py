import copy

import pytest
import torch
from torch import nn

from tests.training.tiny import At, Poison, Rows, Samples, mlp, new_folder, trainer_of, weights
from zoo.data.images.digits import Digits
from zoo.data.tabular.diabetes import Diabetes
from zoo.models.generative.gan import GAN
from zoo.models.linear import LinearRegression
from zoo.models.mlp import MLP
from zoo.tasks.classification import Classification
from zoo.tasks.generative.adversarial import Adversarial
from zoo.tasks.regression import Regression
from zoo.training.optimizers import make_optimizer
from zoo.training.settings import TrainerSettings
from zoo.training.trainer import Trainer
from zoo.training.update import NonFiniteError, Updater

WOLFE = {"line_search_fn": "strong_wolfe", "max_iter": 4}


def searching(model=None, data=None, *, optimizer=WOLFE, **options):
    options = {"steps": 5, **options}
    data = data or Samples(batch_size=None).setup()
    return trainer_of(model, data, kind=torch.optim.LBFGS, optimizer=optimizer, **options)


def by_hand(model, data, epochs):
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.01, **WOLFE)
    for epoch in range(epochs):
        ((inputs, targets),) = data.batches("train", epoch)

        def closure(inputs=inputs, targets=targets):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), targets)
            loss.backward()
            return loss

        optimizer.step(closure)
    return weights(model)


def test_a_run_equals_a_loop_written_by_hand_bit_for_bit():
    trainer = searching()
    trainer.fit()
    assert torch.equal(
        weights(trainer.task.model), by_hand(mlp(), Samples(batch_size=None).setup(), 5)
    )


def diabetes(dtype, **arguments):
    data = Diabetes()
    data.setup()
    for loader in data.loaders.values():
        loader._tensors = tuple(tensor.to(dtype) for tensor in loader._tensors)
    model = LinearRegression(10).to(dtype)
    optimizer = make_optimizer(torch.optim.LBFGS, model, lr=1, max_iter=20, **arguments)
    settings = TrainerSettings(device="cpu", epochs=20, train_metrics=False)
    Trainer(Regression(model), data, optimizer, settings=settings).fit()
    ((x, y),) = data.batches("train", 0)
    x = torch.cat([x, torch.ones_like(y)], dim=1).double()  # (batch, 11)
    return weights(model), torch.linalg.lstsq(x, y.double()).solution[:, 0]


def test_twenty_steps_arrive_at_least_squares():
    found, closed = diabetes(torch.float32, line_search_fn="strong_wolfe")
    torch.testing.assert_close(found, closed, atol=5e-6, rtol=0)
    found, closed = diabetes(torch.float64, tolerance_grad=0.0, tolerance_change=1e-15)
    torch.testing.assert_close(found, closed, atol=1e-8, rtol=0)


@pytest.mark.parametrize("at", [1, 3])
def test_a_run_goes_on_where_it_was_stopped_bit_for_bit(tmp_path, at):
    whole = searching(checkpoints={"every_steps": 1})
    whole.fit(folder=new_folder(tmp_path / "whole"))
    folder = new_folder(tmp_path / "parts")
    first = searching(checkpoints={"every_steps": 1})

    class Killed(Exception):
        pass

    def kill(trainer):
        raise Killed

    with pytest.raises(Killed):
        first.fit(folder=folder, callbacks=[At(at + 1, kill)])
    second = searching(checkpoints={"every_steps": 1})
    second.fit(folder=folder, callbacks=[At(0, kill)], resume=True)
    assert torch.equal(weights(whole.task.model), weights(second.task.model))
    states = [str(t.optimizers["model"].state_dict()) for t in (whole, second)]
    assert states[0] == states[1]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_step_does_not_begin_where_the_loss_is_not_finite(bad):
    model = mlp()
    task = Poison(model, 1, lambda loss, _: loss * bad)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(NonFiniteError, match="the loss is not finite at step 1"):
        searching(model, task=task).fit()
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


@pytest.mark.parametrize("where", ["weights", "loss"])
def test_a_step_does_not_end_where_something_is_not_finite(where):
    model = nn.Linear(2, 1)
    optimizer = make_optimizer(torch.optim.LBFGS, model, lr=1.0, max_iter=1)
    updater = Updater(model, {"model": optimizer}, device=torch.device("cpu"))
    before = copy.deepcopy(model.state_dict())
    end = torch.nan if where == "weights" else 1e30
    optimizer.step = lambda closure: (closure(), model.weight.data.fill_(end))
    task, batch = Regression(model), (torch.ones(2, 2), torch.ones(2, 1))
    with pytest.raises(NonFiniteError, match="the loss to which L-BFGS came"):
        updater.search("model", lambda: next(iter(task.objectives(batch))))
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_every_step_is_one_line_of_the_curve_with_the_loss_where_it_began():
    trainer, rows = searching(steps=3), Rows()
    model, data = mlp(), Samples(batch_size=None).setup()
    ((inputs, targets),) = data.batches("train", 0)
    first = nn.functional.cross_entropy(model(inputs), targets).item()
    trainer.fit(callbacks=[rows])
    losses = [row["loss"] for row in rows.of("train")]
    assert losses[0] == first and losses[0] > losses[1] > losses[2]
    assert len(losses) == 3 and all(row["grad_norm"] > 0 for row in rows.of("train"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: searching(data=Samples().setup()), "all data in one batch, .* has 6; set data.ba"),
        (lambda: searching(clip_norm=1.0), "whole gradients; set trainer.clip_norm=null"),
        (lambda: searching(accumulate=2), "steps of one batch; set trainer.accumulate=1"),
        (lambda: searching(precision="bf16"), "full precision; set trainer.precision=fp32"),
        (lambda: searching(mlp(dropout=0.5)).dry_run(), "draws no random numbers.*model.dropout=0"),
    ],
)
def test_what_changes_the_objective_is_refused(make, message):
    with pytest.raises(ValueError, match=rf"L-BFGS needs .*{message}.*or use optimizer=sgd"):
        make()


def test_augmentation_is_refused():
    def trainer(augment):
        data = Digits(batch_size=2000, image_size=8, augment=augment)
        data.setup()
        model = MLP(64, 10, hidden_sizes=())
        return searching(model, data, task=Classification(model, num_classes=10))

    trainer(augment=False).dry_run()
    with pytest.raises(ValueError, match="the same data in every epoch, and these are augmented"):
        trainer(augment=True).dry_run()


def test_networks_that_take_turns_are_refused():
    data = Digits(batch_size=2000, image_size=8, scaling="symmetric")
    data.setup()
    task = Adversarial(GAN(8, 1, latent_dim=4, hidden_sizes=(8,), maxout_sizes=(6,), pieces=2))
    optimizers = {
        name: make_optimizer(torch.optim.LBFGS, network)
        for name, network in task.networks().items()
    }
    with pytest.raises(ValueError, match="one network with one loss, and Adversarial has others"):
        Trainer(task, data, optimizers, settings=TrainerSettings(device="cpu"))


@pytest.mark.parametrize(
    "options", [{"l1": 0.1}, {"max_norm": 3.0}, {"groups": {"classifier.*": {"lr": 0.1}}}]
)
def test_penalties_and_groups_are_refused(options):
    with pytest.raises(ValueError, match=r"LBFGS minimises one smooth function .*optimizer=sgd"):
        make_optimizer(torch.optim.LBFGS, mlp(), **options)
