"""What `evaluate.py` does to decide by a classifier's probabilities: thresholds, costs, shares.

Thresholds are found on val and judged on the split that is asked for.
"""

import math
from typing import TYPE_CHECKING, NamedTuple

from zoo.app.commands import command, relative
from zoo.app.stored_runs import rebuilt, set_up_data, split_of
from zoo.config.command_line import CommandLine
from zoo.config.errors import ConfigError, as_config_error

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.app.rebuild import Evaluation

OPTIONS = ("threshold", "metric", "costs", "prior")


class Judged(NamedTuple):
    """What a run says of a split, and what is true."""

    probabilities: "Tensor"  # (samples, classes or labels), float64
    targets: "Tensor"  # (samples,), or (samples, labels)


def decide_with_run(line: CommandLine) -> None:
    """Prints how good decisions are by a threshold, or by costs and shares, and writes them."""
    from zoo.tasks.prediction import Classes, Labels, Table
    from zoo.training.run_folder import RunFolder

    if line.options.get("threshold", "best") != "best":
        raise ConfigError(
            f"threshold={line.options['threshold']}: must be best; a number is a setting of the "
            f"task: task.threshold={line.options['threshold']}"
        )
    parts = rebuilt(line)
    if parts.task.predicts not in (Classes, Labels):
        first = next(name for name in OPTIONS if name in line.options)
        raise ConfigError(f"{first}: this run does not tell classes; name a classifier's")
    split = split_of(line, parts.data)
    folder = RunFolder(line.options["run"])
    set_up_data(parts, folder)
    if "threshold" in line.options:
        rows, kind = _by_threshold(parts, line, split), "threshold"
    else:
        rows, kind = _by_costs(parts, line, split), "decisions"
    print(Table(rows).markdown())
    name = f"evaluation-{split}-{kind}.json"
    asked = {key: value for key, value in line.options.items() if key in OPTIONS}
    folder.write(name, {"split": split, "step": parts.step, **asked, "decisions": rows})
    print(relative(folder.path / name))


def judged(parts: "Evaluation", split: str) -> Judged:
    """The probabilities and targets of all samples of a split."""
    import torch

    from zoo.tasks.prediction import Classes, Labels

    probabilities, targets = [], []
    with torch.inference_mode(), parts.autocast:
        for batch in parts.data.batches(split, 0):
            found = parts.task.predict(batch)
            assert isinstance(found, Classes | Labels)
            if found.probabilities.ndim != 2:
                raise ConfigError(
                    "this run tells the classes of steps or nodes; decisions are about samples"
                )
            probabilities.append(found.probabilities.double().cpu())
            targets.append(parts.task.targets_of(batch).cpu())
    return Judged(torch.cat(probabilities), torch.cat(targets))


def _by_threshold(
    parts: "Evaluation", line: CommandLine, split: str
) -> list[dict[str, str | float]]:
    """A row for each label, of thresholds found on val."""
    from zoo.metrics.decisions import best_threshold, threshold_metric
    from zoo.tasks.prediction import Classes

    name = line.options.get("metric", "f1")
    with as_config_error():
        metric = threshold_metric(name)
    val, test = judged(parts, "val"), judged(parts, split)
    if parts.task.predicts is Classes:
        if val.probabilities.size(1) != 2:
            raise ConfigError(
                f"threshold=best: needs two classes, not {val.probabilities.size(1)}; of more, "
                "costs=[[...],...] says what mistakes cost"
            )
        val, test = (Judged(p[:, 1:], y.unsqueeze(1)) for p, y in (val, test))
        names = [str((getattr(parts.task, "class_names", None) or ("0", "1"))[1])]
    else:
        names = parts.task.names  # type: ignore[attr-defined]
    rows: list[dict[str, str | float]] = []
    for label, p, y, others, truth in zip(
        names,
        val.probabilities.mT,
        val.targets.mT,
        test.probabilities.mT,
        test.targets.mT,
        strict=True,
    ):
        try:
            threshold, reached = best_threshold(p, y, metric)
        except ValueError as error:
            if len(names) == 1:
                raise ConfigError(f"threshold=best: {error}") from error
            print(f"{label} keeps 0.5: {error}")
            threshold, reached = 0.5, math.nan
        row: dict[str, str | float] = {"positive": label, "threshold": threshold}
        row |= {f"val {name}": reached}
        for word, at in (("", threshold), (" at 0.5", 0.5)):
            row[f"{split} {name}{word}"] = _value(metric, others >= at, truth)
        rows.append(row)
    found = ",".join(f"{float(row['threshold']):.6g}" for row in rows)
    if hasattr(parts.task, "threshold"):
        value = f"[{found}]" if len(rows) > 1 else found
        program, run = command("evaluate.py"), line.options["run"]
        print(f"to predict by it: {program} run={run} 'task.threshold={value}' predict=<file>\n")
    return rows


def _value(metric: object, chosen: "Tensor", targets: "Tensor") -> float:
    import torch

    assert callable(metric)
    positive = targets > 0
    counts = ((chosen & positive).sum(), chosen.sum(), positive.sum(), torch.tensor(len(chosen)))
    hits, predicted, positives, samples = (count.double() for count in counts)
    return float(metric(hits, predicted, torch.stack([positives, samples])))


def _by_costs(parts: "Evaluation", line: CommandLine, split: str) -> list[dict[str, str | float]]:
    """A row for the most probable classes and one for the decisions of least expected cost."""
    import torch

    from zoo.metrics.decisions import least_cost, with_prior
    from zoo.tasks.prediction import Classes

    if parts.task.predicts is not Classes:
        raise ConfigError(
            "costs and prior are about one class a sample; set task.threshold instead"
        )
    found = judged(parts, split)
    classes = found.probabilities.size(1)
    costs = 1 - torch.eye(classes, dtype=torch.float64)
    if "costs" in line.options:
        costs = _matrix(line.options["costs"], classes)
    probabilities, weights = found.probabilities, torch.ones(len(found.targets)).double()
    if "prior" in line.options:
        prior = _prior(line.options["prior"], classes)
        targets = torch.cat([parts.task.targets_of(b) for b in parts.data.batches("train", 0)])
        shares, tested = (_shares(y, classes, prior) for y in (targets, found.targets))
        probabilities = with_prior(probabilities, shares, prior)
        weights = (prior / tested)[found.targets]  # as if the classes had those shares
    rows: list[dict[str, str | float]] = []
    for name, chosen in (
        ("most probable", found.probabilities.argmax(1)),
        ("least expected cost", least_cost(probabilities, costs)),
    ):
        cost, right = costs[found.targets, chosen], (chosen == found.targets).double()
        rows.append(
            {
                "decision": name,
                f"{split} cost": float((cost * weights).sum() / weights.sum()),
                f"{split} accuracy": float((right * weights).sum() / weights.sum()),
            }
        )
    return rows


def _matrix(text: str, classes: int) -> "Tensor":
    import json

    import torch

    try:
        costs = torch.tensor(json.loads(text), dtype=torch.float64)
    except (ValueError, TypeError):
        costs = torch.zeros(0)
    if costs.shape != (classes, classes) or not costs.isfinite().all():
        raise ConfigError(
            f"costs={text}: must be {classes} rows of {classes} numbers, a row for each true class "
            "and in it what each decision costs: costs=[[0,1],[1000,0]]"
        )
    return costs


def _prior(text: str, classes: int) -> "Tensor":
    import json

    import torch

    try:
        given = json.loads(text)
        values = [1 - given, given] if isinstance(given, int | float) else [float(v) for v in given]
    except (ValueError, TypeError):
        values = []
    if len(values) != classes or min(values) <= 0 or abs(sum(values) - 1) > 1e-6:
        raise ConfigError(
            f"prior={text}: must be the shares of {classes} classes, greater than 0, that add up "
            "to 1: prior=[0.99,0.01], or of two classes that of the second: prior=0.01"
        )
    return torch.tensor(values, dtype=torch.float64)


def _shares(targets: "Tensor", classes: int, prior: "Tensor") -> "Tensor":
    import torch

    counts = torch.bincount(targets.cpu(), minlength=classes).to(prior)
    if not counts.all():
        missing = ", ".join(map(str, (counts == 0).nonzero().flatten().tolist()))
        raise ConfigError(f"prior: no sample of class {missing} is there, so its share has no odds")
    return counts / counts.sum()
