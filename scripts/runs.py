"""A table of runs: those in the folders that are named, of sweeps too, whatever became of them.

    python scripts/runs.py runs
    python scripts/runs.py runs/lenet_digits runs/mlp_digits sort=test/accuracy
    python scripts/runs.py runs/lenet_digits by=seed format=markdown
    python scripts/runs.py runs format=csv > runs.csv

Each row is a run: running, finished, failed, stopped (by a signal or a time limit) or killed. The
metrics are those of the selected weights, in a finished run, else those of the newest evaluation;
seconds are those of training. Where the runs were selected by different metrics, the table shows
this one alone for each of them; CSV has all.

by=seed       one row for the runs that differ in nothing but their seed (or another setting, or
              several with commas between them: by=seed,data.fold), with mean ± standard deviation
              over the finished ones
sort=METRIC   val/accuracy, test/loss, ...: the best first, if it is what selected the weights, else
              the least; step and seconds: the least first. Runs without it come last
format=       terminal (the default), csv or markdown
"""

import clone  # noqa: F401

# isort: split
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from zoo.app.commands import printable, relative
from zoo.app.program import program
from zoo.app.sweeps.rows import (
    STATES,
    aligned,
    as_csv,
    identity,
    metrics_of,
    rows_of,
    runs_in,
)
from zoo.config.command_line import CommandLine
from zoo.config.errors import ConfigError, did_you_mean
from zoo.config.run_config import stored_words

NO_METRIC = ("step", "epoch", "split")

Row = dict[str, Any]


def row_of(path: Path) -> Row:
    """What is known of one run."""
    from zoo.training.run_folder import RunFolder

    folder = RunFolder(path)
    status, results = folder.read_status(), folder.read("results.json")
    state = str(status.get("state", "unknown"))
    row: Row = {"run": relative(path), "state": STATES.get(state, state)}
    if state == "finished" and results:
        metrics = metrics_of(results)
        row |= {"step": results["steps"], **metrics, "seconds": results["seconds"]}
        row |= {"monitor": results["monitor"], "mode": results["mode"]}
    else:
        rows = rows_of(path)
        steps = [int(row["step"]) for row in rows if "step" in row]
        row["step"] = max([*steps, int(status.get("step") or 0)])
        judged = [row for row in rows if row.get("split") == "val"]
        newest = judged[-1] if judged else {}
        row |= metrics_of({"val": {k: v for k, v in newest.items() if k not in NO_METRIC}})
    return row | {"error": status.get("error") or ""}


def grouped(rows: Sequence[Row], by: Sequence[str]) -> list[Row]:
    """One row for the runs that differ in nothing but some settings.

    Raises:
        ConfigError: no run has such a setting.
    """
    groups: dict[str, list[Row]] = {}
    words: dict[str, list[str]] = {}
    settings: set[str] = set()
    for row in rows:
        path = Path(row["run"])
        given = [w.lstrip("+") for w in stored_words(path)]
        what, values = identity(path, given, by)
        settings |= set(values)
        words.setdefault(what, [word for word in given if word.partition("=")[0] not in by])
        groups.setdefault(what, []).append(row | {"values": str(values)})
    if unknown := [key for key in by if key not in settings]:
        raise ConfigError(f"by={unknown[0]}: none of these runs has such a setting")
    common = set.intersection(*map(set, words.values()))
    found = []
    for what, group in groups.items():
        different = [word for word in words[what] if word not in common]
        named = different or [w for w in words[what] if w.startswith("experiment=")]
        found.append({"runs": " ".join(named) or "defaults"} | mean_of(group))
    return found


def mean_of(group: Sequence[Row]) -> Row:
    """The finished runs of a group as one row, one that is another one again counted once."""
    finished = {row["values"]: row for row in reversed(group) if row["state"] == "finished"}
    runs = list(reversed(finished.values()))
    states = [row["state"] for row in group if row["state"] != "finished"]
    states += ["repeated"] * (len(group) - len(states) - len(runs))
    others = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    row: Row = {"finished": len(runs), "others": others}
    for name in dict.fromkeys(name for run in runs for name in run if is_figure(name)):
        values = [run[name] for run in runs if name in run]
        row[name] = statistics.fmean(values)
        if len(values) > 1:
            row[f"{name} deviation"] = statistics.stdev(values)
    return row | {k: runs[0][k] for k in ("monitor", "mode") if runs}


def is_figure(name: str) -> bool:
    """Whether a column is of numbers that are sorted by and averaged."""
    return "/" in name or name in ("step", "seconds")


def ordered(rows: Sequence[Row], by: str) -> list[Row]:
    """The rows by a figure, the best first; those without it come last.

    Raises:
        ConfigError: no row has it.
    """
    known = [name for name in columns_of(rows) if is_figure(name) and name != f"{by} deviation"]
    if by not in known:
        raise ConfigError(f"sort={by}: none of these runs has it; {did_you_mean(by, known)}")

    def place(row: Row) -> tuple[bool, float]:
        value = row.get(by, math.nan)
        if math.isnan(value):
            return True, 0.0
        is_more_better = row.get("mode") == "max" and by.partition("/")[2] == row["monitor"]
        return False, -value if is_more_better else value

    return sorted(rows, key=place)


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Every column that any row has, metrics by split, in one order."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    metrics = sorted((n for n in names if "/" in n), key=lambda n: not n.startswith("val/"))
    last = [n for n in names if n.startswith("seconds")] + [n for n in ("monitor", "mode", "error")]
    first = [n for n in names if n not in metrics and n not in last]
    return [*first, *metrics, *(name for name in last if name in names)]


def shown(rows: Sequence[Row], sort: str | None) -> list[Row]:
    """The rows as a reader wants them: every figure as text, and no more columns than needed."""
    monitors = {row["monitor"] for row in rows if "monitor" in row}
    hidden = {"monitor", "mode", "error"}
    names = [n for n in columns_of(rows) if n not in hidden and not n.endswith(" deviation")]
    if len(monitors) > 1:
        names = [n for n in names if "/" not in n or n == sort]
        names[names.index("seconds") : 0] = ["metric", "val", "test"]
    if "runs" in names:  # Words may be long.
        names.append(names.pop(names.index("runs")))
    found = []
    for row in rows:
        monitor = row.get("monitor", "")
        row = row | {"metric": monitor}
        for split in ("val", "test") if len(monitors) > 1 else ():
            for end in ("", " deviation"):
                if f"{split}/{monitor}{end}" in row:
                    row[f"{split}{end}"] = row[f"{split}/{monitor}{end}"]
        found.append({name: _cell(row, name) for name in names})
    return found


def _cell(row: Row, name: str) -> str:
    value, deviation = row.get(name, ""), row.get(f"{name} deviation", math.nan)
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    digits = {"step": 0, "seconds": 1}.get(name, 4)
    text = f"{value:,.{digits}f}"
    return text if math.isnan(deviation) else f"{text} ± {deviation:,.{digits}f}"


def lines_of(rows: Sequence[Row]) -> list[str]:
    """A table for a terminal: text to the left, figures to the right."""
    names = list(rows[0])
    text = {names.index(n) for n in ("run", "runs", "state", "others", "metric") if n in names}
    return aligned([names, *([row[name] for name in names] for row in rows)], to_the_left=text)


def write_terminal(rows: Sequence[Row], sort: str | None) -> None:
    """Prints the table and, below it, what the runs died of."""
    print("\n".join(lines_of(shown(rows, sort))))
    for row in rows:
        if row.get("error") and row["state"] == "failed":
            print(printable(f"{row['run']} failed: {row['error'][:150]}"))


def write_markdown(rows: Sequence[Row], sort: str | None) -> None:
    """Prints the table as Markdown."""
    from zoo.tasks.prediction import Table

    print(Table([dict(row) for row in shown(rows, sort)]).markdown())


def write_csv(rows: Sequence[Row], sort: str | None) -> None:
    """Prints every column of every row."""
    print(as_csv(rows, columns_of(rows)), end="")


WRITERS: dict[str, Callable[[Sequence[Row], str | None], None]] = {
    "terminal": write_terminal,
    "csv": write_csv,
    "markdown": write_markdown,
}


def show(line: CommandLine) -> None:
    """Prints the table that the command line asks for."""
    if not line.overrides:
        raise ConfigError("runs.py takes folders of runs: runs.py runs/lenet_digits")
    layout = line.options.get("format", "terminal")
    if layout not in WRITERS:
        raise ConfigError(f"format={layout}: must be one of {', '.join(WRITERS)}")
    paths: dict[Path, Path] = {}  # as it was named, by what it is
    for word in line.overrides:
        if not Path(word).expanduser().is_dir():
            raise ConfigError(f"{word}: there is no such folder")
        found = list(runs_in(Path(word).expanduser()))
        if not found:
            raise ConfigError(f"{word}: holds no run")
        paths |= {path.resolve(): path for path in found}
    rows = [row_of(path) for path in paths.values()]
    if "by" in line.options:
        rows = grouped(rows, line.options["by"].split(","))
    if "sort" in line.options:
        rows = ordered(rows, line.options["sort"])
    WRITERS[layout](rows, line.options.get("sort"))


main = program(show, __doc__, options=("by", "sort", "format"))

if __name__ == "__main__":
    sys.exit(main())
