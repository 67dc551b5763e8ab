"""What a CUDA graph asks of a run: a step in which only the values of tensors differ.

All of it is looked at before the run begins, since a graph does not notice: what Python decided or
drew while it was captured is silently what every later step does.
"""

import copy
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves

from zoo.tasks.task import Task
from zoo.training.distributed.strategy import Strategy
from zoo.training.freezing import training_mode
from zoo.training.graphs.runners import CaptureError, Runner
from zoo.training.graphs.stepper import DeviceRates, StaticBatch
from zoo.training.optimizers import takes_closure, takes_found_inf
from zoo.training.plan import Plan
from zoo.training.rehearsal import untouched, watched
from zoo.training.reproducibility import SEED, isolated, random_state
from zoo.training.settings import TrainerSettings
from zoo.training.update import Updater

MakeRunner = Callable[[torch.device], Runner]

_ADVICE = "or leave trainer.cuda_graphs out"
_FUSED = "use optimizer=sgd, optimizer=adam or optimizer=adamw"
_WAITS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
_INDEXES = (
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
)


def require_capturable(
    task: Task,
    settings: TrainerSettings,
    optimizers: Mapping[str, torch.optim.Optimizer],
    dtype: torch.dtype | None,
    strategy: Strategy,
) -> None:
    """Refuses settings, tasks and optimizers of which a graph would make something else.

    Raises:
        ValueError: naming the reason, and the setting to change.
    """
    task_name = type(task).__name__
    parts = [part for o in optimizers.values() for part in getattr(o, "parts", [o])]
    names = ", ".join(type(optimizer).__name__ for optimizer in optimizers.values())
    reasons = {
        "one process": strategy.world > 1 or strategy.is_sharded,
        "steps of one batch; set trainer.accumulate=1": settings.accumulate > 1,
        "gradients without a loss scale; set trainer.precision=bf16": dtype is torch.float16,
        "compilation without graphs of its own; set trainer.compile=default": (
            settings.compile in ("reduce-overhead", "max-autotune")
        ),
        f"a loss without a derivative in it, and that of {task_name} has a gradient penalty": (
            task.differentiates
        ),
        f"one network with one loss, and a task that counts no steps, unlike {task_name}": (
            len(task.networks()) > 1
            or type(task).objectives is not Task.objectives
            or type(task).after_update is not Task.after_update
        ),
        f"an optimizer that evaluates the loss once, and {names} searches; {_FUSED}": (
            any(map(takes_closure, parts))
        ),
        f"a fused optimizer, which the device itself can have skip an update, and {names} is not; "
        f"{_FUSED}": not all(map(takes_found_inf, optimizers.values())),
        "an optimizer without penalties; set optimizer.l1=0 optimizer.towards_start=0 "
        "optimizer.max_norm=null": any(
            part._optimizer_step_pre_hooks or part._optimizer_step_post_hooks for part in parts
        ),
    }
    for reason, holds in reasons.items():
        if holds:
            raise ValueError(f"cuda_graphs=true needs {reason}, {_ADVICE}")


def require_static_step(
    task: Task, data: Any, plan: Plan, updater: Updater, device: torch.device, make: MakeRunner
) -> Any:
    """Refuses data, losses and optimizers whose steps differ in more than values of tensors.

    One batch goes through the task, forward and backward; nothing is learned.

    Args:
        task: what is learned.
        data: where the batches come from.
        plan: of the run.
        updater: with the optimizers.
        device: where everything is.
        make: makes a runner, with which a step of the optimizers on copies is captured.

    Returns:
        The first batch, which has the shape of all but the last.

    Raises:
        ValueError: saying in what they differ.
    """
    batches = islice(data.batches("train", 0), 1 + min(2, max(0, plan.batches_per_epoch - 2)))
    first = next(batches)
    try:
        static = StaticBatch(first, device)
    except ValueError as error:
        raise _refusal(f"batches of tensors on the device, and {error}") from error
    for number, batch in enumerate(batches, start=1):
        if difference := static.difference(batch):
            raise _refusal(f"batches of one shape, and batch {number} {difference}")
    _require_no_decisions(task, first, updater, device)
    for optimizer in updater.optimizers.values():
        _require_live_rate(optimizer, device, make(device))
    return first


def _refusal(reason: str) -> ValueError:
    return ValueError(f"trainer.cuda_graphs=true needs {reason}; leave trainer.cuda_graphs out")


def _require_no_decisions(task: Task, batch: Any, updater: Updater, device: torch.device) -> None:
    """Refuses a loss that Python has a part in, and parameters that it does not reach."""
    state, watch = task.state_dict(), _Watch()
    try:
        with isolated(SEED), untouched(task.model):
            training_mode(task.model)
            before = random_state()
            with watched(task.model) as gradients, watch, updater.autocast:
                (objective,) = task.objectives(batch)
            has_derivative = bool(gradients)
            with watch:
                updater.backward(objective.loss, objective.network)
            after = random_state()
        names = [name for name, p in task.model.named_parameters() if _lacks_gradient(p, updater)]
        is_changed = not _equal(state, task.state_dict())
    finally:
        for parameters in updater.parameters.values():
            for parameter in parameters:
                parameter.grad = None
        task.end_turn()
        task.load_state_dict(state)
    others = [
        name
        for name, place in (("Python", "python"), ("NumPy", "numpy"), ("the CPU", "torch"))
        if not _equal(before[place], after[place]) and (name != "the CPU" or device.type != "cpu")
    ]
    if has_derivative:
        raise _refusal("a loss without a derivative in it (a gradient penalty), and this has one")
    if watch.waits:
        raise _refusal(
            f"a loss that does not read what the device computes, and {watch.waits[0]} does"
        )
    if others or watch.has_generator:
        source = others[0] if others else "a generator of its own"
        raise _refusal(f"random numbers of the device's generator, and the loss asks {source}")
    if is_changed:
        raise _refusal(
            f"a task that keeps nothing from step to step, and {type(task).__name__} does"
        )
    if names:
        raise _refusal(
            f"a gradient for every parameter, and {names[0]} has none (freeze=[{names[0]}] says "
            "that it is not trained)"
        )


def _lacks_gradient(parameter: nn.Parameter, updater: Updater) -> bool:
    updated = {id(p) for parameters in updater.parameters.values() for p in parameters}
    return id(parameter) in updated and parameter.grad is None


def _equal(a: Any, b: Any) -> bool:
    """Whether two nested states are the same."""
    leaves, others = tree_flatten(a), tree_flatten(b)
    return leaves[1] == others[1] and all(
        x.shape == y.shape and torch.equal(x, y)
        if isinstance(x, Tensor) and isinstance(y, Tensor)
        else x is y or x == y
        for x, y in zip(leaves[0], others[0], strict=True)
    )


class _Watch(TorchDispatchMode):
    """Notes operations that Python must wait for, and random ones with a generator of their own.

    Attributes:
        waits: the former, each with its place in the code that called it.
        has_generator: whether there was one of the latter.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.has_generator = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if _waits(func, args, result):
            self.waits.append(f"{str(func).removesuffix('.default')}{_place()}")
        self.has_generator |= kwargs.get("generator") is not None
        return result


def _waits(func: Any, args: Any, result: Any) -> bool:
    if func in _COPIES:
        devices = {t.device.type for t in tree_leaves((args, result)) if isinstance(t, Tensor)}
        return len(devices) > 1
    if func in _INDEXES:  # With a mask they count first; the tag is there with numbers too.
        indices = [t for t in tree_leaves(args[1]) if isinstance(t, Tensor)]
        return any(index.dtype in (torch.bool, torch.uint8) for index in indices)
    return bool(_WAITS & set(func.tags))


def _place() -> str:
    """Where the code that is not torch's stands, as a clause."""
    frames: Iterable[traceback.FrameSummary] = reversed(traceback.extract_stack())
    torch_itself = str(Path(torch.__file__).parent)
    for frame in frames:
        if frame.filename != __file__ and not frame.filename.startswith(torch_itself):
            return f" ({Path(frame.filename).name}, line {frame.lineno})"
    return ""


def _require_live_rate(
    optimizer: torch.optim.Optimizer, device: torch.device, runner: Runner
) -> None:
    """Tries on a copy of one parameter of each group that replays follow the rate, and do step.

    A captured step may do nothing at all, or go on with the rate that it was captured with.
    """
    name = type(optimizer).__name__
    probe, groups = copy.copy(optimizer), []
    for group in optimizer.param_groups:
        trial = nn.Parameter(min(group["params"], key=Tensor.numel).detach().clone())
        trial.grad = torch.ones_like(trial)
        groups.append({**group, "params": [trial]})
    probe.param_groups, probe.state = groups, defaultdict(dict)
    trials = [group["params"][0] for group in groups]
    rates = DeviceRates([probe], device)

    def step() -> None:
        with rates.applied():
            probe.step()

    def moved(rate: float) -> list[bool]:
        before = [trial.detach().clone() for trial in trials]
        for tensor in rates.tensors:
            tensor.fill_(rate)
        runner.replay()
        return [not torch.equal(a, b) for a, b in zip(before, trials, strict=True)]

    try:
        rates.fill()
        runner.warm_up(step)
        runner.capture(step)
        follows = not any(moved(0.0)) and all(moved(0.1))
    except (RuntimeError, TypeError, ValueError) as error:
        reason = error.__cause__ if isinstance(error, CaptureError) else error
        text = " ".join(str(reason).split())[:300]
        raise _refusal(f"an optimizer that can be captured, and {name} fails ({text})") from error
    finally:
        runner.release()
    if not follows:
        raise _refusal(
            f"an optimizer that reads its rate from a tensor in every step, and {name} does not; "
            f"{_FUSED}"
        )
