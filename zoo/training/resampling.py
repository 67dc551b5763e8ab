"""How far metrics depend on which samples happen to be in a split: the bootstrap."""

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from zoo.tasks.task import Metric, evaluation_mode
from zoo.training.reproducibility import SEED, isolated


class Judge(Protocol):
    """A task that judges outputs of its model, a row of which belongs to one sample."""

    model: nn.Module
    metrics: dict[str, Metric]

    def outputs(self, batch: Any) -> tuple[Tensor, Tensor]:
        """What the model returns for a batch, and its targets."""
        ...

    def judge(self, output: Tensor, targets: Tensor, /) -> Any:
        """Adds rows of both to the metrics."""
        ...

    def compute(self) -> dict[str, float]: ...

    def reset(self) -> None: ...


def outputs_of(
    task: Judge, batches: Iterable[Any], *, autocast: Any = None
) -> tuple[list[Tensor], list[Tensor]]:
    """What a task's model returns for each batch in evaluation mode, and the targets.

    Args:
        task: whose model.
        batches: of a split.
        autocast: context of the forward passes.
    """
    pairs = []
    with isolated(SEED), evaluation_mode(task.model):
        for batch in batches:
            with autocast or nullcontext():
                pairs.append(task.outputs(batch))
    outputs, targets = map(list, zip(*pairs, strict=True))
    return outputs, targets


def bootstrap(
    task: Judge,
    outputs: Tensor,
    targets: Tensor,
    *,
    resamples: int,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of a task's metrics (Efron, 1979).

    As many samples as there are are drawn with replacement, and the task's own metrics judge them;
    an interval holds the central part of what they give. Metrics that noise makes larger
    (``grows_with_noise``) are left out.

    Args:
        task: whose metrics; they are reset.
        outputs: of its model, a row for each independent sample.
        targets: likewise.
        resamples: how often to draw.
        seed: of the draws.
        level: share of the central part.

    Returns:
        Lower and upper bound by metric.
    """
    draws = np.random.default_rng(seed)
    found: dict[str, list[float]] = {}
    with torch.no_grad():
        for _ in range(resamples):
            drawn = torch.from_numpy(draws.integers(0, len(targets), len(targets)))
            drawn = drawn.to(targets.device)
            task.reset()
            task.judge(outputs[drawn], targets[drawn])
            for name, value in task.compute().items():
                found.setdefault(name, []).append(value)
    task.reset()
    tails = ((1 - level) / 2, (1 + level) / 2)
    return {
        name: tuple(np.quantile(values, tails).tolist())
        for name, values in found.items()
        if not getattr(task.metrics.get(name), "grows_with_noise", False)
        and not np.isnan(values).all()  # one that outputs and targets do not tell
    }
