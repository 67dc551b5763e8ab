"""What happens besides the loop: a few events, called in the order in which callbacks are given.

A callback that changes what happens next carries its memory through `state_dict`, so that a resumed
run goes on as if it had never been killed. Events run in a random state of their own, except those
of the hot loop (`on_step_end`, and `on_log` of the training curve), where that would cost too much.
"""

from typing import Any, Literal, Protocol

import torch

from zoo.tasks.task import Task
from zoo.training.run_folder import RunFolder
from zoo.training.state import Position


class Run(Protocol):
    """What a callback may use of a run; the trainer is one.

    Attributes:
        position: how far the run has come.
        step: optimizer steps so far.
        total_steps: optimizer steps at its end.
        steps_per_epoch: optimizer steps of a pass over the training data.
        stopped: whether it ends early.
        task: what is learned, with the metrics of the last evaluation.
        data: the data module.
        device: where the networks are.
        monitor: the validation metric that selects checkpoints.
        mode: whether less or more of it is better.
        folder: the run folder, if there is one.
    """

    stopped: bool
    task: Task
    data: Any
    device: torch.device
    folder: RunFolder | None

    @property
    def position(self) -> Position: ...

    @property
    def step(self) -> int: ...

    @property
    def total_steps(self) -> int: ...

    @property
    def steps_per_epoch(self) -> int: ...

    @property
    def monitor(self) -> str: ...

    @property
    def mode(self) -> Literal["min", "max"]: ...

    def stop(self, reason: str) -> None: ...


class Callback:
    """Does nothing at every event; override those you need."""

    def on_fit_start(self, trainer: Run) -> None:
        """Before the first step, after a checkpoint has been loaded."""

    def on_step_end(self, trainer: Run) -> None:
        """After every optimizer step; costs time in the hot loop."""

    def on_heartbeat(self, trainer: Run) -> None:
        """Between two steps, every few seconds."""

    def on_log(self, trainer: Run, row: dict[str, Any]) -> None:
        """With every line of a curve: `step`, `epoch`, `split`, then metrics by name."""

    def on_evaluation_end(self, trainer: Run, split: str, metrics: dict[str, float]) -> None:
        """After an evaluation, before its checkpoint is written; may call `trainer.stop`."""

    def on_fit_end(self, trainer: Run, results: dict[str, Any] | None) -> None:
        """After the run; `results` is None if it failed or was interrupted."""

    def state_dict(self) -> dict[str, Any]:
        """What the callback carries between steps: plain Python and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave."""
