"""Checkpoints: one dictionary of plain Python and tensors, written so that none is ever lost.

A file is written next to its place, flushed to the disk and renamed; `last.pt` becomes
`previous.pt` only when the next is complete. Files are ordinary `torch.save` archives, whose own
checksums are verified on reading, and are always read with `weights_only=True`.

Format versions: this version reads its own format and every earlier one (through `_UPGRADES`), and
refuses a later one by number.
"""

import contextlib
import errno
import itertools
import os
import pickle
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from zoo.training.checkpoints import checksums
from zoo.training.checkpoints.shard_files import (
    SHARDS,
    ShardError,
    join,
    read_whole,
    verify_shards,
)
from zoo.training.own_files import link, replacing, sync_folder
from zoo.training.shortage import shortage

FORMAT = 3
_OF_SHARDS = 3
"""Formats up to 2 have all tensors in the file; others are still written so."""
KEPT = ("best", "last", "previous")
"""Checkpoints that have a name."""
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
_FOLDER = re.compile(r"\d{8,}-\d+")
_RANKED = re.compile(r"best\.pt|step-\d{8,}\.pt")


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written or read, in one sentence."""


def _from_one_part(state: dict[str, Any]) -> dict[str, Any]:
    """Format 1 (0.1.0): shared and per rank in one, and losses of the curve not yet in its sums."""
    own = {name: state[name] for name in ("task", "curve", "random")}
    curve = {"terms": {}, **own["curve"], "sums": dict(own["curve"]["sums"])}
    curve["counts"] = dict(curve["counts"])
    for name, updates in curve.pop("pending").items():
        for loss, count in updates:
            curve["sums"][name] = curve["sums"][name] + loss.double() * count
            curve["counts"][name] += float(count)
    own["curve"] = curve
    shared = {name: value for name, value in state.items() if name not in own}
    return {**shared, "format": 2, "ranks": [own]}


_UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: _from_one_part,
    2: lambda state: state,
}


def write(path: Path, state: dict[str, Any]) -> None:
    """Writes a checkpoint so that `path` is at every moment absent, the old one or the new one.

    Raises:
        CheckpointError: the disk refused; what was at `path` is intact.
    """
    try:
        with replacing(path) as file:
            content = {"format": _OF_SHARDS if SHARDS in state else 2, **state}
            checksums.save(content, file)
    except (OSError, RuntimeError) as error:
        free = shutil.disk_usage(path.parent).free
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        kept = any((path.parent / name).exists() for name in (path.name, "last.pt"))
        refused = isinstance(error, OSError) and error.errno in _NOT_ALLOWED
        advice = f"{'allow writing there' if refused else 'make room'} and "
        advice += "resume" if kept else "start the run anew"
        raise CheckpointError(
            f"cannot write the checkpoint {path} ({reason}; {_size(free)} free there); "
            f"{'the one before it is intact' if kept else 'there is none before it'}: {advice}"
        ) from error


def refused_class(error: pickle.UnpicklingError) -> str | None:
    """The class for which `torch.load` has refused a file, if it names one.

    Of what torch says only this is passed on: the rest explains how to switch safe loading off.
    """
    found = re.search(r"(?:GLOBAL|[Cc]lass|function) `?([A-Za-z_][\w.]*\.\w+)", str(error))
    return found[1] if found else None


def read(path: Path, *, whole: bool = True) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU after verifying every byte of its content.

    Args:
        path: its file.
        whole: also the shards that it may have; else only the folder is there in which they are.

    Raises:
        CheckpointError: it is missing, truncated, altered, unsafe, or of a later format.
    """
    try:
        with open(path, "rb") as file:
            state = checksums.load(file)
    except checksums.DamagedError as error:
        raise CheckpointError(
            f"{path} is damaged (its part {error} does not match its checksum)"
        ) from error
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing") from error
    except pickle.UnpicklingError as error:
        held = refused_class(error)
        what = f"it holds an object of {held}" if held else "torch.save did not write it"
        raise CheckpointError(
            f"{path} is not a plain checkpoint and is not loaded: {what}"
        ) from error
    except Exception as error:  # A damaged archive makes its readers raise almost anything.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path} is truncated or damaged ({reason})") from error
    version = state.get("format") if isinstance(state, dict) else None
    if not isinstance(version, int):
        raise CheckpointError(f"{path} is not a checkpoint of a run")
    if version > FORMAT:
        raise CheckpointError(
            f"{path} has format {version}; this version reads up to {FORMAT}: update the project"
        )
    with well_formed(path):
        for older in range(version, FORMAT):
            state = _UPGRADES[older](state)
        if SHARDS in state:
            state = _with_shards(path, state, whole=whole)
    return state


def _with_shards(path: Path, state: dict[str, Any], *, whole: bool) -> dict[str, Any]:
    """A checkpoint with whole tensors in the places of its shards, or with their folder."""
    place = state.pop(SHARDS)
    if not _FOLDER.fullmatch(place["folder"]):
        raise ValueError(f"its shards are in {place['folder']!r}")
    folder = path.parent / SHARDS / place["folder"]
    try:
        verify_shards(folder, place["files"])
    except ShardError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if not whole:
        return {**state, SHARDS: folder.absolute()}
    joined: dict[str, Any] = join(state, read_whole(folder))
    return joined


def copy(source: Path, target: Path) -> None:
    """Copies a checkpoint into another folder; one of shards becomes a single file."""
    if SHARDS in _light(source):
        write(target, read(source))
    else:
        shutil.copyfile(source, target)


def _light(path: Path) -> dict[str, Any]:
    """A checkpoint whose tensors are not read, and nothing of which is verified."""
    found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return found


@contextlib.contextmanager
def well_formed(what: object) -> Iterator[None]:
    """Says of a whole file with wrong content that it is one, in whatever that shows.

    Raises:
        CheckpointError: the block raised anything.
    """
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        if shortage(error):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise CheckpointError(f"{what} does not hold what this run saves ({reason})") from error


def _none_left(problems: Sequence[str]) -> CheckpointError:
    return CheckpointError(
        f"no checkpoint is left to resume from: {'; '.join(problems)}; start the run anew"
    )


def _check_ranking(ranking: list[list[Any]]) -> list[list[Any]]:
    """The entries of a ranking, whose files lie in no other folder.

    Raises:
        ValueError: one is not an entry.
    """
    for value, step, name in ranking:
        numbers = isinstance(value, int | float) and isinstance(step, int)
        if not (numbers and isinstance(name, str) and _RANKED.fullmatch(name)):
            raise ValueError(f"ranking has {[value, step, name]!r}")
    return [list(entry) for entry in ranking]


class CheckpointFolder:
    """The checkpoints of one run: `last.pt`, `previous.pt`, `best.pt` and the best few by step.

    Args:
        path: the folder; made with the first checkpoint if it is not there.
        mode: whether less or more of the monitored metric is better.
        top_k: number of best checkpoints to keep; beyond one they are named by their step.
    """

    def __init__(self, path: Path, *, mode: Literal["min", "max"] = "min", top_k: int = 1) -> None:
        self.path = path
        self.mode = mode
        self.top_k = top_k
        # [value, step, file] of the best, best first; travels inside every checkpoint.
        self.ranking: list[list[Any]] = []
        # What a resume has found to be put right, once it is sure to go on: (file, its new name).
        self._links: list[tuple[Path, str]] = []

    def rank(self, value: float, step: int) -> bool:
        """Enters an evaluation into the ranking; returns whether its checkpoint is to be kept."""
        entry = [value, step, self._file(step)]
        sign = 1 if self.mode == "min" else -1
        ranking = [old for old in self.ranking if old[1] != step]
        # Sorting is stable: of equals the earlier stays ahead.
        self.ranking = sorted([*ranking, entry], key=lambda e: sign * e[0])[: self.top_k]
        return entry in self.ranking

    def _file(self, step: int) -> str:
        """The name of a ranked checkpoint."""
        return "best.pt" if self.top_k == 1 else f"step-{step:08d}.pt"

    def save(self, state: dict[str, Any], *, keep: bool = False, for_good: bool = False) -> None:
        """Writes the state as `last.pt`; with `keep`, also as what `rank` has just entered.

        Args:
            state: of the run.
            keep: whether it is one of the best.
            for_good: whether to keep it as `kept-<step>.pt` as well.

        Raises:
            CheckpointError: the disk refused; the files before are intact.
        """
        last, fresh = self.path / "last.pt", self.path / "next.pt"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"cannot make {self.path} ({error.strerror})") from error
        write(fresh, {**state, "ranking": self.ranking})
        try:
            if keep:
                # Before `last.pt`: a run that is killed in between evaluates this step again.
                step = state["position"]["step"]
                for _, ranked_step, name in self.ranking:
                    if ranked_step == step and name != "best.pt":
                        link(fresh, self.path / name)
                if self.ranking[0][1] == step:
                    link(fresh, self.path / "best.pt")
            if for_good:
                link(fresh, self.path / f"kept-{state['position']['step']:08d}.pt")
            if last.exists():
                link(last, self.path / "previous.pt")
            os.replace(fresh, last)
            if keep:
                self._drop_unranked()
            sync_folder(self.path)
            self._drop_shards()
        except OSError as error:
            raise CheckpointError(
                f"cannot keep a checkpoint in {self.path} ({error.strerror})"
            ) from error

    def new_shards(self, state: dict[str, Any]) -> Path:
        """A folder for the shards of a state, which is not there yet."""
        step = state["position"]["step"]
        folders = (self.path / SHARDS / f"{step:08d}-{n}" for n in itertools.count(1))
        return next(folder for folder in folders if not folder.exists())

    def _drop_shards(self) -> None:
        """Removes the folders of shards that no checkpoint names any more."""
        folders = [f for f in self.path.glob(f"{SHARDS}/*") if _FOLDER.fullmatch(f.name)]
        if folders:
            try:
                named = {_light(f).get(SHARDS, {}).get("folder") for f in self.path.glob("*.pt")}
            except Exception:  # A damaged one does not say which it names: all stay.
                return
            for folder in folders:
                if folder.name not in named:
                    shutil.rmtree(folder, ignore_errors=True)

    def _drop_unranked(self) -> None:
        kept = {name for _, _, name in self.ranking}
        for file in self.path.glob("step-*.pt"):
            if file.name not in kept and _RANKED.fullmatch(file.name):
                file.unlink(missing_ok=True)

    def candidates(self) -> Iterator[Path]:
        """The files to resume from, in the order in which they are tried."""
        for name in ("last.pt", "previous.pt"):
            yield self.path / name
        # Of a run killed as it was to become `last.pt`, whose file has both names at that moment.
        if (fresh := self.path / "next.pt").exists():
            yield fresh

    def require_some(self) -> None:
        """Looks for a file to resume from, before anything else is looked for.

        Raises:
            CheckpointError: there is none.
        """
        files = list(self.candidates())
        if not any(file.exists() for file in files):
            raise _none_left([f"{file} is missing" for file in files])

    def newest(self, *, whole: bool = True) -> dict[str, Any]:
        """The newest checkpoint that is intact, with a warning for each that is not.

        Args:
            whole: see `read`.

        Raises:
            CheckpointError: none is left.
        """
        problems = []
        for path in self.candidates():
            try:
                state = read(path, whole=whole)
            except CheckpointError as error:
                problems.append(str(error))
                continue
            fresh = path.name == "next.pt"
            for problem in problems:
                found = path.name if fresh else f"{path.name} before it"
                warnings.warn(f"{problem}; going on from {found}", stacklevel=2)
                # Else the next save would put the damaged file into the place of this good one.
                self._links = [(path, "last.pt")]
            self._take_ranking(state, source=path if fresh else None)
            return state
        raise _none_left(problems)

    def earlier(self, which: str, *, whole: bool = True) -> dict[str, Any]:
        """A checkpoint to go back to; what the run has saved beyond it is kept aside.

        Args:
            which: `best`, `last`, `previous` or a path.
            whole: see `read`.

        Raises:
            CheckpointError: it is missing or cannot be used.
        """
        if which == "last":
            return self.newest(whole=whole)
        path = self.select(which)
        state = read(path, whole=whole)
        try:
            beyond = read(self.path / "last.pt", whole=False)["position"]["step"]
            if beyond > state["position"]["step"]:
                self._links.append((self.path / "last.pt", f"left-{beyond:08d}.pt"))
        except CheckpointError:
            pass  # There is nothing of use in it.
        self._links.append((path, "last.pt"))
        self._take_ranking(state, source=path)
        return state

    def _take_ranking(self, state: dict[str, Any], source: Path | None = None) -> None:
        """Takes up the ranking of a checkpoint, in files of today's names.

        What a run of another `top_k` has as `best.pt` gets a name of its own, and the other way
        round. Files that have become those of later steps, since the run goes back, are not taken.
        """
        self.ranking = []
        with well_formed("the ranking of a checkpoint"):
            ranking = _check_ranking(state["ranking"])
        for value, step, name in ranking[: self.top_k]:
            is_source = source is not None and step == state["position"]["step"]
            file = source if source is not None and is_source else self.path / name
            if name != self._file(step) or source is not None:
                if not self._is_of(file, step):
                    continue
                if not self.ranking:
                    self._links.append((file, "best.pt"))
                self._links.append((file, self._file(step)))
            self.ranking.append([value, step, self._file(step)])

    @staticmethod
    def _is_of(file: Path, step: int) -> bool:
        try:
            return bool(read(file, whole=False)["position"]["step"] == step)
        except CheckpointError:
            return False

    def select(self, which: str) -> Path:
        """The file of `best`, `last` or a path."""
        return self.path / f"{which}.pt" if which in KEPT else Path(which)

    def clean(self) -> None:
        """Puts right what a resume found, and removes what a killed process left half-written."""
        for source, name in self._links:
            link(source, self.path / name)
        self._links = []
        for file in [*self.path.glob("*.tmp"), self.path / "next.pt"]:
            file.unlink(missing_ok=True)


def require_space(folder: Path, size: int) -> None:
    """Refuses to begin what the disk cannot hold.

    Raises:
        CheckpointError: fewer than `size` bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if free < size:
        raise CheckpointError(
            f"the checkpoints of this run need about {_size(size)} and {_size(free)} are free in "
            f"{folder}; make room or set paths.runs_dir"
        )


def _size(count: int) -> str:
    return f"{count / 2**20:.0f} MiB" if count >= 2**20 else f"{count / 2**10:.0f} KiB"
