"""One pass over a split in which nothing of training changes."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import torch

from zoo.tasks.task import Task
from zoo.training.reproducibility import isolated

SEED = 1234
"""Evaluations draw from a random state of their own, the same at every evaluation."""


def evaluate(
    task: Task,
    batches: Iterable[Any],
    *,
    autocast: Any = None,
    between: Callable[[], None] = lambda: None,
    then: Callable[[dict[str, float]], None] = lambda metrics: None,
) -> dict[str, float]:
    """The task's metrics over some batches.

    The model is in evaluation mode, and neither its mode nor the global random states are changed
    afterwards.

    Args:
        task: whose metrics.
        batches: of the split.
        autocast: context of the forward passes.
        between: called before every batch; what it raises ends the evaluation.
        then: called with the metrics while the task still holds the pictures and texts of this
            evaluation, in the same random state and mode.

    Returns:
        Metric name to value.
    """
    model = task.model
    training = model.training
    model.eval()
    try:
        with isolated(SEED), torch.no_grad():
            task.reset()
            for batch in batches:
                between()
                with autocast or nullcontext():
                    task.evaluate(batch)
            metrics = task.compute()
            then(metrics)
    finally:
        model.train(training)
    return metrics
