"""One step of a task on a window of batches: an update of each network whose turn it is."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from zoo.tasks.task import Objective, Task
from zoo.training.distributed.strategy import Strategy
from zoo.training.rehearsal import require_turn
from zoo.training.update import Updater


class Joint(NamedTuple):
    """The objectives of all batches of a step for one network, as if of one large batch.

    Attributes:
        loss: sum over ``count`` terms; of a single batch the mean.
        count: terms of all batches.
        unit: what the sum has been divided by already, if by anything.
        network: whose.
        terms: parts of the loss by name: likewise, with the counts of the batches that have them.
    """

    loss: Tensor
    count: Tensor | int  # type: ignore[assignment]  # hides tuple.count
    unit: Tensor | int | None
    network: str
    terms: dict[str, tuple[Any, Any]]


class Listener(Protocol):
    """Who is told the losses of a step: the training curve."""

    def add(self, network: str, loss: Tensor, count: Tensor | int) -> None: ...

    def add_terms(self, network: str, terms: Mapping[str, Tensor], count: Tensor | int) -> None: ...


class Stepper:
    """Asks a task for its objectives one after the other, and takes the update of each.

    Args:
        task: what is learned.
        updater: turns gradients into updates.
        strategy: which processes share the work.
        curve: takes in the losses.
        stand_in: gives a batch that does not count, for a process that has nothing of one: it takes
            the same forward and backward passes as the others, which could not do without it.
    """

    def __init__(
        self,
        task: Task,
        updater: Updater,
        strategy: Strategy,
        curve: Listener,
        stand_in: Callable[[], Any] = lambda: None,
    ) -> None:
        self._task, self._updater, self._strategy, self._curve = task, updater, strategy, curve
        self._stand_in = stand_in
        self._networks = task.networks()

    def step(self, window: Sequence[Any], *, measure: bool) -> bool:
        """Takes the step.

        The objectives of the batches advance side by side, so that k accumulated batches equal one
        large batch also where one network's loss is computed after another's update.

        Args:
            window: batches whose gradients are accumulated.
            measure: whether to note the gradient norms.

        Returns:
            Whether every network's step is over; one that fp16 scaling skips is not.

        Raises:
            NonFiniteError: a loss or gradient is not finite.
        """
        updater, strategy = self._updater, self._strategy
        updater.begin_step()
        if updater.searches:
            return self._search(window, measure=measure)
        strategy.begin_step()
        runs = [
            self._task.objectives(batch) if batch is not None else self._weightless()
            for batch in window
        ]
        # Unless there are several batches, the mean over the count is the loss itself.
        weigh, taken, is_first = len(window) > 1 or strategy.world > 1, True, True
        while joint := self._backward(runs, weigh=weigh, is_first=is_first):
            loss, count, unit, network, terms = joint
            if strategy.world > 1:
                flat = [value for pair in terms.values() for value in pair]
                loss, count, *flat = strategy.total(loss, count, *flat)
                terms = dict(zip(terms, zip(flat[::2], flat[1::2], strict=True), strict=True))
            is_empty = count == 0
            divisor: Tensor | float | None = count + is_empty if weigh else None
            if divisor is not None and unit is not None:
                divisor = divisor / unit
            try:
                stepped = updater.update(network, loss, divisor, measure=measure, is_empty=is_empty)
            finally:
                self._task.end_turn()
            self._task.after_update(network)
            if stepped:
                self._curve.add(network, loss, count)
                for name, (total, number) in terms.items():
                    mean = total / (number + (number == 0)) if weigh else total
                    self._curve.add_terms(network, {name: mean}, number)
            taken, is_first = taken and stepped, False
        updater.end_step()
        return taken

    def _weightless(self) -> Iterator[Objective]:
        """The objectives of the stand-in, of which nothing counts."""
        for objective in self._task.objectives(self._stand_in()):
            yield objective._replace(count=0 * objective.count)

    def _search(self, window: Sequence[Any], *, measure: bool) -> bool:
        """A step of an optimizer that asks for the objective at several points itself."""
        (batch,), (network,) = window, self._networks

        def evaluate() -> Objective:
            with self._updater.autocast:
                (objective,) = self._task.objectives(batch)
            return objective

        loss, count, _, terms = self._updater.search(network, evaluate, measure=measure)
        self._task.after_update(network)
        self._curve.add(network, loss, count)
        self._curve.add_terms(network, dict(terms or {}), count)
        return True

    def _backward(
        self, runs: list[Iterator[Objective]], *, weigh: bool, is_first: bool
    ) -> Joint | None:
        """Asks every batch for its next objective, and gathers their gradients and themselves."""
        updater, ask = self._updater, self._strategy.ask
        joint: Joint | None = None
        unit: Tensor | int | None = None
        parts: dict[str, tuple[Any, Any]] = {}
        for run in runs:
            with updater.autocast:
                objective = ask(run, is_first=is_first, is_last=run is runs[-1])
            if objective is None:
                return None
            loss, count, network, terms = objective
            require_turn(self._task, self._networks, network)
            if weigh:
                if joint is None:
                    unit = self._unit(count, len(runs))
                loss = loss * count if unit is None else loss * (count / unit)
            for name, term in (terms or {}).items():
                total, number = parts.get(name, (0.0, 0))
                parts[name] = (total + (term * count if weigh else term), number + count)
            updater.backward(loss, network)
            loss = loss.detach()
            if joint is not None:
                loss, count = joint.loss + loss, count + joint.count
            joint = Joint(loss, count, unit, network, parts)
        return joint

    def _unit(self, count: Tensor | int, batches: int) -> Tensor | int | None:
        """What to divide a sum by while the true count is not known yet, if by anything.

        With fp16 by the terms that the window seems to have, since gradients of a sum overflow
        where those of a mean do not.
        """
        if self._updater.scaler is None:
            return None
        (total,) = self._strategy.total(count)
        return (total + (total == 0)) * batches
