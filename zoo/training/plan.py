"""How long a run is, and where each of its steps stands in the data."""

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

from zoo.training.settings import TrainerSettings
from zoo.training.state import Position
from zoo.training.update import NonFiniteError, non_finite


class Plan:
    """Divides the batches of a run into steps, epochs and evaluations.

    Args:
        settings: how many batches a step takes, when to evaluate and when to end.
        data: the data module.

    Attributes:
        batches_per_epoch: batches that an epoch uses.
        steps_per_epoch: optimizer steps that it makes of them.
        total_steps: optimizer steps of the run.
    """

    def __init__(self, settings: TrainerSettings, data: Any) -> None:
        self._settings, self._data = settings, data
        batches = data.num_batches("train")
        if settings.limit_train_batches is not None:
            batches = min(batches, settings.limit_train_batches)
        self.batches_per_epoch: int = batches
        self.steps_per_epoch = math.ceil(batches / settings.accumulate)
        limits = [settings.steps, settings.epochs and settings.epochs * self.steps_per_epoch]
        self.total_steps: int = min(limit for limit in limits if limit is not None)

    def windows(self, position: Position) -> Iterator[list[Any]]:
        """The rest of the epoch in groups of `accumulate` batches; the last may be smaller."""
        left = self.batches_per_epoch - position.batch
        batches = islice(self._data.batches("train", position.epoch, position.batch), left)
        while window := list(islice(batches, self._settings.accumulate)):
            yield window

    def is_logged(self, step: int) -> bool:
        """Whether the training curve gets a line after a step."""
        return step % self._settings.log_every == 0 or step == self.total_steps

    def is_evaluation_due(self, position: Position) -> bool:
        """Whether there has been no evaluation yet where one belongs."""
        step, every = position.step, self._settings.evaluate_every
        if step == 0 or step == position.evaluated_at:
            return False
        # Batch 0: the state was saved during the evaluation at the end of an epoch.
        ends = position.batch >= self.batches_per_epoch or position.batch == 0
        return (step % every == 0 if every else ends) or step >= self.total_steps

    def end_epoch(self, position: Position) -> None:
        """Goes on to the next epoch if this one is complete."""
        if position.batch >= self.batches_per_epoch:
            position.epoch, position.batch = position.epoch + 1, 0

    def non_finite(self, what: str, position: Position, behind: int = 0) -> NonFiniteError:
        """The error that names the step, so many steps before the next one, and its samples."""
        size = self._settings.accumulate
        window = position.epoch * self.steps_per_epoch + math.ceil(position.batch / size) - behind
        epoch, window = divmod(window, self.steps_per_epoch)
        batches = range(window * size, min(window * size + size, self.batches_per_epoch))
        indices = self._data.loaders["train"].indices
        samples = [number for batch in batches for number in indices(epoch, batch)]
        return non_finite(what, position.step + 1 - behind, epoch, batches[0], samples)
