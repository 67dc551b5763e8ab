"""Replicas: every process has the whole model, and gradients are summed."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from zoo.tasks.task import Objective, Task
from zoo.training.distributed.several import Several, together


class _FirstObjective(nn.Module):
    """A model whose forward pass is a task's: from a batch's objectives to the first of them.

    It is this that DistributedDataParallel wraps, so that the model stays what it is and a task may
    call any of its methods.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, run: Iterator[Objective]) -> Objective | None:
        return next(run, None)


def _about_batch_norm(model: nn.Module) -> str:
    """What to know of a model whose batch normalisation sees a part of the batch."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms or any(isinstance(norm, nn.SyncBatchNorm) for norm in norms):
        return ""
    return (
        "; batch normalisation takes the statistics of each process's own samples, and the running "
        "ones of the first process are evaluated and saved (trainer.sync_batchnorm=true: of all)"
    )


class Replicated(Several):
    """Every process has the whole model.

    An ordinary task (one network, one loss a batch) is reduced by DistributedDataParallel during
    backward. It does not bear networks that take turns, several losses a batch or a task that
    differentiates; there the gradients are summed after backward. Buffers (running statistics, say)
    are those of the main process, which the others take over before each of their forward passes.

    Args:
        sync_batchnorm: whether batch normalisation takes the statistics of all processes together.
    """

    def __init__(self, *, sync_batchnorm: bool = False) -> None:
        super().__init__()
        self._sync_batchnorm = sync_batchnorm
        self._engine: Any = None
        self._model: nn.Module | None = None

    def wrap(self, task: Task, device: torch.device | None = None) -> None:
        self.align_weights(task.model)
        if not self._sync_batchnorm:
            return
        if not all(parameter.is_cuda for parameter in task.model.parameters()):
            raise ValueError("sync_batchnorm=true: torch has it for CUDA devices only; omit it")
        # Within the model, so that whoever holds it holds what is converted.
        torch.nn.SyncBatchNorm.convert_sync_batchnorm(task.model)

    def prepare(self, task: Task, *, differentiates: bool, reaches_all: bool) -> str:
        self._engine, self.scale, self._model = None, 1, task.model
        several = len(task.networks()) > 1 or type(task).objectives is not Task.objectives
        if several or differentiates or not reaches_all:
            what = "has objectives of its own"
            if differentiates:
                what = "differentiates"
            elif not several:
                what = "leaves some parameters without a gradient"
            self.align_weights(task.model)  # The task may have set some.
            how = f"summed after backward, since {type(task).__name__} {what}"
        else:
            # Of 1x1 convolutions in channels-last format, whose layout has two names.
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view")
            self._engine = torch.nn.parallel.DistributedDataParallel(
                _FirstObjective(task.model), gradient_as_bucket_view=True
            )
            self.scale = self.world
            how = "reduced during backward by DistributedDataParallel"
        return f"gradients are {how}{_about_batch_norm(task.model)}"

    def begin_step(self) -> None:
        if self._engine is None and self._model is not None:
            self.align(self._model)  # Not later: a backward pass may need them as they were.

    def ask(self, run: Iterator[Objective], *, is_first: bool, is_last: bool) -> Objective | None:
        if self._engine is None or not is_first:
            return next(run, None)
        with nullcontext() if is_last else self._engine.no_sync():
            found: Objective | None = self._engine(run)
        return found

    def reduce(self, parameters: Sequence[nn.Parameter]) -> None:
        if self._engine is not None:
            return
        # A parameter may have a gradient elsewhere and none here; one without any anywhere keeps
        # none, since optimizers treat that as another thing than zeros.
        has = torch.tensor([float(p.grad is not None) for p in parameters])
        self._dist.all_reduce(has)
        gradients = []
        for parameter, count in zip(parameters, has.tolist(), strict=True):
            if count and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if parameter.grad is not None:
                gradients.append(parameter.grad)
        together(gradients, self._dist.all_reduce)
