"""What a run says on the terminal: a bar where there is one, plain lines elsewhere."""

import sys
from typing import Any

from zoo.tasks.task import Text
from zoo.training.callback import Callback, Run
from zoo.training.callbacks import TIMINGS
from zoo.training.settings import LoggerSettings


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _values(row: dict[str, Any]) -> str:
    skipped = ("step", "epoch", "split", *TIMINGS)
    shown = {n: v for n, v in row.items() if n not in skipped and not n.startswith("grad_norm/")}
    return "  ".join(f"{name} {_number(value)}" for name, value in shown.items())


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

    def on_fit_start(self, trainer: Run) -> None:
        if self.style == "bar":
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
                BarColumn(),
                TextColumn("{task.fields[values]}"),
                TimeRemainingColumn(),
                transient=True,
            )
            self._task = self._bar.add_task(
                "", total=trainer.total_steps, completed=trainer.step, values=""
            )
            self._bar.start()

    def on_log(self, trainer: Run, row: dict[str, Any]) -> None:
        for_charts = row["split"] == "train" and "samples_per_second" not in row
        if self.style == "off" or for_charts:  # Training's metrics next to a validation.
            return
        if self._bar is not None and row["split"] == "train":
            self._bar.update(self._task, completed=row["step"], values=_values(row))
            return
        speed = f"  {row['samples_per_second']:.0f}/s" if "samples_per_second" in row else ""
        text = (
            f"{row['split']:<5} epoch {row['epoch']:<6.4g} step {row['step']}/{trainer.total_steps}"
            f"  {_values(row)}{speed}"
        )
        self._print(text)

    def on_evaluation_end(self, trainer: Run, split: str, metrics: dict[str, float]) -> None:
        last = trainer.step >= trainer.total_steps or trainer.stopped
        if self.style != "off" and last:
            for name, shown in trainer.task.show().items():
                if isinstance(shown, Text):
                    self._print(f"\n{name}:\n{shown.text}\n")

    def _print(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, flush=True)

    def on_fit_end(self, trainer: Run, results: dict[str, Any] | None) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
