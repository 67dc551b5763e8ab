"""One job of a sweep: begun or, where its folder is there already, gone on with.

Whoever starts a job a second time calls the same function: a sweep that goes on, and a queue that
starts a job again. A finished run stays as it is, one that was stopped or killed goes on from its
checkpoint, one without a checkpoint begins again (what it has left is put aside), and one that
failed is tried again only on request.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.app.batch_size import sized
from zoo.app.failures import failure, report
from zoo.app.place import RunLocation, Train
from zoo.config.compose import compose
from zoo.config.run_config import load, merge
from zoo.training.interruption import OutOfTime

WORST = 1e30


@dataclass(frozen=True)
class Jobs:
    """What the jobs of a sweep have in common; a launcher may send it to another process.

    Attributes:
        train: builds and trains one run.
        folder: of the sweep, absolute.
        swept: the keys that differ between the jobs; they are part of the names of the run folders.
        config_dir: the user's own groups.
        trusted: packages whose components may be built.
        also: the words of the command line besides the overrides, see `CommandLine.also`.
        retry: whether runs that failed are tried again.
        noun: what one of them is called.
    """

    train: Train
    folder: Path
    swept: frozenset[str] = frozenset()
    config_dir: str | None = None
    trusted: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    retry: bool = False
    noun: str = "job"

    def run(self, number: int, words: Sequence[str]) -> float:
        """Runs one job, or what is left of it.

        Args:
            number: of the job.
            words: its overrides.

        Returns:
            The monitored metric, signed so that less is better; `WORST` for a run that failed.
        """
        from zoo.training.run_folder import RunFolder

        shown = [word.lstrip("+") for word in words]
        name = self.name(number, shown)
        folder = RunFolder(self.folder / name) if (self.folder / name).exists() else None
        state = folder.read_status().get("state") if folder else None
        is_kept = state == "finished" or (state == "failed" and not self.retry)
        remark = f" ({state}: kept)" if is_kept else ""
        print(f"\n{self.noun} {number}: {' '.join(shown)}{remark}", flush=True)
        if folder is not None and is_kept:
            return _signed(folder.read("results.json")) if state == "finished" else WORST
        place = RunLocation(
            self.folder,
            name=name,
            overrides=shown,
            also=self.also,
            folder=folder,
            sweep=self.folder,
        )
        try:
            train = self.train
            if folder is not None and _has_checkpoint(folder.path):
                place.resume = True
                at_home = [word for word in shown if word.startswith("paths.data_dir=")]
                recipe = merge(load(folder.path / "config.yaml"), at_home, self.trusted)
            else:
                train = sized(train)
                if folder is not None:
                    with folder.lock():
                        place.begin_again(folder.path)
                recipe = compose(
                    words, config_dir=self.config_dir, trusted=self.trusted, default=False
                )
            place.run(train, recipe)
        except (Exception, OutOfTime) as error:
            report(error)
            if place.folder is None:
                place.folder = RunFolder.create(self.folder, name)
            if not place.resume and place.folder.read_status().get("state") in (None, "dead"):
                place.folder.write("overrides.yaml", json.dumps(shown) + "\n")
                place.folder.status("failed", error=failure(error)[1].splitlines()[-1])
            return WORST
        return _signed(place.results)

    def name(self, number: int, shown: Sequence[str]) -> str:
        """The name of a job's run folder."""
        from zoo.training.run_folder import safe_name

        short = [_short(word) for word in shown if word.partition("=")[0] in self.swept]
        return safe_name("-".join([str(number), *short]))


def _short(word: str) -> str:
    key, _, value = word.partition("=")
    return f"{key.rpartition('.')[2]}-{value}"


def _has_checkpoint(run: Path) -> bool:
    return any((run / "checkpoints" / f"{name}.pt").exists() for name in ("last", "previous"))


def _signed(results: dict[str, object]) -> float:
    """The monitored metric of a run, with the sign that makes less better."""
    found = results.get("val")
    value = found.get(results["monitor"]) if isinstance(found, dict) else None
    number = float(value) if isinstance(value, int | float) else math.nan
    return number if results.get("mode") == "min" else -number
