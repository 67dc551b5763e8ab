"""Evaluates a run, or predicts with it, from its folder alone.

    python evaluate.py run=<run folder> [split=test] [checkpoint=best|last|<file>]
    python evaluate.py run=<run folder> predict=<picture or folder> [out=<file.csv>]

Values of the stored configuration that do not make another run may be overridden beside:
`data.root=/elsewhere trainer.device=cpu`.
"""

import csv
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from zoo.config import entry
from zoo.config.command_line import CommandLine, parse_words
from zoo.config.errors import ConfigError, did_you_mean

PATHS = ("run", "split", "checkpoint", "predict", "out")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
BATCH_SIZE = 64


def evaluate(line: CommandLine) -> None:
    """Prints the metrics of one split and writes them to `evaluation-<split>.json`."""
    from zoo.run import prepare_evaluation
    from zoo.training.evaluation import evaluate
    from zoo.training.run_folder import RunFolder, shown

    split = line.paths.get("split", "test")
    parts = prepare_evaluation(
        line.paths["run"],
        line.overrides,
        checkpoint=line.paths.get("checkpoint", "best"),
        trusted=line.trusted,
    )
    if split not in parts.data.splits:
        known = ", ".join(parts.data.splits)
        raise ConfigError(f"split={split}: these data have {known}")
    with entry.refusals("data"):
        parts.data.setup(seed=parts.settings.seed, device=parts.device)
    batches = islice(parts.data.batches(split, 0), parts.settings.trainer.limit_eval_batches)
    metrics = evaluate(parts.task, batches, autocast=parts.autocast)
    record = {"split": split, "step": parts.step, **metrics}
    folder = RunFolder(line.paths["run"])
    folder.write(f"evaluation-{split}.json", record)
    print(f"{split}, weights of step {parts.step:,}")
    for name, value in metrics.items():
        print(f"{name:<24}{value:>12.4f}")
    print(shown(folder.path / f"evaluation-{split}.json"))


def pictures(path: Path) -> list[Path]:
    """The picture files of a path: itself, or all below it.

    Raises:
        ConfigError: there is none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ConfigError(f"predict={path}: there is no such file or folder")
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not found:
        raise ConfigError(f"predict={path}: holds no picture ({', '.join(SUFFIXES)})")
    return found


def predictions(parts: Any, files: Sequence[Path]) -> Iterator[tuple[Path, str, float]]:
    """The most probable class of each picture, with its probability."""
    import torch
    from PIL import Image, UnidentifiedImageError

    names = parts.config["task"].get("class_names")
    for start in range(0, len(files), BATCH_SIZE):
        group = files[start : start + BATCH_SIZE]
        inputs = []
        for file in group:
            try:
                with Image.open(file) as image:
                    inputs.append(parts.data.preprocess(image))
            except (UnidentifiedImageError, OSError) as error:
                raise ConfigError(f"predict: {file} is no readable picture") from error
        with torch.inference_mode(), parts.autocast:
            probabilities = parts.task.predict(torch.stack(inputs).to(parts.device))
        confidences, classes = probabilities.float().max(1)
        for file, label, confidence in zip(
            group, classes.tolist(), confidences.tolist(), strict=True
        ):
            yield file, names[label] if names else str(label), confidence


def predict(line: CommandLine) -> None:
    """Writes path, class and probability of every picture to `predictions.csv`."""
    from zoo.run import prepare_evaluation
    from zoo.training.run_folder import shown

    if "split" in line.paths:
        raise ConfigError("split and predict exclude each other")
    files = pictures(Path(line.paths["predict"]))
    parts = prepare_evaluation(
        line.paths["run"],
        line.overrides,
        checkpoint=line.paths.get("checkpoint", "best"),
        trusted=line.trusted,
    )
    if not hasattr(parts.data, "preprocess") or "num_classes" not in parts.config["task"]:
        raise ConfigError("predict: this run is no classification of pictures")
    out = Path(line.paths.get("out", Path(line.paths["run"]) / "predictions.csv"))
    rows = list(predictions(parts, files))
    temporary = out.with_name(out.name + ".tmp")
    try:
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "class", "probability"])
            writer.writerows([str(p), name, f"{value:.6f}"] for p, name, value in rows)
        temporary.replace(out)
    except OSError as error:
        raise ConfigError(f"out={out}: cannot be written ({error.strerror})") from error
    for path, name, value in rows[:10]:
        print(f"{path}: {name} ({value:.3f})")
    print(f"{len(rows)} predictions")
    print(shown(out))


def main(words: Sequence[str] | None = None) -> int:
    """Runs the program; returns the exit code."""
    try:
        words = sys.argv[1:] if words is None else words
        line = parse_words(words, paths=PATHS, flags=("--help", "--version"))
        if "--help" in line.flags:
            print(__doc__)
        elif "--version" in line.flags:
            entry.show_version()
        elif "run" not in line.paths:
            unknown = line.overrides[0].partition("=")[0] if line.overrides else ""
            hint = f"; {unknown}: {did_you_mean(unknown, PATHS)}" if unknown else ""
            raise ConfigError(f"run=<run folder> is required{hint}")
        elif "predict" in line.paths:
            predict(line)
        elif "out" in line.paths:
            raise ConfigError("out goes with predict=<picture or folder>")
        else:
            evaluate(line)
    except (Exception, KeyboardInterrupt) as error:
        return entry.report(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
