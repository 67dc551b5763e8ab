"""What a CUDA graph would silently do otherwise is refused before the run, in one sentence."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.tiny import Samples, build, fused_adagrad, mlp, trainer_of, weights
from zoo.models.generative.gan import GAN
from zoo.tasks.classification import Classification
from zoo.tasks.generative.adversarial import Adversarial
from zoo.training.distributed.strategy import OneProcess
from zoo.training.graphs.requirements import require_capturable
from zoo.training.graphs.runners import EagerRunner
from zoo.training.optimizers import MuonWithAdamW, make_optimizer
from zoo.training.settings import TrainerSettings

EVEN = (24, 10, 7)  # 6 batches of 4


def captured(model=None, data=None, **options):
    return trainer_of(
        model,
        data or Samples(sizes=EVEN).setup(),
        **{"make_runner": EagerRunner, "cuda_graphs": True, **options},
    )


def refused(match, **options):
    with pytest.raises(ValueError, match=match) as error:
        captured(**options).dry_run()
    assert "cuda_graphs=true needs" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"accumulate": 2}, r"trainer\.accumulate=1"),
        ({"kind": torch.optim.LBFGS, "data": Samples(batch_size=None).setup()}, "LBFGS searches"),
        ({"kind": torch.optim.RMSprop}, "fused optimizer, .* RMSprop is not"),
        ({"kind": torch.optim.Rprop}, "Rprop is not"),
        ({"kind": MuonWithAdamW}, "MuonWithAdamW is not"),
        ({"kind": torch.optim.AdamW, "optimizer": {"fused": False}}, "AdamW is not"),
        ({"optimizer": {"l1": 0.1}}, r"without penalties; set optimizer\.l1=0"),
    ],
    ids=["accumulate", "lbfgs", "rmsprop", "rprop", "muon", "written", "penalty"],
)
def test_settings_and_optimizers(options, match):
    refused(match, **options)


class Alone(OneProcess):
    def __init__(self, world):
        self.world = world


def test_fp16_and_several_processes_and_tasks_of_several_updates():
    model = mlp()
    optimizers = {"model": make_optimizer(torch.optim.SGD, model, lr=0.1)}
    task, settings = Classification(model, num_classes=3), TrainerSettings(device="cpu")
    require_capturable(task, settings, optimizers, None, OneProcess())
    require_capturable(task, settings, optimizers, torch.bfloat16, OneProcess())
    with pytest.raises(ValueError, match=r"trainer\.precision=bf16"):
        require_capturable(task, settings, optimizers, torch.float16, OneProcess())
    with pytest.raises(ValueError, match="needs one process"):
        require_capturable(task, settings, optimizers, None, Alone(2))
    gan = Adversarial(GAN(8, 1, latent_dim=4), gradient_penalty=10.0, loss="wasserstein")
    with pytest.raises(ValueError, match="Adversarial has a gradient penalty"):
        require_capturable(gan, settings, optimizers, None, OneProcess())
    gan = Adversarial(GAN(8, 1, latent_dim=4))
    with pytest.raises(ValueError, match="one network with one loss"):
        require_capturable(gan, settings, optimizers, None, OneProcess())


class Loss(Classification):
    """A classifier whose loss does one more thing."""

    extra = staticmethod(lambda task, loss, batch: loss)

    def loss(self, batch):
        loss, count = super().loss(batch)
        return self.extra(self, loss, batch), count


def with_extra(extra, model=None):
    model = model or mlp()
    task = Loss(model, num_classes=3)
    task.extra = extra
    return {"model": model, "task": task}


def penalty(task, loss, batch):
    inputs = batch[0].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(task.model(inputs).sum(), inputs, create_graph=True)
    return loss + gradient.square().sum()


OWN = torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("extra", "match"),
    [
        (lambda t, loss, b: loss * float(loss.detach() > 0), "_local_scalar_dense.*test_capturing"),
        (lambda t, loss, b: loss if loss > 0 else -loss, "_local_scalar_dense"),
        (lambda t, loss, b: loss + b[0].nonzero().sum() * 0, "aten.nonzero"),
        (lambda t, loss, b: loss + b[0][b[0] > 0].sum() * 0, r"aten\.index"),
        (lambda t, loss, b: loss + 0 * len(b[0].to("meta")), "_to_copy"),
        (lambda t, loss, b: loss * random.random(), "the loss asks Python"),
        (lambda t, loss, b: loss * np.random.rand(), "the loss asks NumPy"),  # noqa: NPY002
        (lambda t, loss, b: loss * torch.rand((), generator=OWN), "a generator of its own"),
        (penalty, "derivative in it"),
    ],
    ids=[
        *("item", "branch", "nonzero", "mask", "copy", "python", "numpy", "generator", "penalty"),
    ],
)
def test_a_loss_in_which_python_has_a_part(extra, match):
    refused(match, **with_extra(extra))


def test_numbers_as_indices_dropout_and_noise_of_the_device_are_no_reason():
    def extra(task, loss, batch):
        rows = torch.arange(3, -1, -1)
        return loss + batch[0][rows].sum() * 0 + torch.randn(4).sum() * 0

    captured(**with_extra(extra, mlp(dropout=0.5))).dry_run()


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.spare = mlp(), nn.Linear(2, 2)

    def forward(self, x):
        return self.used(x)


def test_a_parameter_without_a_gradient():
    refused(r"spare\.weight has none \(freeze=\[spare\.weight\]", model=Unused())
    model = Unused()
    model.spare.requires_grad_(False)
    captured(model).dry_run()


class Warming(Loss):
    """The weight of its loss is a number that rises from step to step."""

    steps = 0

    def loss(self, batch):
        loss, count = super().loss(batch)
        self.steps += 1
        return loss * self.steps, count

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


def test_a_task_that_carries_something_from_step_to_step():
    model = mlp()
    task = Warming(model, num_classes=3)
    refused("keeps nothing from step to step, and Warming does", model=model, task=task)
    assert task.steps == 0


def test_a_state_of_a_recurrent_network():
    trainer, _ = build("language_modeling")
    made = captured(trainer.task.model, trainer.data, task=trainer.task)
    with pytest.raises(ValueError, match="batch 1 has False where the first has True"):
        made.dry_run()


class Ragged(Samples):
    def batches(self, split, epoch, start=0):
        for number, batch in enumerate(super().batches(split, epoch, start), start=start):
            yield tuple(t[: 4 - number % 2] for t in batch) if split == "train" else batch


class Sparse(Samples):
    def batches(self, split, epoch, start=0):
        for inputs, targets in super().batches(split, epoch, start):
            yield inputs.to_sparse(), targets


class Boxed(Samples):
    def batches(self, split, epoch, start=0):
        for batch in super().batches(split, epoch, start):
            yield (*batch, object())


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (Ragged, r"batches of one shape, and batch 1 has float32 \(3, 6\)"),
        (Sparse, "sparse tensor"),
        (Boxed, "has a object"),
    ],
)
def test_batches_that_cannot_be_copied_into_one_place(data, match):
    trainer = captured(data=data(sizes=EVEN).setup())
    with pytest.raises(ValueError, match=match):
        trainer.fit()


class Frozen(torch.optim.SGD):
    """Reads its rate once, as a captured step that was given a number."""

    def step(self, closure=None):
        for group in self.param_groups:
            self.rate = getattr(self, "rate", float(group["lr"]))
            for parameter in group["params"]:
                parameter.data.sub_(parameter.grad, alpha=self.rate)


class Idle(torch.optim.SGD):
    def step(self, closure=None):
        pass


class Failing(torch.optim.SGD):
    def step(self, closure=None):
        raise RuntimeError("no tensors\nplease")


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        (Frozen, "reads its rate from a tensor in every step, and Frozen does not"),
        (Idle, "and Idle does not"),
        (Failing, r"can be captured, and Failing fails \(no tensors please\)"),
    ],
)
def test_an_optimizer_that_does_nothing_or_keeps_its_rate(kind, match):
    refused(match, kind=kind)


@pytest.mark.parametrize(
    "kind",
    [
        *(torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW),
        pytest.param(torch.optim.Adagrad, marks=fused_adagrad),
    ],
)
def test_the_look_at_a_run_leaves_no_trace(kind):
    trainer = captured(mlp(dropout=0.3), kind=kind)
    before, state = weights(trainer.task.model), torch.get_rng_state()
    optimizer = trainer.optimizers["model"]
    kept = [dict(group) for group in optimizer.param_groups]
    values = {p: {n: v.clone() for n, v in s.items()} for p, s in optimizer.state.items()}
    trainer.dry_run()
    assert torch.equal(before, weights(trainer.task.model))
    assert torch.equal(state, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in trainer.task.model.parameters())
    assert [dict(group) for group in optimizer.param_groups] == kept
    assert optimizer.state.keys() == values.keys()
    for parameter, entries in values.items():
        assert all(torch.equal(optimizer.state[parameter][n], v) for n, v in entries.items())
