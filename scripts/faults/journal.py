"""What has been done so far, a line of JSON for each fault, and what it comes to."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zoo.config.errors import ConfigError
from zoo.training.own_files import appending

RESULTS = ("passed", "failed", "skipped")


class Journal:
    """A file to which each fault is appended as soon as it is over.

    Args:
        path: of the file; a line that was cut off is removed.
        seed: of the faults.

    Attributes:
        rows: by number.

    Raises:
        ConfigError: it holds faults of another seed.
    """

    def __init__(self, path: Path, seed: int) -> None:
        self._path, self._seed = path, seed
        self.rows: dict[int, dict[str, Any]] = {}
        text = path.read_bytes() if path.exists() else b""
        whole = text[: text.rfind(b"\n") + 1]
        for line in whole.splitlines():
            row = json.loads(line)
            if row["seed"] != seed:
                raise ConfigError(
                    f"seed={seed}: {path} holds faults of seed={row['seed']}; take another out="
                )
            self.rows[row["number"]] = row
        if len(whole) < len(text):
            with open(path, "r+b") as file:
                file.truncate(len(whole))

    def add(self, row: dict[str, Any]) -> None:
        """Writes down a fault."""
        row = {"seed": self._seed, **row}
        with appending(self._path) as file:
            file.write(json.dumps(row) + "\n")
        self.rows[row["number"]] = row


def summary(rows: Iterable[dict[str, Any]], command: str) -> dict[str, Any]:
    """Counts by kind and by experiment, and all that is needed to repeat what has failed."""
    rows = list(rows)

    def counts(key: str | None = None) -> Any:
        if key is None:
            found = Counter(row["result"] for row in rows)
            return {result: found[result] for result in RESULTS}
        names = sorted({row[key] for row in rows})
        pairs = Counter((row[key], row["result"]) for row in rows)
        return {n: {r: pairs[n, r] for r in RESULTS if pairs[n, r]} for n in names}

    failures = [
        {"repeat": f"{command} only={row['number']}", **row}
        for row in rows
        if row["result"] == "failed"
    ]
    reasons = Counter(row["reason"] for row in rows if row["result"] == "skipped")
    return {
        "command": command,
        **counts(),
        "seconds": round(sum(row["seconds"] for row in rows), 1),
        "kinds": counts("kind"),
        "experiments": counts("experiment"),
        "skipped_for": dict(reasons),
        "failures": failures,
    }
