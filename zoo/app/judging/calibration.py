"""How far the figures of a run are to be trusted: calibrated probabilities and intervals."""

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.app.commands import command, relative
from zoo.app.stored_runs import rebuilt, seed_of, set_up_data
from zoo.config.command_line import CommandLine
from zoo.config.errors import ConfigError, as_config_error

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.app.rebuild import Evaluation

STORED = "calibration.json"


def temper(parts: "Evaluation", line: CommandLine) -> dict[str, Any]:
    """Divides the logits by the temperature asked for; returns what to note of it.

    Raises:
        ConfigError: it is no temperature, none is stored, or the run has no probabilities.
    """
    if "temperature" not in line.options:
        return {}
    from zoo.inference.temperature import Tempered

    asked = line.options["temperature"]
    _check_calibrated(parts, f"temperature={asked}")
    if asked == "stored":
        temperature = _stored(Path(line.options["run"]), parts.step)
    else:
        temperature = line.number("temperature", 1.0)
    with as_config_error():
        parts.task.model = Tempered(parts.task.model, temperature).eval()
    return {"temperature": temperature}


def _check_calibrated(parts: "Evaluation", asked: str) -> None:
    if "calibration_error" not in parts.task.metrics:
        raise ConfigError(f"{asked}: the outputs of this run are no logits of probabilities")


def _stored(run: Path, step: int) -> float:
    from zoo.training.run_folder import RunFolder

    found = RunFolder(run).read(STORED)
    how = f"{command('evaluate.py')} run={relative(run)} calibrate=true"
    temperature = found.get("temperature")
    if not isinstance(temperature, float):
        raise ConfigError(f"temperature=stored: there is none yet; find it with {how}")
    if found.get("step") != step:
        raise ConfigError(
            f"temperature=stored: is of the weights of step {found.get('step')}, not of step "
            f"{step}; find that of these with {how}"
        )
    return temperature


def calibrate_run(line: CommandLine) -> None:
    """Finds the temperature of a run on val, prints what it changes, and stores it.

    Raises:
        ConfigError: the run has no probabilities or no val split, or there is no temperature.
    """
    if line.options["calibrate"] != "true":
        raise ConfigError(f"calibrate={line.options['calibrate']}: must be true, or be omitted")
    import torch

    from zoo.inference.temperature import fit_temperature
    from zoo.tasks.task import Table
    from zoo.training.resampling import outputs_of
    from zoo.training.run_folder import RunFolder

    parts, folder = rebuilt(line), RunFolder(line.options["run"])
    _check_calibrated(parts, "calibrate")
    if "val" not in parts.data.splits:
        raise ConfigError("calibrate: these data have no val split, on which to find a temperature")
    set_up_data(parts, folder)
    limit = parts.settings.trainer.limit_eval_batches
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for split in ("val", "test"):
        if split in parts.data.splits:
            batches = islice(parts.data.batches(split, 0), limit)
            logits, targets = outputs_of(parts.task, batches, autocast=parts.autocast)  # type: ignore[arg-type]
            found[split] = (
                torch.cat([z.flatten(0, -2) for z in logits]),
                torch.cat([y.flatten() for y in targets]),
            )
    try:
        temperature = fit_temperature(*found["val"])
    except ValueError as error:
        raise ConfigError(f"calibrate: {error}") from error
    rows: list[dict[str, str | float]] = [
        {"split": split, "temperature": t, **judged(logits / t, targets)}
        for split, (logits, targets) in found.items()
        for t in (1.0, temperature)
    ]
    print(f"temperature {temperature:.4f}, found on val; weights of step {parts.step:,}")
    print(Table(rows).markdown())
    folder.write(STORED, {"temperature": temperature, "step": parts.step, "rows": rows})
    print(relative(folder.path / STORED))


def judged(logits: "Tensor", targets: "Tensor") -> dict[str, float]:
    """Mean negative log-likelihood, calibration error and accuracy."""
    from torch.nn import functional as F

    from zoo.metrics.calibration import CalibrationError
    from zoo.metrics.sums import Accuracy

    error, accuracy = CalibrationError().to(targets.device), Accuracy().to(targets.device)
    for metric in (error, accuracy):
        metric.update(logits, targets)
    return {
        "nll": float(F.cross_entropy(logits.float(), targets)),
        "calibration_error": float(error.compute()),
        "accuracy": float(accuracy.compute()),
    }


def intervals(
    parts: "Evaluation", line: CommandLine, split: str, limit: int | None
) -> dict[str, tuple[float, float]]:
    """Of the metrics of a split by the bootstrap, where it is asked for.

    Raises:
        ConfigError: the samples of this run cannot be drawn one by one.
    """
    resamples = line.integer("bootstrap", 0, least=100)
    if not resamples:
        return {}
    import torch

    from zoo.training.resampling import bootstrap, outputs_of

    if not hasattr(parts.task, "judge"):
        name = type(parts.task).__name__
        raise ConfigError(f"bootstrap: {name} does not judge its samples one by one")
    batches = islice(parts.data.batches(split, 0), limit)
    outputs, targets = outputs_of(parts.task, batches, autocast=parts.autocast)  # type: ignore[arg-type]
    if len({y.shape[1:] for y in targets}) > 1:
        raise ConfigError("bootstrap: the samples of these data have different lengths")
    return bootstrap(
        parts.task,  # type: ignore[arg-type]
        torch.cat(outputs),
        torch.cat(targets),
        resamples=resamples,
        seed=seed_of(line),
    )
