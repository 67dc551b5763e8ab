"""Every feature of the trainer with every other one: a pairwise covering array of whole runs.

Each row is trained by the command line's own path, in process, on data that can be learned. The
plain suite has one optimizer of each kind; `pytest -m cross` has all of torch's.
"""

import contextlib
import copy
import io
import itertools
import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from covertable import make
from PIL import Image
from torch import nn

import zoo
from tests.training.tiny import differences, without_timings
from train import train
from zoo.app import evaluate
from zoo.app.main import main
from zoo.app.rebuild import prepare_evaluation
from zoo.training.checkpoints.checkpoint import read
from zoo.training.evaluation import measure
from zoo.training.reproducibility import random_state, set_random_state
from zoo.training.step import Stepper

BATCHES, EPOCHS = 9, 2

OPTIMIZERS = {
    "adamw": ["optimizer=adamw", "optimizer.lr=0.01"],
    "adam": ["optimizer=adam", "optimizer.lr=0.01"],
    "sgd": ["optimizer=sgd", "optimizer.lr=0.05"],
    "muon": ["optimizer=muon"],
    "adagrad": ["optimizer=adagrad", "optimizer.lr=0.05"],
    "rmsprop": ["optimizer=rmsprop", "optimizer.lr=0.003"],
}
# Those without a file of their own, by their rates.
OTHERS = {
    "NAdam": 0.01,
    "RAdam": 0.1,
    "Adamax": 0.01,
    "Adadelta": 1.0,
    "ASGD": 0.05,
    "Rprop": 0.001,
    "Adafactor": 0.02,
}
OPTIMIZERS |= {
    name.lower(): [
        *("optimizer=rmsprop", f"optimizer._target_=torch.optim.{name}", f"optimizer.lr={rate}")
    ]
    for name, rate in OTHERS.items()
}
FUSED = ("adamw", "adam", "sgd", "adagrad")  # on a CPU
NETWORKS = {
    "batch norm": ["model=resnet20", "task=classification"],
    "dropout": ["model=mlp", "model.hidden_sizes=[16,16]", "model.dropout=0.2"],
    "tied weights": [
        *("model=gpt_char", "model.embed_dim=16", "model.num_layers=1", "model.num_heads=2"),
        "task=language_modeling",
    ],
    "carried state": [
        *("model=char_lstm", "model.embed_dim=16", "model.hidden_size=16"),
        "task=language_modeling",
    ],
    "two networks": [
        *("model=gan", "model.latent_dim=4", "model.hidden_sizes=[16]"),
        *("model.maxout_sizes=[8]", "model.pieces=2", "task=adversarial"),
    ],
}
FROZEN = {
    "batch norm": "freeze=[conv1.*,bn1.*]",
    "dropout": "freeze=[layers.0.*]",
    "tied weights": "freeze=[transformer.h.0.attn.*]",
    "carried state": "freeze=[rnn.bias_ih_l0]",
}
FACTORS: dict[str, list[Any]] = {
    "network": list(NETWORKS),
    "optimizer": ["adamw", "sgd", "muon", "rmsprop", "adafactor"],
    "fused": [True, False],
    "precision": ["fp32", "bf16", "fp16"],
    "accumulate": [1, 3, 4],  # the last window of an epoch is smaller with 4
    "clip": [None, "clip_norm=0.5", "clip_value=0.1"],
    "average": [False, True],
    "schedule": ["constant", "cosine", "plateau", "one_cycle"],
    "freeze": [False, True],
    "compile": [False, True],
    "channels_last": [False, True],
    "workers": [None, 0, 1],  # None: all in memory
    "resume": ["never", "in mid-epoch", "after the end"],
    "monitor": ["min", "max"],
}
IMAGES = ("batch norm", "dropout")


# Which values of two factors go together.
POSSIBLE: dict[tuple[str, str], Callable[[Any, Any], bool]] = {
    # It has no hidden matrix.
    ("network", "optimizer"): lambda n, o: not (n == "batch norm" and o == "muon"),
    ("optimizer", "fused"): lambda o, fused: not fused or o in FUSED,
    ("network", "freeze"): lambda n, freeze: not freeze or n in FROZEN,
    # Tracing it takes half a minute.
    ("network", "compile"): lambda n, compiled: not (n == "batch norm" and compiled),
    ("network", "workers"): lambda n, workers: workers is None or n in IMAGES,
    ("network", "monitor"): lambda n, monitor: monitor == "min" or n in IMAGES,
}


def possible(row: dict[str, Any]) -> bool:
    return all(test(row[a], row[b]) for (a, b), test in POSSIBLE.items())


def table(**other: list[Any]) -> list[dict[str, Any]]:
    """A row for each run, such that every possible pair of values is in one of them."""
    constraints = [
        {
            "operator": "fn",
            "requires": list(names),
            "evaluate": lambda row, names=names, test=test: test(*(row[n] for n in names)),
        }
        for names, test in POSSIBLE.items()
    ]
    rows: list[dict[str, Any]] = make(FACTORS | other, constraints=constraints)
    return rows


def name(row: dict[str, Any]) -> str:
    return ", ".join(
        str(value) if isinstance(value, str) else f"{key}={value}"
        for key, value in row.items()
        if value not in (None, False, "never")
    )


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of four classes that a blind man could tell apart, and a text that repeats."""
    folder = tmp_path_factory.mktemp("data")
    generator = torch.Generator().manual_seed(0)
    for number in range(4 * 60):
        label = number % 4
        pixels = torch.randint(60, (8, 8), generator=generator)
        row, column = divmod(label, 2)
        pixels[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 150
        path = folder / "images" / "abcd"[label] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.to(torch.uint8).numpy()).save(path)
    text = "the quick brown fox jumps over the lazy dog\n" * 40
    (folder / "text.txt").write_text(text, encoding="utf-8")
    return folder


def words(row: dict[str, Any], files: Path) -> list[str]:
    """The command line of a row."""
    network = row["network"]
    if network in IMAGES or network == "two networks":
        data = ["data=image_folder", f"data.folder={files / 'images'}", "data.in_channels=1"]
        data += ["data.image_size=8", "data.batch_size=16", "data.val_fraction=0.2"]
        data += [f"data.in_memory={str(row['workers'] is None).lower()}"]
        data += [f"data.num_workers={row['workers'] or 0}", "data.test_fraction=0.1"]
    else:
        data = ["data=text", f"data.path={files / 'text.txt'}", "data.batch_size=4"]
        data += ["data.sequence_length=12", "data.val_fraction=0.2"]
    schedule = [f"schedule={row['schedule']}"]
    if row["schedule"] == "cosine":
        schedule.append("schedule.warmup_steps=2")
    optimizer = list(OPTIMIZERS[row["optimizer"]])
    if row["optimizer"] in FUSED:
        optimizer.append(f"+optimizer.fused={str(row['fused']).lower()}")
    monitor = []
    if network != "two networks":
        metric = "accuracy" if row["monitor"] == "max" else "loss"
        monitor = [f"callbacks.checkpoint.monitor={metric}"]
    # oneDNN has no LSTM in half precision.
    written = network == "carried state" and row["precision"] == "fp16"
    return [
        *NETWORKS[network],
        *(["model.backend=written"] if written else []),
        *data,
        *optimizer,
        *schedule,
        *monitor,
        *([FROZEN[network]] if row["freeze"] else []),
        *([f"trainer.{row['clip']}"] if row["clip"] else []),
        *(["trainer.ema_decay=0.9"] if row["average"] else []),
        f"trainer.precision={row['precision']}",
        f"trainer.accumulate={row['accumulate']}",
        f"trainer.compile={str(row['compile']).lower()}",
        f"trainer.channels_last={str(row['channels_last']).lower()}",
        f"trainer.epochs={EPOCHS}",
        f"trainer.limit_train_batches={BATCHES}",
        *("trainer.log_every=1", "trainer.train_metrics=false", "trainer.device=cpu"),
        *("callbacks.checkpoint.every_steps=2", "logger.console=off", "logger.tensorboard=false"),
    ]


class Killed(BaseException):
    """Ends a run as a kill would: nobody saves anything."""


@contextlib.contextmanager
def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    original, calls = Stepper.step, []

    def steps(self: Stepper, window: Any, **options: Any) -> bool:
        calls.append(window)
        if len(calls) == step:
            raise Killed
        return original(self, window, **options)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Stepper, "step", steps)
        yield


def plain_norm(stepper: Stepper, window: list[Any]) -> float:
    """The norm of the gradient of one large batch, by a loop without trainer or scaler."""
    task = copy.deepcopy(stepper._task)
    state = random_state()
    try:
        terms = []
        for batch in window:
            with copy.deepcopy(stepper._updater.autocast):
                (objective,) = task.objectives(batch)
            (objective.loss * objective.count).backward()
            terms.append(float(objective.count))
        gradients = [p.grad / sum(terms) for p in task.model.parameters() if p.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients))
    finally:
        set_random_state(state)


def run(folder: Path, *line: str) -> Path:
    assert main(train, [*line, f"paths.runs_dir={folder}"]) == 0
    (found,) = folder.glob("*/*")
    return found


def outcome(folder: Path) -> dict[str, Any]:
    results = json.loads((folder / "results.json").read_text())
    state = without_timings(read(folder / "checkpoints" / "last.pt"))
    del state["config"]
    timings = ("seconds", "samples_per_second", "memory_mib")
    return {"results": {k: v for k, v in results.items() if k not in timings}, "state": state}


def check(row: dict[str, Any], files: Path, tmp_path: Path, monkeypatch: Any) -> None:
    compile_module = nn.Module.compile
    monkeypatch.setattr(
        nn.Module, "compile", lambda self, **_: compile_module(self, backend="eager", dynamic=True)
    )
    line, norms = words(row, files), []
    original = Stepper.step

    def watched(self: Stepper, window: list[Any], **options: Any) -> bool:
        expected = None
        if not norms and row["network"] != "two networks" and not row["compile"]:
            expected = plain_norm(self, window)
        taken = original(self, window, **options)
        if taken and expected is not None:  # fp16 skips the first steps until the scale fits.
            norms.append((float(self._updater.norms["model"]), expected))
        return taken

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "step", watched)
        folder = run(tmp_path / "whole", *line)
    for logged, expected in norms:
        tolerance = {"fp32": 1e-3, "bf16": 0.05, "fp16": 0.01}[row["precision"]]
        assert logged == pytest.approx(expected, rel=tolerance)

    steps = EPOCHS * math.ceil(BATCHES / row["accumulate"])
    results = json.loads((folder / "results.json").read_text())
    assert results["steps"] == steps
    for file in (folder / "checkpoints").glob("*.pt"):
        state = read(file)
        for tensors in (state["model"], state["average"] or {}):
            wrong = [n for n, t in tensors.items() if t.is_floating_point() and t.abs().max() > 1e4]
            assert not wrong and all(t.isfinite().all() for t in tensors.values())

    rows = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    validations = [r for r in rows if r["split"] == "val"]
    monitored = [r[results["monitor"]] for r in validations]
    best = max(monitored) if row["monitor"] == "max" else min(monitored)
    assert results["val"][results["monitor"]] == best and results["mode"] == row["monitor"]
    if row["network"] != "two networks":
        first = next(r["loss"] for r in rows if r["split"] == "train" and "loss" in r)
        assert min(r["loss"] for r in validations) < first

    judge(folder, results, row)

    if row["resume"] == "in mid-epoch":
        parts = tmp_path / "parts"
        with killed_at(steps // 2 + 1, monkeypatch):
            main(train, [*line, f"paths.runs_dir={parts}"])
        (part,) = parts.glob("*/*")
        assert main(train, [f"resume={part}"]) == 0
        assert differences(outcome(part), outcome(folder)) == []
    elif row["resume"] == "after the end":
        assert main(train, [f"resume={folder}", f"trainer.epochs={EPOCHS + 1}"]) == 0
        results = json.loads((folder / "results.json").read_text())
        assert results["steps"] == steps // EPOCHS * (EPOCHS + 1)
        judge(folder, results, row)


def judge(folder: Path, results: dict[str, Any], row: dict[str, Any]) -> None:
    """Whether those who use the run see what it says, and whether the average is any good."""
    with contextlib.redirect_stdout(io.StringIO()):
        assert evaluate.main([f"run={folder}", "split=val"]) == 0
    found = json.loads((folder / "evaluation-val.json").read_text())
    assert {k: found[k] for k in results["val"]} == pytest.approx(results["val"], rel=1e-4)

    parts = prepare_evaluation(folder)
    model, _ = zoo.load(folder)
    parts.task.model.load_state_dict(model.state_dict())
    parts.data.setup(seed=parts.settings.seed)

    def metrics() -> dict[str, float]:
        return measure(parts.task, parts.data.batches("val", 0), autocast=parts.autocast)

    assert metrics() == pytest.approx(results["val"], rel=1e-4)
    if row["average"] and row["network"] != "two networks":
        state = read(folder / "checkpoints" / "last.pt")
        assert state["average"] is not None
        parts.task.model.load_state_dict(state["model"])
        assert results["val"]["loss"] < 1.5 * metrics()["loss"] + 0.3


@pytest.mark.parametrize("row", table(), ids=name)
def test_features_work_together(row, files, tmp_path, monkeypatch):
    check(row, files, tmp_path, monkeypatch)


@pytest.mark.cross
@pytest.mark.parametrize("row", table(optimizer=list(OPTIMIZERS)), ids=name)
def test_features_work_with_every_optimizer(row, files, tmp_path, monkeypatch):
    check(row, files, tmp_path, monkeypatch)


def test_the_table_has_every_possible_pair():
    """Counted from the other end: pairs of random rows that are possible are all there."""
    rows, draw = table(), random.Random(0)
    assert len(rows) <= 100 and all(map(possible, rows))

    def pairs(row: dict[str, Any]) -> set[Any]:
        return set(itertools.combinations(row.items(), 2))

    seen = set().union(*(pairs({name: row[name] for name in FACTORS}) for row in rows))
    for _ in range(20_000):
        row = {name: draw.choice(values) for name, values in FACTORS.items()}
        if possible(row):
            assert pairs(row) <= seen
