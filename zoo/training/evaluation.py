"""One pass over a split in which nothing of training changes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from zoo.tasks.task import Task, evaluation_mode
from zoo.training.reproducibility import isolated

SEED = 1234
"""Evaluations draw from a random state of their own, the same at every evaluation."""


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


def markdown_table(rows: Sequence[Mapping[str, str | float]]) -> str:
    """The rows as a table that is aligned on a terminal and laid out by Markdown readers."""

    def written(value: str | float) -> str:
        text = f"{value:.4f}" if isinstance(value, float) else str(value)
        return text.replace("|", "\\|")

    names = list(rows[0])
    cells = [names, *([written(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    left = [isinstance(rows[0][name], str) for name in names]
    rule = [
        f":{'-' * (w - 1)}" if to else f"{'-' * (w - 1)}:"
        for w, to in zip(widths, left, strict=True)
    ]
    lines = [
        [
            cell.ljust(w) if to else cell.rjust(w)
            for cell, w, to in zip(line, widths, left, strict=True)
        ]
        for line in cells
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], rule, *lines[1:]])
