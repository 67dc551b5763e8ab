"""What `evaluate.py` does with several runs together: `run=<a>,<b> ensemble=mean`.

The members are the runs that a list names, all that are finished in a folder of runs, such as a
sweep's, or the checkpoints that one run has kept, where its folder `checkpoints` is named. The
first one's task judges them together, and its data are those of all.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.app.commands import relative
from zoo.app.named_runs import find_run, runs_below
from zoo.app.other_runs import difference_of_data
from zoo.app.output import check_new, completed
from zoo.app.rebuild import Evaluation
from zoo.app.stored_runs import rebuilt, set_up_data, split_of
from zoo.config.command_line import CommandLine
from zoo.config.errors import ConfigError, as_config_error
from zoo.inference.ensemble import Ensemble, best_weights
from zoo.inference.stacking import Stacking
from zoo.metrics.ensembles import Disagreement, Spread
from zoo.metrics.sums import IGNORED
from zoo.tasks.prediction import Classes
from zoo.training.evaluation import measure
from zoo.training.own_files import to_json
from zoo.training.run_folder import RunFolder

RULES = ("mean", "vote", "weighted", "stacking")


@dataclass
class Members:
    """The runs of an ensemble, and what they are together.

    Attributes:
        folders: of the runs.
        names: what tells them apart: their folders, or the checkpoints that were named.
        parts: of each.
        place: the folder that holds them; None: they were listed.
        ensemble: their models as one.
    """

    folders: list[Path]
    names: list[str]
    parts: list[Evaluation]
    place: Path | None
    ensemble: Ensemble

    @property
    def first(self) -> Evaluation:
        """The one whose task and data are used."""
        return self.parts[0]


def lines_of(line: CommandLine) -> tuple[list[CommandLine], Path | None]:
    """A command line for each member, and the folder that holds them if that was named.

    Raises:
        ConfigError: there is no such run.
    """
    text = line.options["run"]
    path, place, names = Path(text), None, text.split(",")
    if path.exists():
        names = [text]
        if path.name == "checkpoints" and (kept := sorted(map(str, path.glob("kept-*.pt")))):
            place, names = path.parent, kept
        elif path.is_dir() and not (path / "config.yaml").exists() and path.name != "checkpoints":
            place, names = path, [str(run) for run in _finished(path)]
            if not names:
                raise ConfigError(f"run={text}: holds no finished run")
    which = {name: line.options[name] for name in ("checkpoint",) if name in line.options}
    lines = []
    for name in names:
        member = CommandLine(line.overrides, {"run": name, **which}, line.trusted)
        find_run(member, "run")
        lines.append(member)
    return lines, place


def _finished(folder: Path) -> list[Path]:
    """The finished runs below a folder, in the order of their numbers."""
    found = [run for run in runs_below(folder) if _state(run) == "finished"]
    return sorted(found, key=lambda run: [*map(_number, re.split(r"(\d+)", str(run)))])


def _number(text: str) -> tuple[int, str]:
    return (int(text), "") if text.isdigit() else (0, text)


def _state(run: Path) -> Any:
    return RunFolder(run).read("status.json").get("state")


def joined(line: CommandLine) -> Members:
    """Rebuilds the members of an ensemble and joins them; the first one's task holds them all.

    Raises:
        ConfigError: they cannot be joined: their data, classes or outputs are not the same.
    """
    rule = line.options["ensemble"]
    if rule not in RULES:
        raise ConfigError(f"ensemble={rule}: must be one of {', '.join(RULES)}")
    lines, place = lines_of(line)
    folders = [Path(member.options["run"]) for member in lines]
    parts = [rebuilt(member) for member in lines]
    first = parts[0]
    if first.task.output_kind is None:
        raise ConfigError(
            f"run={relative(folders[0])}: the outputs of {type(first.task).__name__} cannot be "
            "joined; an ensemble is of classifications, or of regressions to values"
        )
    for folder, part in zip(folders[1:], parts[1:], strict=True):
        if difference := _difference(first, part):
            raise ConfigError(
                f"run={relative(folder)}: cannot be joined with {relative(folders[0])}: "
                f"{difference}"
            )
    if rule == "vote" and first.task.predicts is not Classes:
        raise ConfigError("ensemble=vote: these runs predict no classes; write ensemble=mean")
    if rule == "stacking" and (first.task.predicts is Classes) != (
        first.task.output_kind == "logits"
    ):
        raise ConfigError(
            "ensemble=stacking: joins probabilities or values, and these runs have neither (a "
            "hinge loss, or normal distributions); write ensemble=mean"
        )
    models = [part.task.model for part in parts]
    ensemble = Ensemble(models, rule=rule, kind=first.task.output_kind)  # type: ignore[arg-type]
    first.task.model = ensemble.eval()
    named = [Path(member.options.get("checkpoint", "")) for member in lines]
    names = [
        relative(file if file.suffix == ".pt" else folder)
        for file, folder in zip(named, folders, strict=True)
    ]
    members = Members(folders, names, parts, place, ensemble)
    if rule in ("weighted", "stacking"):
        set_up_data(first, RunFolder(folders[0]))
        with as_config_error():
            if rule == "weighted":
                ensemble.weights = _weights(first, ensemble)
            else:
                ensemble.stack = _stack(first, ensemble)
    return members


def _difference(a: Evaluation, b: Evaluation) -> str:
    """Why two runs cannot be joined; "" if they can."""
    if difference := difference_of_data(a.config["data"], a.data, b.config["data"], b.data):
        return difference
    if a.task.output_kind != b.task.output_kind or a.task.predicts is not b.task.predicts:
        return f"{type(a.task).__name__} and {type(b.task).__name__} have outputs of other kinds"
    names = [getattr(part.task, "class_names", None) for part in (a, b)]
    return "" if names[0] == names[1] else "their classes have other names"


class _Replay(nn.Module):
    """Returns what an ensemble of given weights says where the members' outputs are known."""

    def __init__(self, ensemble: Ensemble) -> None:
        super().__init__()
        self.ensemble, self.outputs, self.weights = ensemble, torch.empty(0), torch.empty(0)

    def forward(self, *inputs: object) -> Tensor:
        return self.ensemble.joined(self.outputs, self.weights)


def _answers_on_val(parts: Evaluation, ensemble: Ensemble) -> list[tuple[Any, Tensor]]:
    """The batches of val, and what each member says of them."""
    if "val" not in parts.data.splits:
        raise ConfigError(f"ensemble={ensemble.rule}: these data have no val to learn it from")
    with torch.no_grad(), parts.autocast:
        return [
            (batch, ensemble.answers(*parts.task.example_inputs(batch)))
            for batch in _limited(parts, "val")
        ]


def _stack(parts: Evaluation, ensemble: Ensemble) -> Stacking:
    """A model of the members' answers, fitted to those of val."""
    outputs, targets = [], []
    for batch, answers in _answers_on_val(parts, ensemble):
        wanted = parts.task.targets_of(batch)
        if ensemble.kind == "logits":
            if wanted.is_floating_point():
                raise ConfigError("ensemble=stacking: learns from one class a sample, not shares")
            wanted, answers = (
                wanted.flatten(),
                answers.flatten(1, -2),
            )  # steps and nodes are samples
            answers, wanted = answers[:, wanted != IGNORED], wanted[wanted != IGNORED]
        outputs.append(answers)
        targets.append(wanted)
    kind = ensemble.kind
    stack = Stacking(torch.cat(outputs, 1), torch.cat(targets), kind=kind)
    what = "logistic regression on log-probabilities" if kind == "logits" else "ridge regression"
    print(
        f"stacking: {what} of {len(ensemble.members)} members, fitted on {stack.samples:,} samples "
        "of val"
    )
    return stack


def _weights(parts: Evaluation, ensemble: Ensemble) -> Tensor:
    """The weights with the smallest loss on val, where they are found."""
    known = _answers_on_val(parts, ensemble)
    parts.task.model = replay = _Replay(ensemble).eval()

    def loss(weights: Tensor) -> Tensor:
        total: Any = 0
        terms: Any = 0
        for batch, outputs in known:
            replay.outputs, replay.weights = outputs, weights
            value, count, *_ = parts.task.loss(batch)
            total, terms = total + value.to(weights) * float(count), terms + float(count)
        mean: Tensor = total / terms
        return mean

    found = best_weights(loss, len(ensemble.members))
    parts.task.model = ensemble
    return found.float()


def _limited(parts: Evaluation, split: str) -> Iterator[Any]:
    return islice(parts.data.batches(split, 0), parts.settings.trainer.limit_eval_batches)


def evaluate_ensemble(line: CommandLine) -> None:
    """Prints the metrics of the members and of the ensemble, and writes them where asked.

    They go to `out=`, or to `evaluation-<split>-ensemble-<rule>.json` in the folder that holds the
    members; where these are listed, nothing is written unless `out=` says so.
    """
    out = Path(line.options["out"]) if "out" in line.options else None
    if out is not None:
        check_new(out)
    members = joined(line)
    rule, first = line.options["ensemble"], members.first
    split = split_of(line, first.data)
    if rule == "stacking" and split == "val":
        raise ConfigError(
            "ensemble=stacking: is fitted on val and cannot be judged there; name another split"
        )
    if not first.data.loaders:
        set_up_data(first, RunFolder(members.folders[0]))
    with as_config_error():
        alone = []
        for part, model in zip(members.parts, members.ensemble.members, strict=True):
            part.task.model = model
            found = measure(
                part.task.to(part.device), _limited(first, split), autocast=part.autocast
            )
            alone.append(found)
        first.task.model = members.ensemble
        apart = _Apart(members)
        together = measure(
            first.task, apart.watched(_limited(first, split)), autocast=first.autocast
        )
    if rule == "vote":  # Shares of votes are no probabilities to take the logarithm of.
        together.pop("loss", None)
    together |= apart.compute()
    rows = [
        {
            "run": name,
            "step": part.step,
            **({} if rule == "stacking" else {"weight": weight}),
            **found,
        }
        for name, part, weight, found in zip(
            members.names, members.parts, members.ensemble.weights.tolist(), alone, strict=True
        )
    ]
    _show(split, rule, rows, together, members.place)
    if out is None and members.place is not None:
        out = members.place / f"evaluation-{split}-ensemble-{rule}.json"
    if out is None:
        print("not written anywhere: name a file with out=<file.json>")
        return
    fitted = {"fitted_on": "val"} if rule in ("weighted", "stacking") else {}
    content = {"split": split, "ensemble": rule, **fitted, **together, "members": rows}
    with completed(out) as file:
        file.write_text(to_json(content, indent=2) + "\n", encoding="utf-8")
    print(relative(out))


class _Apart:
    """How far the members are apart, on what the ensemble is judged by."""

    def __init__(self, members: Members) -> None:
        self.task, self.ensemble = members.first.task, members.ensemble
        self.metric = Disagreement() if self.task.predicts is Classes else Spread()
        self.metric.to(members.first.device)

    def watched(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The batches; the outputs for each are looked at when the next one is asked for."""
        for batch in batches:
            yield batch
            outputs, targets = self.ensemble.outputs, self.task.targets_of(batch)
            assert outputs is not None
            if self.ensemble.kind == "normals":
                outputs = outputs.unflatten(-1, (-1, 2))[..., 0]  # the means
            if isinstance(self.metric, Spread):
                self.metric.update(outputs, self.ensemble.weights)
            elif targets.shape == outputs.shape[1:-1]:
                self.metric.update(outputs, targets != IGNORED)
            else:  # shares of classes
                self.metric.update(outputs)

    def compute(self) -> dict[str, float]:
        name = "spread" if isinstance(self.metric, Spread) else "disagreement"
        return {name: self.metric.compute().item()}


def _show(
    split: str,
    rule: str,
    rows: list[dict[str, Any]],
    together: dict[str, float],
    place: Path | None,
) -> None:
    """Prints a line for each member, for their mean and for the ensemble."""
    names = list(dict.fromkeys([*rows[0], *together]))[2:]
    if rule in ("mean", "vote"):
        names.remove("weight")
    mean = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0] if name in names}
    labels = [os.path.relpath(row["run"], place or ".") for row in rows]
    lines = [*zip(labels, rows, strict=True), ("mean of members", mean)]
    lines.append((f"ensemble={rule}", together))
    width = max(len(label) for label, _ in lines)
    print(f"{split}, {len(rows)} members")
    print(f"{'':<{width}}" + "".join(f"  {name:>12}" for name in names))
    for label, values in lines:
        cells = (f"{values[name]:.4f}" if name in values else "" for name in names)
        print(f"{label:<{width}}" + "".join(f"  {cell:>12}" for cell in cells))


def rebuilt_ensemble(line: CommandLine) -> Evaluation:
    """The parts of a run whose model is an ensemble, to predict with.

    Raises:
        ConfigError: they cannot be joined, or it is not said where the predictions go.
    """
    members = joined(line)
    if members.place is None and "out" not in line.options:
        raise ConfigError("predict with listed runs belongs into none of their folders: add out=")
    return members.first
