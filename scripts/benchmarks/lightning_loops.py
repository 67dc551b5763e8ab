"""The trainer against Lightning, as each comes: loader, training loop, logging to TensorBoard.

Lightning has a `DataLoader` without workers, AdamW with its defaults and the loss of every step
logged; neither side validates, and Lightning shows no progress bar and writes no checkpoint. Both
visit the same batches. It needs the extra `benchmark`.
"""

import contextlib
import logging
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.data import TrainingOnly
from benchmarks.timing import Skipped, interleave, ratio
from zoo.data.loading.tensor import TensorLoader
from zoo.models.mlp import MLP
from zoo.models.vision.lenet import lenet5
from zoo.tasks.classification import Classification
from zoo.training.callbacks import MetricsFile
from zoo.training.console import Console
from zoo.training.optimizers import make_optimizer
from zoo.training.run_folder import RunFolder
from zoo.training.settings import LoggerSettings, TrainerSettings
from zoo.training.tensorboard import TensorBoard
from zoo.training.trainer import Trainer

BATCH, RATE, LOG_EVERY = 64, 1e-3, 50


class Case(NamedTuple):
    """A network, the shape of a sample, steps a block, and the ratio to stay below."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    steps: int
    bar: float


CASES = {
    "MLP": Case(lambda: MLP(784, 10, hidden_sizes=(256,)), (784,), 400, 0.38),
    "LeNet": Case(lambda: lenet5(image_size=28), (1, 28, 28), 150, 0.62),
}


def _network(case: Case) -> nn.Module:
    torch.manual_seed(0)
    return case.make()


def loader_of(case: Case) -> TensorLoader:
    """Random samples in memory, another order of which both sides follow."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(case.steps * BATCH, *case.shape, generator=generator)
    targets = torch.randint(10, (len(inputs),), generator=generator)
    return TensorLoader((inputs, targets), batch_size=BATCH, shuffle=True)


def by_trainer(case: Case, loader: TensorLoader) -> tuple[float, nn.Module]:
    """Seconds of all steps in the trainer, and what it has learned."""
    model = _network(case)
    trainer = Trainer(
        Classification(model, num_classes=10),
        TrainingOnly(loader),
        make_optimizer(torch.optim.AdamW, model, lr=RATE, decay_norms_and_biases=True),
        settings=TrainerSettings(epochs=1, device="cpu", log_every=LOG_EVERY),
    )
    settings = LoggerSettings(console="lines", graph=False)
    with tempfile.TemporaryDirectory() as place, contextlib.redirect_stdout(None):
        folder = RunFolder.create(place, "run")
        callbacks = [
            MetricsFile(folder.path),
            Console(settings),
            TensorBoard(settings, folder.path),
        ]
        trainer.fit(folder=folder, callbacks=callbacks)
    return trainer.position.seconds, model


class _Order(torch.utils.data.Sampler[int]):
    """The order of our loader."""

    def __init__(self, loader: TensorLoader) -> None:
        self.numbers = [i for batch in range(len(loader)) for i in loader.indices(0, batch)]

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)


def by_lightning(case: Case, loader: TensorLoader) -> tuple[float, nn.Module]:
    """Seconds of all steps in Lightning, and what it has learned."""
    import lightning
    from lightning.pytorch.loggers import TensorBoardLogger

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = _network(case)
            self.seconds = 0.0

        def training_step(self, batch: list[Tensor], index: int) -> Tensor:
            inputs, targets = batch
            loss = F.cross_entropy(self.model(inputs), targets)
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=RATE)

        def on_train_start(self) -> None:
            self.seconds = -time.perf_counter()

        def on_train_end(self) -> None:
            self.seconds += time.perf_counter()

    dataset = torch.utils.data.TensorDataset(*loader._tensors)
    batches = torch.utils.data.DataLoader(dataset, BATCH, sampler=_Order(loader))
    module = Module()
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=TensorBoardLogger(place),
            log_every_n_steps=LOG_EVERY,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        trainer.fit(module, batches)
    return module.seconds, module.model


def disagreement(case: Case) -> str | None:
    """The first parameter that both sides have not brought to the same place, if any."""
    loader = loader_of(case)
    (_, ours), (_, theirs) = by_trainer(case, loader), by_lightning(case, loader)
    pairs = zip(ours.named_parameters(), theirs.parameters(), strict=True)
    # Fused kernels round otherwise, and AdamW's first steps are as long for tiny gradients.
    return next((n for (n, a), b in pairs if not torch.allclose(a, b, rtol=0.05, atol=RATE)), None)


def require_lightning() -> None:
    """Raises: Skipped: Lightning is not installed."""
    try:
        import lightning  # noqa: F401
    except ImportError as error:
        raise Skipped("Lightning is not installed: pip install -e .[benchmark]") from error


def _seconds(run: Callable[..., Any], case: Case, loader: TensorLoader) -> float:
    """Seconds a step."""
    seconds: float = run(case, loader)[0]
    return seconds / case.steps


def lightning(blocks: int) -> list[dict[str, Any]]:
    """The trainer against Lightning, both with loader and logging."""
    require_lightning()
    results = []
    for name, case in CASES.items():
        if parameter := disagreement(case._replace(steps=20)):
            raise SystemExit(f"lightning: the two sides disagree about {parameter} of {name}")
        loader = loader_of(case)
        ours, theirs = f"{name}, trainer", f"{name}, Lightning"
        sides: dict[str, Callable[[], float]] = {
            side: partial(_seconds, run, case, loader)
            for side, run in ((ours, by_trainer), (theirs, by_lightning))
        }
        results.append(ratio(interleave(sides, blocks), ours, theirs, case.bar))
    return results


# -------------------------------------------------------------- the first optimizer step


def first_step(blocks: int) -> list[dict[str, Any]]:
    """From the start of a process to the end of its first step, with logging."""
    require_lightning()

    def process(side: str) -> Callable[[], float]:
        def run() -> float:
            began = time.perf_counter()
            done = subprocess.run(
                [sys.executable, str(Path(__file__).with_name("first_step.py")), side],
                capture_output=True,
                text=True,
                check=True,
            )
            return float(done.stdout.split()[-1]) - began

        return run

    names = "first step, trainer", "first step, Lightning"
    sides = dict(zip(names, map(process, ("zoo", "lightning")), strict=True))
    return [ratio(interleave(sides, blocks), *names, 0.75)]
