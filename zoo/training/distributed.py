"""How many processes train one model, and what each of them holds of it.

The trainer and its updater ask a strategy where it matters that they are not alone: for the sum of
the counts, whether anybody's gradient is not finite, for the whole state. Reducing gradients is
torch's: DistributedDataParallel for replicas, FSDP2 for shards. Alone, all of it is nothing.

With several processes each has its part of every batch. A loss is multiplied by its own count, the
gradients are summed over the processes and divided by the true count of all, so that uneven parts
equal one large batch.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from zoo.tasks.task import Objective, Task
from zoo.training.optimizers import load_optimizer


class Strategy:
    """One process: there is nothing to share.

    Attributes:
        rank: number of this process.
        world: number of processes.
        scale: what a loss is multiplied by before backward, where the engine takes the mean of the
            gradients over the processes instead of their sum.
        is_sharded: whether a process holds a part of each parameter.
    """

    rank = 0
    world = 1
    scale = 1
    is_sharded = False

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def wrap(self, task: Task) -> None:
        """Prepares the networks, in place; to be called before optimizers are made of them."""

    def prepare(self, task: Task, *, differentiates: bool) -> str:
        """Chooses how gradients are reduced; to be called before the first step.

        Args:
            task: what is learned.
            differentiates: whether the task itself differentiates inside its objectives.

        Returns:
            What was chosen, in a line for the log; empty where there is nothing to choose.

        Raises:
            ValueError: the task cannot be trained like this.
        """
        return ""

    def ask(self, run: Iterator[Objective], *, is_first: bool, is_last: bool) -> Objective | None:
        """The next objective of a batch, if there is one.

        Args:
            run: the objectives of a batch.
            is_first: whether none has been asked for yet.
            is_last: whether the batch is the last of those whose gradients are accumulated.
        """
        return next(run, None)

    def reduce(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sums the gradients over the processes, where backward has not done so."""

    def local(self, gradients: list[Tensor]) -> list[Tensor]:
        """What this process holds of some gradients."""
        return gradients

    def whole(self, value: Tensor) -> Tensor:
        """A number that is computed from what all processes hold."""
        return value

    def total(self, *values: Tensor | int) -> list[Any]:
        """The sums of some numbers over the processes."""
        return list(values)

    def any(self, flag: Tensor) -> None:
        """Raises a flag that any process has raised, in place."""

    def gather(self, value: Any) -> list[Any]:
        """What each process has, in the order of their ranks; empty but in the main process."""
        return [value]

    def gather_state(self, module: nn.Module) -> dict[str, Any]:
        """The whole state of a module, as if one process had it."""
        return module.state_dict()

    def gather_tensors(self, state: dict[str, Any]) -> dict[str, Any]:
        """A nested state with whole tensors in it."""
        return state

    def load_state(self, module: nn.Module, state: dict[str, Any]) -> None:
        """Restores what `gather_state` gave."""
        module.load_state_dict(state)

    def load_optimizer(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Restores the state of an optimizer, whole tensors in it."""
        load_optimizer(optimizer, state)


class OneProcess(Strategy):
    """One process: the default, which costs nothing."""


class _Several(Strategy):
    """What replicas and shards have in common; torch's default process group must be there."""

    def __init__(self) -> None:
        import torch.distributed as dist

        self._dist = dist
        self.rank, self.world = dist.get_rank(), dist.get_world_size()

    def total(self, *values: Tensor | int) -> list[Any]:
        device = next((v.device for v in values if isinstance(v, Tensor)), None)
        sums = torch.stack(
            [torch.as_tensor(v, device=device).double() for v in values]
        )  # (values,)
        self._dist.all_reduce(sums)
        types = [v.dtype if isinstance(v, Tensor) else torch.int64 for v in values]
        return [s.to(t) for s, t in zip(sums.unbind(), types, strict=True)]

    def any(self, flag: Tensor) -> None:
        self._dist.all_reduce(flag, op=self._dist.ReduceOp.MAX)

    def gather(self, value: Any) -> list[Any]:
        found: list[Any] | None = [None] * self.world if self.is_main else None
        self._dist.gather_object(value, found)
        return found or []


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


class Replicated(_Several):
    """Every process has the whole model.

    An ordinary task (one network, one loss a batch) is reduced by DistributedDataParallel during
    backward. It does not bear networks that take turns, several losses a batch or a task that
    differentiates; there the gradients are summed after backward. Batch statistics are those of the
    main process.
    """

    def __init__(self) -> None:
        super().__init__()
        self._engine: Any = None
        self._buffers: list[Tensor] = []

    def wrap(self, task: Task) -> None:
        with torch.no_grad():
            for tensor in task.model.state_dict().values():
                self._dist.broadcast(tensor, src=0)

    def prepare(self, task: Task, *, differentiates: bool) -> str:
        self._engine, self.scale = None, 1
        self._buffers = list(task.model.buffers())
        several = len(task.networks()) > 1 or type(task).objectives is not Task.objectives
        if several or differentiates:
            what = "differentiates" if differentiates else "has objectives of its own"
            return f"gradients are summed after backward, since {type(task).__name__} {what}"
        self._engine = torch.nn.parallel.DistributedDataParallel(_FirstObjective(task.model))
        self.scale = self.world
        return "gradients are reduced during backward by DistributedDataParallel"

    def ask(self, run: Iterator[Objective], *, is_first: bool, is_last: bool) -> Objective | None:
        if self._engine is None or not is_first:
            return next(run, None)
        with nullcontext() if is_last else self._engine.no_sync():
            found: Objective | None = self._engine(run)
        return found

    def reduce(self, parameters: Sequence[nn.Parameter]) -> None:
        if self._engine is not None:
            return
        for parameter in parameters:
            if parameter.grad is None:  # Here, but perhaps not in the other processes.
                parameter.grad = torch.zeros_like(parameter)
        _together([p.grad for p in parameters if p.grad is not None], self._dist.all_reduce)
        _together(self._buffers, partial(self._dist.broadcast, src=0))


def _together(tensors: Sequence[Tensor], collective: Callable[[Tensor], Any]) -> None:
    """Lets a collective work on many tensors in place, in one call for each type."""
    kinds: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault(tensor.dtype, []).append(tensor)
    for alike in kinds.values():
        flat = torch.cat([tensor.reshape(-1) for tensor in alike])  # (elements,)
        collective(flat)
        parts = flat.split([tensor.numel() for tensor in alike])
        for tensor, part in zip(alike, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))


class Sharded(_Several):
    """Every process has a part of each parameter, of its gradient and of the optimizer's state.

    The parts of a `ModuleList` (the blocks of a deep network) are gathered one at a time.
    """

    is_sharded = True

    def __init__(self) -> None:
        super().__init__()
        self.scale = self.world

    def wrap(self, task: Task) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        for network in task.networks().values():
            device = next(network.parameters()).device.type
            mesh = init_device_mesh(device, (self.world,))
            lists = [m for m in network.modules() if isinstance(m, nn.ModuleList)]
            for block in (block for blocks in lists for block in blocks):
                if any(True for _ in block.parameters()):
                    fully_shard(block, mesh=mesh, reshard_after_forward=True)
            # Gathered anew for every forward pass, since turns change whether gradients are wanted.
            fully_shard(network, mesh=mesh, reshard_after_forward=True)

    def prepare(self, task: Task, *, differentiates: bool) -> str:
        if differentiates:
            raise ValueError(
                f"{type(task).__name__} differentiates inside its objectives, which FSDP2 does not "
                "do; train replicas instead of shards"
            )
        return "parameters are sharded and gradients reduced during backward by FSDP2"

    def local(self, gradients: list[Tensor]) -> list[Tensor]:
        from torch.distributed.tensor import DTensor

        return [g.to_local() if isinstance(g, DTensor) else g for g in gradients]

    def whole(self, value: Tensor) -> Tensor:
        from torch.distributed.tensor import DTensor

        return value.full_tensor() if isinstance(value, DTensor) else value

    def gather_state(self, module: nn.Module) -> dict[str, Any]:
        from torch.distributed.checkpoint.state_dict import (
            StateDictOptions,
            get_model_state_dict,
        )

        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        return get_model_state_dict(module, options=options)

    def gather_tensors(self, state: dict[str, Any]) -> dict[str, Any]:
        from torch.distributed.tensor import DTensor
        from torch.utils._pytree import tree_map

        def whole(value: Any) -> Any:
            return value.full_tensor().cpu() if isinstance(value, DTensor) else value

        found: dict[str, Any] = tree_map(whole, state)
        return found

    def load_state(self, module: nn.Module, state: dict[str, Any]) -> None:
        from torch.distributed.checkpoint.state_dict import (
            StateDictOptions,
            set_model_state_dict,
        )

        set_model_state_dict(module, state, options=StateDictOptions(full_state_dict=True))

    def load_optimizer(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        from torch.distributed.tensor import DTensor, distribute_tensor

        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        numbers = [n for group in state["param_groups"] for n in group["params"]]
        parts = dict(state["state"])
        for number, parameter in zip(numbers, parameters, strict=True):
            if isinstance(parameter, DTensor) and number in parts:
                parts[number] = {
                    name: distribute_tensor(v, parameter.device_mesh, parameter.placements)
                    if isinstance(v, Tensor) and v.shape == parameter.shape
                    else v
                    for name, v in parts[number].items()
                }
        load_optimizer(optimizer, {**state, "state": parts})
