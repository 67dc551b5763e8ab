"""One run that is disturbed, goes on, and is compared with one that nothing disturbed."""

import random
import time
from pathlib import Path
from typing import Any

from faults.outcomes import differences, outcome, runs_in, state_of
from faults.ranks import torchrun
from faults.references import References
from faults.runs import Runs
from faults.tiny import STEPS

STATES = {
    0: ("finished",),
    1: ("failed", "dead", "none"),  # A full disk may have no room for saying so.
    -9: ("dead", "none"),
    **dict.fromkeys((129, 130, 143), ("interrupted",)),
}
"""What a run with an exit code may say of itself."""


class FaultError(Exception):
    """A run did not do what it should, in a few lines."""


class Life:
    """A run through what happens to it.

    Args:
        run: trains in one process.
        references: what the run should come to.
        name: of the experiment.
        folder: an empty one, for this run.
        choice: of all that is left to chance.
        told: gets what happens, in words.
        processes: which the run has.
        limit: seconds for each of its parts in several processes.

    Attributes:
        path: its folder; None: there is none yet.
    """

    def __init__(
        self,
        run: Runs,
        references: References,
        name: str,
        folder: Path,
        choice: random.Random,
        told: list[str],
        *,
        processes: int = 1,
        limit: float | None = None,
    ) -> None:
        self.run, self.references, self.name, self.choice = run, references, name, choice
        self.folder, self.processes, self.limit = folder, processes, limit
        self.reference = references.of(name, processes=processes)
        self.log = folder / "log"
        self.told = told
        self.path: Path | None = None
        self._begun = 0

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints."""
        assert self.path is not None
        return self.path / "checkpoints"

    def step(self, least: int = 1) -> int:
        """A random update."""
        return self.choice.randrange(least, STEPS)

    def tell(self, text: str) -> None:
        """Notes something that has happened to it."""
        self.told.append(text)

    def go(self, *codes: int, **moments: Any) -> int:
        """Begins the run, or goes on with it, while something happens to it.

        Args:
            codes: exit codes that are as they should be.
            moments: what happens, see `faults.moments`; `restarts` is for `torchrun`.

        Raises:
            FaultError: it ended otherwise, or says of itself what is not so.
        """
        words, shown = self._words(), {k: v for k, v in moments.items() if k != "rank"}
        self.tell(" and ".join(f"{key} {value}" for key, value in shown.items()) or "goes on")
        began = self.log.stat().st_size if self.log.exists() else 0
        before = self._state()
        if self.processes > 1:
            code = torchrun(words, self.log, limit=self.limit, **moments)
        else:
            number = self.run.start(words, self.log, below=str(self.folder), **moments)
            code = self.run.wait(number, when_stopped=lambda: self._while_stopped(number))
        output = self.log.read_text("utf-8", errors="replace")[began:]
        if self.path is None:
            self.path = next(iter(runs_in(self._runs)), None)
        state = self._state()
        self.tell(f"exit code {code}, {state}")
        # Killed before it says anything, it leaves what the process before it has said.
        as_before = code == -9 and state == before
        if code not in codes or not (as_before or state in STATES[code]):
            raise FaultError(f"{self.told[-1]}, and not {codes}:\n{_end(output)}")
        return code

    def _state(self) -> str:
        """What the run says of itself."""
        return "none" if self.path is None else state_of(self.path)

    def finish(self) -> None:
        """Goes on to the end and compares.

        Raises:
            FaultError: it ends otherwise than a run that nothing disturbed.
        """
        if self.path is None or state_of(self.path) != "finished":
            self.go(0)
        assert self.path is not None
        found = differences(outcome(self.path), self.reference.outcome)
        if found:
            raise FaultError("differs from the undisturbed run:\n" + "\n".join(found[:20]))

    @property
    def _runs(self) -> Path:
        return self.folder / f"runs{self._begun}"

    def _words(self) -> list[str]:
        if self.path is not None:
            if any(self.checkpoints.glob("*.pt")):
                return [f"resume={self.path}"]
            self._require_refusal()
            self.path = None
        self._begun += 1
        return self.references.words(self.name, self._runs)

    def _require_refusal(self) -> None:
        """A run without a checkpoint is to be begun anew, and says so."""
        log = self.folder / "refusal"
        code = self.run([f"resume={self.path}"], log)
        said = log.read_text("utf-8").rstrip().rpartition("\n")[2]
        if code != 1 or not said.endswith("start the run anew"):
            raise FaultError(f"without a checkpoint a resume ends with exit code {code}: {said}")
        self.tell("no checkpoint yet: begins anew")

    def _while_stopped(self, number: int) -> None:
        """A process that stands still keeps its run to itself."""
        time.sleep(self.choice.uniform(0, 0.2))
        (path,) = runs_in(self._runs)
        log = self.folder / "second"
        code = self.run([f"resume={path}"], log)
        said = log.read_text("utf-8").rstrip().rpartition("\n")[2]
        if code != 1 or f"is in use by another process (pid {number})" not in said:
            raise FaultError(f"a second process ends with exit code {code}: {said}")
        self.tell("stopped; a second process was refused")


def _end(output: str) -> str:
    return "\n".join(output.rstrip().splitlines()[-15:])
