"""What the checks of a GPU train, through the program itself, and what they compare.

Each function prints what it finds, and returns what it has measured; what must not be is an
`AssertionError`. All of them run on any device, so that a CPU can try them.
"""

import io
import json
import math
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch

from gpu.plan import ROOT
from zoo.app import main as program
from zoo.app.train import train
from zoo.training.step import Stepper

WAITING = (
    *("lenet_digits", "vae_digits", "gan_digits", "ddpm_digits", "unet_shapes", "gcn_karate"),
    *("sort_transformer", "copy_seq2seq", "lstm_stdlib", "gin_triangles"),
)
"""A network and a task of each kind, on data that are there without a download."""
PRECISE = ("lenet_digits", "sort_transformer", "vae_digits")
GRAPHED = ("lenet_digits", "ddpm_digits", "autoencoder_digits", "tcn_adding", "real_nvp_ring")
SKIPPED_STEPS = 3
"""Steps that may wait: kernels are chosen and states made in them."""


class RunFailedError(RuntimeError):
    """A run did not end with exit code 0."""


def run(experiment: str, *words: str, device: str = "cuda", steps: int = 8) -> Path:
    """Trains a few steps of an experiment.

    Returns:
        The run folder.

    Raises:
        RunFailedError: with the last line that the program has said.
    """
    place = tempfile.mkdtemp(prefix="gpu-check-")
    said, failed = io.StringIO(), io.StringIO()
    common = (
        *(f"experiment={experiment}", f"trainer.device={device}", f"trainer.steps={steps}"),
        *("trainer.epochs=null", "trainer.limit_eval_batches=1", "trainer.train_metrics=false"),
        *("logger.tensorboard=false", "logger.console=off", f"paths.runs_dir={place}"),
    )
    with redirect_stdout(said), redirect_stderr(failed):
        code = program.main(train, [*common, *words])
    if code:
        lines = failed.getvalue().strip().splitlines() or ["nothing was said"]
        raise RunFailedError(f"{experiment}: exit code {code}: {lines[-1]}")
    (folder,) = Path(place).glob("*/*/results.json")
    return folder.parent


def training_rows(folder: Path) -> list[dict[str, Any]]:
    """The lines of the training curve."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["split"] == "train" and "loss" in row]


def distance(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> float:
    """The largest difference of two curves' losses, in parts of the larger of 1 and the loss."""
    assert len(ours) == len(theirs) > 0, "the curves have not as many lines"
    losses = [(a["loss"], b["loss"]) for a, b in zip(ours, theirs, strict=True)]
    assert all(math.isfinite(value) for pair in losses for value in pair), "a loss is not finite"
    return max(abs(a - b) / max(1.0, abs(b)) for a, b in losses)


class _Counts(Counter[str]):
    """Counts the outcomes of tests, as a plugin of pytest."""

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.outcome != "passed":
            self[report.outcome] += 1


def tests(device: str = "cuda", marker: str = "gpu") -> dict[str, Any]:
    """Every test that needs a GPU passes, and there are some."""
    import pytest

    del device  # They name it themselves.
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    chosen = [str(f) for f in files if f"mark.{marker}" in f.read_text(encoding="utf-8")]
    counts = _Counts()
    options = ("-q", "-m", marker, "-p", "no:cacheprovider", "--tb=short")
    code = pytest.main([*options, *chosen], plugins=[counts])
    return {
        **counts,
        "passed": code == 0 and counts["passed"] > 0,
        "tests passed": counts["passed"],
    }


@contextmanager
def no_waiting_in_steps(set_mode: Callable[[str], None]) -> Iterator[None]:
    """Has every training step but the first few fail where it makes Python wait for the device."""
    plain, taken = Stepper.step, [0]

    def step(self: Stepper, window: Any, *, measure: bool) -> bool:
        taken[0] += 1
        set_mode("error" if taken[0] > SKIPPED_STEPS else "default")
        try:
            return plain(self, window, measure=measure)
        finally:
            set_mode("default")

    with patch.object(Stepper, "step", step):
        yield


def waiting(
    device: str = "cuda",
    experiments: Sequence[str] = WAITING,
    set_mode: Callable[[str], None] = torch.cuda.set_sync_debug_mode,
) -> dict[str, Any]:
    """No training step makes Python wait for the device."""
    found: dict[str, Any] = {}
    for experiment in experiments:
        for precision in ("fp32", "bf16"):
            name = f"{experiment} {precision}"
            try:
                with no_waiting_in_steps(set_mode):
                    run(experiment, f"trainer.precision={precision}", device=device)
                found[name] = "does not wait"
            except RunFailedError as error:
                found[name] = str(error)
            print(f"{name}: {found[name]}", flush=True)
    return found | {"passed": all(value == "does not wait" for value in found.values())}


def precisions(
    device: str = "cuda",
    experiments: Sequence[str] = PRECISE,
    kinds: Sequence[str] = ("bf16", "fp16"),
    steps: int = 40,
) -> dict[str, Any]:
    """Losses in half precision are those in single precision, within 5 per cent."""
    found: dict[str, Any] = {}
    for experiment in experiments:
        every = f"trainer.log_every={steps // 4}"
        curves = {
            kind: training_rows(
                run(experiment, every, f"trainer.precision={kind}", device=device, steps=steps)
            )
            for kind in ("fp32", *kinds)
        }
        for kind in kinds:
            found[f"{experiment} {kind}"] = round(distance(curves[kind], curves["fp32"]), 5)
            print(f"{experiment} {kind}: {found[f'{experiment} {kind}']}", flush=True)
    return found | {"passed": all(value <= 0.05 for value in found.values())}


def graphs(
    device: str = "cuda", experiments: Sequence[str] = GRAPHED, steps: int = 200
) -> dict[str, Any]:
    """Runs with CUDA graphs replay, have the losses of runs without, and how fast they are."""
    found: dict[str, Any] = {}
    good = True
    for experiment in experiments:
        words = (f"trainer.log_every={steps // 4}", "trainer.precision=fp32")
        without, with_graphs = (
            run(experiment, *words, f"trainer.cuda_graphs={on}", device=device, steps=steps)
            for on in ("false", "true")
        )
        log = (with_graphs / "log.txt").read_text(encoding="utf-8")
        engaged = next((line for line in log.splitlines() if "were replays" in line), "")
        replays = int(engaged.split(" of ")[0].split()[-1]) if engaged else 0
        ours, theirs = training_rows(with_graphs), training_rows(without)
        speeds = [median(row["samples_per_second"] for row in rows[1:]) for rows in (theirs, ours)]
        apart = distance(ours, theirs)
        found[experiment] = {
            "replays": replays,
            "steps": steps,
            "largest difference": round(apart, 6),
            "time per step over that without": round(speeds[0] / speeds[1], 4),
        }
        good &= replays > steps // 2 and apart <= 0.01
        print(f"{experiment}: {found[experiment]}", flush=True)
    return found | {"passed": good}


def processes(device: str = "cuda", experiment: str = "lenet_digits") -> dict[str, Any]:
    """Two processes reach what one reaches."""
    alone = run(experiment, "trainer.precision=fp32", device=device, steps=30)
    place = tempfile.mkdtemp(prefix="gpu-check-")
    command = (
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
        *("train.py", f"experiment={experiment}", f"trainer.device={device}", "trainer.steps=30"),
        *("trainer.epochs=null", "trainer.limit_eval_batches=1", "trainer.train_metrics=false"),
        *("logger.tensorboard=false", "trainer.precision=fp32", f"paths.runs_dir={place}"),
    )
    subprocess.run(command, check=True)
    (together,) = Path(place).glob("*/*/results.json")
    apart = distance(training_rows(together.parent), training_rows(alone))
    return {"largest difference": round(apart, 6), "passed": apart <= 1e-3}


PROGRAMS: dict[str, Callable[[], dict[str, Any]]] = {
    "tests": tests,
    "waiting": waiting,
    "precisions": precisions,
    "graphs": graphs,
    "processes": processes,
}
