"""Shards: every process has a part of each parameter, by FSDP2."""

import copy
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.tasks.task import Task
from zoo.training.checkpoints.background import in_background
from zoo.training.checkpoints.shard_files import (
    SHARDS,
    ShardError,
    checksums,
    join,
    read_parts,
    split,
)
from zoo.training.distributed.several import Several, together
from zoo.training.optimizers import load_optimizer

_SHARDED = "DTensor"  # In whatever torch says of weights that are not gathered.


class UngatheredError(RuntimeError):
    """A task uses weights of which this process has a part alone."""


def _without_content(make: Callable[[], nn.Module]) -> nn.Module | None:
    """A network on the meta device, where it takes no memory; None if it cannot be made there."""
    try:
        with torch.device("meta"):
            model = make()
    except Exception:  # Whatever a constructor does with numbers that are not there.
        return None
    held = (value for module in model.modules() for value in vars(module).values())
    return None if any(isinstance(v, Tensor) and v.is_meta for v in held) else model


def _divided(value: Any, like: Tensor | None) -> Any:
    """A whole tensor in parts like another of its shape; anything else as it is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    is_whole = isinstance(value, Tensor) and not isinstance(value, DTensor)
    if not is_whole or not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value, like.device_mesh, like.placements)


class Sharded(Several):
    """Every process has a part of each parameter, of its gradient and of the optimizer's state.

    The parts of a `ModuleList` (the blocks of a deep network) are gathered one at a time. Only the
    main process makes the weights of a network; the others make its parts, without memory, and are
    given their shards.

    Args:
        dtype: type in which gathered weights are computed with; gradients are summed in fp32. None:
            that of the weights.
    """

    is_sharded = True

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.scale = self.world
        self._dtype = dtype
        self._model: nn.Module | None = None
        self._task = ""
        self._evaluates_all = False
        # Shards are written in the background, beside what the processes say meanwhile.
        self._writers = self._dist.new_group(backend="gloo")

    def build(self, make: Callable[[], nn.Module], device: torch.device | str = "cpu") -> nn.Module:
        found = None if self.is_main else _without_content(make)
        return found or make()

    def wrap(self, task: Task, device: torch.device | None = None) -> None:
        from torch.distributed.checkpoint.state_dict import (
            StateDictOptions,
            set_model_state_dict,
        )
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        policy = MixedPrecisionPolicy(
            param_dtype=self._dtype, reduce_dtype=torch.float32 if self._dtype else None
        )
        self._task = type(task).__name__
        # What the main process has made; nothing is copied, and shards are copies.
        whole = task.model.state_dict() if self.is_main else {}
        kind = (device or next(task.model.parameters()).device).type
        mesh = self._mesh = init_device_mesh(kind if kind != "meta" else "cpu", (self.world,))
        for network in task.networks().values():
            lists = [m for m in network.modules() if isinstance(m, nn.ModuleList)]
            # Lists within blocks come first: what is left of a block is sharded after its parts.
            for block in (block for blocks in reversed(lists) for block in blocks):
                if any(True for _ in block.parameters()):
                    fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
            # Gathered anew for every forward pass, since turns change whether gradients are wanted.
            fully_shard(network, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
        if any(tensor.is_meta for tensor in task.model.parameters()):
            task.model.to_empty(device=device or "cpu")
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        set_model_state_dict(task.model, whole, options=options)
        with torch.no_grad():  # All of them: nobody else may have any content.
            together(list(task.model.buffers()), partial(self._dist.broadcast, src=0))

    def prepare(self, task: Task, *, differentiates: bool, reaches_all: bool) -> str:
        self._model = task.model
        if differentiates:
            raise ValueError(
                f"{type(task).__name__} differentiates inside its objectives, which FSDP2 does not "
                "do; train replicas instead of shards"
            )
        return "parameters are sharded and gradients reduced during backward by FSDP2"

    @contextmanager
    def evaluating(self, task: Task) -> Iterator[None]:
        # FSDP2 gathers what the `forward` of a module needs. A search calls other methods, too.
        modules: list[Any] = [m for m in task.model.modules() if hasattr(m, "unshard")]
        for module in modules if self._evaluates_all else ():
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        try:
            yield
        finally:
            for module in modules if self._evaluates_all else ():
                module.set_reshard_after_forward(True, recurse=False)
                module.reshard()

    def needs_all(self, error: RuntimeError) -> bool:
        before, self._evaluates_all = self._evaluates_all, _SHARDED in str(error)
        return self._evaluates_all and not before

    def explain(self, error: Exception) -> None:
        super().explain(error)
        if _SHARDED in str(error):
            raise UngatheredError(
                f"{self._task} uses weights outside of the network's forward (as with "
                "task.balanced_start, or a decoder called by itself), for which shards are not "
                "gathered; use trainer.strategy=ddp"
            ) from error

    def begin_step(self) -> None:
        if self._model is not None:  # FSDP2 reduces gradients, and knows no buffers.
            self.align(self._model)

    def local(self, gradients: list[Tensor]) -> list[Tensor]:
        from torch.distributed.tensor import DTensor

        return [g.to_local() if isinstance(g, DTensor) else g for g in gradients]

    def whole(self, value: Tensor) -> Tensor:
        from torch.distributed.tensor import DTensor

        return value.full_tensor() if isinstance(value, DTensor) else value

    def own(self, shown: dict[str, Any]) -> dict[str, Any]:
        from torch.utils._pytree import tree_map

        def kept(value: Any) -> Any:
            return self.whole(value).clone() if isinstance(value, Tensor) else value

        copies: dict[str, Any] = tree_map(kept, shown)
        return copies

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

    def write_shards(
        self, state: dict[str, Any], folder: Path | None
    ) -> tuple[dict[str, Any], Future[dict[str, int]] | None]:
        import torch.distributed.checkpoint as dcp

        path = self.share(folder)
        if path is None:
            return state, None
        rest, shards = split(state)
        # It is written when they are, and training goes on meanwhile. Torch copies the shards.
        rest = copy.deepcopy(rest)
        writer = dcp.FileSystemWriter(path)
        written = dcp.async_save(shards, storage_writer=writer, process_group=self._writers)
        assert isinstance(written, Future)

        def complete() -> dict[str, int]:
            try:
                written.result()
                return checksums(path) if self.is_main else {}
            except Exception as error:  # Of this process or another; torch has classes of its own.
                reason = " ".join(str(error).split())[-300:]
                raise ShardError(f"cannot write the shards of a checkpoint ({reason})") from error

        return rest, in_background(complete)

    def share_state(self, state: dict[str, Any] | None) -> dict[str, Any] | None:
        state = super().share_state(state)
        if state is None or SHARDS not in state:
            return state
        folder = state.pop(SHARDS)
        joined: dict[str, Any] = join(state, read_parts(folder, self._mesh, self._writers))
        return joined

    def load_state(self, module: nn.Module, state: dict[str, Any]) -> None:
        from torch.distributed.checkpoint.state_dict import (
            StateDictOptions,
            set_model_state_dict,
        )
        from torch.distributed.tensor import DTensor

        is_whole = not any(isinstance(value, DTensor) for value in state.values())
        set_model_state_dict(module, state, options=StateDictOptions(full_state_dict=is_whole))

    def divided(self, tensors: dict[Any, Any], like: Mapping[Any, Tensor]) -> dict[Any, Any]:
        return {name: _divided(value, like.get(name)) for name, value in tensors.items()}

    def load_optimizer(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        numbers = [n for group in state["param_groups"] for n in group["params"]]
        parts = dict(state["state"])
        for number, parameter in zip(numbers, parameters, strict=True):
            if number in parts:
                entry = parts[number]
                parts[number] = self.divided(entry, dict.fromkeys(entry, parameter))
        load_optimizer(optimizer, {**state, "state": parts})
