"""Takes one step of an MLP in the trainer (`zoo`) or in `lightning`; prints when it has ended.

Run as a program of its own, which imports nothing that its side does not need.
"""

import contextlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch


def _zoo(inputs: torch.Tensor, targets: torch.Tensor) -> None:
    from benchmarks.data import TrainingOnly
    from zoo.data.loading.tensor import TensorLoader
    from zoo.models.mlp import MLP
    from zoo.tasks.classification import Classification
    from zoo.training.callback import Callback, Run
    from zoo.training.callbacks import MetricsFile
    from zoo.training.optimizers import make_optimizer
    from zoo.training.run_folder import RunFolder
    from zoo.training.settings import LoggerSettings, TrainerSettings
    from zoo.training.tensorboard import TensorBoard
    from zoo.training.trainer import Trainer

    class Told(Callback):
        def on_step_end(self, trainer: Run) -> None:
            _tell()

    model = MLP(784, 10, hidden_sizes=(256,))
    trainer = Trainer(
        Classification(model, num_classes=10),
        TrainingOnly(TensorLoader((inputs, targets), batch_size=64, shuffle=True)),
        make_optimizer(torch.optim.AdamW, model, lr=1e-3),
        settings=TrainerSettings(epochs=1, device="cpu"),
    )
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder.create(place, "run")
        logger = TensorBoard(LoggerSettings(graph=False), folder.path)
        trainer.fit(folder=folder, callbacks=[MetricsFile(folder.path), logger, Told()])


def _lightning(inputs: torch.Tensor, targets: torch.Tensor) -> None:
    import lightning
    from lightning.pytorch.loggers import TensorBoardLogger

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            layers = torch.nn.Linear(784, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10)
            self.model = torch.nn.Sequential(*layers)

        def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
            loss = torch.nn.functional.cross_entropy(self.model(batch[0]), batch[1])
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=1e-3)

        def on_train_batch_end(self, *arguments: Any) -> None:
            _tell()

    dataset = torch.utils.data.TensorDataset(inputs, targets)
    with tempfile.TemporaryDirectory() as place:
        trainer = lightning.Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=TensorBoardLogger(place),
            enable_progress_bar=False,
            enable_checkpointing=False,
        )
        trainer.fit(Module(), torch.utils.data.DataLoader(dataset, 64, shuffle=True))


def _tell() -> None:
    print(time.perf_counter(), file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    # Not this folder, whose modules have the names of packages.
    sys.path[:1] = [str(Path(__file__).resolve().parents[n]) for n in (1, 2)]
    with contextlib.redirect_stdout(None):
        side = {"zoo": _zoo, "lightning": _lightning}[sys.argv[1]]
        side(torch.randn(64, 784), torch.randint(10, (64,)))
