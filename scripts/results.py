"""Records what runs reached and fills the tables that show it; no number is typed by hand.

    python scripts/results.py record runs/lenet_digits/sweep-<time>   one run or a whole sweep
    python scripts/results.py                                        fill README and configs

A record, `docs/results/<experiment>.json`, holds the command, every run's seed and metrics, what
`scripts/baseline.py run=<run folder>` found beside them, and the environment. From the records come
the tables between the markers in README.md and the `Result:` line in the header comment of each
experiment.
"""

import clone  # noqa: F401

# isort: split
import argparse
import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

import yaml

from zoo.config.run_config import repetition_keys, stored_words

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "docs" / "results"
EXPERIMENTS = ROOT / "configs" / "experiment"


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def record(folder: Path) -> Path:
    """Writes the record of a run folder or of a sweep of repetitions: of seeds, of folds."""
    runs = [folder] if (folder / "results.json").exists() else sorted(folder.glob("*/"))
    runs = [run for run in runs if (run / "status.json").exists()]
    if not runs:
        sys.exit(f"error: {folder} holds no run")
    entries: list[dict[str, Any]] = []
    words: list[list[str]] = []
    for run in runs:
        if _read(run / "status.json")["state"] != "finished":
            sys.exit(f"error: {run} is not finished")
        config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
        results = _read(run / "results.json")
        kept = ("val", "test", "selected_step", "steps", "seconds", "parameters")
        keys = repetition_keys(config)
        repetition = {key: _value(config, key) for key in keys}
        entries.append(repetition | {k: results[k] for k in kept if k in results})
        if bounds := _later_bounds(run, results):
            entries[-1]["test"] |= bounds
        if (baselines := run / "baselines.json").exists():  # of scripts/baseline.py run=<run>
            entries[-1]["baselines"] = _read(baselines)["models"]
        given = stored_words(run)
        ours = ("paths.", "logger.", *(f"{key}=" for key in keys))
        # The name of another run, that this one took weights from, says nothing elsewhere.
        given = [re.sub(r"(=runs/\w+)/[^/]+", r"\1/<run>", word) for word in given]
        words.append([w for w in given if not w.startswith(ours)])
    different = {tuple(entry[key] for key in keys) for entry in entries}
    if any(w != words[0] for w in words) or len(different) < len(entries):
        sys.exit(f"error: the runs of {folder} must differ in {' or '.join(keys)} and nothing else")
    chosen = [w.removeprefix("experiment=") for w in words[0] if w.startswith("experiment=")]
    name = chosen[0] if chosen else config["name"]
    entries.sort(key=lambda entry: [entry[key] for key in keys])
    values = {key: ",".join(map(str, sorted({entry[key] for entry in entries}))) for key in keys}
    repeated = [f"{key}={values[key]}" for key in reversed(keys)]  # the seed last
    given = [w for w in words[0] if not w.startswith("experiment=")]
    head = f"python train.py{' -m' if len(entries) > 1 else ''} experiment={name}"
    later = {
        end: _read(path)
        for end in LATER
        if (path := folder / f"evaluation-test-{end}.json").exists()
    }
    content = {
        "experiment": name,
        "command": " ".join([head, *given, *repeated]),
        "monitor": results["monitor"],
        "environment": _read(runs[0] / "environment.json"),
        "runs": entries,
        **({"later": later} if later else {}),
    }
    RECORDS.mkdir(parents=True, exist_ok=True)
    variant = [re.sub(r"[^\w.]+", "-", re.sub(r"^[\w.]*\.(?=\w+=)", "", word)) for word in given]
    path = RECORDS / f"{'-'.join([name, *variant])}.json"
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def _value(config: dict[str, Any], key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config


def _repetitions(runs: list[dict[str, Any]]) -> str:
    """How many seeds a record is of, or how many folds and seeds."""
    others = [key for key in runs[0] if key.startswith("data.")]
    if not others:
        return str(len(runs))
    counts = {key.rpartition(".")[2]: len({run[key] for run in runs}) for key in [*others, "seed"]}
    named = [f"{n} {what}{'s' if n > 1 else ''}" for what, n in counts.items()]
    return " x ".join(named)


def _later_bounds(run: Path, results: dict[str, Any]) -> dict[str, float]:
    """Importance-weighted bounds that `evaluate.py run=<run> task.importance_samples=<K>` found."""
    path = run / "evaluation-test.json"
    found = _read(path) if path.exists() else {}
    if found.get("step") != results["selected_step"] or "limit_eval_batches" in found:
        return {}
    return {name: value for name, value in found.items() if re.fullmatch(r"nll_k\d+", name)}


# What is shown of a run instead of what selected its weights.
FIRST = ("bleu_tokenized", "sequence_accuracy", "accuracy")
# And next to it: pixel error is what the challenge of the U-Net paper ranks by, nats are what
# diffusion shares with other models, and real images stand beside generated ones.
BESIDE = (
    *("bleu", "pixel_error", "average_precision", "negative_elbo"),
    *("feature_distance", "real_feature_distance", "recognised", "real_recognised"),
    *("class_agreement", "modes_covered", "reverse_kl", "high_quality", "real_high_quality"),
    *("robust_accuracy", "calibration_error"),
)
LATER = {
    "ensemble-mean": "all together",
    "mc_dropout": "with dropout at work",
    "pgd": "under PGD",
}
"""What `evaluate.py` found later, by the end of its file's name, and how that is said."""


def summary(content: dict[str, Any]) -> dict[str, str]:
    """What the tables say of a record."""
    runs = content["runs"]
    split = "test" if "test" in runs[0] else "val"
    metric = content["monitor"] if content["monitor"] in runs[0][split] else "loss"
    metric = next((name for name in FIRST if name in runs[0][split]), metric)
    values = [run[split][metric] for run in runs]
    mean = f"{statistics.fmean(values):.4f}"
    if len(values) > 1:
        mean += f" ± {statistics.stdev(values):.4f} (least {min(values):.4f})"
    names = list(runs[0][split])
    if any(name.endswith("_r2") for name in names):  # several targets, each with its own
        names = [name for name in names if name.endswith(("_accuracy", "_r2"))]
    else:
        names = [name for name in BESIDE if name in names]
    for name in names:
        if name != metric:
            other = statistics.fmean(run[split][name] for run in runs)
            mean += f", {name.replace('_', ' ')} {other:.4f}"
    if "width" in runs[0][split]:  # of intervals; generated samples have a coverage too
        covered, width = (
            statistics.fmean(r[split][k] for r in runs) for k in ("coverage", "width")
        )
        mean += f", coverage {covered:.4f}, width {width:.4f}"
    mean += "".join(_later(end, found) for end, found in content.get("later", {}).items())
    mean += _baseline(runs, split, shown={metric, *BESIDE})
    environment = content["environment"]
    threads = environment["threads"]
    device = environment["gpu"] or f"CPU, {threads} thread{'s' if threads > 1 else ''}"
    seconds = statistics.fmean(run["seconds"] for run in runs)
    return {
        "metric": f"{split} {metric.replace('_', ' ')}",
        "value": mean,
        "seeds": _repetitions(runs),
        "seconds": f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.1f} s",
        "device": device,
        "parameters": f"{runs[0]['parameters']:,}",
        "command": content["command"],
    }


def _later(end: str, found: dict[str, Any]) -> str:
    """What `evaluate.py` found of a run, or of a sweep's runs together."""
    limit = found.get("limit_eval_batches")
    part = "" if limit is None else f" (first {limit} batches)"
    if "table" in found:
        parts = [f"{row['eps']} accuracy {row['accuracy']:.4f}" for row in found["table"]]
        return f"; {LATER[end]} of {', '.join(parts)}{part}"
    names = ("accuracy", "loss", "calibration_error", "coverage", "width")
    parts = [f"{name.replace('_', ' ')} {found[name]:.4f}" for name in names if name in found]
    return f"; {LATER[end]} {', '.join(parts)}{part}"


def _baseline(runs: list[dict[str, Any]], split: str, *, shown: set[str]) -> str:
    """The best of scikit-learn's models on the same samples, chosen on val as the network is."""
    if not all("baselines" in run for run in runs):
        return ""
    models: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        for row in run["baselines"]:
            models.setdefault(row["model"], []).append(row)
    whole = {name: rows for name, rows in models.items() if len(rows) == len(runs)}
    own, other = runs[0][split], next(iter(whole.values()))[0]
    metrics = [name for name in ("auc", "accuracy", "rmse") if f"{split}_{name}" in other]
    metric = next(name for name in metrics if name in own)
    sign = -1 if metric == "rmse" else 1

    def reached(name: str, split: str) -> float:
        return statistics.fmean(row[f"{split}_{metric}"] for row in whole[name])

    best = max(whole, key=lambda name: sign * reached(name, "val"))
    said = f"; scikit-learn's best ({best.replace('_', ' ')}) {metric} {reached(best, split):.4f}"
    mean = statistics.fmean(run[split][metric] for run in runs)
    return said if metric in shown else f", {metric} {mean:.4f}{said}"


def _records() -> list[dict[str, Any]]:
    return [_read(path) for path in sorted(RECORDS.glob("*.json"))]


def table() -> str:
    """The results as a Markdown table."""
    lines = [
        "| command | parameters | result | seeds | time a run | hardware |",
        "|---|---|---|---|---|---|",
    ]
    for content in _records():
        s = summary(content)
        lines.append(
            f"| `{s['command']}` | {s['parameters']} | {s['metric']} {s['value']} | {s['seeds']} | "
            f"{s['seconds']} | {s['device']} |"
        )
    return "\n".join(lines)


NATS = {
    r"nll": "exact",
    r"nll_k(\d+)": r"bound, K = \1",
    r"negative_elbo": "bound, K = 1",
    r"nll_bound": "bound, one draw of noise",
    r"nll_ais": "estimate",
}
"""Metrics in nats: a pattern of the name, and what the figure is."""


def likelihoods() -> str:
    """What models of binary MNIST digits reached on the test images, as a Markdown table."""
    rows = []
    for content in _records():
        config = yaml.safe_load(
            (EXPERIMENTS / f"{content['experiment']}.yaml").read_text(encoding="utf-8")
        )
        is_binary = config.get("data", {}).get("binarize", "none") != "none"
        if not is_binary or {"override /data": "mnist"} not in config["defaults"]:
            continue
        s = summary(content)
        for name in content["runs"][0]["test"]:
            for pattern, kind in NATS.items():
                if match := re.fullmatch(pattern, name):
                    values = [run["test"][name] for run in content["runs"]]
                    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
                    mean = statistics.fmean(values)
                    cells = (f"{mean:.2f}{spread}", match.expand(kind), s["parameters"])
                    rows.append((mean, (f"`{s['command']}`", *cells, s["seconds"], s["device"])))
    if not rows:
        return ""
    lines = [
        "| command | nats an image | which is | parameters | time a run | hardware |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(f"| {' | '.join(cells)} |" for _, cells in sorted(rows))])


def speed() -> str:
    """The speed record as a Markdown table."""
    path = ROOT / "docs" / "benchmarks" / "cpu.json"
    if not path.exists():
        return ""
    content = _read(path)
    lines = [
        "| measured | against | ratio of minima | median of blocks (spread) | bar |",
        "|---|---|---|---|---|",
    ]
    for measured in content.values():
        for e in measured["results"]:
            low, high = e["spread_of_blocks"]
            lines.append(
                f"| {e['ours']} | {e['theirs']} | {e['of_minima']:.3f} | "
                f"{e['median_of_blocks']:.3f} ({low:.2f} to {high:.2f}) | {e['bar'] or '-'} |"
            )
    commands = dict.fromkeys(f"`{measured['command']}`" for measured in content.values())
    threads = {measured["environment"]["threads"] for measured in content.values()}
    (number,) = threads
    return "\n".join([*lines, "", f"{', '.join(commands)}: CPU, {number} threads."])


def fill() -> None:
    """Fills README.md and the headers of the experiments."""
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    tables = {"results": table(), "likelihoods": likelihoods(), "speed": speed()}
    for name, filling in tables.items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        if filling and start in text and end in text:
            before, _, rest = text.partition(start)
            text = f"{before}{start}{filling}\n{end}{rest.partition(end)[2]}"
    readme.write_text(text, encoding="utf-8")
    for content in _records():
        path = EXPERIMENTS / f"{content['experiment']}.yaml"
        s = summary(content)
        seeds = f"{s['seeds']} seed{'s' if s['seeds'] != '1' else ''}"
        seeds = seeds if s["seeds"].isdecimal() else s["seeds"]
        result = f"# Result:  {s['metric']} {s['value']}, {seeds}, {s['seconds']}, {s['device']}"
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines[1:], 1):
            run = lines[number - 1].removeprefix("# Run:     ")
            # Below the command that the record is of; other variants are in the README alone.
            if line.startswith("# Result:") and _once(run) == _once(content["command"]):
                lines[number] = result
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _once(command: str) -> str:
    """A command without what repeats it: seeds, folds, draws of data."""
    return re.sub(r' (-m|"?(seed|data\.fold|data\.data_seed)=\S+)(?= |$)', "", command)


def main() -> None:
    """Runs the program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", nargs="?", choices=["record"], help="record a run or sweep")
    parser.add_argument("folder", nargs="*", type=Path, help="run or sweep folders")
    arguments = parser.parse_args()
    for folder in arguments.folder:
        print(record(folder))
    fill()


if __name__ == "__main__":
    main()
