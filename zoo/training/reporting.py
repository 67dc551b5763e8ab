"""What a run says while it trains: rows for the callbacks, and warnings."""

import time
import warnings
from typing import Any

from zoo.training.callback import Callbacks, Run
from zoo.training.curve import TrainingCurve
from zoo.training.plan import Plan
from zoo.training.run_folder import RunFolder
from zoo.training.update import Updater


class Reporter:
    """Hands rows to the callbacks, and reads what has been noted on the device.

    Args:
        run: the run.
        callbacks: who gets the rows.
        plan: of the run.
        curve: losses since the last line.
        updater: what checks that everything is finite.
        folder: the run folder; None: warnings are only shown.
    """

    def __init__(
        self,
        run: Run,
        callbacks: Callbacks,
        plan: Plan,
        curve: TrainingCurve,
        updater: Updater,
        folder: RunFolder | None = None,
    ) -> None:
        self._run, self._callbacks, self._plan = run, callbacks, plan
        self._curve, self._updater, self._folder = curve, updater, folder
        self._began: float | None = None
        self._has_told = False

    def start_clock(self) -> None:
        """To be called when the steps begin."""
        self._began = time.perf_counter() - self._run.position.seconds
        self._curve.restart()

    def tick(self) -> None:
        """Brings the seconds of training up to now."""
        if self._began is not None:
            self._run.position.seconds = time.perf_counter() - self._began

    def report(self, row: dict[str, Any]) -> None:
        """Hands a row to the callbacks, with the step and the epoch."""
        position = self._run.position
        epoch = position.epoch + position.batch / self._plan.batches_per_epoch
        row = {"step": position.step, "epoch": round(epoch, 4), **row}
        self._callbacks.on_log(self._run, row)

    def report_training(self) -> None:
        """Reports what has gathered on the device since the last line of the training curve."""
        self.check()
        self.tick()
        updater = self._updater
        zeros = updater.zero_weights()
        row = self._curve.read(updater.rates(), updater.norms, updater.layers, zeros)
        self.report({"split": "train", **row})

    def check(self) -> None:
        """Reads what the device noted: something not finite, or that nothing counted.

        Raises:
            NonFiniteError: a loss or gradient was not finite in a step since the last look.
        """
        skipped = self._updater.check()
        if skipped is not None:
            position = self._run.position
            raise self._plan.non_finite("a loss or gradient", position, behind=skipped)
        if not self._has_told and self._updater.has_been_empty():
            self._has_told = True
            self._warn(
                f"nothing counted in a step up to {self._run.step} (all targets of its batches are "
                "ignored ones), so that it changed no weights; this is said once"
            )

    def _warn(self, text: str) -> None:
        warnings.warn(text, stacklevel=2)
        if self._folder is not None:
            self._folder.log(f"warning: {text}")
