"""How well a classifier does on images that were changed: what `evaluate.py` does for that."""

from collections.abc import Callable
from fractions import Fraction
from itertools import islice
from typing import TYPE_CHECKING, Any

from zoo.app.commands import relative
from zoo.app.stored_runs import rebuilt, seed_of, set_up_data, split_of
from zoo.config.command_line import CommandLine
from zoo.config.errors import ConfigError, as_config_error

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.app.rebuild import Evaluation

TINY = 1e-38
"""What counts as the probability 0, whose logarithm there is not."""

Change = Callable[["Tensor", "Tensor"], "Tensor"]
"""From normalised images and their classes to other normalised images."""


def attack_run(line: CommandLine) -> None:
    """Prints how well a run classifies images that were changed to mislead it.

    Raises:
        ConfigError: an option has no such value, or the run does not classify images.
    """
    asked = {eps: _fraction("eps", eps) for eps in _listed(line, "eps", "0,2/255,8/255")}
    step_size = None
    if "step_size" in line.options:
        step_size = _fraction("step_size", line.options["step_size"])
    steps, seed = line.integer("steps", None, least=1), seed_of(line)
    from zoo.inference.attacks import Attack, Pixels

    kind, goal = line.options["attack"], line.options.get("target")
    if kind == "fgsm" and (steps or step_size):
        raise ConfigError("attack=fgsm takes one step of eps; steps and step_size go with bim, pgd")
    more = {} if kind == "fgsm" else {"steps": steps or 10, "step_size": step_size}
    with as_config_error():
        attacks = {
            eps: Attack(kind, value, goal=goal, **more)  # type: ignore[arg-type]
            for eps, value in asked.items()
        }
    parts = classifier_of_images(line, "attack")
    pixels = Pixels(parts.data.normalize.mean, parts.data.normalize.std)

    def change(attack: Attack) -> Change:
        return lambda images, classes: attack(parts.task.model, images, classes, pixels)

    noted = {"attack": kind, "target": goal, **more, **({"seed": seed} if kind == "pgd" else {})}
    noted = {name: value for name, value in noted.items() if value is not None}
    write_table(
        line,
        parts,
        [({"eps": eps, "value": attack.eps}, change(attack)) for eps, attack in attacks.items()],
        name="-".join(filter(None, (kind, goal))),
        noted=noted,
        seed=seed,
    )


def corrupt_run(line: CommandLine) -> None:
    """Prints how well a run classifies images that were made worse.

    Raises:
        ConfigError: an option has no such value, or the run does not classify images.
    """
    degrees = (line.options.get("severity") or "1,2,3,4,5").split(",")
    for degree in degrees:
        if degree not in tuple("012345"):
            raise ConfigError(f"severity={degree}: must be from 0 to 5")
    seed = seed_of(line)
    from zoo.data.augmentation.corruption import CORRUPTIONS, corrupt
    from zoo.inference.attacks import Pixels

    asked = line.options["corrupt"]
    kinds = CORRUPTIONS if asked == "all" else tuple(dict.fromkeys(asked.split(",")))
    for kind in kinds:
        if kind not in CORRUPTIONS:
            known = ", ".join(CORRUPTIONS)
            raise ConfigError(f"corrupt={kind}: must be one of {known}, or all")
    parts = classifier_of_images(line, "corrupt")
    pixels = Pixels(parts.data.normalize.mean, parts.data.normalize.std)

    def change(kind: Any, severity: int) -> Change:
        if not severity:
            return lambda x, _: x
        return lambda x, _: pixels(corrupt(pixels.values(x), kind, severity), x)

    conditions = [
        ({"corruption": kind, "severity": int(degree)}, change(kind, int(degree)))
        for kind in kinds
        for degree in dict.fromkeys(degrees)
    ]
    noted = {"corrupt": asked, "seed": seed}
    write_table(line, parts, conditions, name="corrupt", noted=noted, seed=seed)


def draw_dropout(parts: "Evaluation", line: CommandLine) -> dict[str, Any]:
    """Has the dropout of a run's classifier at work; returns what to note of it.

    Raises:
        ConfigError: it does not classify, or drops nothing.
    """
    from zoo.inference.draws import DropoutDraws
    from zoo.tasks.prediction import Classes

    draws, seed = line.integer("mc_dropout", 1, least=1), seed_of(line)
    if parts.task.predicts is not Classes:
        raise ConfigError(f"mc_dropout={draws}: this run does not classify")
    with as_config_error():
        parts.task.model = DropoutDraws(parts.task.model, draws, seed=seed).eval()
    return {"mc_dropout": draws, "seed": seed}


def _listed(line: CommandLine, key: str, example: str) -> list[str]:
    """The different values, between commas, of an option that has to be given."""
    if key not in line.options:
        raise ConfigError(f"{key} is required, one or several: {key}={example}")
    return list(dict.fromkeys(line.options[key].split(",")))


def _fraction(key: str, text: str) -> float:
    """A number that may be written as a fraction, 8/255 say."""
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ConfigError(f"{key}={text}: must be a number or a fraction such as 8/255") from None


def classifier_of_images(line: CommandLine, key: str) -> "Evaluation":
    """The parts of the run that a command line names, its data set up.

    Raises:
        ConfigError: it does not classify images.
    """
    from zoo.tasks.prediction import Classes
    from zoo.training.run_folder import RunFolder

    parts = rebuilt(line)
    if parts.task.predicts is not Classes or not hasattr(parts.data, "normalize"):
        raise ConfigError(f"{key}={line.options[key]}: this run does not classify images")
    set_up_data(parts, RunFolder(line.options["run"]))
    return parts


def write_table(
    line: CommandLine,
    parts: "Evaluation",
    conditions: list[tuple[dict[str, Any], Change]],
    *,
    name: str,
    noted: dict[str, Any],
    seed: int,
) -> None:
    """Judges a run under several conditions; prints a table and writes it to the run's folder.

    Args:
        line: with the run and the split.
        parts: of the run.
        conditions: the first columns of each row, and what is done to the images; a column
            `value` is written, but not printed.
        name: what distinguishes the file, `evaluation-<split>-<name>.json`.
        noted: what to write besides.
        seed: of the random numbers under each of the conditions.
    """
    from zoo.tasks.prediction import Table
    from zoo.training.run_folder import RunFolder

    folder, split = RunFolder(line.options["run"]), split_of(line, parts.data)
    if (limit := parts.settings.trainer.limit_eval_batches) is not None:
        noted = {"limit_eval_batches": limit, **noted}
    rows = [{**first, **_judged(parts, split, change, seed)} for first, change in conditions]
    said = "".join(f", {key}={value}" for key, value in noted.items())
    print(f"{split}, weights of step {parts.step:,}{said}\n")
    shown = [{key: cell for key, cell in row.items() if key != "value"} for row in rows]
    print(Table(shown).markdown() + "\n")
    file = f"evaluation-{split}-{name}.json"
    folder.write(file, {"split": split, "step": parts.step, **noted, "table": rows})
    print(relative(folder.path / file))


def _judged(parts: "Evaluation", split: str, change: Change, seed: int) -> dict[str, float]:
    """Accuracy and cross-entropy of the run's predictions for changed images."""
    from torch.nn import functional as F

    from zoo.metrics.sums import Accuracy, Mean
    from zoo.tasks.prediction import Classes
    from zoo.tasks.task import evaluation_mode
    from zoo.training.reproducibility import isolated

    accuracy, loss = Accuracy().to(parts.device), Mean().to(parts.device)
    limit = parts.settings.trainer.limit_eval_batches
    with isolated(seed), evaluation_mode(parts.task.model):
        for images, classes, *_ in islice(parts.data.batches(split, 0), limit):
            changed = change(images, classes)
            with parts.autocast:
                predicted = parts.task.predict((changed, classes))
            assert isinstance(predicted, Classes)
            p = predicted.probabilities
            accuracy.update(p, classes)
            loss.update(F.nll_loss(p.clamp_min(TINY).log(), classes), len(classes))
    return {"accuracy": accuracy.compute().item(), "loss": loss.compute().item()}
