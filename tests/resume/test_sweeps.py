"""A sweep that is killed and goes on ends as one that nothing stopped: its runs and its table."""

import json
import shlex
import signal
import time

import pytest

import train
from faults.outcomes import assert_same, outcome, state_of
from zoo.app.sweeps.record import FILE

STEPS = 8
WORDS = [
    *("-m", "experiment=gcn_karate", "seed=1,2,3", "trainer.epochs=null", f"trainer.steps={STEPS}"),
    *("trainer.evaluate_every=4", "callbacks.checkpoint.every_steps=3", "trainer.log_every=2"),
    *("trainer.device=cpu", "trainer.threads=1", "logger.graph=false", "logger.images_every=0"),
    "logger.console=lines",
]
JOBS = ["0-seed-1", "1-seed-2", "2-seed-3"]
IN_THE_MIDDLE = {"signals": [[STEPS + 5, "SIGKILL"]]}  # of the second job, past a checkpoint


def sweep_in(runs):
    (folder,) = runs.glob("*/sweep-*")
    return folder


def tables(folder, runs, log):
    """The table of a sweep, in its file and as it was printed last."""
    printed = log.read_text("utf-8").rpartition("\njob ")[2].partition("\nlook at it:")[0]
    file = (folder / "sweep.csv").read_text("utf-8")
    return [text.replace(str(runs), "") for text in (file, printed)]


@pytest.fixture(scope="module")
def undisturbed(run, tmp_path_factory):
    place = tmp_path_factory.mktemp("undisturbed")
    log = place / "log"
    assert run([*WORDS, f"paths.runs_dir={place}"], log) == 0, log.read_text("utf-8")
    folder = sweep_in(place)
    return {name: outcome(folder / name) for name in JOBS}, tables(folder, place, log)


@pytest.fixture(scope="module")
def changes(run, tmp_path_factory):
    """The changes of files of a sweep up to its second run."""
    place = tmp_path_factory.mktemp("changes")
    words = [*WORDS, f"paths.runs_dir={place / 'runs'}"]
    moments = {"files": str(place / "files"), "below": str(place / "runs")}
    run(words, place / "log", signals=[[STEPS + 1, "SIGKILL"]], **moments)
    return (place / "files").read_text().splitlines()


@pytest.fixture
def stopped(run, tmp_path):
    """A sweep that is stopped at a moment: its folder and what it prints."""
    runs, log = tmp_path / "runs", tmp_path / "log"

    def stop(code, **moments):
        words = [*WORDS, f"paths.runs_dir={runs}"]
        assert run(words, log, below=str(runs), **moments) == code, log.read_text("utf-8")
        return sweep_in(runs), log

    return stop


def assert_whole(folder, log, undisturbed):
    runs, expected = undisturbed
    for name in JOBS:
        assert_same(folder / name, runs[name])
    assert tables(folder, folder.parents[1], log) == expected


def times(folder):
    return {f: f.stat().st_mtime_ns for f in folder.rglob("*") if f.is_file() and f.name != ".lock"}


def test_a_sweep_killed_in_its_second_run_goes_on_and_equals_one_never_killed(
    run, stopped, undisturbed
):
    folder, log = stopped(-signal.SIGKILL, **IN_THE_MIDDLE)
    assert [state_of(folder / name) for name in JOBS] == ["finished", "dead", "none"]
    finished = times(folder / JOBS[0])
    assert run([f"resume={folder}"], log) == 0, log.read_text("utf-8")
    assert_whole(folder, log, undisturbed)
    assert times(folder / JOBS[0]) == finished
    before = times(folder)
    assert run([f"resume={folder / 'sweep.csv'}"], log) == 0  # Nothing is left to do.
    assert_whole(folder, log, undisturbed)
    changed = {file.name for file, time in times(folder).items() if before.get(file) != time}
    assert changed == {"sweep.csv", "multirun.yaml"}


def test_a_sweep_killed_again_and_again_equals_one_never_killed(run, stopped, undisturbed, changes):
    folder, log = stopped(-signal.SIGKILL, kill_at_file=changes.index("os.rename last.pt") + 1)
    assert not list((folder / JOBS[0]).glob("checkpoints/last.pt"))
    said = (folder / JOBS[0] / "log.txt").read_text()
    for at in (9, 75, 33):
        code = run([f"resume={folder}"], log, kill_at_file=at, below=str(folder))
        assert code == -signal.SIGKILL, log.read_text("utf-8")
    assert run([f"resume={folder}"], log) == 0, log.read_text("utf-8")
    assert_whole(folder, log, undisturbed)
    assert (folder / JOBS[0] / "log.txt").read_text().startswith(said)


def test_a_sweep_that_is_stopped_says_how_it_goes_on(run, stopped, undisturbed):
    folder, log = stopped(143, signals=[[STEPS + 5, "SIGTERM"]])
    assert [state_of(folder / name) for name in JOBS] == ["finished", "interrupted", "none"]
    assert "go on with it" not in log.read_text("utf-8")
    (line,) = [x for x in log.read_text("utf-8").splitlines() if x.startswith("go on:")]
    *_, word = shlex.split(line)
    assert run([word], log) == 0, log.read_text("utf-8")
    assert_whole(folder, log, undisturbed)


def test_a_run_that_failed_is_tried_again_only_on_request(run, stopped, undisturbed):
    folder, log = stopped(-signal.SIGKILL, **IN_THE_MIDDLE)
    status = folder / JOBS[1] / "status.json"
    failed = json.loads(status.read_text()) | {"state": "failed", "error": "OSError: disk full"}
    status.write_text(json.dumps(failed))
    assert run([f"resume={folder}"], log) == 1
    assert [state_of(folder / name) for name in JOBS] == ["finished", "failed", "finished"]
    text = log.read_text("utf-8")
    assert "job 1 failed: OSError: disk full" in text and "\ngo on:" not in text
    (line,) = [x for x in text.splitlines() if x.startswith("try again:")]
    assert run(shlex.split(line)[-2:], log) == 0, log.read_text("utf-8")
    assert_whole(folder, log, undisturbed)


def test_a_sweep_that_another_process_runs_is_refused_in_one_line(run, tmp_path):
    runs, log, go, second = (tmp_path / name for name in ("runs", "log", "go", "second"))
    first = run.start([*WORDS, f"paths.runs_dir={runs}"], log, wait_at=[STEPS + 2, str(go)])
    while not list(runs.glob(f"*/*/{JOBS[1]}/status.json")):
        time.sleep(0.01)
    folder = sweep_in(runs)
    before = times(folder)
    assert run([f"resume={folder}"], second) == 1
    assert second.read_text("utf-8").splitlines()[-1] == (
        f"error: {folder} is in use by another process; wait for it or stop it"
    )
    assert times(folder / JOBS[0]) == {f: t for f, t in before.items() if JOBS[0] in f.parts}
    go.touch()
    assert run.wait(first) == 0


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """A sweep of which nothing has been run yet."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "sweep-1"
    folder.mkdir()
    (folder / FILE).write_text("words: [experiment=gcn_karate, 'seed=1,2']\nalso: []\nhydra: []\n")
    return folder


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trainer.epochs=3"], "trainer.epochs=3: a sweep goes on with the words it was begun"),
        (["hydra/sweeper=basic"], "hydra/sweeper=basic: a sweep goes on with the words"),
        (["checkpoint=best"], "the runs of a sweep go on from their last; omit checkpoint="),
        (["-m"], "goes on with the sweep as it is; omit --multirun"),
        (["failed=again"], "failed=again: must be retry"),
    ],
)
def test_a_sweep_goes_on_as_it_is(words, message, begun, capsys):
    assert train.main([f"resume={begun}", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert [file.name for file in begun.iterdir()] == [FILE]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("words: [seed=1]\nalso: []\n", "must hold lists of words: also, hydra, words"),
        ("words: [1]\nalso: []\nhydra: []\n", "must hold lists of words"),
        ("words: {a: b\n", "is not valid YAML"),
        ("words: [hydra/launcher=evil]\nalso: []\nhydra: []\n", "is no word of a run"),
        ("words: ['seed=1,2', model=nope]\nalso: []\nhydra: []\n", "there is no model 'nope'"),
        (
            "words: ['seed=1,2']\nalso: [--config-dir, mine, 'trusted=[my]']\nhydra: []\n",
            "was begun with --config-dir mine 'trusted=[my]'; give --config-dir and trusted again",
        ),
        (
            "words: ['seed=1,2']\nalso: []\nhydra: [hydra/sweeper=optuna]\n",
            "was begun with hydra/sweeper=optuna, which chooses values",
        ),
    ],
)
def test_a_folder_that_does_not_say_enough_is_refused_in_one_line(text, message, begun, capsys):
    (begun / FILE).write_text(text)
    assert train.main([f"resume={begun}"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert [file.name for file in begun.iterdir()] == [FILE]


def test_failed_runs_are_those_of_a_sweep(begun, capsys):
    assert train.main(["failed=retry"]) == 2
    assert "failed=retry: goes with resume=<sweep folder>" in capsys.readouterr().err
    (begun / FILE).rename(begun / "config.yaml")
    assert train.main([f"resume={begun}", "failed=retry"]) == 2
    assert "is no sweep; omit failed" in capsys.readouterr().err


def test_a_sweep_of_an_earlier_version_names_the_run_to_go_on_with(run, stopped, capsys):
    folder, _ = stopped(-signal.SIGKILL, **IN_THE_MIDDLE)
    (folder / FILE).unlink()
    assert train.main([f"resume={folder}"]) == 2
    error = capsys.readouterr().err
    assert "is a sweep of an earlier version" in error and error.count("\n") == 1
    assert f"(resume={folder / JOBS[1]})" in error
