"""Runs that are killed (SIGKILL) and resumed equal, bit for bit, those that never were.

More kills than by default: ZOO_TEST_KILLS=20 pytest tests/resume
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from faults.outcomes import assert_same, only_run, outcome, state_of
from faults.references import MissingError, References
from faults.tiny import EXPERIMENTS, SHRUNK, STEPS, needs_files, words

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("ZOO_TEST_KILLS", "1"))


@pytest.fixture(scope="module")
def references(run, tmp_path_factory):
    return References(run, tmp_path_factory.mktemp("references"))


@pytest.fixture
def uninterrupted(references):
    """What a run of an experiment that nothing stops leaves behind."""

    def of(name):
        try:
            return references.of(name)
        except MissingError as error:
            pytest.skip(f"the data of {name} are not there: {error}")

    return of


def moment(choice, kind, reference):
    """When a run is to be killed: at an update, at a change of a file, or halfway in a save."""
    if kind == 0:
        return {"signals": [[choice.randrange(1, STEPS), "SIGKILL"]]}
    if kind == 1:
        first = reference.saves[0] + 1
        return {"kill_at_file": choice.randrange(first, len(reference.files) + 1)}
    return {"in_save": [choice.randrange(2, 9), "SIGKILL"]}


def finish(run, path, log, expected, **moments):
    """Resumes a run, killing it once more where asked for, and compares."""
    if moments:
        run([f"resume={path}"], log, **moments)
    if state_of(path) != "finished":
        assert run([f"resume={path}"], log) == 0, Path(log).read_text("utf-8")
    assert_same(path, expected.outcome)


def marked(name):
    marks = [pytest.mark.slow, *([pytest.mark.data] if needs_files(name) else [])]
    return pytest.param(name, marks=marks)


@pytest.mark.parametrize("kill", range(KILLS))
@pytest.mark.parametrize("name", [marked(name) for name in EXPERIMENTS])
def test_an_experiment_killed_at_a_random_moment_and_resumed_equals_one_never_killed(
    name, kill, run, references, uninterrupted, tmp_path
):
    expected = uninterrupted(name)
    choice = random.Random(f"{name} {kill}")
    first = moment(choice, (EXPERIMENTS.index(name) + kill) % 3, expected)
    runs, log = tmp_path / "runs", tmp_path / "log"
    code = run(references.words(name, runs), log, **first, below=str(runs))
    assert code == -signal.SIGKILL, log.read_text("utf-8")
    path = only_run(runs)
    assert state_of(path) == "dead"
    finish(run, path, log, expected)


CHEAP = "gcn_karate"


@pytest.mark.slow
def test_a_run_killed_again_and_again_at_changes_of_files_equals_one_never_killed(
    run, uninterrupted, tmp_path
):
    expected = uninterrupted(CHEAP)
    choice = random.Random("files")
    runs, log = tmp_path / "runs", tmp_path / "log"
    start = expected.saves[0] + choice.randrange(1, 20)
    assert run(words(CHEAP, runs), log, kill_at_file=start, below=str(runs)) == -signal.SIGKILL
    path = only_run(runs)
    for _ in range(5 + 5 * KILLS):
        at = choice.randrange(8, 60)
        if run([f"resume={path}"], log, kill_at_file=at, below=str(runs)) == 0:
            break
    finish(run, path, log, expected)


@pytest.mark.slow
def test_a_run_killed_at_every_change_of_files_around_a_save_equals_one_never_killed(
    run, uninterrupted, tmp_path
):
    # From one best checkpoint to the next, with an evaluation in between.
    expected = uninterrupted(CHEAP)
    saves = expected.saves
    moments = range(saves[3] + 1, saves[5] + 1)
    assert len(moments) >= 8
    for at in list(moments)[:: 1 if KILLS > 1 else 3]:
        runs, log = tmp_path / f"runs{at}", tmp_path / "log"
        assert run(words(CHEAP, runs), log, kill_at_file=at, below=str(runs)) == -signal.SIGKILL
        finish(run, only_run(runs), log, expected)


@pytest.mark.slow
def test_a_run_killed_after_its_last_step_evaluates_and_reports_when_resumed(
    run, uninterrupted, tmp_path
):
    expected = uninterrupted(CHEAP)
    for name in ("results.json", "status.json"):
        at = max(i for i, line in enumerate(expected.files, 1) if line == f"os.rename {name}")
        runs, log = tmp_path / f"runs{at}", tmp_path / "log"
        run(words(CHEAP, runs), log, kill_at_file=at, below=str(runs))
        assert state_of(only_run(runs)) == "dead"
        finish(run, only_run(runs), log, expected)


def test_a_run_killed_before_its_first_checkpoint_says_to_start_anew(run, uninterrupted, tmp_path):
    runs, log, second = tmp_path / "runs", tmp_path / "log", tmp_path / "second"
    first = uninterrupted(CHEAP).files.index("os.rename next.pt") + 1
    run(words(CHEAP, runs), log, kill_at_file=first, below=str(runs))
    path = only_run(runs)
    assert run([f"resume={path}"], second) == 1
    last = second.read_text("utf-8").strip().splitlines()[-1]
    assert last.startswith("error: no checkpoint is left to resume from")
    assert last.endswith("start the run anew")


def test_a_checkpoint_that_was_about_to_be_the_last_one_is_there_where_no_other_is(
    run, uninterrupted, tmp_path
):
    # At that moment `last.pt` and `previous.pt` are one file under two names.
    expected = uninterrupted(CHEAP)
    for at in (expected.saves[0], expected.saves[4]):
        runs, log = tmp_path / f"runs{at}", tmp_path / "log"
        assert run(words(CHEAP, runs), log, kill_at_file=at, below=str(runs)) == -signal.SIGKILL
        path = only_run(runs)
        for file in path.glob("checkpoints/last.pt"):
            assert file.samefile(file.with_name("previous.pt"))
            file.write_bytes(b"damaged")
        finish(run, path, log, expected)
        assert "going on from next.pt" in log.read_text("utf-8")


def number_of_rows(runs):
    return sum(file.read_bytes().count(b"\n") for file in runs.rglob("metrics.jsonl"))


@pytest.mark.slow
def test_train_py_killed_at_random_times_and_resumed_equals_one_never_killed(tmp_path):
    # No process of ours in between: the command that a user types, and `kill -9`.
    long = [word.replace(f"steps={STEPS}", "steps=120") for word in SHRUNK]
    command = [sys.executable, str(ROOT / "train.py")]
    log = open(tmp_path / "log", "w")  # noqa: SIM115 - of several processes
    choice = random.Random("times")

    def start(*arguments):
        return subprocess.Popen([*command, *arguments], stdout=log, stderr=log, cwd=tmp_path)

    def text():
        return (tmp_path / "log").read_text("utf-8")

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert start("experiment=lenet_digits", *long, f"paths.runs_dir={whole}").wait() == 0, text()
    process = start("experiment=lenet_digits", *long, f"paths.runs_dir={parts}")
    for row in sorted(choice.sample(range(2, 60), 2 + KILLS)):
        while process.poll() is None and number_of_rows(parts) < row:
            time.sleep(0.001)
        time.sleep(choice.uniform(0.0, 0.02))
        process.kill()
        if process.wait() == 0:
            break
        assert process.returncode == -signal.SIGKILL, text()
        process = start(f"resume={only_run(parts)}")
    assert process.wait() == 0, text()
    log.close()
    assert_same(only_run(parts), outcome(only_run(whole)))
