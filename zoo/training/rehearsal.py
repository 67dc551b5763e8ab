"""One look at data, model and task together before a run begins, which leaves no trace."""

from collections.abc import Iterator, Sized
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zoo.tasks.task import Task, evaluation_mode
from zoo.training.distributed.strategy import Strategy
from zoo.training.freezing import training_mode
from zoo.training.reproducibility import SEED, isolated
from zoo.training.shortage import shortage


def require_turn(task: Task, networks: Sized, network: str) -> None:
    """Without an announcement a loss would give other networks a gradient too.

    Raises:
        ValueError: the objective has none, and there are several networks.
    """
    if len(networks) > 1 and task.announced != network:
        raise ValueError(
            f"{type(task).__name__} yields an objective of {network!r} that it has not announced; "
            f"write `with self.turn({network!r}):` around its forward pass"
        )


class Rehearsal(NamedTuple):
    """What a rehearsal has found.

    Attributes:
        differentiates: whether the task itself differentiates inside its objectives.
        reaches_all: whether the first loss has a gradient for every parameter that is trained.
        metrics: of the batch that was evaluated.
    """

    differentiates: bool
    reaches_all: bool
    metrics: dict[str, float]


def rehearse(
    task: Task, data: Any, num_batches: int, autocast: Any, strategy: Strategy
) -> Rehearsal:
    """Puts the first and the smallest training batch through a task, and evaluates one batch.

    The smallest is the last of an epoch, which is where batch normalisation may meet a single
    sample.

    Args:
        task: whose objectives to compute; no update is taken.
        data: where the batches come from.
        num_batches: how many of them an epoch uses.
        autocast: context of the forward passes.
        strategy: what this process holds of the networks.

    Raises:
        ValueError: data, model and task do not fit together.
    """
    state = task.state_dict()
    sizes = [len(data.loaders["train"].indices(0, b)) for b in (0, num_batches - 1)]
    where, fits = "", True
    try:
        with isolated(SEED), untouched(task.model), watched(task.model) as differentiated:
            training_mode(task.model)
            first = next(iter(data.batches("train", 0)))
            if first is None:
                raise ValueError("a process has no sample of the first batch: start fewer of them")
            reaches_all = _try(task, first, autocast)
            if sizes[1] < sizes[0]:
                fits, where = False, f"the last batch of an epoch has {_samples(sizes[1])}: "
                last = next(iter(data.batches("train", 0, num_batches - 1)))
                _try(task, first if last is None else last, autocast)
                fits, where = True, ""
        where = "in evaluation: "
        with isolated(SEED), untouched(task.model):
            try:
                metrics = _evaluate(task, data, first, autocast, strategy)
            except RuntimeError as error:
                if not strategy.needs_all(error):
                    raise
                metrics = _evaluate(task, data, first, autocast, strategy)
        return Rehearsal(bool(differentiated), reaches_all, metrics)
    except Exception as error:
        if isinstance(error, RuntimeError) and type(error).__module__.startswith("zoo."):
            raise  # what is wrong with the data themselves is a sentence already
        if shortage(error):
            raise
        advice = "" if fits else "; choose another data.batch_size or set data.drop_last=true"
        raise ValueError(
            f"data, model and task do not fit together: {where}"
            f"{' '.join(str(error).split())[:300]}{advice} (ZOO_TRACEBACK=1 shows where)"
        ) from error
    finally:
        task.end_turn()
        task.reset()
        task.load_state_dict(state)


def _samples(count: int) -> str:
    return "1 sample" if count == 1 else f"{count} samples"


def _try(task: Task, batch: Any, autocast: Any) -> bool:
    """Computes every objective of a batch; returns whether the first reaches all parameters."""
    networks, reached = task.networks(), None
    with autocast:
        for objective in task.every_objective(batch):
            require_turn(task, networks, objective.network)
            reached = _reached(objective.loss) if reached is None else reached
            task.end_turn()
    trained = {id(p) for p in task.model.parameters() if p.requires_grad}
    return reached is None or trained <= reached


def _reached(loss: Tensor) -> set[int]:
    """The tensors without a history that a loss has a gradient for, by their id."""
    found, seen, waiting = set(), set(), [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            found.add(id(getattr(node, "variable", None)))
            waiting += [following for following, _ in node.next_functions]
    return found


def _evaluate(
    task: Task, data: Any, first: Any, autocast: Any, strategy: Strategy
) -> dict[str, float]:
    """The metrics of the first batch that will be evaluated; of none if there is none."""
    task.prepare([first])
    task.reset()
    with evaluation_mode(task.model), strategy.evaluating(task):
        for split in [name for name in ("val", "test") if name in data.splits][:1]:
            batch = next(iter(data.batches(split, 0)))
            with autocast:
                # Where other processes have all of it, this one keeps them company.
                task.evaluate(first if batch is None else batch)
        return task.compute()


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Puts modes and whatever a forward pass may write back afterwards.

    That is buffers, and parameters next to them (layers that initialise themselves with the first
    batch note in a buffer that they have); copies of all parameters might not fit.
    """
    modes = [(module, module.training) for module in model.modules()]
    tensors: list[Tensor] = list(model.buffers())
    for module in model.modules():
        if next(module.buffers(recurse=False), None) is not None:
            tensors += module.parameters(recurse=False)
    copies = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, copy in zip(tensors, copies, strict=True):
                tensor.copy_(copy)
        for module, training in modes:
            module.training = training


@contextmanager
def watched(model: nn.Module) -> Iterator[list[Any]]:
    """Notes whether a gradient flows to what any module returns; nothing calls backward here."""
    seen: list[Any] = []

    def watch(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            output.register_hook(lambda gradient: seen.append(True))

    handles = [module.register_forward_hook(watch) for module in model.modules()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
