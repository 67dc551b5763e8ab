"""What happens besides the loop: a few events, called in the order in which callbacks are given.

A callback that changes what happens next carries its memory through `state_dict`, so that a resumed
run goes on as if it had never been killed. Events run in a random state of their own, except those
of the hot loop (`on_step_end`, and `on_log` of the training curve), where that would cost too much.
"""

from collections.abc import Iterable
from typing import Any, Literal, Protocol

import torch

from zoo.tasks.task import Shown, Task
from zoo.training.distributed.strategy import Strategy
from zoo.training.reproducibility import SEED, isolated
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
        strategy: which processes share the work; callbacks are those of the first alone.
    """

    stopped: bool
    task: Task
    data: Any
    device: torch.device
    folder: RunFolder | None
    strategy: Strategy

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

    def show(self) -> dict[str, Shown]: ...


class Callback:
    """Does nothing at every event; override those you need."""

    def reason_to_stop(self, trainer: Run) -> str | None:
        """Why a run that is resumed has already stopped early; asked before it goes on."""
        return None

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
        """Restores what `state_dict` gave; writes nothing, since the resume may be refused yet."""


class Callbacks(list[Callback]):
    """The callbacks of a run, called in their order."""

    def __init__(self, callbacks: Iterable[Callback] = ()) -> None:
        super().__init__(callbacks)
        # Most do nothing after a step, and the hot loop need not ask them.
        self._on_step_end = [c for c in self if type(c).on_step_end is not Callback.on_step_end]

    def reason_to_stop(self, run: Run) -> str | None:
        """The first reason for which a resumed run has already stopped early."""
        return next(filter(None, (callback.reason_to_stop(run) for callback in self)), None)

    def on_fit_start(self, run: Run) -> None:
        """Before the first step."""
        for callback in self:
            with isolated(SEED):
                callback.on_fit_start(run)

    def on_step_end(self, run: Run) -> None:
        """After every optimizer step."""
        for callback in self._on_step_end:
            callback.on_step_end(run)

    def on_heartbeat(self, run: Run) -> None:
        """Between two steps, every few seconds."""
        for callback in self:
            callback.on_heartbeat(run)

    def on_log(self, run: Run, row: dict[str, Any]) -> None:
        """With every line of a curve."""
        for callback in self:
            callback.on_log(run, row)

    def on_evaluation_end(self, run: Run, split: str, metrics: dict[str, float]) -> None:
        """After an evaluation."""
        for callback in self:
            callback.on_evaluation_end(run, split, metrics)

    def on_fit_end(self, run: Run, results: dict[str, Any] | None) -> None:
        """After the run; each of them, whatever another raises."""
        failures = []
        for callback in self:
            try:
                callback.on_fit_end(run, results)
            except Exception as error:
                failures.append(error)
        # Where there are no results, the failure that brought us here is what to report.
        if failures and results is not None:
            raise failures[0]
