"""What a checkpoint holds: everything that changes the next step, as plain Python and tensors.

Most of it is shared by all processes of a run and written once. What each process has of its own
(random states, the task's memory, the sums of the training curve) is in `ranks`, one entry each.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from zoo.tasks.task import Task
from zoo.training.averaging import WeightAverage
from zoo.training.checkpoints.checkpoint import CheckpointError, well_formed
from zoo.training.curve import TrainingCurve
from zoo.training.distributed.strategy import Strategy
from zoo.training.optimizers import (
    arguments,
    arranged,
    grouping,
    names_in_order,
    names_of_0_1_0,
    require_gathered,
)
from zoo.training.rates import Rates
from zoo.training.reproducibility import (
    random_state,
    seed_everything,
    set_random_state,
    stream,
)
from zoo.training.update import Updater


@dataclass
class Position:
    """How far a run has come."""

    epoch: int = 0
    """Passes over the training data that are complete."""
    batch: int = 0
    """Batches of this epoch that have been used."""
    step: int = 0
    """Optimizer steps, those included that fp16 scaling skipped."""
    updates: int = 0
    """Optimizer steps that were taken, of which the learning rate is a function."""
    evaluated_at: int = -1
    """Step of the last evaluation."""
    seconds: float = 0.0
    """Time of training."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            kinds, least = (int | float, 0) if name == "seconds" else (int, -1)
            if not isinstance(value, kinds) or isinstance(value, bool) or not value >= least:
                raise ValueError(f"position.{name} is {value!r}")


def usable_weights(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of a checkpoint that are to be used: the averaged ones where the run averaged.

    A parameter that has several names is averaged under one of them and used under all.
    """
    model, average = state["model"], state["average"] or {}
    means = {_place(model[name]): mean for name, mean in average.items()}
    return {name: average.get(name, means.get(_place(kept), kept)) for name, kept in model.items()}


def _place(value: Any) -> Any:
    """Where a tensor lies, the same for all names of one tensor."""
    if type(value) is not Tensor or not value.numel():
        return id(value)  # A shard is one object under all of its names.
    storage = value.untyped_storage().data_ptr()
    return storage, value.storage_offset(), value.shape, value.stride()


def task_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """What the task had remembered at a checkpoint, for an evaluation."""
    found: dict[str, Any] = state["ranks"][0]["task"]
    return found


class _Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(kw_only=True)
class RunState:
    """The parts of a run that have a state, and the two parts in which they are saved.

    Attributes:
        task: with the networks.
        optimizers: one for each network.
        schedule: of the learning rates of all networks.
        average: of the weights, if there is one.
        updater: with the scaler of fp16 losses, if there is one.
        curve: what has gathered since the last line of the training curve.
        strategy: which processes share the work.
        config: plain configuration.
        position: how far the run has come.
        metrics: of the last validation.
        callbacks: in the order of their events.
    """

    task: Task
    optimizers: dict[str, torch.optim.Optimizer]
    schedule: Rates
    average: WeightAverage | None
    updater: Updater
    curve: TrainingCurve
    strategy: Strategy
    config: dict[str, Any] | None = None
    position: Position = field(default_factory=Position)
    metrics: dict[str, float] = field(default_factory=dict)
    callbacks: Sequence[_Stateful] = ()

    def weights_to_use(self) -> AbstractContextManager[None]:
        """Has the model hold the weights to judge it by: the averaged ones, if there are any."""
        return self.average.applied() if self.average else nullcontext()

    def use(self, state: Mapping[str, Any]) -> None:
        """Puts the weights of a checkpoint that are to be used, and what its task had remembered.

        Args:
            state: of this run, or of one with the same model and task.
        """
        self.strategy.load_state(self.task.model, usable_weights(state))
        self.task.load_state_dict(task_state(state))

    def state_dict(self, *, whole: bool = True) -> dict[str, Any]:
        """The shared part, and in `ranks` that of each process; every process has to ask.

        Args:
            whole: whether shards are gathered in the main process, or left as they are.
        """
        return {**self._shared(whole=whole), "ranks": self.strategy.gather(self._per_rank())}

    def _shared(self, *, whole: bool) -> dict[str, Any]:
        strategy, scaler = self.strategy, self.updater.scaler
        gather = strategy.gather_tensors if whole else dict
        model = self.task.model
        return {
            "config": self.config,
            "position": asdict(self.position),
            # Of shards the parameters themselves, which are one object under all of their names.
            "model": strategy.gather_state(model)
            if whole
            else model.state_dict(keep_vars=strategy.is_sharded),
            "average": gather(self.average.state_dict()) if self.average else None,
            "average_steps": self.average.steps if self.average else 0,
            "optimizers": {name: gather(o.state_dict()) for name, o in self.optimizers.items()},
            "parameters": self._parameters(),
            "scaler": scaler.state_dict() if scaler else None,
            "schedule": self.schedule.state_dict(),
            "callbacks": {name: c.state_dict() for name, c in self._named_callbacks()},
            "metrics": self.metrics,
        }

    def _parameters(self) -> dict[str, list[str]]:
        """The names of each optimizer's parameters, in the order of its state."""
        networks = self.task.networks()
        return {name: names_in_order(o, networks[name]) for name, o in self.optimizers.items()}

    def _per_rank(self) -> dict[str, Any]:
        return {
            "task": self.task.state_dict(),
            "curve": self.curve.state_dict(),
            "random": random_state(),
        }

    def _named_callbacks(self) -> Iterator[tuple[str, _Stateful]]:
        """The callbacks by class; the second and third of a class by their number too."""
        seen: Counter[str] = Counter()
        for callback in self.callbacks:
            name = type(callback).__name__
            seen[name] += 1
            yield name if seen[name] == 1 else f"{name} {seen[name]}", callback

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave.

        Raises:
            CheckpointError: the state belongs to another model, or is not one that a run saves.
            ValueError: an optimizer has arguments with which it cannot go on from this state.
        """
        with well_formed("the checkpoint"):
            self._restore(state)
        for name, optimizer in self.optimizers.items():
            if arguments(state["optimizers"][name]) != arguments(optimizer.state_dict()):
                require_gathered(optimizer)

    def _restore(self, state: dict[str, Any]) -> None:
        try:
            self.strategy.load_state(self.task.model, state["model"])
            for name in self.optimizers:
                self._load_optimizer(name, state)
            if self.average is not None:
                self._load_average(state)
        except CheckpointError:
            raise
        except (RuntimeError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"the checkpoint belongs to another model: {reason}") from error
        if self.updater.scaler is not None and state["scaler"]:
            self.updater.scaler.load_state_dict(state["scaler"])
        self.schedule.load_state_dict(state["schedule"])
        for name, callback in self._named_callbacks():
            if name in state["callbacks"]:
                callback.load_state_dict(state["callbacks"][name])
        self.metrics = dict(state["metrics"])
        if not all(isinstance(value, int | float) for value in self.metrics.values()):
            raise ValueError(f"metrics are {self.metrics!r}")
        if missing := {"epoch", "batch", "step", "updates"} - set(state["position"]):
            raise ValueError(f"position has no {min(missing)}")
        self.position = Position(**state["position"])
        self._restore_own(state["ranks"])  # Last: whatever is restored may draw.

    def _restore_own(self, ranks: Sequence[dict[str, Any]]) -> None:
        """Restores what each process has of its own, of as many of them or of others."""
        rank, world = self.strategy.rank, self.strategy.world
        self.curve.load_state_dict(ranks[0]["curve"])  # All have the same, sums over all.
        if len(ranks) == world:
            self.task.load_state_dict(ranks[rank]["task"])
        else:
            states = [own["task"] for own in ranks]
            self.task.load_state_dict(self.task.state_of_part(states, (rank, world)))
        if rank < len(ranks):
            set_random_state(ranks[rank]["random"])
        else:
            seed_everything(stream(self.position.step, rank))

    def _load_average(self, state: dict[str, Any]) -> None:
        """Goes on with the average of a checkpoint; begins one where the run had none so far."""
        assert self.average is not None
        steps = 0
        if state["average"]:
            # Versions that did not count them had no rise of the decay: it is over.
            steps = state.get("average_steps", 2**53)
        # Nor did these average statistics.
        tensors = {**state["model"], **(state["average"] or {})}
        tensors = self.strategy.divided(tensors, self.average.state_dict())
        self.average.load_state_dict(tensors, steps)

    def _load_optimizer(self, name: str, state: dict[str, Any]) -> None:
        """Restores one optimizer, each parameter by its name."""
        optimizer, saved = self.optimizers[name], state["optimizers"][name]
        own = self._parameters()[name]
        sizes = grouping(saved)
        names = state["parameters"][name] if "parameters" in state else None
        if names is None and (sizes != grouping(optimizer.state_dict()) or self._regrouped(state)):
            # An earlier version kept no names: its order is today's, unless the groups are others.
            names = names_of_0_1_0(self.task.networks()[name], sizes)
            if names is None or self._regrouped(state):
                raise CheckpointError(
                    "the checkpoint is that of an earlier version, which kept no parameters' names "
                    "for the optimizer: resume it with optimizer.weight_decay, "
                    "decay_norms_and_biases and groups as they were; they may change once this "
                    "version has saved"
                )
        if names is not None and (names, sizes) != (own, grouping(optimizer.state_dict())):
            saved = arranged(saved, names, optimizer, own)
        self.strategy.load_optimizer(optimizer, saved)

    def _regrouped(self, state: dict[str, Any]) -> bool:
        """Whether the parameter groups of the configuration are others than at a checkpoint."""

        def groups(config: dict[str, Any] | None) -> list[Any]:
            node = (config or {}).get("optimizer") or {}
            nodes = [node, *(n for n in node.values() if isinstance(n, dict))]
            return [n.get("groups") or {} for n in nodes]

        return groups(state["config"]) != groups(self.config)
