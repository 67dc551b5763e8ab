"""What can be said of a run in one row: read from its folder, whether it is finished or not."""

import csv
import io
import json
import math
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.app.named_runs import DEPTH
from zoo.config.errors import ConfigError
from zoo.config.run_config import dump, load, repetition_keys
from zoo.training.own_files import replacing

STATES = {"interrupted": "stopped", "dead": "killed"}


def runs_in(folder: Path, depth: int = DEPTH) -> Iterator[Path]:
    """The run folders below a folder, or itself, by name; what failed before it began included."""
    if (folder / "status.json").exists():
        yield folder
    elif depth and folder.is_dir():
        for path in sorted(folder.iterdir()):
            if not re.fullmatch(r"failed-\d+", path.name):  # See `RunLocation.begin_again`.
                yield from runs_in(path, depth - 1)


def metrics_of(results: Mapping[str, Any]) -> dict[str, float]:
    """The metrics in `results.json` by split and name, `val/loss` say; NaN for what is null."""
    return {
        f"{split}/{name}": math.nan if value is None else value
        for split in ("val", "test")
        for name, value in results.get(split, {}).items()
    }


def rows_of(path: Path) -> list[dict[str, Any]]:
    """What a run has written to `metrics.jsonl`; a last line that is half written does not count.

    Raises:
        ConfigError: the file is damaged.
    """
    file = path / "metrics.jsonl"
    text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
    lines = text.splitlines() if text.endswith("\n") else text.splitlines()[:-1]
    try:
        rows = [json.loads(line) for line in lines]
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: a line is damaged ({error})") from error
    return [row for row in rows if isinstance(row, dict)]


def identity(
    path: Path, words: Sequence[str], keys: Sequence[str] | None = None
) -> tuple[str, dict[str, Any]]:
    """What a run is, however its values were written, and which repetition: its seed, its fold.

    Args:
        path: the run folder.
        words: of its command line, for a run that failed before it had a configuration.
        keys: in which repetitions differ; None: the seed and those that the data name.
    """
    try:
        config = load(path / "config.yaml")
    except ConfigError:
        return " ".join(sorted(words)), {"seed": ""}
    repetition: dict[str, Any] = {}
    for key in repetition_keys(config) if keys is None else keys:
        *groups, name = key.split(".")
        node: Any = config
        for group in groups:
            node = node.get(group) if isinstance(node, dict) else None
        if isinstance(node, dict) and name in node:
            repetition[key] = node.pop(name)
    return dump(config), repetition


def columns_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names in any of the rows, in the order in which they come."""
    return list(dict.fromkeys(name for row in rows for name in row))


def as_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """The rows as CSV, with a line of names."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Puts the rows into the place of a CSV file of earlier ones, in one step."""
    with replacing(path) as file:
        file.write(as_csv(rows, columns_of(rows)).encode())


def aligned(lines: Sequence[Sequence[str]], *, to_the_left: Container[int] = ()) -> list[str]:
    """Cells as lines of a terminal, each column to the right but those that are named."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            f"{cell:<{w}}" if number in to_the_left else f"{cell:>{w}}"
            for number, (cell, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
