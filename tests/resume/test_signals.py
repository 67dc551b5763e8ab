import json
import os
import signal
import time

import pytest
import torch
import yaml

from faults.outcomes import assert_same, only_run, outcome, state_of
from zoo.training.checkpoints.checkpoint import read
from zoo.training.run_folder import RunFolder

TINY = [
    "data=digits",
    "data.image_size=8",
    "data.augment=true",
    "model=mlp",
    "model.hidden_sizes=[16]",
    "model.dropout=0.2",
    "optimizer=adamw",
    "schedule=constant",
    "trainer.device=cpu",
    "trainer.threads=1",
    "trainer.limit_train_batches=8",
    "trainer.limit_eval_batches=2",
    "trainer.log_every=2",
    "logger.tensorboard=false",
    "logger.console=lines",
]


def words(runs, *more, epochs=2):
    return [*TINY, *more, f"trainer.epochs={epochs}", f"paths.runs_dir={runs}"]


def position(path, name="last.pt"):
    return read(path / "checkpoints" / name)["position"]


@pytest.fixture(scope="module")
def uninterrupted(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert run(words(folder / "runs"), folder / "log") == 0, (folder / "log").read_text("utf-8")
    return outcome(only_run(folder / "runs"))


@pytest.fixture
def place(tmp_path):
    return tmp_path / "runs", tmp_path / "log"


@pytest.mark.parametrize(
    ("name", "code", "step"),
    [("SIGTERM", 143, 1), ("SIGTERM", 143, 8), ("SIGINT", 130, 5), ("SIGHUP", 129, 16)],
)
def test_a_signal_ends_the_run_after_its_step_with_the_state_saved(
    name, code, step, run, place, uninterrupted
):
    runs, log = place
    assert run(words(runs), log, signals=[[step, name]]) == code
    path = only_run(runs)
    assert state_of(path) == "interrupted"
    assert position(path)["step"] == step
    *_, said, hint = log.read_text("utf-8").splitlines()
    assert said == f"interrupted by {name} at step {step}; the state is saved"
    assert hint.startswith("go on with it:  ") and hint.endswith(f"resume={path}")
    assert RunFolder(path).read_status()["step"] == step
    assert said in (path / "log.txt").read_text("utf-8")
    assert run([f"resume={path}"], log) == 0
    assert_same(path, uninterrupted)


def test_a_run_interrupted_again_and_again_by_turns_equals_one_never_interrupted(
    run, place, uninterrupted
):
    runs, log = place
    assert run(words(runs), log, signals=[[3, "SIGTERM"]]) == 143
    path = only_run(runs)
    for name, code in (("SIGINT", 130), ("SIGKILL", -9), ("SIGTERM", 143)):
        assert run([f"resume={path}"], log, signals=[[3, name]]) == code
    assert run([f"resume={path}"], log) == 0
    assert_same(path, uninterrupted)


def test_a_second_ctrl_c_ends_the_run_at_once_and_the_last_checkpoint_stands(
    run, place, uninterrupted
):
    runs, log = place
    more = "callbacks.checkpoint.every_steps=3"
    # Both arrive during the fifth step: the update before is the first's, this one the second's.
    code = run(words(runs, more), log, signals=[[5, "SIGINT"]], twice=True)
    assert code == 130
    path = only_run(runs)
    assert state_of(path) == "interrupted"
    assert position(path)["step"] == 3
    assert "stopped at once; the last checkpoint stands\ngo on with it:  " in log.read_text("utf-8")


def test_sigusr1_saves_the_state_and_the_run_goes_on(run, place):
    runs, log = place
    code = run(words(runs), log, signals=[[5, "SIGUSR1"], [7, "SIGKILL"]])
    assert code == -signal.SIGKILL
    assert position(only_run(runs))["step"] == 5


def test_sigusr1_changes_nothing_about_the_run(run, place, uninterrupted):
    runs, log = place
    assert run(words(runs), log, signals=[[5, "SIGUSR1"], [8, "SIGUSR1"]]) == 0
    assert_same(only_run(runs), uninterrupted)


def test_of_two_processes_that_resume_one_run_the_second_is_refused_in_one_line(
    run, place, uninterrupted, tmp_path
):
    runs, log = place
    assert run(words(runs), log, signals=[[3, "SIGTERM"]]) == 143
    path, go, second = only_run(runs), tmp_path / "go", tmp_path / "second"
    first = run.start([f"resume={path}"], log, wait_at=[3, str(go)])
    while state_of(path) != "running":
        time.sleep(0.01)
    files = {file: file.stat().st_mtime_ns for file in path.rglob("*.pt")}
    assert run([f"resume={path}"], second) == 1
    (line,) = second.read_text("utf-8").splitlines()
    assert line.startswith("error: ")
    assert f"is in use by another process (pid {first})" in line
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*.pt")} == files
    go.touch()
    assert run.wait(first) == 0
    assert_same(path, uninterrupted)


def test_a_finished_run_says_how_to_extend_it(run, place):
    runs, log = place
    assert run(words(runs), log) == 0
    path = only_run(runs)
    before = outcome(path)
    log.unlink()
    assert run([f"resume={path}"], log) == 0
    assert "trainer.epochs=<more> lets it go on" in log.read_text("utf-8")
    assert_same(path, before)


def test_a_run_that_is_extended_equals_one_that_was_to_be_that_long(run, place, tmp_path):
    runs, log = place
    assert run(words(runs), log) == 0
    path = only_run(runs)
    assert run([f"resume={path}", "trainer.epochs=3"], log) == 0
    whole = tmp_path / "whole"
    assert run(words(whole, epochs=3), log) == 0
    assert_same(path, outcome(only_run(whole)))
    assert yaml.safe_load((path / "config.yaml").read_text())["trainer"]["epochs"] == 3


def test_a_resumed_run_may_have_another_learning_rate(run, place):
    runs, log = place
    assert run(words(runs), log, signals=[[9, "SIGTERM"]]) == 143
    path = only_run(runs)
    assert run([f"resume={path}", "optimizer.lr=0.5"], log) == 0
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    rates = {row["step"]: row["lr"] for row in rows if "lr" in row}
    assert (rates[8], rates[10], rates[16]) == (0.001, 0.5, 0.5)


# ------------------------------------------------------------------ damaged checkpoints


def ruin(file, harm):
    raw = bytearray(file.read_bytes())
    file.unlink()
    if harm == "truncated":
        file.write_bytes(raw[: len(raw) * 2 // 3])
    elif harm == "garbled":
        raw[len(raw) // 2 : len(raw) // 2 + 200] = os.urandom(200)
        file.write_bytes(raw)


@pytest.mark.parametrize("harm", ["truncated", "garbled", "deleted"])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before_with_a_warning(
    harm, run, place, uninterrupted
):
    runs, log = place
    more = "callbacks.checkpoint.every_steps=5"
    assert run(words(runs, more), log, signals=[[11, "SIGTERM"]]) == 143
    path = only_run(runs)
    ruin(path / "checkpoints" / "last.pt", harm)
    log.unlink()
    assert run([f"resume={path}", "callbacks.checkpoint.every_steps=null"], log) == 0
    assert "going on from previous.pt before it" in log.read_text("utf-8")
    assert_same(path, uninterrupted)


def test_without_any_whole_checkpoint_the_error_says_so(run, place):
    runs, log = place
    assert run(words(runs), log, signals=[[3, "SIGTERM"]]) == 143
    path = only_run(runs)
    for name in ("last.pt", "previous.pt"):
        ruin(path / "checkpoints" / name, "garbled")
    log.unlink()
    assert run([f"resume={path}"], log) == 1
    last = log.read_text("utf-8").strip().splitlines()[-1]
    assert last.startswith("error: no checkpoint is left to resume from: ")
    assert last.count("damaged") == 2
    assert RunFolder(path).read_status()["state"] == "interrupted"  # as it was: nothing is written


def test_a_hostile_checkpoint_is_not_run(run, place):
    class Hostile:
        def __reduce__(self):
            return exec, ("print('hostile was run')",)

    runs, log = place
    assert run(words(runs), log, signals=[[3, "SIGTERM"]]) == 143
    path = only_run(runs)
    for name in ("last.pt", "previous.pt"):
        torch.save({"format": 1, "model": Hostile()}, path / "checkpoints" / name)
    log.unlink()
    assert run([f"resume={path}"], log) == 1
    text = log.read_text("utf-8")
    assert "not a plain checkpoint and is not loaded" in text
    assert "hostile was run" not in text
