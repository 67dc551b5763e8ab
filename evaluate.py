"""Evaluates a run, or predicts with it, from its folder alone.

    python evaluate.py run=<run folder> [split=<split>] [checkpoint=best|last|<file>]
    python evaluate.py run=<run folder> predict=<image or folder> [out=<file.csv or folder>]

The split is test or, where the data have none, val.

A classifier predicts a table, predictions.csv; a segmentation predicts a mask for each image, in
the folder predictions. Test-time augmentation of a classifier: tta=flip (mean over the image and
its mirror image) or tta=ten_crop (over ten crops, crop=<pixels>; default: 7/8 of the image).

Values of the stored configuration that do not make another run may be overridden beside:
`data.root=/elsewhere trainer.device=cpu`.
"""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

from zoo.app.failures import report
from zoo.app.main import show_version
from zoo.app.place import change_of_data
from zoo.config.command_line import CommandLine, parse_words
from zoo.config.errors import ConfigError, as_config_error, did_you_mean

PATHS = ("run", "split", "checkpoint", "predict", "out", "tta", "crop")
LONGEST = 40
"""Rows of a table that are printed; a longer one is in the JSON file alone, but for its last."""


def prepared(line: CommandLine) -> tuple[Any, dict[str, Any]]:
    """The parts of the run, and what is to be noted of its test-time augmentation."""
    from zoo.app.rebuild import prepare_evaluation

    parts = prepare_evaluation(
        line.paths["run"],
        line.overrides,
        checkpoint=line.paths.get("checkpoint", "best"),
        trusted=line.trusted,
    )
    views, crop = line.paths.get("tta"), line.paths.get("crop")
    if views is None:
        if crop is not None:
            raise ConfigError(f"crop={crop}: goes with tta=ten_crop")
        return parts, {}
    if parts.task.predicts != "classes":
        raise ConfigError(f"tta={views}: this run is no classification of images")
    if crop is not None and not crop.isdecimal():
        raise ConfigError(f"crop={crop}: must be a number of pixels")
    from zoo.inference.views import AveragedViews

    size = None if crop is None else int(crop)
    with as_config_error():
        parts.task.model = AveragedViews(parts.task.model, views, crop=size).eval()  # type: ignore[arg-type]
    return parts, {"tta": views} | ({} if crop is None else {"crop": size})


def evaluate(line: CommandLine) -> None:
    """Prints the metrics of one split and writes them to `evaluation-<split>.json`."""
    from zoo.app.words import shown
    from zoo.training.evaluation import evaluate, markdown_table
    from zoo.training.run_folder import RunFolder

    parts, augmentation = prepared(line)
    split = line.paths.get("split", "test" if "test" in parts.data.splits else "val")
    if split not in parts.data.splits:
        known = ", ".join(parts.data.splits)
        raise ConfigError(f"split={split}: these data have {known}")
    with as_config_error("data"):
        parts.data.setup(seed=parts.settings.seed, device=parts.device)
    folder = RunFolder(line.paths["run"])
    if change := change_of_data(folder, parts.data):
        print(f"warning: {change}, if they are to be the same", file=sys.stderr)
    batches = islice(parts.data.batches(split, 0), parts.settings.trainer.limit_eval_batches)
    with as_config_error() if augmentation else nullcontext():
        metrics = evaluate(parts.task, batches, autocast=parts.autocast)
    tables = parts.task.tables()
    file = "-".join(["evaluation", split, *map(str, augmentation.values())]) + ".json"
    folder.write(file, {"split": split, "step": parts.step, **augmentation, **metrics, **tables})
    with_tta = "".join(f", {name}={value}" for name, value in augmentation.items())
    print(f"{split}, weights of step {parts.step:,}{with_tta}")
    for name, value in metrics.items():
        print(f"{name:<24}{value:>12.4f}")
    for rows in tables.values():
        print(f"\n{markdown_table(rows if len(rows) <= LONGEST else rows[-1:])}\n")
    for name, text in parts.task.texts().items():
        print(f"\n{name}\n{text}\n")
    print(shown(folder.path / file))


def predict(line: CommandLine) -> None:
    """Writes what the run's task predicts: classes to a table, masks to a folder."""
    from zoo import predict
    from zoo.app.words import shown

    if "split" in line.paths:
        raise ConfigError("split and predict exclude each other")
    run, source = Path(line.paths["run"]), Path(line.paths["predict"])
    predict.images(source)  # A wrong path is refused before the run is rebuilt.
    parts, _ = prepared(line)
    if parts.task.predicts is None or not hasattr(parts.data, "preprocess"):
        raise ConfigError("predict: this run is no classification or segmentation of images")
    done: list[str] = []
    with as_config_error() if "tta" in line.paths else nullcontext():
        if parts.task.predicts == "classes":
            out = Path(line.paths.get("out", run / "predictions.csv"))
            rows = list(predict.classes(parts, predict.images(source)))
            predict.write_table(rows, out)
            done = [f"{file}: {name} ({value:.3f})" for file, name, value in rows]
        else:
            out = Path(line.paths.get("out", run / "predictions"))
            files = predict.images(source, outside=out)
            targets = predict.mask_files(source, files, out)
            for file, target in predict.write_masks(parts, files, targets):
                done.append(f"{file}: {shown(target)}")
    print("\n".join(done[:10]))
    print(f"{len(done)} predictions")
    print(shown(out))


def main(words: Sequence[str] | None = None) -> int:
    """Runs the program; returns the exit code."""
    try:
        words = sys.argv[1:] if words is None else words
        line = parse_words(words, paths=PATHS, flags=("--help", "--version"))
        if "--help" in line.flags:
            print(__doc__)
        elif "--version" in line.flags:
            show_version()
        elif "run" not in line.paths:
            unknown = line.overrides[0].partition("=")[0] if line.overrides else ""
            hint = f"; {unknown}: {did_you_mean(unknown, PATHS)}" if unknown else ""
            raise ConfigError(f"run=<run folder> is required{hint}")
        elif "predict" in line.paths:
            predict(line)
        elif "out" in line.paths:
            raise ConfigError("out goes with predict=<image or folder>")
        else:
            evaluate(line)
    except (Exception, KeyboardInterrupt) as error:
        return report(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
