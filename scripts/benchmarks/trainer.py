"""The trainer with callbacks, schedule and TensorBoard against the best loop by hand."""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.timing import interleave, ratio
from zoo.data.loading.tensor import TensorLoader
from zoo.models.mlp import MLP
from zoo.tasks.classification import Classification
from zoo.training.callback import Callback
from zoo.training.callbacks import MetricsFile
from zoo.training.console import Console
from zoo.training.optimizers import make_optimizer
from zoo.training.run_folder import RunFolder
from zoo.training.schedules import Cosine
from zoo.training.settings import LoggerSettings, TrainerSettings
from zoo.training.tensorboard import TensorBoard
from zoo.training.trainer import Trainer

# As many samples as MNIST, and two epochs a block: a checkpoint is written between them.
BATCH, STEPS, SAMPLES = 64, 2 * 938, 60_000


class _Data:
    """Random vectors in memory, for training alone."""

    splits = ("train",)

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(SAMPLES, 784, generator=generator)
        self.targets = torch.randint(10, (SAMPLES,), generator=generator)
        loader = TensorLoader((self.inputs, self.targets), batch_size=BATCH, shuffle=True)
        self.loaders = {"train": loader}

    def batches(self, split: str, epoch: int, start: int = 0) -> Iterator[Any]:
        return self.loaders[split].batches(epoch, start)

    def num_batches(self, split: str) -> int:
        return len(self.loaders[split])


def _network() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = MLP(784, 10, hidden_sizes=(256,))
    # One parameter group on both sides.
    return model, make_optimizer(torch.optim.AdamW, model, lr=1e-3, decay_norms_and_biases=True)


def _by_hand(data: _Data, steps: int, schedule: Cosine | None = None) -> tuple[float, nn.Module]:
    """The best loop by hand; with a schedule for the comparison of numbers only."""
    model, optimizer = _network()
    model.train()
    epochs = steps * BATCH // SAMPLES + 1
    orders = [o for e in range(epochs) for o in data.loaders["train"]._order.chunks(e)]
    inputs, targets = data.inputs, data.targets
    began = time.perf_counter()
    for step, order in enumerate(orders[:steps]):
        if schedule is not None:
            optimizer.param_groups[0]["lr"] = 1e-3 * schedule(step)
        loss = F.cross_entropy(model(inputs.index_select(0, order)), targets.index_select(0, order))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return time.perf_counter() - began, model


def _by_trainer(data: _Data, steps: int, *, logging: bool = True) -> tuple[float, nn.Module]:
    """By the trainer."""
    model, optimizer = _network()
    trainer = Trainer(
        Classification(model, num_classes=10),
        data,
        optimizer,
        schedule=Cosine(),
        settings=TrainerSettings(
            epochs=None, steps=steps, device="cpu", log_every=50 if logging else 10**9
        ),
    )
    with tempfile.TemporaryDirectory() as folder:
        callbacks: list[Callback] = []
        if logging:
            settings = LoggerSettings(console="lines", graph=False)
            callbacks = [Console(settings), TensorBoard(settings, Path(folder))]
        run = RunFolder.create(folder, "run")
        with contextlib.redirect_stdout(None):
            trainer.fit(folder=run, callbacks=[MetricsFile(run.path), *callbacks])
    return trainer.position.seconds, model


def trainer(blocks: int) -> list[dict[str, Any]]:
    """The trainer against the best loop by hand."""
    data = _Data()
    schedule = Cosine()
    schedule.bind(total_steps=200, steps_per_epoch=len(data.loaders["train"]))
    expected, found = _by_hand(data, 200, schedule)[1], _by_trainer(data, 200)[1]
    for (name, a), b in zip(expected.named_parameters(), found.parameters(), strict=True):
        if not torch.equal(a, b):
            raise SystemExit(f"trainer and loop by hand disagree about {name}")
    print("trainer and loop by hand: weights equal bit for bit after 200 steps")
    times = interleave(
        {
            "loop by hand": lambda: _by_hand(data, STEPS)[0] / STEPS,
            "trainer": lambda: _by_trainer(data, STEPS)[0] / STEPS,
            "trainer without logging": lambda: _by_trainer(data, STEPS, logging=False)[0] / STEPS,
        },
        blocks,
    )
    return [
        ratio(times, "trainer", "loop by hand", 1.04),
        ratio(times, "trainer", "trainer without logging", 1.03),
    ]
