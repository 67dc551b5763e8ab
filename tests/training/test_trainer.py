import math
import shutil

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.training.tiny import (
    At,
    Poison,
    Rows,
    Samples,
    build,
    differences,
    infinite_gradient,
    mlp,
    nan_loss,
    new_folder,
    trainer_of,
    weights,
)
from zoo.data.images.digits import Digits
from zoo.data.loading.tensor import TensorLoader
from zoo.models.generative.gan import GAN
from zoo.tasks.classification import Classification
from zoo.tasks.generative.adversarial import Adversarial
from zoo.tasks.regression import Regression
from zoo.tasks.task import Objective
from zoo.training.callback import Callback
from zoo.training.callbacks import MetricsFile
from zoo.training.checkpoints.checkpoint import read
from zoo.training.run_folder import RunFolder, RunFolderError
from zoo.training.schedules import Cosine, Exponential, Schedule
from zoo.training.settings import TrainerSettings
from zoo.training.trainer import Trainer
from zoo.training.update import NonFiniteError


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
    assert step == trainer.step == trainer.position.updates == 18
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
        task = NoiseOfSample(model, num_components=2, generator_every=2)
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
    trainer.fit(
        callbacks=[
            At(step, lambda t: steps.append((t.position.epoch, t.position.batch)))
            for step in (1, 2)
        ]
    )
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
    noted(trainer.updater, "_require_finite", "check")
    noted(trainer.updater, "_clip", "clip norm")
    noted(torch.nn.utils, "clip_grad_value_", "clip value")
    noted(trainer.optimizers["model"], "step", "optimizer")
    noted(trainer.average, "update", "average")
    trainer.fit(callbacks=[Events()])

    def one(step):
        update = ["check", "clip norm", "clip value", "optimizer", "average"]
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

    def generator_loss(*samples):
        at_generator.append(weights(model.discriminator))
        return original_loss(*samples)

    trainer.task.generator_loss = generator_loss
    before = weights(model.discriminator)
    trainer.settings.steps = trainer.plan.total_steps = 2
    trainer.fit()
    assert seen == ["discriminator", "discriminator", "generator"]
    assert not torch.equal(at_generator[0], before)


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
    updater._checked_at_once, updater._is_checked_later = set(), True
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
    updater._checked_at_once, updater._is_checked_later = set(), True
    for optimizer in trainer.optimizers.values():
        optimizer.found_inf = updater._flag
    original, calls = trainer.task.generator_loss, []

    def generator_loss(*samples):
        calls.extend(samples[:1] if trainer.task.model.training else [])
        return original(*samples) * (math.nan if len(calls) == 2 else 1.0)

    trainer.task.generator_loss = generator_loss
    trainer.settings.log_every, trainer.settings.evaluate_every = 50, None
    trainer.plan.total_steps = 9
    with pytest.raises(NonFiniteError, match=r"step 4 \(epoch 1, batch 0, "):
        trainer.fit()


def test_without_a_training_split_there_is_no_trainer():
    with pytest.raises(ValueError, match="no training split"):
        trainer_of(data=Samples(splits=("val",)).setup())


def test_optimizers_of_other_networks_are_refused_by_name():
    model = mlp()
    task = Classification(model, num_classes=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="one for each of model, not generator"):
        Trainer(task, Samples().setup(), {"generator": optimizer})


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


# ------------------------------------------------------------------------------ refusals


def replaced_head(model):
    model.classifier = nn.Linear(8, 3)


@pytest.mark.parametrize("when", ["before the trainer", "before fit"])
def test_a_head_that_was_replaced_after_the_optimizer_was_made_is_refused(when):
    model = mlp()
    task = Classification(model, num_classes=3)
    optimizer, data = torch.optim.SGD(model.parameters(), lr=0.1), Samples().setup()
    settings = TrainerSettings(epochs=1, device="cpu")
    if when == "before the trainer":
        replaced_head(model)
        with pytest.raises(ValueError, match=r"parameters that the network does not have; make it"):
            Trainer(task, data, optimizer, settings=settings)
        return
    trainer = Trainer(task, data, optimizer, settings=settings)
    replaced_head(model)
    with pytest.raises(ValueError, match=r"parameters that the network does not have; make it"):
        trainer.fit()


def test_a_part_that_no_optimizer_updates_is_refused_unless_it_is_frozen():
    model = mlp()
    task = Classification(model, num_classes=3)
    optimizer, data = torch.optim.SGD(model.classifier.parameters(), lr=0.1), Samples().setup()
    settings = TrainerSettings(epochs=1, device="cpu")
    with pytest.raises(ValueError, match=r"does not update layers\.0\.weight; .*requires_grad"):
        Trainer(task, data, optimizer, settings=settings)
    model.layers.requires_grad_(False)
    before = weights(model.classifier)
    Trainer(task, data, optimizer, settings=settings).fit()
    assert not torch.equal(weights(model.classifier), before)


def test_a_model_that_was_exchanged_after_the_trainer_was_made_is_refused():
    trainer = trainer_of()
    trainer.task.model = mlp()
    with pytest.raises(ValueError, match="parameters that the network does not have"):
        trainer.fit()


@pytest.mark.parametrize("ends", ["finished", "failed", "results only"])
def test_a_folder_that_holds_a_run_is_refused_and_left_as_it_is(ends, tmp_path):
    folder = new_folder(tmp_path)
    if ends == "failed":
        model = mlp()
        with pytest.raises(NonFiniteError):
            trainer_of(model, task=Poison(model, 4, nan_loss)).fit(folder=folder)
    else:
        trainer_of().fit(folder=folder, callbacks=[MetricsFile(folder.path)])
    if ends == "results only":
        shutil.rmtree(folder.path / "checkpoints")
        (folder.path / "metrics.jsonl").unlink()

    def content():
        return {p: p.is_file() and p.read_bytes() for p in sorted(folder.path.rglob("*"))}

    before = content()
    with pytest.raises(RunFolderError, match=r"holds a run already .*resume=True"):
        trainer_of().fit(folder=RunFolder(folder.path))
    assert content() == before


def test_a_folder_whose_run_never_began_is_taken(tmp_path):
    folder = new_folder(tmp_path)
    (folder.path / "checkpoints").mkdir()
    (folder.path / "checkpoints" / "mine.pt").write_text("mine")
    metrics = MetricsFile(folder.path)  # opens an empty file
    assert trainer_of().fit(folder=folder, callbacks=[metrics])["steps"] == 12
