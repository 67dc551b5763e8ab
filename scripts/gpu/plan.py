"""Runs checks one after the other within a budget of time, and keeps what each of them found."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LEAST = 5.0
"""Seconds below which a check is not begun."""
SHOWN = 30
"""Lines of a failed check's output that are kept."""


@dataclass(frozen=True)
class Check:
    """A command that passes if its exit code is 0.

    Its last line of output, where that is a JSON object, is what it has measured.

    Attributes:
        name: of the check.
        what: what it shows, in a line.
        command: of the subprocess, run in the folder of the project.
        limit: seconds that it may take.
        reason: says why it cannot run here; None: it can.
    """

    name: str
    what: str
    command: Sequence[str]
    limit: float
    reason: Callable[[], str | None] = lambda: None


class Record:
    """A JSON file with an entry for each check that was run on the way, whenever that was.

    An entry is replaced by a newer run of the same check, and by nothing else.

    Args:
        path: of the file.
        environment: versions and devices, which each entry holds.
    """

    def __init__(self, path: Path, environment: dict[str, Any]) -> None:
        self._path, self._environment = path, environment
        self.entries: dict[str, Any] = {}
        if path.exists():
            self.entries = json.loads(path.read_text(encoding="utf-8"))

    def add(self, check: Check, outcome: dict[str, Any]) -> None:
        """Writes an outcome; one that was skipped takes the place of none but a skipped one."""
        earlier = self.entries.get(check.name, {}).get("status", "skipped")
        if outcome["status"] == "skipped" and earlier != "skipped":
            return
        command = f"python scripts/gpu_check.py {check.name}"
        entry = {"what": check.what, "command": command, **outcome}
        self.entries[check.name] = {**entry, "environment": self._environment}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Never half-written: whoever is impatient may end the program at any time.
        new = self._path.with_name(self._path.name + ".new")
        new.write_text(json.dumps(self.entries, indent=2) + "\n", encoding="utf-8")
        os.replace(new, self._path)


def run_all(
    checks: Sequence[Check],
    record: Record,
    *,
    seconds: float,
    tell: Callable[[str], None] = print,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Runs checks in their order, and records each of them as soon as it is over.

    Args:
        checks: the most telling first.
        record: where the outcomes go.
        seconds: that all of them may take together.
        tell: is given a line for each.
        clock: seconds since some moment.

    Returns:
        Whether none has failed.
    """
    end, good = clock() + seconds, True
    for check in checks:
        left = end - clock()
        if left < LEAST:
            outcome = _skipped("no time was left")
        elif (reason := check.reason()) is not None:
            outcome = _skipped(reason)
        else:
            outcome = run(check, min(check.limit, left), clock=clock)
        record.add(check, outcome)
        good &= outcome["status"] != "failed"
        said = f" ({outcome['reason']})" if "reason" in outcome else ""
        tell(f"{outcome['status']:8}{check.name:11}{outcome['seconds']:6.1f} s  {check.what}{said}")
    return good


def _skipped(reason: str) -> dict[str, Any]:
    return {"status": "skipped", "seconds": 0.0, "reason": reason}


def run(
    check: Check, limit: float, *, clock: Callable[[], float] = time.monotonic
) -> dict[str, Any]:
    """Runs one check in a process group of its own, which is killed at the end of its time.

    Returns:
        ``status`` (passed or failed), ``seconds``, and what there is of ``reason``, ``output`` (the
        last lines of a failed one) and ``measured``.
    """
    began = clock()
    process = subprocess.Popen(
        check.command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    reason = None
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        reason = f"took more than {limit:.0f} s"
        output = _kill(process)
    except BaseException:
        _kill(process)
        raise
    if reason is None and process.returncode:
        reason = f"exit code {process.returncode}"
    lines = plain(output).splitlines()
    outcome: dict[str, Any] = {
        "status": "failed" if reason else "passed",
        "seconds": round(clock() - began, 1),
    }
    if (measured := _measured(lines)) is not None:
        outcome["measured"] = measured
        del lines[-1]
    if reason:
        outcome |= {"reason": reason, "output": lines[-SHOWN:]}
    return outcome


def _kill(process: subprocess.Popen[str]) -> str:
    os.killpg(process.pid, signal.SIGKILL)
    output, _ = process.communicate()
    return output


def _measured(lines: list[str]) -> dict[str, Any] | None:
    try:
        found = json.loads(lines[-1])
    except (IndexError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def plain(text: str) -> str:
    """Output without what is this machine's own: paths are relative, and no host is named."""
    places = {str(ROOT) + os.sep: "", sys.prefix: "<python>", str(Path.home()): "~"}
    for place, short in places.items():
        text = text.replace(place, short)
    host = os.uname().nodename if hasattr(os, "uname") else ""
    return text.replace(host, "<host>") if len(host) > 3 else text
