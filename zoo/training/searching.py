"""What L-BFGS asks of a run: one smooth function of the weights that never changes.

It compares losses and gradients at many points, within a step and from step to step. On batches, or
with noise in the loss, the differences would be those of the batches and of the noise.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from zoo.tasks.task import Task
from zoo.training.distributed.strategy import Strategy
from zoo.training.freezing import training_mode
from zoo.training.plan import Plan
from zoo.training.rehearsal import untouched
from zoo.training.reproducibility import SEED, isolated
from zoo.training.settings import TrainerSettings

_ADVICE = "or use optimizer=sgd or optimizer=adamw"


def require_full_batch(
    task: Task,
    settings: TrainerSettings,
    plan: Plan,
    dtype: torch.dtype | None,
    strategy: Strategy,
) -> None:
    """Refuses what would make the objective another from step to step.

    Raises:
        ValueError: naming it, and the setting to change.
    """
    reasons = {
        f"one network with one loss, and {type(task).__name__} has others": (
            len(task.networks()) > 1 or type(task).objectives is not Task.objectives
        ),
        f"all data in one batch, and an epoch has {plan.batches_per_epoch}; set "
        "data.batch_size=null (or to the number of samples)": plan.batches_per_epoch > 1,
        "steps of one batch; set trainer.accumulate=1": settings.accumulate > 1,
        "whole gradients; set trainer.clip_norm=null trainer.clip_value=null": (
            settings.clip_norm is not None or settings.clip_value is not None
        ),
        "full precision; set trainer.precision=fp32": dtype is not None,
        "one process": strategy.world > 1,
    }
    for reason, holds in reasons.items():
        if holds:
            raise ValueError(f"L-BFGS needs {reason}, {_ADVICE}")


def require_same_objective(task: Task, data: Any, autocast: Any) -> None:
    """Refuses a loss that draws random numbers, and data that are others in another epoch.

    Raises:
        ValueError: saying which of the two it is.
    """
    first, second = (_in_order(data, epoch) for epoch in (0, 1))
    if not all(torch.equal(a, b) for a, b in zip(first, second, strict=True)):
        raise ValueError(
            "L-BFGS needs the same data in every epoch, and these are augmented or noisy; switch "
            f"that off (data.augment=false), {_ADVICE}"
        )
    state = task.state_dict()
    with isolated(SEED), untouched(task.model):
        training_mode(task.model)
        before = _generators()
        with autocast:
            list(task.objectives(next(iter(data.batches("train", 0)))))
        drawn = any(not torch.equal(a, b) for a, b in zip(before, _generators(), strict=True))
    task.end_turn()
    task.load_state_dict(state)
    if drawn:
        raise ValueError(
            "L-BFGS needs a loss that draws no random numbers, as dropout and noise do; set "
            f"model.dropout=0, {_ADVICE}"
        )


def _generators() -> list[Tensor]:
    return [
        torch.get_rng_state(),
        *(torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []),
    ]


def _in_order(data: Any, epoch: int) -> list[Tensor]:
    """The tensors of an epoch's only batch, samples in the order of the data."""
    order = torch.tensor(data.loaders["train"].indices(epoch, 0)).argsort()
    tensors = [t for t in tree_leaves(next(iter(data.batches("train", epoch)))) if _is_plain(t)]
    return [t[order.to(t.device)] if t.ndim and len(t) == len(order) else t for t in tensors]


def _is_plain(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided
