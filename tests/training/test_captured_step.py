"""A run whose steps are captured and replayed is the run whose steps are not."""

import pytest
import torch
from torch import nn

from tests.training.tiny import (
    At,
    Rows,
    Samples,
    differences,
    fit,
    fused_adagrad,
    mlp,
    new_folder,
    normed,
    read_rows,
    trainer_of,
    weights,
    without_timings,
)
from zoo.tasks.classification import Classification
from zoo.training.graphs.runners import CaptureError, CudaRunner, EagerRunner
from zoo.training.graphs.stepper import WARM_UP, StaticBatch
from zoo.training.optimizers import make_optimizer
from zoo.training.schedules import Cosine
from zoo.training.settings import TrainerSettings
from zoo.training.trainer import Trainer

SGD = {"momentum": 0.9, "weight_decay": 0.01, "nesterov": True}
EVEN = (24, 10, 7)  # 6 batches of 4


class Net(nn.Module):
    """Dropout and batch normalisation: random numbers and statistics in every step."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.body = nn.Sequential(
            nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3)
        )

    def forward(self, x):
        return self.body(x)


def captured(model=None, data=None, **options):
    return trainer_of(
        model or Net(),
        data or Samples(sizes=EVEN).setup(),
        **{"make_runner": EagerRunner, "cuda_graphs": True, **options},
    )


def run(folder, *, on, resume=False, callbacks=(), **options):
    options = {"epochs": 5, "evaluate_every": 7, "log_every": 3, "clip_norm": 0.5, **options}
    trainer = captured(cuda_graphs=on, schedule=Cosine(warmup_steps=4), **options)
    fit(trainer, folder, callbacks, resume=resume)
    return trainer


def saved(folder):
    state = torch.load(folder.path / "checkpoints" / "last.pt", weights_only=True)
    return without_timings(state)


@pytest.mark.parametrize(
    "options",
    [
        {"kind": torch.optim.SGD, "optimizer": SGD, "ema_decay": 0.9},
        {"kind": torch.optim.AdamW, "ema_decay": 0.8, "layer_gradients": True},
        {"kind": torch.optim.Adam, "clip_norm": None, "clip_value": 0.1},
        pytest.param({"kind": torch.optim.Adagrad, "sizes": (22, 10, 7)}, marks=fused_adagrad),
    ],
    ids=["sgd", "adamw", "adam", "adagrad-uneven"],
)
def test_a_run_with_graphs_is_the_run_without_bit_for_bit(options, tmp_path):
    sizes = options.pop("sizes", EVEN)
    folders = [new_folder(tmp_path / name) for name in ("off", "on")]
    for on, folder in enumerate(folders):
        trainer = run(folder, on=bool(on), data=Samples(sizes=sizes).setup(), **options)
    assert not differences(*map(saved, folders))
    rows = read_rows(folders[0].path)
    assert rows == read_rows(folders[1].path) and len(rows) > 10
    replays = 30 - WARM_UP - (5 if sizes[0] % 4 else 0)
    assert (trainer.step, trainer.captured.replays) == (30, replays)
    assert f"{replays} of 30 steps were replays" in (folders[1].path / "log.txt").read_text()


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("at", [8, 12])
def test_resume_across_graphs_on_and_off_is_bit_for_bit(first, at, tmp_path):
    whole, folder = new_folder(tmp_path / "whole"), new_folder(tmp_path / "parts")
    run(whole, on=False, ema_decay=0.9)

    def interrupt(trainer):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(
            folder,
            on=first,
            ema_decay=0.9,
            checkpoints={"every_steps": at},
            callbacks=[At(at + 1, interrupt)],
        )
    trainer = run(folder, on=not first, ema_decay=0.9, resume=True)
    assert not differences(saved(whole), saved(folder))
    assert read_rows(whole.path) == read_rows(folder.path)
    assert first or trainer.captured.replays == 30 - at - WARM_UP


def test_the_graph_is_released_at_the_end_and_after_a_failure():
    released = []

    class Runner(EagerRunner):
        def release(self):
            released.append(bool(self._tape))
            super().release()

    trainer = captured(make_runner=Runner, epochs=1)
    trainer.fit()
    assert released[-1]

    def fail(trainer):
        raise RuntimeError("broken")

    released.clear()
    with pytest.raises(RuntimeError, match="broken"):
        captured(make_runner=Runner, epochs=1).fit(callbacks=[At(5, fail)])
    assert released[-1]


@pytest.mark.parametrize(
    ("action", "name"),
    [
        (lambda t: t.optimizers["model"].param_groups[0].update(weight_decay=0.5), "weight_decay"),
        (
            lambda t: setattr(t.task.model.body[0].weight, "data", torch.zeros(8, 6)),
            "body.0.weight",
        ),
        (lambda t: t.task.model.body[4].bias.requires_grad_(False), "body.4.bias"),
        (lambda t: setattr(t.task.model.body[1], "running_mean", torch.zeros(8)), "running_mean"),
    ],
    ids=["argument", "weight", "frozen", "statistics"],
)
def test_what_a_graph_has_frozen_must_not_change(action, name):
    with pytest.raises(CaptureError, match=rf"{name} has changed since the step was captured"):
        captured().fit(callbacks=[At(6, action)])


class Growing(Samples):
    """One batch in the middle of the second epoch is smaller."""

    def batches(self, split, epoch, start=0):
        for number, batch in enumerate(super().batches(split, epoch, start), start=start):
            is_odd = split == "train" and (epoch, number) == (1, 2)
            yield tuple(tensor[:3] for tensor in batch) if is_odd else batch


def test_a_batch_of_another_shape_ends_the_run_unless_it_is_the_last_of_an_epoch():
    with pytest.raises(CaptureError, match=r"batch 2 has float32 \(3, 6\) where .* \(4, 6\)"):
        captured(data=Growing(sizes=EVEN).setup()).fit()


def test_a_static_batch_keeps_its_tensors_and_takes_the_values():
    first = {"a": torch.zeros(2, 3), "b": (torch.ones(2), 5, None, "x")}
    static = StaticBatch(first, torch.device("cpu"))
    kept = static.batch["a"]
    other = {"a": torch.rand(2, 3), "b": (torch.rand(2), 5, None, "x")}
    assert static.difference(other) == ""
    static.fill(other)
    assert static.batch["a"] is kept and torch.equal(kept, other["a"])
    assert torch.equal(static.batch["b"][0], other["b"][0]) and not first["a"].any()
    for changed, said in (
        ({**other, "b": (torch.rand(2), 6, None, "x")}, "has 6 where the first has 5"),
        ({**other, "a": torch.rand(2, 4)}, "float32 (2, 4)"),
        ({**other, "a": torch.rand(2, 3).double()}, "float64 (2, 3)"),
        ({"a": other["a"]}, "other parts"),
    ):
        assert said in static.difference(changed)


def test_rates_are_numbers_outside_a_step():
    seen = []
    trainer = captured(epochs=2, schedule=Cosine())
    group = trainer.optimizers["model"].param_groups[0]
    trainer.fit(callbacks=[At(step, lambda t: seen.append(group["lr"])) for step in (2, 6, 9)])
    assert all(isinstance(rate, float) for rate in seen) and len(set(seen)) == 3


DEVICES = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])


@DEVICES
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_a_capture_engages_and_trains_as_without(device, kind, precision):
    found = []
    for is_on in (False, True):
        rows = Rows()
        trainer = on(device, is_on, kind, precision)
        trainer.fit(callbacks=[rows])
        found.append((weights(trainer.task.model).cpu(), [row["loss"] for row in rows.of("train")]))
    assert trainer.captured.replays == trainer.step - WARM_UP == 27
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(
        torch.tensor(found[0][1]), torch.tensor(found[1][1]), atol=1e-4, rtol=1e-3
    )


@DEVICES
def test_a_rate_of_zero_stops_a_graph_and_another_moves_it(device):
    moved = []
    factors = {10: 0.0, 11: 0.0, 12: 1.0}
    trainer = on(device, True, torch.optim.SGD, "fp32", factors=factors)
    before = {}

    def note(step):
        def look(trainer):
            now = weights(trainer.task.model)
            moved.append((step, not torch.equal(before["weights"], now)))
            before["weights"] = now

        return look

    def start(trainer):
        before["weights"] = weights(trainer.task.model)

    trainer.fit(callbacks=[At(9, start), *(At(step, note(step)) for step in (10, 11, 12))])
    assert moved == [(10, False), (11, False), (12, True)]


class Steps(Cosine):
    """A factor for each step, 1 where none is given."""

    def __init__(self, factors):
        super().__init__()
        self.factors = factors

    def __call__(self, step):
        return self.factors.get(step + 1, 1.0)


def on(device, cuda_graphs, kind, precision, factors=None):
    model = normed().to(device)
    return Trainer(
        Classification(model, num_classes=3),
        Samples(sizes=EVEN).setup(device=device),
        make_optimizer(kind, model, lr=0.01),
        schedule=Steps(factors) if factors else Cosine(warmup_steps=4),
        settings=TrainerSettings(
            device=device,
            precision=precision,
            epochs=5,
            log_every=1,
            clip_norm=0.5,
            cuda_graphs=cuda_graphs,
            train_metrics=False,
        ),
        make_runner=CudaRunner if device == "cuda" else EagerRunner,
    )


def test_a_run_on_a_cpu_is_refused():
    with pytest.raises(ValueError, match=r"cuda_graphs=true needs a CUDA device.* on cpu"):
        trainer_of(mlp(), cuda_graphs=True)
