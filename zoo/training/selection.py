"""Which weights a run ends with: the monitored metric, the best checkpoint, the results."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import nn

from zoo.tasks.task import Task
from zoo.training.checkpoints.checkpoint import CheckpointFolder, read
from zoo.training.settings import CheckpointSettings
from zoo.training.state import Position


class Selection:
    """The metric of validation that selects checkpoints.

    Args:
        task: whose own metric it is unless the settings name another.
        settings: what to monitor.
        is_validated: whether there is a validation; otherwise nothing is selected.

    Attributes:
        monitor: the metric's name.
        mode: whether less or more of it is better.

    Raises:
        ValueError: neither the settings nor the metric say what is better.
    """

    def __init__(
        self, task: Task, settings: CheckpointSettings, *, is_validated: bool = True
    ) -> None:
        self.monitor = task.monitor if settings.monitor == "auto" else settings.monitor
        known = task.directions()
        if settings.mode == "auto" and self.monitor not in known and is_validated:
            raise ValueError(
                f"callbacks.checkpoint.monitor={self.monitor}: there is {', '.join(known)}; of "
                "another metric callbacks.checkpoint.mode must say whether min or max is better"
            )
        self.mode: Literal["min", "max"] = (
            known.get(self.monitor, "min") if settings.mode == "auto" else settings.mode
        )

    def value(self, metrics: Mapping[str, float]) -> float:
        """The monitored metric among those of an evaluation.

        Raises:
            ValueError: it is not among them.
        """
        if self.monitor not in metrics:
            raise ValueError(
                f"callbacks.checkpoint.monitor={self.monitor}: there is {', '.join(metrics)}"
            )
        return metrics[self.monitor]

    @staticmethod
    def best(checkpoints: CheckpointFolder | None, *, whole: bool) -> dict[str, Any] | None:
        """The best checkpoint, if a validation has selected one; for `whole` see `read`."""
        if checkpoints is None or not checkpoints.ranking:
            return None
        return read(checkpoints.path / "best.pt", whole=whole)

    def results(
        self,
        found: Mapping[str, Mapping[str, float]],
        model: nn.Module,
        position: Position,
        *,
        selected_step: int,
        items: float,
        ended_by: str,
        memory: float,
    ) -> dict[str, Any]:
        """What a run reports at its end.

        Args:
            found: metrics of the selected weights by split.
            model: with these weights.
            position: where the run ended.
            selected_step: the step that the weights are of.
            items: what was trained on, in the terms of the loss.
            ended_by: what ended the run.
            memory: its peak, in MiB.
        """
        return {
            **{split: dict(metrics) for split, metrics in found.items() if metrics},
            "monitor": self.monitor,
            "mode": self.mode,
            "parameters": sum(p.numel() for p in model.parameters()),
            "steps": position.step,
            "selected_step": selected_step,
            "ended_by": ended_by,
            "seconds": round(position.seconds, 3),
            "samples_per_second": round(items / max(position.seconds, 1e-9), 1),
            "memory_mib": round(memory, 1),
        }
