"""What the processes of a run say to each other, whatever each of them holds of the model."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from zoo.tasks.task import Metric
from zoo.training.distributed.launch import launch
from zoo.training.distributed.strategy import Strategy

_GONE = ("connection closed by peer", "connection reset by peer", "application timeout caused pair")


class LostProcessError(RuntimeError):
    """Another process of this run has ended before it."""


def is_loss_of_another(error: BaseException) -> bool:
    """Whether torch says no more than that it cannot reach another process."""
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _GONE)


class Several(Strategy):
    """What replicas and shards have in common; torch's default process group must be there."""

    def __init__(self) -> None:
        import torch.distributed as dist

        self._dist = dist
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        # What was asked for in the step before: the sum of it, and what gives it.
        self._asked: tuple[Tensor, Any] | None = None

    @contextmanager
    def main_first(self) -> Iterator[None]:
        is_first = launch().local_rank == 0
        if not is_first:
            self._dist.barrier()
        yield
        if is_first:
            self._dist.barrier()

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

    def agree(self, request: int) -> int:
        asked, self._asked = self._asked, None
        found = 0
        if asked is not None:
            largest, work = asked
            work.wait()
            found = int(largest)
        largest = torch.tensor(request)  # On the CPU, so that no device is waited for.
        work = self._dist.all_reduce(largest, op=self._dist.ReduceOp.MAX, async_op=True)
        self._asked = largest, work
        return found

    def gather(self, value: Any) -> list[Any]:
        found: list[Any] | None = [None] * self.world if self.is_main else None
        self._dist.gather_object(value, found)
        return found or []

    def share(self, value: Any) -> Any:
        held = [value if self.is_main else None]
        self._dist.broadcast_object_list(held, src=0)
        return held[0]

    def merge(self, metrics: Mapping[str, Metric]) -> None:
        if not metrics:
            return
        found: list[Any] = [None] * self.world
        device = _device_of(metrics)
        own = {name: copy.deepcopy(metric).to("cpu") for name, metric in metrics.items()}
        self._dist.all_gather_object(found, own)
        for name, metric in metrics.items():
            first, *others = (part[name].to(device) for part in found)
            for other in others:
                # Those of torchmetrics join states; ours add what another has seen.
                (getattr(first, "merge", None) or first.merge_state)(other)
            vars(metric).update(vars(first))  # In place: a task may hold it elsewhere too.

    def explain(self, error: Exception) -> None:
        if is_loss_of_another(error):
            raise LostProcessError(
                "another process of this run has ended, so that this one cannot go on; what it "
                "said stands above or below, and the last checkpoint is intact"
            ) from error

    @torch.no_grad()
    def align_weights(self, model: nn.Module) -> None:
        """Gives every process the parameters and buffers of the main process, in place."""
        together(list(model.parameters()), partial(self._dist.broadcast, src=0))
        self.align(model)

    @torch.no_grad()
    def align(self, model: nn.Module) -> None:
        kept = model.state_dict().keys()  # Others are constants.
        buffers = [tensor for name, tensor in model.named_buffers() if name in kept]
        together(buffers, partial(self._dist.broadcast, src=0))


def _device_of(metrics: Mapping[str, Metric]) -> torch.device:
    """Where metrics are: where the first tensor in any of them is."""
    for metric in metrics.values():
        for held in vars(metric).values():
            for value in held.values() if isinstance(held, dict) else [held]:
                if isinstance(value, Tensor):
                    return value.device
    return torch.device("cpu")


def together(tensors: Sequence[Tensor], collective: Callable[[Tensor], Any]) -> None:
    """Lets a collective work on many tensors in place, in one call for each type."""
    kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for alike in kinds.values():
        flat = torch.cat([tensor.reshape(-1) for tensor in alike])  # (elements,)
        collective(flat)
        parts = flat.split([tensor.numel() for tensor in alike])
        for tensor, part in zip(alike, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))
