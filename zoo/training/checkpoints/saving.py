"""When the state of a run is saved, and how it shows that it is alive."""

import math
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from zoo.training.checkpoints.background import copied, in_background
from zoo.training.checkpoints.checkpoint import CheckpointError, CheckpointFolder, require_space
from zoo.training.checkpoints.shard_files import SHARDS, ShardError
from zoo.training.distributed.strategy import OneProcess, Strategy
from zoo.training.interruption import Interrupted, OutOfTime, Signals
from zoo.training.run_folder import HEARTBEAT_SECONDS, RunFolder
from zoo.training.settings import CheckpointSettings, seconds_of

SMALL = 2**28
"""Bytes of state up to which a run is also saved before its first step."""

BRIEF = 1.0
"""Seconds that a save may take without any thought of how often it happens."""

SHARE = 0.1
"""Share of the time that longer saves may take where nothing asks for them."""

NOTHING, SAVE, END_OF_TIME, END = range(4)
"""What a process may ask all of them for; to END the number of a signal is added."""


class Saving:
    """Saves a run when it is time, between two steps.

    Args:
        settings: when.
        signals: which ask for the end or for a save.
        state: gives the state of the run.
        folder: the run folder; None: nothing is saved.
        checkpoints: its checkpoints.
        time_limit: after which the run ends for now, see `TrainerSettings`.
        strategy: which processes save together: what any of them is asked to do, all do after the
            same step.
    """

    def __init__(
        self,
        settings: CheckpointSettings,
        signals: Signals,
        state: Callable[[], dict[str, Any]],
        folder: RunFolder | None = None,
        checkpoints: CheckpointFolder | None = None,
        *,
        time_limit: float | str | None = None,
        strategy: Strategy | None = None,
    ) -> None:
        self.folder, self.checkpoints = folder, checkpoints
        self._settings, self._signals, self._state = settings, signals, state
        self._every = settings.every_steps or sys.maxsize
        self._saved_at = self._next_housekeeping = self._took = 0.0
        self._time_limit, self._end = time_limit, math.inf
        self._strategy = strategy or OneProcess()
        self._asked = self._agreed = NOTHING
        self._unfinished: Future[None] | None = None

    def begin(self, weights: int) -> None:
        """Makes sure that the disk can hold the run, and saves its beginning if that is cheap.

        Args:
            weights: bytes of the weights.
        """
        if self.checkpoints is not None:
            # Optimizer state will be twice the weights; last, previous, the next and the best.
            require_space(self.checkpoints.path.parent, 3 * weights * (3 + self.checkpoints.top_k))
        if weights <= SMALL:
            self.save()

    def start_clock(self) -> None:
        """To be called when the steps begin."""
        self._saved_at = self._next_housekeeping = time.perf_counter()
        if self._time_limit is not None:
            self._end = self._saved_at + seconds_of(self._time_limit)

    def is_due(self, step: int) -> bool:
        """Whether there is something to do after a step."""
        signals = self._signals
        if self._strategy.world > 1:
            self._agreed = self._agree()
        return (
            signals.stop is not None
            or signals.save
            or step % self._every == 0
            or self._agreed != NOTHING
            or time.perf_counter() > self._next_housekeeping
        )

    def _request(self) -> int:
        """What this process wants."""
        signals, now = self._signals, time.perf_counter()
        if signals.stop is not None:
            return END + signals.stop
        if now > self._end:
            return END_OF_TIME
        minutes = self._settings.every_minutes
        late = minutes is not None and now - self._saved_at > 60 * minutes
        return SAVE if signals.save or (late and self._strategy.is_main) else NOTHING

    def _agree(self) -> int:
        """What all processes do."""
        request = self._request()
        # What has been asked for in the step before is not asked for twice.
        self._asked = NOTHING if request == self._asked == SAVE else request
        return self._strategy.agree(self._asked)

    def check(self) -> None:
        """Obeys signals, between two batches of an evaluation.

        Raises:
            Interrupted: a signal asked for the end.
        """
        if self._strategy.world == 1:
            self._signals.check()
        elif (agreed := self._agree()) > END:
            raise Interrupted(agreed - END)

    def housekeeping(self, step: int) -> None:
        """Obeys signals, gives the sign of life, and saves if it is time.

        Raises:
            Interrupted: a signal asked for the end, or the time limit is over.
        """
        self._next_housekeeping = min(time.perf_counter() + HEARTBEAT_SECONDS / 2, self._end)
        self.complete(wait=False)
        request = self._agreed if self._strategy.world > 1 else self._request()
        if request > END:
            raise Interrupted(request - END)
        # Only after a step, so that every process that resumes a run takes it further.
        if request == END_OF_TIME and self._time_limit is not None:
            raise OutOfTime(self._time_limit)
        if self.folder is not None:
            self.folder.heartbeat(step)
        if request == SAVE or step % self._every == 0:
            asked, self._signals.save = self._signals.save, False
            self.save(background=not asked)

    def is_cheap(self) -> bool:
        """Whether a save after every evaluation would not hold up the training by much.

        One that is left out loses nothing: a resumed run repeats what came after the last save.
        """
        since = time.perf_counter() - self._saved_at
        return self._took <= BRIEF or since >= self._took / SHARE

    def save(self, *, keep: bool = False, for_good: bool = False, background: bool = False) -> None:
        """Writes a checkpoint.

        Args:
            keep: also as one of the best.
            for_good: also as one that stays.
            background: the training goes on meanwhile, if the settings have it so.

        Raises:
            CheckpointError: it, or the one that was being written, cannot be written.
        """
        if self.checkpoints is None and self._strategy.world == 1:
            return
        began = time.perf_counter()
        self.complete()
        state = self._state()  # Every process has to ask for it.
        folder = self.checkpoints.new_shards(state) if self.checkpoints else None
        state, shards = self._strategy.write_shards(state, folder)
        background = background and self._settings.background
        if shards is None and self.checkpoints is not None and background:
            state = copied(state)

        def write() -> None:
            sums = _sums_of(shards) if shards else None
            if self.checkpoints is not None:
                if sums is not None and folder is not None:
                    state[SHARDS] = {"folder": folder.name, "files": sums}
                self.checkpoints.save(state, keep=keep, for_good=for_good)

        if shards or background:
            self._unfinished = in_background(write)
        else:
            write()
        self._saved_at = time.perf_counter()
        self._took = self._saved_at - began

    def complete(self, *, wait: bool = True) -> None:
        """Makes sure that the checkpoint which is written in the background is there.

        Args:
            wait: for it; else only one that is done is looked at.

        Raises:
            CheckpointError: it could not be written.
        """
        unfinished = self._unfinished
        if unfinished is not None and (wait or unfinished.done()):
            self._unfinished = None
            unfinished.result()

    def settle(self) -> None:
        """Waits for what is written in the background, as the run ends for another reason."""
        try:
            self.complete()
        except CheckpointError as error:
            warnings.warn(str(error), stacklevel=2)


def _sums_of(shards: Future[dict[str, int]]) -> dict[str, int]:
    try:
        return shards.result()
    except ShardError as error:
        raise CheckpointError(
            f"{error}; the checkpoint before it is intact: make room and resume"
        ) from error
