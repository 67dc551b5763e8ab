"""The folder of one run: its files, its lock and what it says about itself."""

import contextlib
import errno
import itertools
import json
import os
import platform
import re
import secrets
import subprocess
import time
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from zoo.training.own_files import appending, links_in, replacing, to_json

HEARTBEAT_SECONDS = 10.0
_RESERVED_BYTES = 1 << 16
_KEPT = (".lock", ".reserve", "status.json", "log.txt")
_FULL = (errno.ENOSPC, errno.EDQUOT)


class RunFolderError(RuntimeError):
    """A run folder cannot be used, in one sentence."""


def safe_name(text: str) -> str:
    """The text as part of a folder's name: no '=', ',', space or slash."""
    return re.sub(r"[^\w.+-]+", "-", text).strip("-.")[:80]


def _git(*arguments: str) -> str | None:
    """What git says of the project's own checkout; None where there is none."""
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def environment(device: str) -> dict[str, Any]:
    """Versions, device and commit; no host name, user, path or environment variable."""
    from importlib.metadata import PackageNotFoundError, version

    import torch

    packages = {}
    for name in ("torch", "torchvision", "numpy", "hydra-core", "omegaconf", "tensorboard"):
        with contextlib.suppress(PackageNotFoundError):
            packages[name] = version(name)
    cuda = torch.cuda.is_available()
    commit = _git("rev-parse", "HEAD")
    return {
        "python": platform.python_version(),
        "packages": packages,
        "system": platform.system(),
        "machine": platform.machine(),
        "device": device,
        "gpu": torch.cuda.get_device_name() if cuda and device.startswith("cuda") else None,
        "cuda": torch.version.cuda,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "commit": commit,
        "dirty": bool(_git("status", "--porcelain")) if commit else None,
    }


def folder_of_now(parent: Path, prefix: str = "") -> Path:
    """Makes a folder below `parent` that is named by the time; its names sort by it too.

    To make a folder succeeds once: of those that are made in one second, by whatever process, the
    later ones get a number.

    Raises:
        OSError: it cannot be made.
    """
    parent.mkdir(parents=True, exist_ok=True)
    stamp = f"{prefix}{datetime.now():%Y-%m-%d_%H-%M-%S}"
    for number in itertools.count(1):
        path = parent / (stamp if number == 1 else f"{stamp}_{number:02d}")
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            break
    return path


class RunFolder:
    """One run's folder.

    Args:
        path: an existing folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = FileLock(self.path / ".lock")
        self._status: dict[str, Any] = {}
        self._beat = 0.0

    @classmethod
    def create(cls, parent: str | os.PathLike[str], name: str | None = None) -> "RunFolder":
        """Makes a new folder below `parent`; named by the time if by no name.

        Raises:
            RunFolderError: it cannot be made, or there is one of that name.
        """
        path = Path(parent) / (name or "")
        try:
            if name is None:
                return cls(folder_of_now(path))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir()
        except OSError as error:
            raise RunFolderError(
                f"cannot make the run folder {path} ({error.strerror}); set paths.runs_dir"
            ) from error
        return cls(path)

    def require_unused(self) -> None:
        """Refuses a folder that holds a run, which a new one would overwrite.

        Raises:
            RunFolderError: it has results, checkpoints or curves.
        """
        checkpoints = (f"checkpoints/{name}.pt" for name in ("last", "previous", "best"))
        for name in ("results.json", "metrics.jsonl", *checkpoints):
            file = self.path / name
            if file.exists() and file.stat().st_size:
                raise RunFolderError(
                    f"{self.path} holds a run already ({name}); go on with it (resume=True) or "
                    "take a new folder"
                )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the run for this process; a killed process holds nothing.

        Raises:
            RunFolderError: another process is working on it, or there is a link in it, through
                which files elsewhere would be overwritten.
        """
        if found := next(links_in(self.path), None):
            raise RunFolderError(
                f"{found} is a link, and a run writes into its own folder alone; put what it "
                "points to in its place"
            )
        try:
            self._lock.acquire(timeout=2)
        except Timeout:
            pid = self.read("status.json").get("pid")
            who = "another process" if pid is None else f"another process (pid {pid})"
            raise RunFolderError(
                f"{self.path} is in use by {who}; wait for it or stop it"
            ) from None
        except OSError as error:
            raise RunFolderError(f"cannot lock {self.path} ({error.strerror})") from error
        try:
            yield
        finally:
            self._lock.release()

    def write(self, name: str, content: str | dict[str, Any]) -> None:
        """Writes a text, or a dictionary as JSON (see `to_json`), in one step."""
        text = content if isinstance(content, str) else to_json(content, indent=2) + "\n"
        with replacing(self.path / name) as file:
            file.write(text.encode())

    def read(self, name: str) -> dict[str, Any]:
        """Reads a JSON object; {} if there is none, or the file holds something else."""
        try:
            found = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def read_status(self) -> dict[str, Any]:
        """What `status.json` says, with `state: dead` for a run whose process is gone."""
        status = self.read("status.json")
        if status.get("state") == "running":
            lock = self.path / ".lock"
            with contextlib.suppress(Timeout, OSError):
                if not lock.is_symlink():  # Taking a lock empties its file.
                    with FileLock(lock).acquire(timeout=0):
                        status["state"] = "dead"
        return status

    def status(self, state: str, **more: Any) -> None:
        """Writes `status.json`; on a full disk the space reserved for it is given up first."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._status = {
            **self._status,
            "state": state,
            "pid": os.getpid(),
            "heartbeat": now,
            **more,
        }
        self._status.setdefault("started", now)
        self._beat = time.monotonic()
        try:
            self.write("status.json", self._status)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            (self.path / ".reserve").unlink(missing_ok=True)
            self.write("status.json", self._status)

    def remember(self, **more: Any) -> None:
        """Has `status.json` say something more from now on."""
        if more:
            status = self.read_status()
            self._status |= status | more
            self.status(status.get("state", "running"))

    def put_aside(self) -> None:
        """Moves what a run has written that failed before its first checkpoint out of the way."""
        number = next(n for n in itertools.count(1) if not (self.path / f"failed-{n}").exists())
        aside = self.path / f"failed-{number}"
        aside.mkdir()
        for entry in list(self.path.iterdir()):
            if not entry.name.startswith("failed-") and entry.name not in _KEPT:
                entry.rename(aside / entry.name)

    def reserve(self) -> None:
        """Takes the space in which a full disk can be reported, unless it is there.

        Raises:
            RunFolderError: there is not even that much.
        """
        path = self.path / ".reserve"
        if path.exists():
            return
        try:
            with replacing(path) as file:
                file.write(secrets.token_bytes(_RESERVED_BYTES))
        except OSError as error:
            raise RunFolderError(
                f"cannot write into {self.path} ({error.strerror}); make room or set paths.runs_dir"
                if error.errno in _FULL
                else f"cannot write into {self.path} ({error.strerror}); allow it, or set "
                "paths.runs_dir"
            ) from error

    @contextlib.contextmanager
    def reporting(self) -> Iterator[None]:
        """Keeps `status.json` true while a run is on: running, then how it ended."""
        from zoo.training.interruption import Interrupted

        for left in self.path.glob("status.json.*.tmp"):  # By a process that was killed.
            with contextlib.suppress(OSError):
                left.unlink()
        self.reserve()  # A resumed run may have had to give it up.
        self.status("running", error=None)
        self.log(f"running, process {os.getpid()}")
        try:
            yield
        except (Interrupted, KeyboardInterrupt) as error:
            error.run_folder = self.path  # type: ignore[union-attr]  # whoever reports it asks
            step = getattr(error, "step", None)
            known = {} if step is None else {"step": step}
            with contextlib.suppress(OSError):  # Here and below: it must not hide what happened.
                self.status("interrupted", error=str(error) or "KeyboardInterrupt", **known)
            self.log(f"{error}; the state is saved" if str(error) else "stopped at once")
            raise
        except BaseException as error:
            with contextlib.suppress(OSError):
                self.status("failed", error=f"{type(error).__name__}: {error}")
            self.log("".join(traceback.format_exception(error)))
            raise
        self.status("finished")
        self.log("finished")

    def heartbeat(self, step: int) -> None:
        """Notes that the run is alive, at most every few seconds."""
        if time.monotonic() - self._beat > HEARTBEAT_SECONDS:
            self.status("running", step=step)

    def announce(self, text: str) -> None:
        """Prints a line and keeps it in `log.txt`."""
        print(text, flush=True)
        self.log(text)

    def log(self, text: str) -> None:
        """Appends a line to `log.txt`; never the reason for which a run fails."""
        stamp = f"{datetime.now():%Y-%m-%d %H:%M:%S}"
        with (
            contextlib.suppress(OSError),
            appending(self.path / "log.txt") as file,
        ):
            file.write(f"{stamp} {text}\n")
