"""When the state of a run is saved, and how it shows that it is alive."""

import sys
import time
from collections.abc import Callable
from typing import Any

from zoo.training.checkpoint import CheckpointFolder, require_space
from zoo.training.interruption import Signals
from zoo.training.run_folder import HEARTBEAT_SECONDS, RunFolder
from zoo.training.settings import CheckpointSettings

SMALL = 2**28
"""Bytes of state up to which a run is also saved before its first step."""


class Saving:
    """Saves a run when it is time, between two steps.

    Args:
        settings: when.
        signals: which ask for the end or for a save.
        state: gives the state of the run.
        folder: the run folder; None: nothing is saved.
        checkpoints: its checkpoints.
    """

    def __init__(
        self,
        settings: CheckpointSettings,
        signals: Signals,
        state: Callable[[], dict[str, Any]],
        folder: RunFolder | None = None,
        checkpoints: CheckpointFolder | None = None,
    ) -> None:
        self.folder, self.checkpoints = folder, checkpoints
        self._settings, self._signals, self._state = settings, signals, state
        self._every = settings.every_steps or sys.maxsize
        self._saved_at = self._next_housekeeping = 0.0

    def begin(self, weights: int) -> None:
        """Makes sure that the disk can hold the run, and saves its beginning if that is cheap.

        Args:
            weights: bytes of the weights.
        """
        if self.checkpoints is None:
            return
        # Optimizer state will be twice the weights; last, previous, the next one and the best.
        require_space(self.checkpoints.path.parent, 3 * weights * (3 + self.checkpoints.top_k))
        if weights <= SMALL:
            self.save()

    def start_clock(self) -> None:
        """To be called when the steps begin."""
        self._saved_at = self._next_housekeeping = time.perf_counter()

    def is_due(self, step: int) -> bool:
        """Whether there is something to do after a step."""
        signals = self._signals
        return (
            signals.stop is not None
            or signals.save
            or step % self._every == 0
            or time.perf_counter() > self._next_housekeeping
        )

    def housekeeping(self, step: int) -> None:
        """Obeys signals, gives the sign of life, and saves if it is time.

        Raises:
            Interrupted: a signal asked for the end.
        """
        now = time.perf_counter()
        self._next_housekeeping = now + HEARTBEAT_SECONDS / 2
        self._signals.check()
        if self.folder is None:
            return
        self.folder.heartbeat(step)
        minutes = self._settings.every_minutes
        late = minutes is not None and now - self._saved_at > 60 * minutes
        if late or self._signals.save or step % self._every == 0:
            self._signals.save = False
            self.save()

    def save(self, *, keep: bool = False) -> None:
        """Writes a checkpoint; with `keep`, also as one of the best."""
        if self.checkpoints is not None:
            self.checkpoints.save(self._state(), keep=keep)
            self._saved_at = time.perf_counter()
