"""One pass over a split in which nothing of training changes."""

import copy
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from itertools import islice
from typing import Any

from zoo.tasks.task import Task, evaluation_mode
from zoo.training.distributed.strategy import OneProcess, Strategy
from zoo.training.reproducibility import SEED, isolated, seed_everything


def ignore(metrics: dict[str, float]) -> None:
    """Does nothing with the metrics of an evaluation."""


def measure(
    task: Task,
    batches: Iterable[Any],
    *,
    autocast: Any = None,
    between: Callable[[], None] = lambda: None,
    then: Callable[[dict[str, float]], None] = ignore,
    strategy: Strategy | None = None,
    stand_in: Callable[[], Any] = lambda: None,
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
        strategy: which processes share the batches: every sample counts once, in one of them.
        stand_in: gives a batch for the forward passes of shards where a process has none.

    Returns:
        Metric name to value.
    """
    strategy = strategy or OneProcess()
    with isolated(SEED), evaluation_mode(task.model), strategy.evaluating(task):
        strategy.align(task.model)
        task.reset()
        if strategy.world > 1:
            seed_everything(SEED + strategy.rank)
        for batch in batches:
            between()
            with autocast or nullcontext():
                if batch is not None:
                    task.evaluate(batch)
                elif strategy.is_sharded:
                    _keep_company(task, stand_in())
        if strategy.world > 1:
            seed_everything(SEED)
            strategy.merge(task.every_metric())
        metrics = strategy.share(task.compute())
        then(metrics)
    return metrics


def _keep_company(task: Task, batch: Any) -> None:
    """Takes part in the forward passes of others, without which shards are not gathered."""
    kept = {name: copy.deepcopy(vars(metric)) for name, metric in task.every_metric().items()}
    task.evaluate(batch)
    for name, metric in task.every_metric().items():
        vars(metric).update(kept[name])


class Evaluation:
    """Measures a task on the splits of its data, with the weights that the model holds.

    Args:
        task: whose metrics.
        data: the data module.
        limit: largest number of batches; None: all of a split.
        autocast: context of the forward passes.
        between: called before every batch; what it raises ends the evaluation.
        strategy: which processes share the batches.
        stand_in: gives a batch where a process has none, see `measure`.
    """

    def __init__(
        self,
        task: Task,
        data: Any,
        *,
        limit: int | None,
        autocast: Any,
        between: Callable[[], None],
        strategy: Strategy,
        stand_in: Callable[[], Any],
    ) -> None:
        self._task, self._data, self._limit = task, data, limit
        self._autocast, self._between = autocast, between
        self._strategy, self._stand_in = strategy, stand_in

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
            strategy=self._strategy,
            stand_in=self._stand_in,
        )
