"""What a run says on the terminal: a bar where there is one, plain lines elsewhere."""

import sys
import time
from typing import TYPE_CHECKING, Any

from zoo.tasks.task import Text
from zoo.training.callback import Callback, Run
from zoo.training.callbacks import TIMINGS
from zoo.training.settings import LoggerSettings

if TYPE_CHECKING:
    from rich.progress import Progress

FIRST_LINE, SILENCE = 4.0, 60.0
"""Seconds without a line after which one says how far the run has come: at first and later."""


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _values(row: dict[str, Any]) -> str:
    skipped = ("step", "epoch", "split", *TIMINGS)
    shown = {n: v for n, v in row.items() if n not in skipped and not n.startswith("grad_norm/")}
    return "  ".join(f"{name} {_number(value)}" for name, value in shown.items())


def _introduction(trainer: Run) -> str:
    """What is trained on what for how long, in one line."""
    model = trainer.task.model
    name = type(model).__name__.removeprefix("FSDP")  # Of shards torch makes a class of its own.
    parameters = sum(p.numel() for p in model.parameters())
    splits = [f"{split} {loader.num_samples:,}" for split, loader in trainer.data.loaders.items()]
    start = f"from step {trainer.step:,} " if trainer.step else ""
    return (
        f"{name}, {parameters:,} parameters; samples: {', '.join(splits)}; "
        f"{start}to step {trainer.total_steps:,}, {trainer.steps_per_epoch:,} steps an epoch"
    )


class Console(Callback):
    """Shows progress.

    Args:
        settings: `console` says how.
    """

    def __init__(self, settings: LoggerSettings) -> None:
        wanted = settings.console
        self.style = ("bar" if sys.stdout.isatty() else "lines") if wanted == "auto" else wanted
        self._bar: Any = None
        self._task: Any = None
        self._quiet_until = 0.0
        self._began = (0, 0.0)

    def on_fit_start(self, trainer: Run) -> None:
        if self.style == "off":
            return
        print(_introduction(trainer), flush=True)
        now = time.perf_counter()
        self._began, self._quiet_until = (trainer.step, now), now + FIRST_LINE
        if self.style == "bar":
            self._bar = _bar(trainer)
            self._task = self._bar.task_ids[0]
            self._bar.start()

    def on_heartbeat(self, trainer: Run) -> None:
        now = time.perf_counter()
        if self.style != "lines" or now < self._quiet_until:
            return
        step, began = self._began
        rate = (trainer.step - step) / (now - began)
        self._print(f"train step {trainer.step}/{trainer.total_steps}  {rate:.3g} steps/s")

    def on_log(self, trainer: Run, row: dict[str, Any]) -> None:
        for_charts = row["split"] == "train" and "samples_per_second" not in row
        if self.style == "off" or for_charts:  # Training's metrics next to a validation.
            return
        if self._bar is not None and row["split"] == "train":
            self._bar.update(self._task, values=_values(row))
            return
        speed = (
            f"  {row['samples_per_second']:.4g} {trainer.task.unit}/s"
            + (f"  mfu {row['mfu']:.3f}" if "mfu" in row else "")
            if "samples_per_second" in row
            else ""
        )
        text = (
            f"{row['split']:<5} epoch {row['epoch']:<6.4g} step {row['step']}/{trainer.total_steps}"
            f"  {_values(row)}{speed}"
        )
        self._print(text)

    def on_evaluation_end(self, trainer: Run, split: str, metrics: dict[str, float]) -> None:
        last = trainer.step >= trainer.total_steps or trainer.stopped
        if self.style != "off" and last:
            for name, shown in trainer.show().items():
                if isinstance(shown, Text):
                    self._print(f"\n{name}:\n{shown.text}\n")

    def _print(self, text: str) -> None:
        self._quiet_until = time.perf_counter() + SILENCE
        if self._bar is not None:
            self._bar.refresh()  # It is drawn again behind the line, as it was drawn last.
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, flush=True)

    def on_fit_end(self, trainer: Run, results: dict[str, Any] | None) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _bar(trainer: Run) -> "Progress":
    """A bar that asks the run how far it is whenever it is drawn, so that no step waits for it."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    class Bar(Progress):
        def get_renderables(self) -> Any:
            for task in self.task_ids:
                self.update(task, completed=trainer.step)
            return super().get_renderables()

    bar = Bar(
        TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
        BarColumn(),
        TextColumn("{task.fields[values]}"),
        TimeRemainingColumn(),
        transient=True,
        refresh_per_second=4,
    )
    bar.add_task("", total=trainer.total_steps, completed=trainer.step, values="")
    return bar
