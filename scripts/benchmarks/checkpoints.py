"""Saving and resuming ResNet-18 with Adam, 140 MB, against `torch.save` and `torch.load`.

Both sides of saving train the same steps in the same trainer; what a save costs is the time of the
steps up to half-way to the next, less that of as many steps without one. The page cache holds what
is read: the disk's own speed is not what is measured. A run resumes once, in a process whose memory
is new: so each side of resuming begins with its free memory given back to the system, where that
can be done.
"""

import contextlib
import ctypes
import gc
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.data import TrainingOnly
from benchmarks.timing import interleave, ratio
from zoo.data.loading.tensor import TensorLoader
from zoo.models.vision.resnet import resnet18
from zoo.tasks.classification import Classification
from zoo.training.callback import Callback, Run
from zoo.training.optimizers import make_optimizer
from zoo.training.run_folder import RunFolder
from zoo.training.settings import CheckpointSettings, TrainerSettings
from zoo.training.trainer import Trainer

STEPS, EVERY, SETTLED, SIZE = 200, 40, 20, 16


class _Clock(Callback):
    """Notes when each step has ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, trainer: Run) -> None:
        self.ends.append(time.perf_counter())


class _PlainSaves(Callback):
    """What a loop by hand does, with no thought of a crash in between."""

    def __init__(self, file: Path, every: int) -> None:
        self.file, self.every = file, every

    def on_step_end(self, trainer: Run) -> None:
        if trainer.step % self.every == 0:
            assert isinstance(trainer, Trainer)
            optimizer = trainer.optimizers["model"]
            state = {"model": trainer.task.model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(state, self.file)
            with open(self.file, "rb") as file:
                os.fsync(file.fileno())


def trainer_of(
    make: Callable[[], nn.Module] = resnet18, *, steps: int, every: int | None = None
) -> Trainer:
    """A trainer of a network on two small images a step, which saves every few steps, or never."""
    torch.manual_seed(0)
    model = make()
    images = torch.randn(2 * steps, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(10, (2 * steps,))
    return Trainer(
        Classification(model, num_classes=1000),
        TrainingOnly(TensorLoader((images, targets), batch_size=2)),
        make_optimizer(torch.optim.Adam, model, lr=1e-4),
        settings=TrainerSettings(epochs=None, steps=steps, device="cpu", log_every=10**9),
        checkpoints=CheckpointSettings(every_steps=every),
    )


def added(ends: Sequence[float], every: int, settled: int) -> float:
    """The seconds that saves add to the steps: those up to some steps behind each, less as many.

    Args:
        ends: when each step ended, before its save.
        every: steps from one save to the next.
        settled: steps after a save that it may still hold up.
    """
    usual = statistics.median(b - a for a, b in itertools.pairwise(ends))
    saves = range(every - 1, len(ends) - settled, every)
    return sum(ends[n + settled] - ends[n] - settled * usual for n in saves)


def _saves(kind: str) -> float:
    """Seconds that five saves add to 200 steps: `ours`, or `plain`."""
    gc.collect()  # The trainer before this one.
    steps, clock = STEPS + SETTLED, _Clock()
    trainer = trainer_of(steps=steps, every=EVERY if kind == "ours" else None)
    # On the disk where runs are: a temporary folder may be memory.
    with tempfile.TemporaryDirectory(dir=".") as place:
        plain = [_PlainSaves(Path(place) / "plain.pt", EVERY)] if kind == "plain" else []
        folder = RunFolder.create(place, "run") if kind == "ours" else None
        trainer.fit(folder=folder, callbacks=[clock, *plain])
    return added(clock.ends, EVERY, SETTLED)


def saving(blocks: int) -> list[dict[str, Any]]:
    """What five saves add to 200 steps, against what `torch.save` and fsync add to them."""
    names = f"{STEPS // EVERY} saves of 140 MB", "torch.save and fsync"
    sides: dict[str, Callable[[], float]] = {
        name: partial(_saves, kind) for name, kind in zip(names, ("ours", "plain"), strict=True)
    }
    return [ratio(interleave(sides, blocks), *names, 1.0)]


def _give_free_memory_back() -> None:
    with contextlib.suppress(AttributeError):  # The C library is another.
        ctypes.CDLL(None).malloc_trim(0)


def resuming(blocks: int) -> list[dict[str, Any]]:
    """From a file to the live state: verified, against `torch.load` and `load_state_dict`."""
    trainer = trainer_of(steps=2, every=1)
    with tempfile.TemporaryDirectory(dir=".") as place:
        folder = RunFolder.create(place, "run")
        trainer.fit(folder=folder)
        model, optimizer = trainer.task.model, trainer.optimizers["model"]
        file = Path(place) / "plain.pt"
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)

        def ours() -> float:
            _give_free_memory_back()
            began = time.perf_counter()
            trainer.restore(folder)
            return time.perf_counter() - began

        def theirs() -> float:
            _give_free_memory_back()
            began = time.perf_counter()
            state = torch.load(file, map_location="cpu", weights_only=True)
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            return time.perf_counter() - began

        names = "resume from 140 MB", "torch.load and load_state_dict"
        times = interleave(dict(zip(names, (ours, theirs), strict=True)), blocks)
    return [ratio(times, *names, 1.0)]
