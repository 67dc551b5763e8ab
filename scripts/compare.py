"""Compares two runs, or two settings of several runs each, and says what may be chance.

    python scripts/compare.py runs/lenet_digits/<run> runs/lenet_digits/<run>
    python scripts/compare.py runs/lenet_digits/<sweep> runs/mlp_digits/<sweep>
    python scripts/compare.py <run>,<run>,<run> <run>,<run>,<run>
    python scripts/compare.py <a> <b> out=curves.png

Of two runs: where their configurations differ, the metrics of both, and whether their weights are
equal. Of several (a sweep, or runs with commas between them, that differ in nothing but their seed
or fold) also the mean difference of each metric, b minus a, with its 95 % confidence interval. Runs
of the same seeds and folds are compared pair by pair (paired t; over folds with the correction of
Nadeau and Bengio, 2003; beside it the signed-rank test of Wilcoxon), others by Welch's t-test.

The last line is the verdict on the metric that selected the weights, on test where there is one.
What changes no figure (name, paths, logger) is left out of the configurations. `out` is an image of
how the metrics of both went over the steps, in training and on val.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import clone  # noqa: F401
from differences import Difference, paired, unpaired
from zoo.app.commands import relative
from zoo.app.prediction_files import write_image
from zoo.app.program import program
from zoo.app.sweeps.rows import rows_of
from zoo.config.command_line import CommandLine
from zoo.config.errors import ConfigError, as_cli_text
from zoo.config.run_config import load, repetition_keys
from zoo.figures.histories import Curve, histories_image

UNIMPORTANT = ("name", "paths", "logger")
FOLD = "data.fold"
NO_METRIC = {"step", "epoch", "split"}


@dataclass
class Run:
    """A finished run: what it was told, and what it reached."""

    path: Path
    config: dict[str, Any]  # by dotted key, without what repeats it
    repetition: dict[str, Any]  # seed, fold, ...
    results: dict[str, Any]
    samples: dict[str, int]  # by split

    @property
    def metrics(self) -> dict[str, float]:
        """By split and name, `test/accuracy` say."""
        return {
            f"{split}/{name}": value
            for split in ("val", "test")
            for name, value in self.results.get(split, {}).items()
            if value is not None
        }


def flat(node: Any, key: str = "") -> dict[str, Any]:
    """Every value of a configuration by dotted key."""
    if not isinstance(node, dict) or not node:
        return {key: node}
    found: dict[str, Any] = {}
    for name, value in node.items():
        found |= flat(value, f"{key}.{name}" if key else str(name))
    return found


def read_run(path: Path) -> Run:
    """A run from its folder.

    Raises:
        ConfigError: it is none, or is not finished.
    """
    from zoo.training.run_folder import RunFolder

    config, folder = load(path / "config.yaml"), RunFolder(path)
    results = folder.read("results.json")
    state = folder.read_status().get("state")
    if state != "finished" or not results:
        raise ConfigError(f"{path}: is not finished ({state or 'no status'})")
    repeats = repetition_keys(config)
    values = {k: v for k, v in flat(config).items() if k.partition(".")[0] not in UNIMPORTANT}
    repetition = {key: values.pop(key, None) for key in repeats}
    samples = {k: n for k, n in folder.read("data.json").items() if isinstance(n, int)}
    return Run(path, values, repetition, results, samples)


def read_runs(word: str) -> list[Run]:
    """The runs that a word of the command line names: one, several, or those of a sweep.

    Raises:
        ConfigError: there is none, or they differ in more than seed and fold.
    """
    paths = [Path(part).expanduser() for part in word.split(",")]
    if len(paths) == 1 and not (paths[0] / "config.yaml").exists():
        paths = sorted(file.parent for file in paths[0].glob("*/status.json"))
    if not paths:
        raise ConfigError(f"{word}: is neither a run nor a sweep")
    runs = [read_run(path) for path in paths]
    for run in runs[1:]:
        if other := changes(runs[0], run):
            keys = ", ".join(other)
            raise ConfigError(
                f"{word}: its runs differ in {keys}; name those of one setting, with commas "
                "between them"
            )
    found = [tuple(run.repetition.items()) for run in runs]
    if twice := next((r for r in found if found.count(r) > 1), None):
        again = " ".join(f"{key}={value}" for key, value in twice)
        raise ConfigError(f"{word}: holds {again} twice")
    return sorted(runs, key=lambda run: [str(value) for value in run.repetition.values()])


def changes(a: Run, b: Run) -> dict[str, str]:
    """Where two configurations differ, by dotted key: `0.1 -> 0.2`."""

    def text(run: Run, key: str) -> str:
        return as_cli_text(run.config[key]) if key in run.config else "-"

    keys = dict.fromkeys([*a.config, *b.config])
    pairs = {key: (text(a, key), text(b, key)) for key in keys}
    return {key: f"{old} -> {new}" for key, (old, new) in pairs.items() if old != new}


def check_data(a: Sequence[Run], b: Sequence[Run], different: dict[str, str]) -> list[str]:
    """Refuses runs on different data; returns what might make them so.

    Raises:
        ConfigError: it is another data set, or other numbers of samples are judged.
    """
    if "data._target_" in different:
        raise ConfigError(f"data: different data cannot be compared ({different['data._target_']})")
    for split in ("val", "test"):
        counts = [{r.samples[split] for r in runs if split in r.samples} for runs in (a, b)]
        if all(counts) and counts[0].isdisjoint(counts[1]):
            old, new = (", ".join(map(str, sorted(c))) for c in counts)
            raise ConfigError(f"data: {old} and {new} samples in {split} cannot be compared")
    notes = [
        f"{key} differs: compare only if it leaves val and test as they are"
        for key in different
        if key.startswith("data.")
    ]
    for key in a[0].repetition:
        values = [{str(run.repetition.get(key)) for run in runs} for runs in (a, b)]
        if key != "seed" and values[0] != values[1]:
            notes.append(f"{key} differs: the runs are on other parts of the data")
    return notes


def weights_of(run: Run) -> dict[str, Any] | None:
    """The selected weights of a run; None if it has none any more."""
    from zoo.training.checkpoints.checkpoint import CheckpointFolder, read
    from zoo.training.state import usable_weights

    checkpoints = CheckpointFolder(run.path / "checkpoints")
    for name in ("best", "last"):
        if checkpoints.select(name).exists():
            return usable_weights(read(checkpoints.select(name)))
    return None


def of_weights(a: Run, b: Run) -> str:
    """Whether the weights of two runs are equal, in one sentence."""
    import torch

    old, new = weights_of(a), weights_of(b)
    if old is None or new is None:
        return "weights: there are no checkpoints to compare"
    shapes = [{name: tuple(value.shape) for name, value in w.items()} for w in (old, new)]
    if shapes[0] != shapes[1]:
        return "weights: of other names or shapes"
    if all(torch.equal(old[name], new[name]) for name in old):
        return "weights: equal bit for bit"
    gaps = {
        name: float((new[name].double() - old[name].double()).abs().max())
        for name in old
        if old[name].numel()
    }
    name = max(gaps, key=lambda key: gaps[key])
    return f"weights: they differ by up to {gaps[name]:.4g} ({name})"


def histories(a: Sequence[Run], b: Sequence[Run]) -> dict[str, dict[str, list[Curve]]]:
    """The curves of both sides by metric: the loss in training, and what val has, if both have it.

    Raises:
        ConfigError: there is none.
    """
    found: dict[str, dict[str, list[Curve]]] = {}
    for side, runs in (("a", a), ("b", b)):
        for run in runs:
            points: dict[str, list[tuple[float, float]]] = {}
            for row in rows_of(run.path):
                names = ["loss"] if row.get("split") == "train" else row.keys() - NO_METRIC
                for name in sorted(names) if row.get("split") in ("train", "val") else ():
                    if isinstance(row.get(name), int | float):
                        key = f"{row['split']}/{name}"
                        points.setdefault(key, []).append((row["step"], row[name]))
            for key, curve in points.items():
                steps, values = zip(*curve, strict=True)
                found.setdefault(key, {}).setdefault(side, []).append((steps, values))
    both = {key: sides for key, sides in found.items() if len(sides) == 2}
    if not both:
        raise ConfigError("out: there is no curve that both have in metrics.jsonl")
    return both


def overlap_of(runs: Sequence[Run], split: str) -> float:
    """n_test / n_train, the mean over folds; 0 for runs that are not of several folds.

    Raises:
        ConfigError: a run does not say how many samples it had.
    """
    if len({run.repetition.get(FOLD) for run in runs}) < 2:
        return 0.0
    ratios = []
    for run in runs:
        try:
            ratios.append(run.samples[split] / run.samples["train"])
        except KeyError as error:
            raise ConfigError(
                f"{run.path / 'data.json'}: does not say how many samples are in {split} and "
                "train, without which intervals over folds cannot be given"
            ) from error
    return fmean(ratios)


def compare(line: CommandLine) -> None:
    """Prints what differs."""
    if len(line.overrides) != 2:
        raise ConfigError("compare.py takes two runs, sweeps or lists: compare.py <a> <b>")
    a, b = (read_runs(word) for word in line.overrides)
    if (len(a) == 1) != (len(b) == 1):
        raise ConfigError(f"{len(a)} and {len(b)} runs: give one of each, or several of each")
    different = changes(a[0], b[0])
    notes = check_data(a, b, different)
    if len(a) == 1:
        old, new = a[0].repetition, b[0].repetition
        different |= {k: f"{old[k]} -> {new.get(k)}" for k in old if old[k] != new.get(k)}
    for name, word, runs in zip("ab", line.overrides, (a, b), strict=True):
        print(f"{name}: {word}" + (f" ({len(runs)} runs)" if len(runs) > 1 else ""))
    print("\nconfiguration, a -> b" if different else "\nthe configurations are equal")
    for key, change in different.items():
        print(f"  {key}: {change}")
    for note in notes:
        print(f"warning: {note}")
    names = [n for n in a[0].metrics if all(n in run.metrics for run in (*a, *b))]
    if not names:
        raise ConfigError("there is no metric that all of these runs have")
    if "out" in line.options:
        out = Path(line.options["out"]).expanduser()
        write_image(histories_image(histories(a, b)), out)
        print(f"\ncurves: {relative(out)}")
    print()
    print("\n".join(of_two(a[0], b[0], names) if len(a) == 1 else of_many(a, b, names)))


def of_two(a: Run, b: Run, names: Sequence[str]) -> list[str]:
    """Metrics, sizes and weights of two runs."""
    from zoo.tasks.prediction import Table

    rows: list[dict[str, str | float]] = [
        {"metric": n, "a": a.metrics[n], "b": b.metrics[n], "b - a": b.metrics[n] - a.metrics[n]}
        for n in names
    ]
    lines = [Table(rows).markdown(), ""]
    for name in ("parameters", "steps"):
        old, new = (run.results.get(name) for run in (a, b))
        lines.append(f"{name}: {old:,}" if old == new else f"{name}: {old:,} and {new:,}")
    lines.append(of_weights(a, b))
    if a.metrics != b.metrics:
        lines.append("one run each: only several seeds can say what is more than noise")
    return lines


def of_many(a: Sequence[Run], b: Sequence[Run], names: Sequence[str]) -> list[str]:
    """Means, differences and their intervals, and the verdict on the metric that matters."""
    from zoo.tasks.prediction import Table

    is_paired = [run.repetition for run in a] == [run.repetition for run in b]
    main, sign = main_metric(a[0], names)
    rows: list[dict[str, str | float]] = []
    found: dict[str, Difference] = {}
    for name in names:
        old, new = ([run.metrics[name] for run in runs] for runs in (a, b))
        if is_paired:
            d = paired(old, new, overlap=overlap_of(a, name.partition("/")[0]))
        else:
            d = unpaired(old, new)
        found[name] = d
        row: dict[str, str | float] = {"metric": name, "a": fmean(old), "b": fmean(new)}
        row |= {"b - a": d.mean, "low": d.low, "high": d.high, "p": d.p}
        rows.append(row if d.wilcoxon is None else row | {"p (Wilcoxon)": d.wilcoxon})
    varied = [k for k in a[0].repetition if len({str(r.repetition[k]) for r in a}) > 1]
    pairs = f"{len(a)} pairs by {' and '.join(varied)}"
    how = f"{pairs}, paired t" if is_paired else f"{len(a)} and {len(b)} runs, not paired: Welch"
    if is_paired and (overlap := overlap_of(a, main.partition("/")[0])):
        how += (
            f"; folds share training samples, so the variance takes 1/{len(a)} + {overlap:.4f} "
            "(Nadeau and Bengio, 2003)"
        )
    return [Table(rows).markdown(), "", how, verdict(main, found[main], sign, how.split(",")[0])]


def main_metric(run: Run, names: Sequence[str]) -> tuple[str, int]:
    """What selected the weights, on test if it is there, and 1 if more of it is better, else -1."""
    monitor = str(run.results.get("monitor"))
    sign = -1 if run.results.get("mode") == "min" else 1
    for split in ("test", "val"):
        if f"{split}/{monitor}" in names:
            return f"{split}/{monitor}", sign
    raise ConfigError(f"{monitor} selected the weights of a, and not all of these runs have it")


def verdict(name: str, difference: Difference, sign: int, runs: str) -> str:
    """Whether a difference is more than noise, in one sentence."""
    mean, low, high = difference[:3]
    if mean == low == high == 0:
        return f"{name}: equal in all runs"
    better = "better" if sign * mean > 0 else "worse"
    said = "more than noise" if difference.is_more_than_noise else "could be chance"
    return (
        f"{name}: b is {better} by {abs(mean):.4f} (b - a: 95 % interval {low:.4f} to {high:.4f}, "
        f"p = {difference.p:.3g}, {runs}): {said}"
    )


main = program(compare, __doc__, options=("out",))

if __name__ == "__main__":
    sys.exit(main())
