"""The callbacks that every run may have: the file of metrics, early stopping, a profile."""

import math
import os
import warnings
from pathlib import Path
from typing import Any

from zoo.training.callback import Callback, Run
from zoo.training.own_files import appending, naming, to_json
from zoo.training.settings import EarlyStoppingSettings, ProfileSettings

TIMINGS = ("samples_per_second", "mfu", "data_wait", "memory_mib", "seconds")
"""Values of a row that depend on the machine and the moment, not on the run."""


class MetricsFile(Callback):
    """Writes every row into `metrics.jsonl`; a resumed run first cuts what it is going to repeat.

    A value that is not finite is null there, for JSON has no word for it, and noted in `log.txt`.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "metrics.jsonl"
        self._file: Any = None
        self._length: int | None = None
        self._noted: set[str] = set()

    def on_fit_start(self, trainer: Run) -> None:
        self._file = appending(self._path)
        if self._length is not None:
            self._cut(self._length)

    def on_log(self, trainer: Run, row: dict[str, Any]) -> None:
        with naming(self._path):
            self._file.write(to_json(row) + "\n")
            self._file.flush()
        for name, value in row.items():
            if isinstance(value, float) and not math.isfinite(value) and name not in self._noted:
                self._noted.add(name)
                if trainer.folder is not None:
                    trainer.folder.log(f"{name} is {value} at step {row['step']}: null in JSON")

    def on_fit_end(self, trainer: Run, results: dict[str, Any] | None) -> None:
        if self._file is not None:
            with naming(self._path):
                self._file.close()

    def state_dict(self) -> dict[str, Any]:
        with naming(self._path):
            os.fsync(self._file.fileno())  # What a checkpoint follows must be on the disk.
        return {"bytes": self._file.tell()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._length = state["bytes"]
        if not isinstance(self._length, int) or self._length < 0:
            raise ValueError(f"bytes of metrics.jsonl is {self._length!r}")

    def _cut(self, length: int) -> None:
        """Cuts the file to a length, or to the last whole line before it."""
        keep = min(self._file.tell(), length)
        if keep and not (whole := self._path.read_bytes()[:keep]).endswith(b"\n"):
            keep = whole.rfind(b"\n") + 1  # Else the next row would go on with half of another.
        if keep < length:
            warnings.warn(
                f"{self._path} is shorter than its checkpoint, or damaged: rows before this step "
                "are missing; the run itself goes on as it was",
                stacklevel=2,
            )
        self._file.truncate(keep)
        self._file.seek(keep)


class EarlyStopping(Callback):
    """Ends the run when the monitored validation metric has stopped improving.

    Args:
        settings: patience and what counts as an improvement.
    """

    def __init__(self, settings: EarlyStoppingSettings) -> None:
        self.settings = settings
        self.best: float | None = None
        self.waited = 0

    def on_evaluation_end(self, trainer: Run, split: str, metrics: dict[str, float]) -> None:
        if split != "val":
            return
        sign = 1.0 if trainer.mode == "min" else -1.0
        value = metrics[trainer.monitor]
        best = sign * math.inf if self.best is None else self.best
        if sign * (best - value) > self.settings.min_delta:
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        if reason := self.reason_to_stop(trainer):
            trainer.stop(reason)

    def reason_to_stop(self, trainer: Run) -> str | None:
        patience = self.settings.patience
        if patience is None or self.waited < patience:
            return None
        return (
            f"callbacks.early_stopping.patience={patience} "
            f"(no better {trainer.monitor} in {self.waited} evaluations)"
        )

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.waited = state["best"], state["waited"]


class Profile(Callback):
    """Records a few steps with the torch profiler: `trace.json` and the ten costliest operators.

    Args:
        settings: how many steps.
        folder: where `trace.json` (for https://ui.perfetto.dev) and `operators.txt` go.
    """

    WARMUP = 3

    def __init__(self, settings: ProfileSettings, folder: Path) -> None:
        assert settings.steps is not None
        self.steps = settings.steps
        self.folder = folder
        self.profiler: Any = None
        self.table = ""

    def on_fit_start(self, trainer: Run) -> None:
        import torch

        activities = [torch.profiler.ProfilerActivity.CPU]
        if trainer.device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self.profiler = torch.profiler.profile(
            activities=activities,
            schedule=torch.profiler.schedule(
                wait=0, warmup=self.WARMUP, active=self.steps, repeat=1
            ),
            on_trace_ready=self._write,
        )
        self.profiler.start()

    def on_step_end(self, trainer: Run) -> None:
        if self.profiler is not None:
            self.profiler.step()
            if self.table:
                self.profiler.stop()
                self.profiler = None

    def on_fit_end(self, trainer: Run, results: dict[str, Any] | None) -> None:
        if self.profiler is not None:
            self.profiler.stop()
            self.profiler = None

    def _write(self, profiler: Any) -> None:
        profiler.export_chrome_trace(str(self.folder / "trace.json"))
        key = (
            "self_cuda_time_total"
            if "cuda" in str(profiler.activities).lower()
            else "self_cpu_time_total"
        )
        self.table = profiler.key_averages().table(sort_by=key, row_limit=10)
        path = self.folder / "operators.txt"
        with naming(path):
            path.write_text(self.table + "\n", encoding="utf-8")
