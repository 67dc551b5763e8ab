"""What happens to a run, and when: told by a dictionary, and done from inside of its process.

signals: [[5, "SIGTERM"], ...]   the run gets the signal during its 5th update of this process
in_save: [2, "SIGKILL"]          and this one halfway through writing its 2nd checkpoint
twice: true                      and at once a second time, in either case
kill_at_file: 7                  the run is killed just before its 7th change of a file
full_at_file: 7                  from then on no new file fits on the disk, unless one is removed
limit_at: [5, 1000]              from the 5th update on no file grows beyond so many bytes
kill_worker_at: 5                one of the processes that load its data is killed
clock: [5, "-3d"]                the clock is put back (of a process under libfaketime)
wait_at: [3, "path"]             the run waits in its 3rd update until there is such a file
files: "path"                    where to write the list of the run's changes of files
below: "path"                    which files those are that are counted
"""

import errno
import io
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from faults.runs import CLOCK

CHANGES = ("os.rename", "os.link", "os.remove", "os.truncate")


def arrange(moments: dict[str, Any]) -> None:
    """Has it all happen to this process."""
    if moments.keys() & {"kill_at_file", "full_at_file", "files"}:
        _watch_files(moments)
    if moments.keys() & {"signals", "wait_at", "limit_at", "kill_worker_at", "clock"}:
        _watch_updates(moments)
    if "in_save" in moments:
        _watch_saves(moments)


def _send(name: str, moments: dict[str, Any]) -> None:
    for _ in range(2 if moments.get("twice") else 1):
        signal.raise_signal(getattr(signal, name))


def _watch_files(moments: dict[str, Any]) -> None:
    """Counts what changes files, which Python announces before it does it."""
    kill, full, log = (moments.get(key) for key in ("kill_at_file", "full_at_file", "files"))
    below = moments["below"]
    count = room = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count, room
        opens = event == "open" and isinstance(arguments[1], str) and arguments[1][:1] in "wax+"
        if opens:
            name = str(arguments[0])
        elif event in CHANGES:
            name = str(arguments[1 if event in ("os.rename", "os.link") else 0])
        else:
            return
        if below not in name:
            return
        count += 1
        if count == kill:
            signal.raise_signal(signal.SIGKILL)
        if full and count >= full:
            room += event == "os.remove"
            if opens and not room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
            room -= opens
        if log:
            handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(handle, f"{event} {os.path.basename(name)}\n".encode())
            os.close(handle)

    sys.addaudithook(hook)


def _watch_updates(moments: dict[str, Any]) -> None:
    signals = dict(moments.get("signals", []))
    wait, wait_for = moments.get("wait_at", (0, ""))
    limit, size = moments.get("limit_at", (0, 0))
    jump, clock = moments.get("clock", (0, ""))
    count = 0

    def hook(*_: object) -> None:
        nonlocal count
        count += 1
        if count == limit:
            import resource

            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        if count == jump:
            Path(os.environ[CLOCK]).write_text(clock)
        if count == moments.get("kill_worker_at"):
            min(multiprocessing.active_children(), key=lambda child: child.name).kill()
        if count in signals:
            _send(signals[count], moments)
        if count == wait:
            while not os.path.exists(wait_for):
                time.sleep(0.01)

    register_optimizer_step_pre_hook(hook)


def _watch_saves(moments: dict[str, Any]) -> None:
    save, (last, name) = torch.save, moments["in_save"]
    count = 0

    def half(state: object, file: io.BufferedWriter) -> None:
        nonlocal count
        count += 1
        if count != last:
            return save(state, file)
        whole = io.BytesIO()
        save(state, whole)
        content, middle = whole.getvalue(), whole.tell() // 2
        file.write(content[:middle])
        file.flush()
        _send(name, moments)
        file.write(content[middle:])

    torch.save = half  # type: ignore[assignment]
