"""Which fault happens to which experiment, and what came of it."""

import json
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.kinds import KINDS, clock_put, rank_killed, worker_killed
from faults.life import FaultError, Life
from faults.references import MissingError, References
from faults.runs import Runs, under_faketime
from faults.tiny import EXPERIMENTS
from zoo.training.run_folder import environment

TWO_PROCESSES = (  # One network, two that take turns, a penalty, one graph, carried states, ...
    *("mlp_penguins", "gan_digits", "wgan_gp_ring", "gcn_karate", "lstm_stdlib"),
    *("reverse_transformer", "ddpm_digits", "unet_shapes", "shards"),
)


@dataclass(frozen=True)
class Fault:
    """One of those that a seed stands for: the same number, the same fault.

    Attributes:
        seed: of all of them.
        number: of this one.
        kind: one of `KINDS`.
        experiment: to which it happens.
    """

    seed: int
    number: int
    kind: str
    experiment: str


def fault(seed: int, number: int) -> Fault:
    """The fault of a number: kinds and experiments come in turn, each time in another order."""

    def of(names: Sequence[str], count: int) -> str:
        turn, index = divmod(count, len(names))
        return random.Random(f"{seed} {names[0]} {turn}").sample(names, len(names))[index]

    kind = of(list(KINDS), number)
    if KINDS[kind] is worker_killed:
        return Fault(seed, number, kind, "pictures")
    if KINDS[kind] is rank_killed:
        return Fault(seed, number, kind, of(TWO_PROCESSES, number // len(KINDS)))
    return Fault(seed, number, kind, of(EXPERIMENTS, number))


class Soak:
    """Does one fault after the other, with the undisturbed runs to compare with.

    Args:
        folder: for all of it: `undisturbed` runs, those that have `failed`, the one that is on.
        limit: seconds that a part of a run may take.
        library: of libfaketime; None: the clock is left alone.
    """

    def __init__(self, folder: Path, *, limit: float, library: Path | None = None) -> None:
        self.folder, self._limit, self._library = folder, limit, library
        folder.mkdir(parents=True, exist_ok=True)
        self._runs = Runs(limit=limit)
        self._under_faketime: Runs | None = None
        self._references = References(self._runs, folder / "undisturbed")
        self._forget_old_references()

    def _forget_old_references(self) -> None:
        """Another commit or torch may have other numbers."""
        known, here = self.folder / "environment.json", json.dumps(environment("cpu"))
        if not known.exists() or known.read_text() != here:
            shutil.rmtree(self._references.folder, ignore_errors=True)
            known.write_text(here)

    def do(self, fault: Fault) -> dict[str, Any]:
        """Has a fault happen.

        Returns:
            A row: the fault, its ``result`` (passed, failed or skipped), the ``seconds``, what it
            was ``told`` in words, and the ``reason`` for which it failed or was skipped.
        """
        began, place = time.monotonic(), self.folder / "now"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        told: list[str] = []
        try:
            self._live(fault, place, told)
            result, reason = "passed", None
        except MissingError as error:
            result, reason = "skipped", str(error)
        except (FaultError, TimeoutError) as error:
            result, reason = "failed", str(error)
        except Exception as error:  # A damaged run folder may raise anything.
            result, reason = "failed", f"{type(error).__name__}: {error}"
        if result == "failed":
            kept = self.folder / "failed" / f"{fault.seed}-{fault.number}"
            shutil.rmtree(kept, ignore_errors=True)
            kept.parent.mkdir(exist_ok=True)
            place.rename(kept)
        shutil.rmtree(place, ignore_errors=True)
        return {
            "number": fault.number,
            "kind": fault.kind,
            "experiment": fault.experiment,
            "result": result,
            "seconds": round(time.monotonic() - began, 1),
            "told": [self._plain(text) for text in told],
            **({} if reason is None else {"reason": self._plain(reason)}),
        }

    def _live(self, fault: Fault, place: Path, told: list[str]) -> None:
        kind = KINDS[fault.kind]
        life = Life(
            self._clocked() if kind is clock_put else self._runs,
            self._references,
            fault.experiment,
            place,
            random.Random(f"{fault.seed} {fault.number}"),
            told,
            processes=2 if kind is rank_killed else 1,
            limit=self._limit,
        )
        kind(life)
        life.finish()

    def _clocked(self) -> Runs:
        if self._under_faketime is None:
            library, clock = self._library, self.folder / "clock"
            if library is None:
                raise MissingError("libfaketime is not installed (Debian: apt install faketime)")
            clock.write_text("+0")
            self._under_faketime = Runs(
                limit=self._limit, environment=under_faketime(library, clock)
            )
        return self._under_faketime

    def _plain(self, text: str) -> str:
        """Without what is this machine's own."""
        from gpu.plan import plain

        return plain(text.replace(f"{self.folder}/", ""))

    def close(self) -> None:
        """Ends its processes."""
        self._runs.close()
        if self._under_faketime is not None:
            self._under_faketime.close()
