"""Which weights a run ends with: the monitored metric, the best checkpoint, the results."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from zoo.tasks.task import Task
from zoo.training.checkpoint import CheckpointFolder, read
from zoo.training.settings import CheckpointSettings


def usable_weights(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of a checkpoint that are to be used: the averaged ones where the run averaged.

    Buffers (batch statistics) are not averaged and are the model's own.
    """
    return {**state["model"], **(state["average"] or {})}


def task_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """What the task had remembered at a checkpoint, for an evaluation."""
    found: dict[str, Any] = state["ranks"][0]["task"]
    return found


class Selection:
    """The metric of validation that selects checkpoints.

    Args:
        task: whose own metric it is unless the settings name another.
        settings: what to monitor.

    Attributes:
        monitor: the metric's name.
        mode: whether less or more of it is better.
    """

    def __init__(self, task: Task, settings: CheckpointSettings) -> None:
        self.monitor = task.monitor if settings.monitor == "auto" else settings.monitor
        self.mode: Literal["min", "max"] = task.mode if self.monitor == task.monitor else "min"
        if settings.mode != "auto":
            self.mode = settings.mode

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
    def best(checkpoints: CheckpointFolder | None) -> dict[str, Any] | None:
        """The best checkpoint, if a validation has selected one."""
        if checkpoints is None or not checkpoints.ranking:
            return None
        return read(checkpoints.path / "best.pt")
