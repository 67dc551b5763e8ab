"""One pass over a split in which nothing of training changes."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from itertools import islice
from typing import Any

from zoo.tasks.task import Task, evaluation_mode
from zoo.training.reproducibility import SEED, isolated


def ignore(metrics: dict[str, float]) -> None:
    """Does nothing with the metrics of an evaluation."""


def measure(
    task: Task,
    batches: Iterable[Any],
    *,
    autocast: Any = None,
    between: Callable[[], None] = lambda: None,
    then: Callable[[dict[str, float]], None] = ignore,
) -> dict[str, float]:
    """The task's metrics over some batches.

    The model is in evaluation mode, and neither its mode nor the global random states are changed
    afterwards.

    Args:
        task: whose metrics.
        batches: of the split.
        autocast: context of the forward passes.
        between: called before every batch; what it raises ends the evaluation.
        then: called with the metrics while the task still holds the images and texts of this
            evaluation, in the same random state and mode.

    Returns:
        Metric name to value.
    """
    with isolated(SEED), evaluation_mode(task.model):
        task.reset()
        for batch in batches:
            between()
            with autocast or nullcontext():
                task.evaluate(batch)
        metrics = task.compute()
        then(metrics)
    return metrics


class Evaluation:
    """Measures a task on the splits of its data, with the weights that the model holds.

    Args:
        task: whose metrics.
        data: the data module.
        limit: largest number of batches; None: all of a split.
        autocast: context of the forward passes.
        between: called before every batch; what it raises ends the evaluation.
    """

    def __init__(
        self,
        task: Task,
        data: Any,
        *,
        limit: int | None,
        autocast: Any,
        between: Callable[[], None],
    ) -> None:
        self._task, self._data, self._limit = task, data, limit
        self._autocast, self._between = autocast, between

    def split(
        self, split: str, then: Callable[[dict[str, float]], None] = ignore
    ) -> dict[str, float]:
        """The metrics over a split, which `then` is called with (see `measure`)."""
        return self._measure(split, self._limit, then)

    def training(self, batches: int) -> dict[str, float]:
        """Metrics on as many training batches as validation has, for the same charts.

        Args:
            batches: how many an epoch uses.
        """
        limits = [batches, self._data.num_batches("val")]
        if self._limit is not None:
            limits.append(self._limit)
        metrics = self._measure("train", min(limits), ignore)
        # The loss of training has a curve already.
        return {name: v for name, v in metrics.items() if not name.endswith("loss")}

    def _measure(
        self, split: str, limit: int | None, then: Callable[[dict[str, float]], None]
    ) -> dict[str, float]:
        return measure(
            self._task,
            islice(self._data.batches(split, 0), limit),
            autocast=self._autocast,
            between=self._between,
            then=then,
        )
