"""Sweeps: every combination is checked before the first run, and no failing run stops the others.

Hydra expands and launches (its launchers for Slurm and Ray included); each job composes its own
configuration by the same strict path as a single run.
"""

import contextlib
import csv
import json
import math
import shlex
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig

from zoo.app.commands import installed, relative
from zoo.app.failures import failure, report
from zoo.app.place import RunLocation, Train, before_training
from zoo.config.command_line import CommandLine
from zoo.config.compose import compose, compose_plain
from zoo.config.errors import ConfigError
from zoo.config.overrides import expand, parse, prepare, quoted, search_path
from zoo.config.paths import CONFIGS
from zoo.config.recipe import Recipe
from zoo.config.run_config import dump, load, repetition_keys, stored_words
from zoo.training.interruption import Interrupted, OutOfTime
from zoo.training.own_files import naming

WORST = 1e30


def sweep(train: Train, line: CommandLine) -> int:
    """Runs every combination of the command line's comma-separated values.

    Returns:
        0, or 1 if a run failed.

    Raises:
        ConfigError: any combination is wrong; then none has run.
    """
    from zoo.training.run_folder import RunFolderError, folder_of_now

    config_dir = line.flags.get("--config-dir")
    words = prepare(line.overrides, config_dir, sweep=True)
    ours = [word for word in words if not word.startswith("hydra")]
    compose_plain([word for word in words if word.startswith("hydra")], config_dir)
    searched = any(word.startswith("hydra/sweeper") for word in words)
    if searched:
        # The sweeper chooses the values: what can be checked beforehand is everything else.
        jobs = [[o.input_line or "" for o in parse(ours) if not o.is_sweep_override()]]
    else:
        jobs = expand(ours)
    recipes = []
    with before_training():
        for number, combination in enumerate(jobs):
            with _named(number, len(jobs)):
                recipes.append(
                    compose(combination, config_dir=config_dir, trusted=line.trusted, default=False)
                )
        # Another machine may have other devices and data: there the jobs themselves find out.
        if len(recipes) > 1 and not any(word.startswith("hydra/launcher") for word in words):
            _build_all(train, recipes)
    again = _repetitions(recipes)
    swept = {o.key_or_group for o in parse(ours) if o.is_sweep_override()}
    names = list(dict.fromkeys(recipe.settings.name for recipe in recipes))
    parent = Path(recipes[0].settings.paths.runs_dir) / "-".join(names)[:80]
    try:
        folder = folder_of_now(parent, "sweep-")
    except OSError as error:
        raise RunFolderError(f"cannot make a folder in {parent} ({error.strerror})") from error

    def job(_: Any) -> float | None:
        number = HydraConfig.get().job.num
        if number in again:
            print(f"\njob {number}: is job {again[number]} again, seed included; not run twice")
            return None
        return _job(train, line, folder.resolve(), config_dir, swept)

    interruption: BaseException | None = None
    arguments, sys.argv = sys.argv, ["train.py", "--multirun", *words, *search_path(config_dir)]
    sys.argv.append(f"hydra.sweep.dir={quoted(str(folder.resolve()))}")
    try:
        decorated = hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")
        decorated(job)()
    except (Interrupted, KeyboardInterrupt) as error:
        interruption = error
    finally:
        sys.argv = arguments
    rows = collect(folder)
    print(table(rows))
    print(f"\nlook at it:  {installed('tensorboard')} --logdir {shlex.quote(relative(folder))}")
    print(f"{relative(folder / 'sweep.csv')}\n{relative(folder)}", flush=True)
    if interruption is not None:
        return report(interruption)
    return 1 if any(row["state"] != "finished" for row in rows) else 0


@contextlib.contextmanager
def _named(number: int, jobs: int) -> Iterator[None]:
    """Says of which job of a sweep a refusal is."""
    try:
        yield
    except ConfigError as error:
        where = f" (job {number} of {jobs})" if jobs > 1 else ""
        raise ConfigError(f"{error}{where}; nothing has been run") from error


def _repetitions(recipes: Sequence[Recipe]) -> dict[int, int]:
    """The jobs that are earlier ones again, in all values and in the seed."""
    first: dict[str, int] = {}
    found = {}
    for number, recipe in enumerate(recipes):
        earlier = first.setdefault(dump(recipe.config), number)
        if earlier != number:
            found[number] = earlier
    return found


class _Built(Exception):
    """Everything of a run has been built, and there is nothing wrong with it."""


@dataclass
class _Nowhere(RunLocation):
    """Stops runs where their folder would be made; those on one device share their data.

    Attributes:
        data: what has been set up, by device.
    """

    parent: Path = Path()
    data: dict[str, Any] = field(default_factory=dict)

    def set_up_data(self, recipe: Recipe, device: Any, part: tuple[int, int] = (0, 1)) -> Any:
        key = str(device)
        if key not in self.data:
            self.data[key] = super().set_up_data(recipe, device)
        return self.data[key]

    @contextlib.contextmanager
    def open(self, recipe: Recipe, device: Any, data: Any) -> Iterator[Any]:
        raise _Built
        yield


def _build_all(train: Train, recipes: Sequence[Recipe]) -> None:
    """Builds every different run once, for what only constructors refuse.

    Data are set up once for all runs that have the same, whatever their seeds: nothing is learned
    here, and a seed changes only order and augmentation.

    Raises:
        ConfigError: a part refused a value.
    """
    different = {dump(r.config | {"seed": 0, "name": ""}): n for n, r in enumerate(recipes)}
    alike: dict[str, list[int]] = {}
    for number in different.values():
        alike.setdefault(dump(recipes[number].data.node), []).append(number)
    for numbers in alike.values():
        place = _Nowhere()  # One at a time, so that only one set of data is in memory.
        for number in numbers:
            with _named(number, len(recipes)):
                try:
                    train(recipes[number], place)
                except ConfigError:
                    raise
                except Exception:
                    continue  # `_Built`, or a failure of this one job, which it will report.


def _job(
    train: Train, line: CommandLine, folder: Path, config_dir: str | None, swept: set[str]
) -> float:
    """One run of a sweep; returns the monitored metric, signed so that less is better."""
    from zoo.training.run_folder import RunFolder, safe_name

    hydra_config = HydraConfig.get()
    words = list(hydra_config.overrides.task)
    shown = [word.lstrip("+") for word in words]
    short = [_short(w) for w in shown if w.partition("=")[0] in swept]
    name = safe_name("-".join([str(hydra_config.job.num), *short]))
    print(f"\njob {hydra_config.job.num}: {' '.join(shown)}", flush=True)
    place = RunLocation(folder, name=name, overrides=shown, also=line.also())
    try:
        recipe = compose(words, config_dir=config_dir, trusted=line.trusted, default=False)
        place.run(train, recipe)
    except (Exception, OutOfTime) as error:
        report(error)
        if place.folder is None:
            place.folder = RunFolder.create(folder, name)
            place.folder.write("overrides.yaml", json.dumps(list(place.overrides)) + "\n")
            place.folder.status("failed", error=failure(error)[1].splitlines()[-1])
        return WORST
    monitor, mode = place.results["monitor"], place.results["mode"]
    value = float(place.results.get("val", {}).get(monitor, math.nan))
    return value if mode == "min" else -value


def _short(word: str) -> str:
    key, _, value = word.partition("=")
    return f"{key.rpartition('.')[2]}-{value}"


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
        for split in ("val", "test"):
            found = results.get(split, {}).items()
            row |= {f"{split}/{k}": math.nan if v is None else v for k, v in found}
        row["monitor"] = f"val/{results['monitor']}" if results else ""
        row["mode"] = results.get("mode", "")
        row["error"] = status.get("error") or ""
        row["folder"] = path.name
        settings, repetition = _identity(path, words)
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
    columns = list(dict.fromkeys(name for row in rows for name in row))
    path = folder / "sweep.csv"
    with naming(path), open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return rows


def _identity(path: Path, words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """What a run is, however its values were written, and which repetition: its seed, its fold."""
    try:
        config = load(path / "config.yaml")
    except ConfigError:  # It failed before it had one.
        return " ".join(sorted(words)), {"seed": ""}
    repetition: dict[str, Any] = {}
    for key in repetition_keys(config):
        *groups, name = key.split(".")
        node = config
        for group in groups:
            node = node[group]
        repetition[key] = node.pop(name, None)
    return dump(config), repetition


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows for a terminal, with mean and deviation over repetitions, and what failed."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    metrics = [c for c in columns if c.startswith(("val/", "test/"))]
    hidden = {"folder", "monitor", "mode", "error", "settings", "mean", "deviation", "group"}
    keys = [c for c in columns if c not in hidden and c not in metrics]
    # What all runs have in common tells nothing.
    keys = [c for c in keys if c in ("job", "state") or len({str(r.get(c)) for r in rows}) > 1]

    def cell(value: Any) -> str:
        return f"{value:.4f}" if isinstance(value, float) else str(value)

    shown = [*keys, *metrics]
    cells = [shown, *([cell(row.get(c, "")) for c in shown] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(shown))]
    lines = ["  ".join(f"{c:>{w}}" for c, w in zip(line, widths, strict=True)) for line in cells]
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
