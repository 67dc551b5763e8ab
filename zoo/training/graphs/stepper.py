"""A training step that is captured once and replayed: forward, backward, clipping and optimizer.

A replay launches kernels and runs no Python, so that everything which differs from step to step
stands in a tensor that the graph reads:

- the batch is copied into tensors of its own;
- the learning rates are tensors on the device, filled before every replay, while the optimizer's
  groups hold the numbers, so that checkpoints and curves are those of a run without graphs;
- the losses are handed to the training curve after the replay.

The average of the weights, whose decay rises with the steps, is taken outside the graph.

The first steps of a run warm up: they are ordinary steps on the stream of the capture. What the
capture has frozen (the other arguments of the optimizer, where weights and statistics lie) is
looked at before every replay; a change stops the run and is named.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from zoo.training.curve import TrainingCurve
from zoo.training.graphs.runners import CaptureError, Runner
from zoo.training.plan import Plan
from zoo.training.state import RunState
from zoo.training.step import Stepper

WARM_UP = 3
"""Steps before the capture, as torch advises: kernels are chosen and states made in them."""


class StaticBatch:
    """A batch in tensors that stay the same, into which others of its shape are copied.

    Args:
        batch: tensors in tuples, lists and dictionaries, and numbers or texts that never change.
        device: where its tensors must be.

    Attributes:
        batch: the same in tensors of its own.

    Raises:
        ValueError: it holds something that cannot be copied like this.
    """

    def __init__(self, batch: Any, device: torch.device) -> None:
        leaves, self._structure = tree_flatten(batch)
        for leaf in leaves:
            _require_static(leaf, device)
        self._leaves = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self.batch = tree_unflatten(self._leaves, self._structure)

    def difference(self, batch: Any) -> str:
        """In what a batch is not like this one, as a clause; empty where it is."""
        leaves, structure = tree_flatten(batch)
        if structure != self._structure:
            return "has other parts than the first"
        for kept, new in zip(self._leaves, leaves, strict=True):
            if isinstance(kept, Tensor) and isinstance(new, Tensor):
                if (kept.shape, kept.dtype) != (new.shape, new.dtype):
                    return f"has {_described(new)} where the first has {_described(kept)}"
            elif isinstance(new, Tensor) or kept != new:
                return f"has {new!r} where the first has {kept!r}"
        return ""

    def fill(self, batch: Any) -> None:
        """Copies a batch in which nothing differs."""
        leaves, _ = tree_flatten(batch)
        pairs = zip(self._leaves, leaves, strict=True)
        for kept, new in pairs:
            if isinstance(kept, Tensor):
                kept.copy_(new, non_blocking=True)


def _require_static(leaf: Any, device: torch.device) -> None:
    if isinstance(leaf, Tensor):
        if leaf.layout is not torch.strided:
            raise ValueError("a batch has a sparse tensor, which cannot be filled in place")
        if leaf.device.type != device.type:
            raise ValueError(
                f"a batch has {_described(leaf)} on the {leaf.device.type} (lengths, perhaps), "
                "whose values a graph would keep"
            )
    elif leaf is not None and not isinstance(leaf, bool | int | float | str):
        raise ValueError(f"a batch has a {type(leaf).__name__}, of which torch knows no parts")


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


class DeviceRates:
    """The learning rates of optimizers as tensors on their device.

    Args:
        optimizers: whose groups hold numbers.
        device: where the parameters are.
    """

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer], device: torch.device) -> None:
        # Fused kernels read single precision on a GPU and any on a CPU.
        dtype = torch.float64 if device.type == "cpu" else torch.float32
        self._optimizers, self._is_cuda = optimizers, device.type == "cuda"
        self.tensors = [torch.zeros((), dtype=dtype, device=device) for _ in self._groups()]

    def _groups(self) -> list[dict[str, Any]]:
        # Always asked for anew: loading a state gives an optimizer other groups.
        return [group for optimizer in self._optimizers for group in optimizer.param_groups]

    def fill(self) -> None:
        """Takes over the numbers."""
        for tensor, group in zip(self.tensors, self._groups(), strict=True):
            tensor.fill_(group["lr"])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Has the optimizers read the tensors within the block."""
        groups = self._groups()
        names = ("lr", "capturable")
        kept: list[dict[str, Any]] = [{n: g[n] for n in names if n in g} for g in groups]
        is_capturing = self._is_cuda and torch.cuda.is_current_stream_capturing()
        try:
            for tensor, group in zip(self.tensors, groups, strict=True):
                group["lr"] = tensor
                if is_capturing and "capturable" in group:
                    group["capturable"] = True  # Fused states are on the device in any case.
            yield
        finally:
            for group, values in zip(groups, kept, strict=True):
                group.update(values)


class _Notes:
    """Takes the place of the training curve in a step, and keeps what it would be told."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, tuple[Any, ...]]] = []

    def add(self, network: str, loss: Tensor, count: Tensor | int) -> None:
        self.entries.append(("add", (network, loss, count)))

    def add_terms(self, network: str, terms: Mapping[str, Tensor], count: Tensor | int) -> None:
        self.entries.append(("add_terms", (network, dict(terms), count)))


class CapturedStepper:
    """Takes the steps of a run, all but a few of them by a replay.

    A batch of another shape than the first is an error, but for the last of an epoch, which may be
    smaller: its step is an ordinary one.

    Args:
        state: what the run consists of.
        curve: takes in the losses.
        plan: of the run.
        first: a batch of the shape that all have but the last of an epoch.
        runner: what captures and replays.
        device: where the parameters are.

    Attributes:
        steps: those taken so far.
    """

    def __init__(
        self,
        state: RunState,
        curve: TrainingCurve,
        plan: Plan,
        first: Any,
        *,
        runner: Runner,
        device: torch.device,
    ) -> None:
        self._state, self._updater, self._curve, self._plan = state, state.updater, curve, plan
        self._runner, self._notes, self._inputs = runner, _Notes(), StaticBatch(first, device)
        self._plain, self._noting = (
            Stepper(state.task, state.updater, state.strategy, told)
            for told in (curve, self._notes)
        )
        self._rates = DeviceRates(list(state.optimizers.values()), device)
        self._warmed = 0
        self._outputs: tuple[Any, ...] | None = None
        self._frozen: list[Any] = []
        self.steps = 0

    @property
    def replays(self) -> int:
        """How many of the steps were replays."""
        return self._runner.replays

    def step(self, window: Sequence[Any], *, measure: bool) -> bool:
        """Takes the step, see `Stepper.step`; a replay measures in any case.

        Raises:
            CaptureError: it cannot be captured, the batch has another shape than the first, or
                something has changed that the graph has frozen.
        """
        (batch,) = window
        self.steps += 1
        if difference := self._inputs.difference(batch):
            self._require_last(difference)
            return self._plain.step(window, measure=measure)
        self._inputs.fill(batch)
        self._rates.fill()
        if self._outputs is not None:
            self._require_unchanged()
            self._runner.replay()
            self._pass_on(*self._outputs)
        elif self._warmed < WARM_UP:
            self._warmed += 1
            self._pass_on(*self._runner.warm_up(self._run))
        else:
            self._frozen = self._signature()
            outputs: tuple[Any, ...] = self._runner.capture(self._run)
            self._outputs = outputs
            self._pass_on(*outputs)
        return True

    def _run(self) -> tuple[Any, ...]:
        """The step on the tensors that stay; what it has to say."""
        self._notes.entries = []
        with self._rates.applied():
            self._noting.step([self._inputs.batch], measure=True)
        return self._notes.entries, dict(self._updater.norms), dict(self._updater.layers)

    def _pass_on(
        self, entries: list[Any], norms: dict[str, Tensor], layers: dict[str, Tensor]
    ) -> None:
        for name, arguments in entries:
            getattr(self._curve, name)(*arguments)
        # An ordinary step between two replays has put others there.
        self._updater.norms, self._updater.layers = dict(norms), dict(layers)

    def _require_last(self, difference: str) -> None:
        batch = self._state.position.batch
        if batch + 1 < self._plan.batches_per_epoch:
            raise CaptureError(
                f"batch {batch} {difference}, and a CUDA graph is for one shape; pad the batches "
                "or go on with trainer.cuda_graphs=false"
            )

    def _signature(self) -> list[Any]:
        """What the graph has frozen: arguments of the optimizers, and where tensors lie."""
        model, optimizers = self._state.task.model, self._state.optimizers.values()
        return [
            *(
                (name, value)
                for optimizer in optimizers
                for group in optimizer.param_groups
                for name, value in group.items()
                if name not in ("params", "lr", "initial_lr")
            ),
            *((n, p.data_ptr(), p.requires_grad) for n, p in model.named_parameters()),
            *((name, buffer.data_ptr()) for name, buffer in model.named_buffers()),
        ]

    def _require_unchanged(self) -> None:
        now = self._signature()
        if now != self._frozen:
            pairs = zip(now, self._frozen, strict=False)
            name = next((a[0] for a, b in pairs if a != b), "a parameter")
            raise CaptureError(
                f"{name} has changed since the step was captured in a CUDA graph, which would go "
                "on with what was; go on with trainer.cuda_graphs=false"
            )

    def __str__(self) -> str:
        return f"{self.replays} of {self.steps} steps were replays of a CUDA graph"

    def release(self) -> None:
        """Gives up the graph; to be called before a process group is destroyed."""
        self._outputs = None
        self._runner.release()
