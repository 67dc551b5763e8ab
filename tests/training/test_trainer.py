import math
import random
import signal
from itertools import islice

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.training.tiny import (
    At,
    Rows,
    Samples,
    Text,
    build,
    differences,
    mlp,
    new_folder,
    read_results,
    read_rows,
    trainer_of,
    weights,
    without_timings,
)
from zoo.data.images.digits import Digits
from zoo.data.loading.tensor import TensorLoader
from zoo.models.generative.gan import GAN
from zoo.models.recurrent.language_model import RecurrentLanguageModel
from zoo.tasks.adversarial import Adversarial
from zoo.tasks.classification import Classification
from zoo.tasks.language_modeling import LanguageModeling
from zoo.tasks.regression import Regression
from zoo.tasks.task import Objective
from zoo.training.callbacks import Callback, EarlyStopping
from zoo.training.checkpoint import CheckpointError, read
from zoo.training.evaluation import SEED
from zoo.training.optimizers import make_optimizer
from zoo.training.reproducibility import random_state
from zoo.training.schedules import Cosine, Exponential, ReduceOnPlateau, Schedule
from zoo.training.settings import CheckpointSettings, EarlyStoppingSettings, TrainerSettings
from zoo.training.trainer import Trainer
from zoo.training.update import NonFiniteError

# --------------------------------------------------------------------- against plain loops


def test_a_run_equals_a_loop_written_by_hand_bit_for_bit():
    schedule = Cosine(warmup_steps=3)
    trainer = trainer_of(mlp(), schedule=schedule, epochs=3, clip_norm=0.5, log_every=4)
    rows = Rows()
    trainer.fit(callbacks=[rows])

    model, data = mlp(), Samples().setup()
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.ndim > 1]},
            {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
        ],
        lr=0.01,
        fused=True,
    )
    # Norms are summed up in the order of the optimizer, and rounding depends on it.
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    by_hand = Cosine(warmup_steps=3)
    by_hand.bind(total_steps=18, steps_per_epoch=6)
    step = 0
    for epoch in range(3):
        for inputs, targets in data.batches("train", epoch):
            for group in optimizer.param_groups:
                group["lr"] = 0.01 * by_hand(step)
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), targets).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 0.5)
            optimizer.step()
            step += 1
    assert step == trainer.step == trainer.updates == 18
    assert torch.equal(weights(trainer.task.model), weights(model))


def test_a_run_by_hand_needs_no_configuration():
    data = Digits(batch_size=64, image_size=8)
    data.setup(seed=0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    task = Classification(model, num_classes=10)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    results = Trainer(task, data, optimizer, settings=TrainerSettings(epochs=2)).fit()
    assert results["test"]["accuracy"] > 0.5
    assert results["steps"] == 40


def test_the_learning_rate_is_a_function_of_the_steps():
    rates = []

    class Rates(Callback):
        def on_step_end(self, trainer):
            rates.append(trainer.optimizers["model"].param_groups[0]["lr"])

    trainer_of(schedule=Exponential(gamma=0.5), epochs=3).fit(callbacks=[Rates()])
    assert rates == [0.01] * 6 + [0.005] * 6 + [0.0025] * 6


def test_the_logged_learning_rate_is_the_one_of_the_step():
    rows = Rows()
    trainer_of(schedule=Cosine(), steps=4, epochs=None).fit(callbacks=[rows])
    cosine = Cosine()
    cosine.bind(total_steps=4, steps_per_epoch=6)
    assert [row["lr"] for row in rows.of("train")] == [0.01 * cosine(step) for step in range(4)]


# ----------------------------------------------------------------------------- accumulation


def gradients_of(trainer):
    """The gradients that reach the optimizers' first steps, by network, and the logged losses."""
    seen = {}
    for name, optimizer in trainer.optimizers.items():

        def step(name=name, optimizer=optimizer):
            found = [p.grad.clone() for g in optimizer.param_groups for p in g["params"]]
            seen.setdefault(name, found)

        optimizer.step = step
    rows = Rows()
    trainer.fit(callbacks=[rows])
    return seen, rows.of("train")[0]


def assert_equal_gradients(one, other, *, rel):
    for name, gradients in one.items():
        for mine, theirs in zip(gradients, other[name], strict=True):
            scale = theirs.abs().max().item()
            assert (mine - theirs).abs().max().item() <= rel * scale, name


@pytest.mark.parametrize(("count", "rel"), [(16, 1e-14), (22, 1e-7)])
def test_four_uneven_batches_equal_one_large_batch(count, rel):
    # Sixteen has an exact inverse in float32, in which torch's kernel takes it.
    found = []
    for size, accumulate in ((-(-count // 4) + 1, 4), (count, 1)):
        data = Samples(
            sizes=(count, 10, 7), batch_size=size, shuffle=False, dtype=torch.float64
        ).setup()
        assert len(data.loaders["train"]) == accumulate
        model = mlp(dtype=torch.float64)
        trainer = trainer_of(model, data, steps=1, epochs=None, accumulate=accumulate)
        found.append(gradients_of(trainer))
    (small, first), (large, second) = found
    assert_equal_gradients(small, large, rel=rel)
    assert first["loss"] == pytest.approx(second["loss"], rel=max(rel, 1e-12))


def test_batches_of_different_numbers_of_tokens_equal_one_large_batch():
    torch.manual_seed(0)
    inputs, targets = torch.randn(8, 5, 4, dtype=torch.float64), torch.randint(3, (8, 5))
    for row, length in enumerate([5, 1, 2, 4, 1, 1, 1, 1]):  # sixteen tokens
        targets[row, length:] = -100

    class Tagging(Classification):
        def loss(self, batch):
            x, y = batch
            return F.cross_entropy(self.model(x).mT, y), (y != -100).sum()

        def evaluate(self, batch):
            self.metrics["loss"].update(*self.loss(batch))

    class Sentences(Samples):
        def setup(self, *, seed=0, device="cpu"):
            for split in self.splits:
                tensors = (inputs, targets)
                self.loaders[split] = TensorLoader(tensors, batch_size=self.batch_size)
            return self

    found = []
    for size, accumulate in ((2, 4), (8, 1)):
        torch.manual_seed(1)
        model = nn.Linear(4, 3).double()
        trainer = trainer_of(
            model,
            Sentences(batch_size=size).setup(),
            task=Tagging(model, num_classes=3),
            checkpoints={"monitor": "loss"},
            steps=1,
            epochs=None,
            accumulate=accumulate,
        )
        trainer.task.metrics = {"loss": trainer.task.metrics["loss"]}
        found.append(gradients_of(trainer))
    assert_equal_gradients(found[0][0], found[1][0], rel=1e-14)
    assert found[0][1]["loss"] == pytest.approx(found[1][1]["loss"], rel=1e-12)


class NoiseOfSample(Adversarial):
    """Noise that is a function of each sample, so that large and small batches see the same."""

    def _noise_for(self, real):
        return torch.sin(37 * real.flatten(1)[:, :3])


def test_accumulated_batches_of_a_gan_equal_one_large_batch_over_several_steps():
    found = []
    for size, accumulate in ((4, 4), (16, 1)):
        torch.manual_seed(2)
        model = GAN(
            2,
            1,
            latent_dim=3,
            hidden_sizes=(5,),
            maxout_sizes=(4,),
            pieces=2,
            input_dropout=0,
            dropout=0,
        ).double()
        data = Samples(sizes=(16, 8, 8), batch_size=size, dtype=torch.float64).setup()
        for loader in data.loaders.values():
            tensor = loader._tensors[0][:, :4].reshape(-1, 1, 2, 2).tanh()
            loader._tensors = (tensor, *loader._tensors[1:])
        task = NoiseOfSample(model, num_components=2, discriminator_steps=2)
        optimizers = {
            name: torch.optim.SGD(network.parameters(), lr=0.3)
            for name, network in task.networks().items()
        }
        settings = TrainerSettings(
            epochs=5, accumulate=accumulate, log_every=1, train_metrics=False, device="cpu"
        )
        trainer, rows = Trainer(task, data, optimizers, settings=settings), Rows()
        trainer.fit(callbacks=[rows])
        assert trainer.step == 5
        lines = [{k: v for k, v in row.items() if k != "split"} for row in rows.of("train")]
        found.append((weights(model), lines))
    assert torch.allclose(found[0][0], found[1][0], rtol=1e-11, atol=1e-13)
    for small, large in zip(found[0][1], found[1][1], strict=True):
        assert small == pytest.approx(large, rel=1e-9)


def test_the_last_window_of_an_epoch_may_be_short():
    counts = []

    class Windows(Classification):
        def loss(self, batch):
            counts.append(len(batch[1]))
            return super().loss(batch)

    model = mlp()
    trainer = trainer_of(model, task=Windows(model, num_classes=3), accumulate=4, epochs=2)
    steps = []
    trainer.fit(callbacks=[At(step, lambda t: steps.append((t.epoch, t.batch))) for step in (1, 2)])
    assert trainer.step == 4  # six batches an epoch: windows of four and of two
    assert steps == [(0, 4), (0, 6)]
    assert counts[:6] == [4, 4, 4, 4, 4, 2]


def test_a_short_window_has_the_weight_of_its_own_samples():
    model = mlp(dtype=torch.float64)
    data = Samples(shuffle=False, dtype=torch.float64).setup()
    trainer = trainer_of(model, data, kind=torch.optim.SGD, accumulate=4, epochs=1)
    trainer.fit()
    other = mlp(dtype=torch.float64)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.01)
    inputs, targets = data.loaders["train"]._tensors
    for part in (slice(0, 16), slice(16, 22)):
        optimizer.zero_grad()
        F.cross_entropy(other(inputs[part]), targets[part]).backward()
        optimizer.step()
    assert torch.allclose(weights(model), weights(other), rtol=1e-7)


# ------------------------------------------------------------------------ order of a step


def test_the_order_of_a_step_is_rate_objective_update_average_curve_events(monkeypatch):
    events = []

    class Told(Schedule):
        def __call__(self, step):
            events.append(f"schedule {step}")
            return 1.0

    class Noted(Classification):
        def loss(self, batch):
            events.append("loss")
            return super().loss(batch)

    class Events(Callback):
        def on_step_end(self, trainer):
            events.append("step end")

        def on_log(self, trainer, row):
            events.append(f"log {row['split']}")

    def noted(owner, attribute, name):
        original = getattr(owner, attribute)

        def wrapped(*arguments, **options):
            events.append(name)
            return original(*arguments, **options)

        monkeypatch.setattr(owner, attribute, wrapped)

    model = mlp()
    trainer = trainer_of(
        model,
        task=Noted(model, num_classes=3),
        schedule=Told(),
        clip_norm=1.0,
        clip_value=1.0,
        ema_decay=0.9,
        steps=2,
        epochs=None,
    )
    noted(torch, "_amp_foreach_non_finite_check_and_unscale_", "divide and check")
    noted(torch.nn.utils, "clip_grads_with_norm_", "clip norm")
    noted(torch.nn.utils, "clip_grad_value_", "clip value")
    noted(trainer.optimizers["model"], "step", "optimizer")
    noted(trainer.average, "update", "average")
    trainer.fit(callbacks=[Events()])

    def one(step):
        update = ["divide and check", "clip norm", "clip value", "optimizer", "average"]
        return [f"schedule {step}", "loss", *update, "log train", "step end"]

    assert events[:18] == [*one(0), *one(1)]


def test_the_generator_sees_the_discriminator_that_has_been_updated():
    trainer, _ = build("adversarial")
    seen = []
    model = trainer.task.model
    for name, optimizer in trainer.optimizers.items():
        original = optimizer.step

        def step(name=name, original=original):
            seen.append(name)
            original()

        optimizer.step = step
    original_loss = trainer.task.generator_loss
    at_generator = []

    def generator_loss(fake):
        at_generator.append(weights(model.discriminator))
        return original_loss(fake)

    trainer.task.generator_loss = generator_loss
    before = weights(model.discriminator)
    trainer.settings.steps = trainer.total_steps = 1
    trainer.fit()
    assert seen == ["discriminator", "discriminator", "generator"]
    assert not torch.equal(at_generator[0], before)


# ------------------------------------------------------------------------ averaged weights


def test_the_average_is_the_closed_form():
    model = mlp()
    start, history = weights(model), []
    trainer = trainer_of(model, ema_decay=0.7, steps=9, epochs=None)

    class Weights(Callback):
        def on_step_end(self, trainer):
            history.append(weights(trainer.task.model))

    trainer.fit(callbacks=[Weights()])
    expected = 0.7**9 * start
    for step, value in enumerate(history, start=1):
        expected += 0.3 * 0.7 ** (9 - step) * value
    assert torch.allclose(weights(model), expected, rtol=1e-5, atol=1e-6)


def test_the_average_is_evaluated_and_saved_and_training_goes_on_without_it(tmp_path):
    plain, averaged = mlp(), mlp()
    trainer_of(plain, epochs=3).fit()
    during = []

    class Evaluated(Classification):
        def evaluate(self, batch):
            during.append(weights(self.model))
            super().evaluate(batch)

    trainer = trainer_of(averaged, task=Evaluated(averaged, num_classes=3), ema_decay=0.7, epochs=3)
    folder = new_folder(tmp_path)
    trainer.fit(folder=folder)
    last = read(folder.path / "checkpoints" / "last.pt")
    live = torch.cat([last["model"][n].double().flatten() for n, _ in averaged.named_parameters()])
    mean = torch.cat(
        [last["average"][n].double().flatten() for n, _ in averaged.named_parameters()]
    )
    assert torch.equal(live, weights(plain))  # what was trained is what it were without
    assert not torch.equal(live, mean)
    assert torch.equal(during[-4], mean)  # the last validation: three batches; one of the test
    best = read(folder.path / "checkpoints" / "best.pt")
    kept = torch.cat(
        [best["average"][n].double().flatten() for n, _ in averaged.named_parameters()]
    )
    assert torch.equal(weights(averaged), kept)  # the model ends as what was selected


# ------------------------------------------------------------------------------ non-finite


class Poison(Classification):
    """A task whose loss is ruined at one step."""

    def __init__(self, model, at, bad, *, num_classes=3):
        super().__init__(model, num_classes=num_classes)
        self.at, self.bad, self.calls = at, bad, 0

    def loss(self, batch):
        loss, count = super().loss(batch)
        self.calls += 1
        if self.calls == self.at:
            loss = loss * self.bad if self.bad == "loss" else self.bad(loss, self.model)
        return loss, count


def nan_loss(loss, model):
    return loss * math.nan


def infinite_gradient(loss, model):
    zero = (model.classifier.bias * 0).sum()
    return loss + zero.sqrt()


@pytest.mark.parametrize(
    ("bad", "what"), [(nan_loss, "the loss"), (infinite_gradient, "a gradient")]
)
def test_what_is_not_finite_stops_the_run_before_the_weights_and_names_the_samples(
    bad, what, tmp_path
):
    before = {}
    model = mlp()
    task = Poison(model, at=9, bad=bad)
    trainer = trainer_of(model, task=task, epochs=3, ema_decay=0.9)

    def remember(trainer):
        before["weights"] = weights(model)
        before["state"] = [
            {k: v.clone() for k, v in s.items()} for s in trainer.optimizers["model"].state.values()
        ]

    folder = new_folder(tmp_path)
    with pytest.raises(NonFiniteError) as caught:
        trainer.fit(folder=folder, callbacks=[At(8, remember)])
    samples = ", ".join(map(str, trainer.data.loaders["train"].indices(1, 2)))
    where = f"{what} is not finite at step 9 (epoch 1, batch 2, training samples {samples})"
    assert where in str(caught.value)
    assert "optimizer.lr" in str(caught.value)
    assert torch.equal(weights(model), before["weights"])
    state = list(trainer.optimizers["model"].state.values())
    assert differences(state, before["state"]) == []
    status = folder.read_status()
    assert status["state"] == "failed"
    assert where in status["error"]
    assert read(folder.path / "checkpoints" / "last.pt")["position"]["step"] == 6


def test_accumulated_batches_that_are_not_finite_are_named_together():
    model = mlp()
    trainer = trainer_of(model, task=Poison(model, at=10, bad=nan_loss), accumulate=4, epochs=3)
    indices = trainer.data.loaders["train"].indices
    samples = ", ".join(str(i) for b in (0, 1, 2, 3) for i in indices(1, b))
    with pytest.raises(NonFiniteError) as caught:
        trainer.fit()
    assert f"step 3 (epoch 1, batch 0, training samples {samples})" in str(caught.value)


@pytest.mark.parametrize("log_every", [1, 4, 50])
@pytest.mark.parametrize(("accumulate", "step", "batch"), [(1, 9, 2), (4, 3, 0)])
def test_the_flag_of_a_gpu_stops_the_run_when_read_with_the_weights_of_before(
    log_every, accumulate, step, batch
):
    # This CPU is treated as a GPU: nothing waits for the flag, which is read with the curve.
    model = mlp()
    trainer = trainer_of(
        model,
        task=Poison(model, at=9, bad=nan_loss),
        epochs=3,
        log_every=log_every,
        accumulate=accumulate,
    )
    updater = trainer.updater
    updater._looked_at, updater._masks = set(), True
    trainer.optimizers["model"].found_inf = updater._flag
    before = []
    samples = trainer.data.loaders["train"].indices(1, batch)
    with pytest.raises(NonFiniteError) as caught:
        trainer.fit(callbacks=[At(step - 1, lambda t: before.append(weights(model)))])
    where = f"step {step} (epoch 1, batch {batch}, training samples {', '.join(map(str, samples))}"
    assert where in str(caught.value)
    assert trainer.step >= step
    assert torch.equal(weights(model), before[0])


def test_the_flag_counts_steps_and_not_updates_where_a_step_has_several():
    trainer, _ = build("adversarial")
    updater = trainer.updater
    updater._looked_at, updater._masks = set(), True
    for optimizer in trainer.optimizers.values():
        optimizer.found_inf = updater._flag
    original, calls = trainer.task.generator_loss, []

    def generator_loss(fake):
        calls.extend([fake] if trainer.task.model.training else [])
        return original(fake) * (math.nan if len(calls) == 4 else 1.0)

    trainer.task.generator_loss = generator_loss
    trainer.settings.log_every, trainer.settings.evaluate_every = 50, None
    trainer.total_steps = 9
    with pytest.raises(NonFiniteError, match=r"step 4 \(epoch 1, batch 0, "):
        trainer.fit()


# ------------------------------------------------------------------------------- precision


@pytest.mark.filterwarnings("ignore:trainer.precision")
def test_bf16_autocast_computes_in_bf16_and_keeps_the_weights_in_float32():
    model, types = mlp(), []
    model.classifier.register_forward_hook(lambda m, i, o: types.append(o.dtype))
    results = trainer_of(model, precision="bf16", epochs=3, clip_norm=1.0).fit()
    assert set(types) == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert math.isfinite(results["val"]["loss"])


@pytest.mark.filterwarnings("ignore:trainer.precision")
def test_bf16_losses_of_accumulated_batches_are_summed_in_float32():
    types = []

    class Noted(Classification):
        def loss(self, batch):
            loss, count = super().loss(batch)
            types.append(loss.dtype)
            return loss, count

    model = mlp()
    task = Noted(model, num_classes=3)
    trainer_of(model, task=task, precision="bf16", accumulate=4, epochs=1).fit()
    assert set(types) == {torch.float32}


def half(model, **settings):
    trainer = trainer_of(model, precision="fp16", **settings)
    trainer.updater.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14, growth_interval=3)
    return trainer


@pytest.mark.filterwarnings("ignore:trainer.precision")
def test_a_step_that_fp16_skips_counts_for_neither_schedule_nor_average(tmp_path):
    model = mlp()
    trainer = half(
        model,
        task=Poison(model, at=3, bad=infinite_gradient),
        schedule=Cosine(),
        ema_decay=0.5,
        steps=6,
        epochs=None,
    )
    seen = []

    class Noted(Callback):
        def on_step_end(self, trainer):
            rate = trainer.optimizers["model"].param_groups[0]["lr"]
            average = torch.cat([m.double().flatten() for m in trainer.average._mean])
            seen.append((rate, trainer.updates, weights(model), average))

    trainer.fit(callbacks=[Noted()])
    cosine = Cosine()
    cosine.bind(total_steps=6, steps_per_epoch=6)
    assert [updates for _, updates, _, _ in seen] == [1, 2, 2, 3, 4, 5]
    assert [rate for rate, *_ in seen] == [0.01 * cosine(s) for s in (0, 1, 2, 2, 3, 4)]
    assert torch.equal(seen[1][2], seen[2][2])
    assert torch.equal(seen[1][3], seen[2][3])
    assert not torch.equal(seen[2][2], seen[3][2])


@pytest.mark.filterwarnings("ignore:trainer.precision")
def test_the_fp16_scale_is_saved_and_restored_and_the_run_goes_on_as_if_never_stopped(tmp_path):
    def run(path, resume=False, stop=None):
        model = mlp()
        task = Poison(model, at=4 if not resume else -1, bad=infinite_gradient)
        trainer = half(model, task=task, schedule=Cosine(), epochs=3)
        callbacks = [At(stop, lambda t: setattr(t.signals, "stop", signal.SIGTERM))] if stop else []
        try:
            trainer.fit(folder=path, callbacks=callbacks, resume=resume)
        except BaseException as error:
            assert type(error).__name__ == "Interrupted"
        return trainer

    whole, parts = new_folder(tmp_path / "a"), new_folder(tmp_path / "b")
    complete = run(whole)
    run(parts, stop=7)
    state = read(parts.path / "checkpoints" / "last.pt")
    assert state["scaler"]["scale"] != 2.0**14
    resumed = run(parts, resume=True)
    found = [read(f.path / "checkpoints" / "last.pt") for f in (whole, parts)]
    assert found[0]["scaler"] == found[1]["scaler"]
    assert resumed.updates == complete.updates < 18
    assert torch.equal(*(torch.cat([v.flatten() for v in s["model"].values()]) for s in found))


# --------------------------------------------------------------- what a run leaves as it was


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


# ----------------------------------------------------------------- how long, and how often


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


def test_overfit_trains_and_evaluates_on_the_first_batch_alone():
    seen = set()

    class Seen(Classification):
        def _outputs(self, inputs):
            seen.add(tuple(inputs.flatten().tolist()))
            return super()._outputs(inputs)

    model = mlp()
    task = Seen(model, num_classes=3)
    trainer = trainer_of(model, task=task, overfit=True, steps=60, epochs=None, optimizer={})
    results = trainer.fit()
    first = next(iter(Samples().setup().batches("train", 0)))[0]
    assert seen == {tuple(first.flatten().tolist())}
    assert "test" not in results
    assert results["val"]["accuracy"] == 1.0


def test_a_language_model_overfits_its_first_batch():
    torch.manual_seed(0)
    data = Text(batch_size=2, sequence_length=8)
    data.setup()
    model = RecurrentLanguageModel(28, embed_dim=16, hidden_size=32)
    settings = TrainerSettings(
        overfit=True, steps=150, epochs=None, evaluate_every=150, device="cpu"
    )
    task = LanguageModeling(model, sample_length=0)
    optimizer = make_optimizer(torch.optim.AdamW, model, lr=0.03)
    assert Trainer(task, data, optimizer, settings=settings).fit()["val"]["loss"] < 0.05


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
    assert set(row) == {"step", "epoch", "split", "accuracy"}  # the loss has a curve already
    first = islice(Samples().setup().batches("train", 0), batches)
    assert differences(evaluated[:batches], list(first)) == []


def test_the_metrics_of_training_change_nothing_else():
    found = []
    for wanted in (False, True):
        model, rows = mlp(dropout=0.3), Rows()
        trainer_of(model, train_metrics=wanted, ema_decay=0.8).fit(callbacks=[rows])
        others = [row for row in rows.rows if set(row) - {"step", "epoch", "split"} != {"accuracy"}]
        found.append((weights(model).tolist(), others))
    assert found[0] == found[1]


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
    trainer = trainer_of(model, epochs=1, log_every=6)
    trainer.layer_gradients = True
    trainer.fit(callbacks=[rows])
    (row,) = rows.of("train")
    layers = [row[f"grad_norm/{name}"] for name, _ in model.named_parameters()]
    assert math.sqrt(sum(norm**2 for norm in layers)) == pytest.approx(row["grad_norm"], rel=1e-5)


# -------------------------------------------------------------------------------- results


def test_results_say_what_was_reached_and_with_what(tmp_path):
    folder = new_folder(tmp_path)
    results = trainer_of(epochs=3).fit(folder=folder)
    assert set(results) == {
        "val",
        "test",
        "monitor",
        "mode",
        "parameters",
        "steps",
        "selected_step",
        "seconds",
        "samples_per_second",
    }
    assert set(results["val"]) == set(results["test"]) == {"loss", "accuracy"}
    assert results["parameters"] == 6 * 8 + 8 + 8 * 3 + 3
    assert (results["monitor"], results["mode"]) == ("accuracy", "max")
    assert results == folder.read("results.json")


def test_the_model_ends_as_the_selected_weights_and_so_do_the_results(tmp_path):
    folder = new_folder(tmp_path)
    model = mlp()
    trainer = trainer_of(model, epochs=6, checkpoints={"monitor": "loss"}, optimizer={})
    for group in trainer.optimizers["model"].param_groups:
        group["initial_lr"] = 0.5  # so large that the last step is not the best
    results = trainer.fit(folder=folder)
    rows = [row for row in read_rows(folder.path) if row["split"] == "val"]
    best = min(rows, key=lambda row: row["loss"])
    assert results["selected_step"] == best["step"] < results["steps"]
    assert results["val"]["loss"] == best["loss"]
    state = read(folder.path / "checkpoints" / "best.pt")
    assert all(torch.equal(v, state["model"][k]) for k, v in model.state_dict().items())


def test_without_a_validation_split_the_last_weights_are_what_counts(tmp_path):
    folder = new_folder(tmp_path)
    results = trainer_of(data=Samples(splits=("train", "test")).setup()).fit(folder=folder)
    assert "val" not in results
    assert set(results["test"]) == {"loss", "accuracy"}
    assert results["selected_step"] == 12
    assert not (folder.path / "checkpoints" / "best.pt").exists()


def test_without_a_training_split_there_is_no_trainer():
    with pytest.raises(ValueError, match="no training split"):
        trainer_of(data=Samples(splits=("val",)).setup())


def test_optimizers_of_other_networks_are_refused_by_name():
    model = mlp()
    task = Classification(model, num_classes=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="one for each of model, not generator"):
        Trainer(task, Samples().setup(), {"generator": optimizer})


def test_a_monitor_that_the_task_does_not_have_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"checkpoint.monitor=f1: there is .*loss.*accuracy"):
        trainer_of(checkpoints={"monitor": "f1"}, epochs=1).fit()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="device=cuda: torch sees 0 CUDA devices"):
        model = mlp()
        Trainer(
            Classification(model, num_classes=3),
            Samples().setup(),
            torch.optim.SGD(model.parameters(), lr=0.1),
            settings=TrainerSettings(device="cuda"),
        )


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"epochs": None}, "epochs and steps"),
        ({"epochs": 0}, "epochs"),
        ({"accumulate": 0}, "accumulate"),
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"clip_value": -1.0}, "clip_value"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"log_every": 0}, "log_every"),
        ({"threads": 0}, "threads"),
        ({"device": "tpu"}, "device"),
        ({"device": "cpu:1"}, "device"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(settings, word):
    with pytest.raises(ValueError, match=f"^{word}"):
        TrainerSettings(**settings)


# ------------------------------------------------------------------------------- stopping


class Falling(Classification):
    """A task whose monitored metric is what a list says."""

    monitor, mode = "loss", "min"
    values: tuple[float, ...] = ()

    def compute(self):
        step = min(self.evaluations, len(self.values) - 1)
        self.evaluations += 1
        return {"loss": self.values[step], "accuracy": 0.5}

    def state_dict(self):
        return {"evaluations": self.evaluations}

    def load_state_dict(self, state):
        self.evaluations = state["evaluations"]


def falling(values, **options):
    model = mlp()
    task = Falling(model, num_classes=3)
    task.values, task.evaluations = values, 0
    return trainer_of(model, task=task, **options)


def test_early_stopping_waits_for_its_patience_and_says_why(tmp_path):
    folder = new_folder(tmp_path)
    trainer = falling((3.0, 2.0, 2.5, 1.9, 2.0, 2.0, 1.0), epochs=9)
    stopping = EarlyStopping(EarlyStoppingSettings(patience=2))
    results = trainer.fit(folder=folder, callbacks=[stopping])
    assert results["steps"] == 6 * 6
    assert results["selected_step"] == 4 * 6
    assert "stopped early: no better loss in 2 evaluations" in (folder.path / "log.txt").read_text(
        "utf-8"
    )
    assert folder.read_status()["state"] == "finished"


def test_early_stopping_counts_only_improvements_above_its_threshold():
    trainer = falling((3.0, 2.95, 2.92, 1.0), epochs=9)
    stopping = EarlyStopping(EarlyStoppingSettings(patience=2, min_delta=0.1))
    assert trainer.fit(callbacks=[stopping])["steps"] == 3 * 6


def test_early_stopping_takes_nan_for_no_improvement_even_at_first():
    trainer = falling((math.nan, 2.0, 1.0, 1.5, 1.5), epochs=9)
    stopping = EarlyStopping(EarlyStoppingSettings(patience=2))
    assert trainer.fit(callbacks=[stopping])["steps"] == 5 * 6


def test_a_metric_that_is_not_finite_is_never_the_best(tmp_path):
    folder = new_folder(tmp_path)
    trainer = falling((math.nan, 2.0, -math.inf, 3.0), epochs=4)
    assert trainer.fit(folder=folder)["selected_step"] == 2 * 6


@pytest.mark.parametrize(("mode", "rates"), [("min", [1, 1, 1, 0.5]), ("max", [1, 1, 0.5, 0.25])])
def test_a_plateau_of_the_monitored_metric_lowers_the_rate(mode, rates):
    rows, options = Rows(), {"checkpoints": {"monitor": "loss", "mode": mode}, "epochs": 4}
    schedule = ReduceOnPlateau(gamma=0.5, patience=0)
    falling((3.0, 2.0, 2.5), schedule=schedule, log_every=6, **options).fit(callbacks=[rows])
    assert [row["lr"] / 0.01 for row in rows.of("train")] == rates


def best_files(folder):
    return sorted(file.name for file in (folder.path / "checkpoints").glob("*.pt"))


VALUES = (3.0, 1.0, 2.5, 0.5, 0.7, 0.6)


def test_the_best_few_checkpoints_are_kept_and_files_of_others_left_alone(tmp_path):
    folder = new_folder(tmp_path)
    (folder.path / "checkpoints").mkdir()
    foreign = ("step-mine.pt", "step-1.pt", "step-00000001.pt.bak", "notes.txt", "backup.pt")
    for name in foreign:
        (folder.path / "checkpoints" / name).write_text("mine")
    falling(VALUES, epochs=6, checkpoints={"top_k": 3}).fit(folder=folder)
    kept = {"step-00000024.pt": 24, "step-00000036.pt": 36, "step-00000030.pt": 30}
    assert set(best_files(folder)) - set(foreign) == {*kept, "best.pt", "last.pt", "previous.pt"}
    for name, step in {**kept, "best.pt": 24}.items():
        assert read(folder.path / "checkpoints" / name)["position"]["step"] == step
    for name in foreign:
        assert (folder.path / "checkpoints" / name).read_text() == "mine"


@pytest.mark.parametrize("stop", [5, 6, 13, 24, 25, 31])
def test_the_ranking_survives_a_resume(stop, tmp_path):
    whole, parts = new_folder(tmp_path / "a"), new_folder(tmp_path / "b")
    options = {"epochs": 6, "checkpoints": {"top_k": 3}}
    falling(VALUES, **options).fit(folder=whole)
    interrupt = At(stop, lambda t: setattr(t.signals, "stop", signal.SIGTERM))
    with pytest.raises(BaseException, match="interrupted by SIGTERM"):
        falling(VALUES, **options).fit(folder=parts, callbacks=[interrupt])
    falling(VALUES, **options).fit(folder=parts, resume=True)
    assert best_files(parts) == best_files(whole)
    assert read_results(parts.path) == read_results(whole.path)


def test_the_earlier_of_two_equally_good_checkpoints_stays(tmp_path):
    folder = new_folder(tmp_path)
    assert falling((1.0, 1.0, 1.0), epochs=3).fit(folder=folder)["selected_step"] == 6


def test_two_evaluations_of_one_step_are_one_entry_of_the_ranking(tmp_path):
    folder = new_folder(tmp_path)
    trainer = falling((1.0,), epochs=1, checkpoints={"top_k": 3})
    trainer.fit(folder=folder)
    trainer.checkpoints.rank(0.5, 6)
    assert trainer.checkpoints.ranking == [[0.5, 6, "step-00000006.pt"]]


# ------------------------------------------------------------------------------ callbacks


class Diary(Callback):
    def __init__(self, events, name):
        self.events, self.name = events, name

    def on_fit_start(self, trainer):
        self.events.append(f"{self.name} start")

    def on_step_end(self, trainer):
        self.events.append(f"{self.name} step {trainer.step}")

    def on_log(self, trainer, row):
        self.events.append(f"{self.name} log {row['split']}")

    def on_evaluation_end(self, trainer, split, metrics):
        self.events.append(f"{self.name} {split}")

    def on_fit_end(self, trainer, results):
        self.events.append(f"{self.name} end {results is not None}")


def test_events_come_in_this_order_and_each_to_every_callback_in_turn():
    events = []
    trainer = trainer_of(epochs=1, limit_train_batches=2)
    trainer.fit(callbacks=[Diary(events, "a"), Diary(events, "b")])
    of_a = [
        "start",
        "log train",
        "step 1",
        "log train",
        "step 2",
        "log val",
        "val",
        "log test",
        "test",
        "end True",
    ]
    assert [e[2:] for e in events if e.startswith("a")] == of_a
    assert events == [f"{name} {event}" for event in of_a for name in "ab"]


def test_a_callback_that_fails_at_the_end_does_not_hide_the_first_error(tmp_path):
    events = []

    class Failing(Callback):
        def on_fit_end(self, trainer, results):
            events.append(results)
            raise ValueError("at the end")

    def fail(trainer):
        raise ZeroDivisionError("in the middle")

    folder = new_folder(tmp_path)
    diary = Diary(events, "a")
    with pytest.raises(ZeroDivisionError, match="in the middle"):
        trainer_of().fit(folder=folder, callbacks=[Failing(), At(2, fail), diary])
    assert events[-2:] == [None, "a end False"]  # and those after it still hear of the end
    assert folder.read_status()["error"] == "ZeroDivisionError: in the middle"
    assert "in the middle" in (folder.path / "log.txt").read_text("utf-8")


def test_a_callback_that_fails_at_the_end_of_a_good_run_is_reported(tmp_path):
    class Failing(Callback):
        def on_fit_end(self, trainer, results):
            raise ValueError("at the end")

    folder = new_folder(tmp_path)
    with pytest.raises(ValueError, match="at the end"):
        trainer_of(epochs=1).fit(folder=folder, callbacks=[Failing()])
    assert folder.read_status()["state"] == "failed"


def test_two_callbacks_of_one_class_keep_their_own_memories(tmp_path):
    class Memory(Callback):
        def __init__(self, value):
            self.value = value

        def state_dict(self):
            return {"value": self.value}

        def load_state_dict(self, state):
            self.value = state["value"]

    folder = new_folder(tmp_path)
    trainer_of(epochs=1).fit(folder=folder, callbacks=[Memory(1), Memory(2)])
    again = [Memory(0), Memory(0), Memory(3)]
    trainer_of(epochs=1).fit(folder=folder, callbacks=again, resume=True)
    assert [memory.value for memory in again] == [1, 2, 3]


def test_resuming_without_a_folder_is_refused():
    with pytest.raises(ValueError, match="resume needs a folder"):
        trainer_of().fit(resume=True)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    folder = new_folder(tmp_path)
    trainer_of(epochs=1).fit(folder=folder)
    other = nn.Sequential(nn.Linear(6, 3))
    with pytest.raises(CheckpointError, match="belongs to another model"):
        trainer_of(other, epochs=2).fit(folder=folder, resume=True)


def test_a_task_may_train_anything_with_a_loss():
    torch.manual_seed(0)
    model = nn.Linear(6, 1)

    class Sums(Regression):
        def objectives(self, batch):
            inputs, _ = batch
            prediction = self.model(inputs)
            yield Objective(F.mse_loss(prediction, inputs.sum(1, keepdim=True)), len(inputs))

        def evaluate(self, batch):
            inputs, _ = batch
            self.metrics["loss"].update(
                F.mse_loss(self.model(inputs), inputs.sum(1, keepdim=True)), len(inputs)
            )

    task = Sums(model)
    task.metrics = {"loss": task.metrics["loss"]}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    settings = TrainerSettings(epochs=40, device="cpu")
    trainer = Trainer(task, Samples().setup(), optimizer, settings=settings)
    assert trainer.fit()["val"]["loss"] < 1e-3


def test_compiled_networks_keep_the_keys_of_their_state(tmp_path):
    model = mlp()
    expected = list(model.state_dict())
    trainer = trainer_of(model, compile=True, steps=1, epochs=None)
    state = trainer.state_dict()
    assert list(state["model"]) == expected
    assert not any("_orig_mod." in key or "module." in key for key in state["model"])


def test_convolutional_networks_become_channels_last_and_others_do_not():
    conv = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(3))
    conv(torch.zeros(1, 3, 4, 4))
    trainer_of(conv)
    assert conv[0].weight.is_contiguous(memory_format=torch.channels_last)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 3))
    trainer_of(plain, channels_last=False)
    assert plain[0].weight.is_contiguous()


def test_a_state_restored_at_once_is_the_state_that_was_saved():
    for kind in ("classification", "adversarial", "average", "plateau"):
        trainer, _ = build(kind)
        trainer.total_steps = 5
        trainer.fit()
        state = trainer.state_dict()
        other, _ = build(kind)
        other.load_state_dict(state)
        assert differences(without_timings(other.state_dict()), without_timings(state)) == []


def test_checkpoint_settings_are_checked():
    for wrong in ({"top_k": 0}, {"every_steps": 0}, {"every_minutes": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            CheckpointSettings(**wrong)
