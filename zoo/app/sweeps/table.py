"""The table at the end of a sweep: every run, best first, and what repetitions have in common."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.app.sweeps.rows import aligned, columns_of, identity, metrics_of, write_csv
from zoo.config.run_config import stored_words


def collect(folder: Path) -> list[dict[str, Any]]:
    """One row for each run of a sweep, best first, written to `sweep.csv` too.

    The monitored validation metric orders the rows; mean and standard deviation are over the runs
    that differ in nothing but their seed, or in what their data call a repetition, as a fold; one
    that `repeats` another does not count, and `group` is the first job of them. Runs that failed
    come last.
    """
    from zoo.training.run_folder import RunFolder

    rows = []
    groups: dict[str, int] = {}
    repetitions: dict[tuple[str, str], int] = {}
    paths = [p for p in folder.iterdir() if (p / "status.json").exists()]
    for path in sorted(paths, key=lambda path: int(path.name.split("-")[0])):
        run = RunFolder(path)
        status, results = run.read_status(), run.read("results.json")
        words = stored_words(path)
        row: dict[str, Any] = {"job": int(path.name.split("-")[0]), "state": status["state"]}
        row |= dict(word.partition("=")[::2] for word in words)
        row |= metrics_of(results)
        row["monitor"] = f"val/{results['monitor']}" if results else ""
        row["mode"] = results.get("mode", "")
        row["error"] = status.get("error") or ""
        row["folder"] = path.name
        settings, repetition = identity(path, words)
        given = [word for word in words if word.partition("=")[0] not in repetition]
        row["settings"] = " ".join(given)
        row["group"] = groups.setdefault(settings, row["job"])
        first = row["job"]
        if row["state"] == "finished":
            first = repetitions.setdefault((settings, str(repetition)), first)
        row["repeats"] = "" if first == row["job"] else first
        rows.append(row)
    for row in rows:
        values = [
            other[row["monitor"]]
            for other in rows
            if other["group"] == row["group"]
            and other["repeats"] == ""
            and row["monitor"]
            and row["monitor"] in other
        ]
        if values:
            row["mean"] = statistics.fmean(values)
            row["deviation"] = statistics.stdev(values) if len(values) > 1 else 0.0

    def order(row: dict[str, Any]) -> tuple[bool, float, int]:
        value = row.get(row["monitor"], math.nan)
        bad = row["state"] != "finished" or math.isnan(value)
        return bad, 0.0 if bad else (value if row["mode"] == "min" else -value), row["job"]

    rows.sort(key=order)
    write_csv(folder / "sweep.csv", rows)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows for a terminal, with mean and deviation over repetitions, and what failed."""
    columns = columns_of(rows)
    metrics = [c for c in columns if c.startswith(("val/", "test/"))]
    hidden = {"folder", "monitor", "mode", "error", "settings", "mean", "deviation", "group"}
    keys = [c for c in columns if c not in hidden and c not in metrics]
    # What all runs have in common tells nothing.
    keys = [c for c in keys if c in ("job", "state") or len({str(r.get(c)) for r in rows}) > 1]

    def cell(value: Any) -> str:
        return f"{value:.4f}" if isinstance(value, float) else str(value)

    shown = [*keys, *metrics]
    lines = aligned([shown, *([cell(row.get(c, "")) for c in shown] for row in rows)])
    groups: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        if row["state"] == "finished" and row["repeats"] == "":
            groups.setdefault(row["group"], []).append(row)
    for group in groups.values():
        if len(group) > 1:
            different = len({row.get("seed") for row in group}) == len(group)
            what = "seeds" if different else "repetitions"
            lines.append(f"\n{group[0]['settings'] or 'defaults'}, {len(group)} {what}:")
            for metric in metrics:
                values = [row[metric] for row in group if metric in row]
                if values:
                    mean, deviation = statistics.fmean(values), statistics.stdev(values)
                    lines.append(f"  {metric:<24}{mean:.4f} ± {deviation:.4f}")
    lines += [
        f"job {r['job']} is job {r['repeats']} again, seed included: counted once"
        for r in rows
        if r["repeats"] != ""
    ]
    lines += [f"job {r['job']} {r['state']}: {r['error'][:150]}" for r in rows if r["error"]]
    return "\n".join(["", *lines])
