"""Tiny runs that nothing disturbs, one of each experiment, and what they leave behind."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from faults.outcomes import only_run, outcome, runs_in, state_of
from faults.ranks import torchrun
from faults.tiny import SHRUNK, TEACHERS, needs_files, words


class MissingError(RuntimeError):
    """What an experiment needs is not on this machine."""


class Reference(NamedTuple):
    """What a run that nothing disturbed leaves behind.

    Attributes:
        outcome: see `faults.outcomes`.
        files: the changes of files that it made, in their order.
        largest: bytes of its largest file.
    """

    outcome: dict[str, Any]
    files: list[str]
    largest: int

    @property
    def saves(self) -> list[int]:
        """After which of these changes there is a new checkpoint, counted from 1."""
        return [i for i, line in enumerate(self.files, 1) if line == "os.rename last.pt"]


class References:
    """Makes each of these runs when it is first asked for; those that are there are kept.

    Args:
        run: trains, and returns the exit code.
        folder: where they are put, and the runs of teachers and pictures that some of them need.
    """

    def __init__(self, run: Callable[..., int], folder: Path) -> None:
        self._run, self.folder = run, folder
        self._missing: dict[str, str] = {}

    def words(self, name: str, runs: Path) -> list[str]:
        """The words of a tiny run of an experiment below a folder of runs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if name == "pictures":
            return [f"data.folder={self._images()}", *words(name, runs)]
        teacher = [f"task.teacher={self._teacher(name)}"] if name in TEACHERS else []
        return [*words(name, runs), *teacher]

    def of(self, name: str, *, processes: int = 1) -> Reference:
        """What an experiment comes to in one process, or in two.

        Raises:
            MissingError: its data are not there.
        """
        if name in self._missing:
            raise MissingError(self._missing[name])
        key = name if processes == 1 else f"{name}-{processes}"
        runs, log, files = (self.folder / f"{key}{end}" for end in ("", ".log", ".files"))
        if not _is_finished(runs):
            for left in (log, files):
                left.unlink(missing_ok=True)
            words = self.words(name, runs)
            if processes == 1:
                code = self._run(words, log, files=str(files), below=str(runs))
            else:
                code = torchrun(words, log)
            text = log.read_text("utf-8")
            if needs_files(name) and code == 1 and "zoo.data" not in text:
                self._missing[name] = text.strip().splitlines()[-1]
                raise MissingError(self._missing[name])
            assert code == 0, text
        changes = files.read_text("utf-8").splitlines() if files.exists() else []
        sizes = (file.stat().st_size for file in runs.rglob("*") if file.is_file())
        return Reference(outcome(only_run(runs)), changes, max(sizes))

    def _teacher(self, name: str) -> Path:
        place, log = self.folder / f"{name}.teacher", self.folder / f"{name}.teacher.log"
        if not _is_finished(place):
            code = self._run([*TEACHERS[name], *SHRUNK, f"paths.runs_dir={place}"], log)
            assert code == 0, log.read_text("utf-8")
        return only_run(place)

    def _images(self) -> Path:
        place, unfinished = self.folder / "images", self.folder / "unfinished"
        if not place.exists():
            from PIL import Image
            from sklearn.datasets import load_digits

            shutil.rmtree(unfinished, ignore_errors=True)
            images, labels = load_digits(n_class=3, return_X_y=True)
            for number, pixels in enumerate(images[:200]):
                file = unfinished / str(labels[number]) / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray((15 * pixels).astype("uint8").reshape(8, 8)).save(file)
            unfinished.rename(place)
        return place


def _is_finished(runs: Path) -> bool:
    """Whether there is a finished run; what another one has left is removed."""
    if runs.exists() and any(state_of(path) == "finished" for path in runs_in(runs)):
        return True
    shutil.rmtree(runs, ignore_errors=True)
    return False
