"""Evaluates a run, or predicts with it, from its folder alone.

    python evaluate.py run=<run folder> [split=<split>] [checkpoint=best|last|<file>]
    python evaluate.py run=<run folder> bootstrap=<resamples> [seed=0]
    python evaluate.py run=<run folder> calibrate=true
    python evaluate.py run=<run>,<run> ensemble=mean|vote|weighted|stacking [split=<split>]
    python evaluate.py run=<run folder> predict=<image or folder> [out=<file.csv or folder>]
    python evaluate.py run=<run folder> predict=<table or graph folder> [out=<file.csv>]
    python evaluate.py run=<run folder> predict=<table or lines of texts> [out=<file.csv>]
    python evaluate.py run=<run folder> threshold=best [metric=f1] [split=<split>]
    python evaluate.py run=<run folder> [costs=[[0,1],[1000,0]]] [prior=0.01] [split=<split>]
    python evaluate.py run=<run folder> mc_dropout=<count> [seed=0] [split=<split>]
    python evaluate.py run=<run folder> attack=fgsm|bim|pgd eps=0,8/255 [steps=10] [split=<split>]
    python evaluate.py run=<run folder> corrupt=all [severity=1,2,3,4,5] [split=<split>]
    python evaluate.py run=<run folder> sample=<count> [out=<file.png or file.pt>]
    python evaluate.py run=<run folder> neighbours=<count> [out=<file.png or file.pt>]
    python evaluate.py run=<run folder> over_training=<count> [out=<file.png>]
    python evaluate.py run=<run folder> reconstruct=<image or folder> [out=<file.png or file.pt>]
    python evaluate.py run=<run folder> interpolate=<image>,<image> [steps=8] [out=<file>]
    python evaluate.py run=<run folder> traverse=<image> [steps=7] [out=<file>]

The split is test or, where the data have none, val.

bootstrap= adds 95 % intervals, from so many draws of the samples with replacement. calibrate=true
finds the temperature of a classifier on val and keeps it in calibration.json. Evaluations and
predictions divide the logits by it, or by another, where they are told to: temperature=stored,
temperature=1.5.

Several runs on the same data, or a sweep's folder, answer together: with the mean of their
probabilities (of a regression, of their values), by a vote, with the weights that do best on val,
or through a linear model of their answers that is fitted on val (stacking). Their metrics stand
beside each member's, and with them how often members disagree (of a regression, the mean squared
distance from their mean). They are written into the sweep's folder or to out=<file.json>. predict=
takes an ensemble too.

For images, a classifier predicts a table, predictions.csv, as a regression does; a segmentation
predicts a mask for each, an image translation an image, in the folder predictions. Test-time
augmentation of a classifier: tta=flip (mean over the image and its mirror image), tta=flip_shift
(over both and both moved by a pixel) or tta=ten_crop (over ten crops, crop=<pixels>; default: 7/8
of the image).

mc_dropout=50 judges or predicts with the mean of a classifier's probabilities over 50 passes with
its dropout layers at work (Monte Carlo dropout), as seed=0 draws it.

attack= judges a classifier of images that are changed against it, each pixel by at most eps, where
black is 0 and white 1; several eps make a table. fgsm takes one step, bim steps=10 of
step_size=<2.5 eps / steps>, pgd likewise from a place that seed=0 draws; target=least_likely leads
towards the class that was least likely, not away from the true one.

corrupt= judges it of images that are made worse, in degrees of severity: noise, blur, contrast,
jpeg, several of them, or all.

For a table of your own (CSV, TSV, Parquet) a prediction for each row is written, numbers in the
target's own units.

For a graph of your own, nodes.csv and edges.csv in a folder, a node classification predicts a table
of all nodes, whether it has seen them or not. Link prediction takes a table of pairs of its graph's
nodes (source, target) and adds the probability of a link. A forecast takes a table that ends where
it is to begin, and is a table of the steps after it, in the units of the columns.

Of two classes, or of labels, threshold=best finds on val the probability from which on a sample is
best called positive, by metric=accuracy, balanced_accuracy or f<beta> (f1, f2, ...), and judges it
on the split. costs= has a row for each true class, and in it what each decision costs; prior= says
which shares the classes have where the model is used (of two, the second's): both change the
decisions, and their mean cost and accuracy, those of such shares, stand beside the plain ones.

For texts, a CSV or TSV file with the column of texts that the run was trained on or a .txt file of
one text a line, a classification predicts a table of text, class and probability.

A generative model draws samples; seed=<number> draws others. neighbours=<count> puts the training
images that are nearest to each below it, where copies would show; over_training=<count> has a row
of samples for every evaluation that TensorBoard has images of. One with latent variables makes
images anew from theirs (inputs above, what it makes of them below), and what lies between the
latent variables of two images, or between those that two seeds draw: interpolate=0,1. traverse=
moves those variables of an image, or of a seed, that change it most, from -3 to 3, one a row.

Values of the stored configuration that do not make another run may be overridden as well:
`data.root=/elsewhere trainer.device=cpu`.
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.app.commands import printable, relative
from zoo.app.evaluate_options import NAMES, action_of
from zoo.app.failures import report
from zoo.app.generative import actions
from zoo.app.judging.calibration import calibrate_run, intervals, temper
from zoo.app.judging.decisions import decide_with_run
from zoo.app.judging.robustness import attack_run, corrupt_run, draw_dropout
from zoo.app.main import show_version
from zoo.app.named_runs import find_run
from zoo.app.stored_runs import OmittedError, rebuilt, set_up_data, split_of
from zoo.app.streams import lasting_output
from zoo.config.command_line import CommandLine, parse_words
from zoo.config.errors import ConfigError, as_config_error, did_you_mean

if TYPE_CHECKING:
    from zoo.app.rebuild import Evaluation
    from zoo.training.run_folder import RunFolder

LONGEST = 40
"""Rows of a table that are printed; a longer one is in the JSON file alone, but for its last."""


def augment(parts: "Evaluation", line: CommandLine) -> dict[str, Any]:
    """Puts temperature and test-time augmentation asked for into the task, and returns them."""
    from zoo.tasks.prediction import Classes

    temperature = temper(parts, line)
    if "mc_dropout" in line.options:
        return temperature | draw_dropout(parts, line)
    views, crop = line.options.get("tta"), line.options.get("crop")
    if views is None:
        if crop is not None:
            raise ConfigError(f"crop={crop}: goes with tta=ten_crop")
        return temperature
    if parts.task.predicts is not Classes or not hasattr(parts.data, "preprocess"):
        raise ConfigError(f"tta={views}: this run does not classify images")
    if crop is not None and not crop.isdecimal():
        raise ConfigError(f"crop={crop}: must be a number of pixels")
    from zoo.inference.views import AveragedViews

    size = None if crop is None else int(crop)
    with as_config_error():
        parts.task.model = AveragedViews(parts.task.model, views, crop=size).eval()  # type: ignore[arg-type]
    return temperature | {"tta": views} | ({} if crop is None else {"crop": size})


def evaluate_run(line: CommandLine) -> None:
    """Prints the metrics of one split and writes them to `evaluation-<split>.json`."""
    from zoo.app.generative.features import attach_features
    from zoo.tasks.task import Shown, Table, Text
    from zoo.training.evaluation import measure
    from zoo.training.run_folder import RunFolder, RunFolderError

    parts = rebuilt(line)
    attach_features(parts.features, parts.task, parts.data, run=Path(line.options["run"]))
    parts.task.to(parts.device)
    augmentation = augment(parts, line)
    split = split_of(line, parts.data)
    folder = RunFolder(line.options["run"])
    set_up_data(parts, folder)
    limit = parts.settings.trainer.limit_eval_batches
    bounds = intervals(parts, line, split, limit)
    batches = islice(parts.data.batches(split, 0), limit)
    found: dict[str, Shown] = {}
    with as_config_error() if augmentation else nullcontext():
        metrics = measure(
            parts.task,
            batches,
            autocast=parts.autocast,
            then=lambda _: found.update(parts.task.show()),
        )
    tables = {name: table.rows for name, table in found.items() if isinstance(table, Table)}
    words = {
        "temperature": f"temperature-{line.options.get('temperature')}",
        "mc_dropout": "mc_dropout",
        "seed": "",
    }
    names = [words.get(name, str(value)) for name, value in augmentation.items()]
    file = "-".join(filter(None, ["evaluation", split, *names])) + ".json"
    shown = {n: f"{v:.6g}" if isinstance(v, float) else v for n, v in augmentation.items()}
    changed = "".join(f", {name}={value}" for name, value in shown.items())
    changed += ", with 95 % intervals" if bounds else ""
    print(f"{split}{_extent(folder, limit)}, weights of step {parts.step:,}{changed}")
    for name, value in metrics.items():
        low_and_high = f"  {bounds[name][0]:.4f} to {bounds[name][1]:.4f}" if name in bounds else ""
        print(f"{name:<24}{value:>12.4f}{low_and_high}")
    for name, entry in found.items():
        match entry:
            case Table(rows):
                table = entry if len(rows) <= LONGEST else Table(rows[-1:])
                print(printable(f"\n{table.markdown()}\n"))
            case Text(text):
                print(printable(f"\n{name}\n{text}\n"))
    # Last: they may be somebody else's folders, in which one must not write.
    part = {} if limit is None else {"limit_eval_batches": limit}
    content = {"split": split, "step": parts.step, **part, **augmentation, **metrics, **tables}
    if bounds:
        content["intervals"] = bounds
    try:
        folder.write(file, content)
    except OSError as error:
        raise RunFolderError(
            f"cannot write {relative(folder.path / file)} ({error.strerror}); the metrics stand "
            "above alone"
        ) from error
    print(relative(folder.path / file))


def _extent(folder: "RunFolder", limit: int | None) -> str:
    """How much of a split is judged, where that is not plain."""
    from zoo.config.run_config import load

    if limit is not None:
        return f", the first {limit} batches"
    stored = load(folder.path / "config.yaml").get("trainer", {}).get("limit_eval_batches")
    if stored is None:
        return ""
    return f", all of it (the run took {stored} batches: trainer.limit_eval_batches={stored})"


def predict_with_run(line: CommandLine) -> None:
    """Writes what the run's task predicts for images, or for what else its data can read."""
    from zoo.app.predict import image_files, predict_images, predict_own

    run, source = Path(line.options["run"]), Path(line.options["predict"])
    if not source.exists():  # A wrong path is refused before the run is rebuilt.
        raise ConfigError(f"predict={source}: there is no such file or folder")
    if "ensemble" in line.options:
        from zoo.app.judging.ensemble import rebuilt_ensemble

        parts = rebuilt_ensemble(line)
    else:
        parts = rebuilt(line)
    out = Path(line.options["out"]) if "out" in line.options else None
    omitted: list[str] = []
    augmentation = augment(parts, line)
    if hasattr(parts.data, "read_inputs"):
        done, out = predict_own(parts, source, out=out, run=run)
        for note in parts.data.notes:
            print(printable(note), file=sys.stderr)
    else:
        image_files(source)
        with as_config_error() if augmentation else nullcontext():
            done, omitted, out = predict_images(parts, source, out=out, run=run)
    if done:
        print(printable("\n".join(done[:10])))
        print(f"{len(done)} predictions")
        print(relative(out))
    if omitted:
        print(printable("\n".join(omitted)), file=sys.stderr)
        total = len(done) + len(omitted)
        raise OmittedError(f"{len(omitted)} of {total} images cannot be used and were omitted")


def evaluate_together(line: CommandLine) -> None:
    """Prints the metrics of an ensemble and of its members."""
    from zoo.app.judging.ensemble import evaluate_ensemble

    evaluate_ensemble(line)


def find_runs(line: CommandLine) -> None:
    """Finds the run that is named; those of an ensemble are found where they are joined.

    Raises:
        ConfigError: there is no such run.
    """
    if "ensemble" in line.options:
        return
    try:
        find_run(line, "run")
    except ConfigError as error:
        if "," in line.options["run"]:
            raise ConfigError(f"{error}; of several runs say ensemble=mean") from error
        raise


def main(words: Sequence[str] | None = None) -> int:
    """Runs the program; returns the exit code."""
    with lasting_output():
        return _main(words)


def _main(words: Sequence[str] | None) -> int:
    try:
        words = sys.argv[1:] if words is None else words
        line = parse_words(words, options=NAMES, flags=("--help", "--version"))
        if "--help" in line.flags:
            print(__doc__)
        elif "--version" in line.flags:
            show_version()
        elif "run" not in line.options:
            unknown = line.overrides[0].partition("=")[0] if line.overrides else ""
            hint = f"; {unknown}: {did_you_mean(unknown, NAMES)}" if unknown else ""
            raise ConfigError(f"run=<run folder> is required{hint}")
        else:
            find_runs(line)
            action = action_of(line)
            programs: dict[str | None, Callable[[CommandLine], None]] = {
                None: evaluate_together if "ensemble" in line.options else evaluate_run,
                "predict": predict_with_run,
                "calibrate": calibrate_run,
                **dict.fromkeys(("threshold", "costs", "prior"), decide_with_run),
                "attack": attack_run,
                "corrupt": corrupt_run,
                "sample": actions.sample_from_run,
                "neighbours": actions.neighbours_with_run,
                "over_training": actions.over_training_of_run,
                "reconstruct": actions.reconstruct_with_run,
                "interpolate": actions.interpolate_with_run,
                "traverse": actions.traverse_with_run,
            }
            programs[action](line)
    except (Exception, KeyboardInterrupt) as error:
        return report(error)
    return 0
