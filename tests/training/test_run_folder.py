import errno
import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest

from tests.training.tiny import At, new_folder, trainer_of
from zoo.training import run_folder
from zoo.training.checkpoints import saving
from zoo.training.interruption import Interrupted
from zoo.training.run_folder import (
    RunFolder,
    RunFolderError,
    environment,
    folder_of_now,
    safe_name,
)

HOLD = """
import sys, time
from zoo.training.run_folder import RunFolder
folder = RunFolder(sys.argv[1])
with folder.lock():
    folder.status("running")
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other_process(tmp_path):
    """A run folder on which another process is at work."""
    folder = RunFolder.create(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder.path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout.readline() == "held\n"
    yield folder, process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_refused_with_the_first_one_s_number(other_process):
    folder, process = other_process
    with (
        pytest.raises(RunFolderError, match=rf"in use by another process \(pid {process.pid}\)"),
        folder.lock(),
    ):
        pass
    assert folder.read_status()["state"] == "running"


def test_a_trainer_is_refused_a_run_that_is_going_on_and_changes_nothing(other_process):
    folder, _ = other_process
    before = sorted(os.listdir(folder.path))
    with pytest.raises(RunFolderError, match="in use"):
        trainer_of().fit(folder=folder)
    assert folder.read_status()["state"] == "running"
    assert sorted(os.listdir(folder.path)) == before


def test_a_killed_run_is_seen_as_dead_and_can_be_taken_up(other_process):
    folder, process = other_process
    process.kill()
    process.wait()
    assert folder.read("status.json")["state"] == "running"
    assert folder.read_status()["state"] == "dead"
    with folder.lock():
        pass


def test_the_lock_may_be_taken_twice_by_its_own_process(tmp_path):
    folder = RunFolder.create(tmp_path)
    with folder.lock(), folder.lock():
        folder.status("running")
        assert RunFolder(folder.path).read_status()["state"] == "running"


def test_the_state_says_how_a_run_ended(tmp_path):
    folder, states = new_folder(tmp_path), []
    note = At(1, lambda trainer: states.append(folder.read_status()))
    trainer_of(epochs=1).fit(folder=folder, callbacks=[note])
    assert states[0]["state"] == "running"
    assert states[0]["pid"] == os.getpid()
    assert folder.read_status()["state"] == "finished"
    assert folder.read_status()["error"] is None

    def stop(trainer):
        trainer.signals.stop = signal.SIGTERM

    folder = new_folder(tmp_path)
    with pytest.raises(Interrupted):
        trainer_of(epochs=1).fit(folder=folder, callbacks=[At(2, stop)])
    assert folder.read_status()["state"] == "interrupted"
    assert folder.read_status()["error"] == "interrupted by SIGTERM at step 2"
    assert folder.read_status()["step"] == 2

    def fail(trainer):
        raise ValueError("so it goes")

    folder = new_folder(tmp_path)
    with pytest.raises(ValueError, match="so it goes"):
        trainer_of(epochs=1).fit(folder=folder, callbacks=[At(2, fail)])
    assert folder.read_status()["state"] == "failed"
    assert folder.read_status()["error"] == "ValueError: so it goes"
    assert "Traceback" in (folder.path / "log.txt").read_text("utf-8")


def test_an_error_is_forgotten_when_the_run_goes_on(tmp_path):
    def fail(trainer):
        raise ValueError("so it goes")

    folder = new_folder(tmp_path)
    with pytest.raises(ValueError, match="so it goes"):
        trainer_of(epochs=1).fit(folder=folder, callbacks=[At(2, fail)])
    trainer_of(epochs=1).fit(folder=RunFolder(folder.path), resume=True)
    assert folder.read_status()["state"] == "finished"
    assert folder.read_status()["error"] is None


def test_a_status_that_cannot_be_written_does_not_hide_why_the_run_failed(tmp_path, monkeypatch):
    folder = new_folder(tmp_path)

    def fail(trainer):
        monkeypatch.setattr(folder, "write", refuse)
        raise ValueError("the reason")

    def refuse(name, content):
        raise PermissionError(13, "Permission denied")

    with pytest.raises(ValueError, match="the reason"):
        trainer_of(epochs=1).fit(folder=folder, callbacks=[At(2, fail)])


def test_the_heartbeat_names_the_step_now_and_then(tmp_path, monkeypatch):
    for module in (run_folder, saving):
        monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.0)
    folder, seen = new_folder(tmp_path), []

    class Steps(At):
        def on_step_end(self, trainer):
            seen.append(folder.read_status().get("step"))

    trainer_of(epochs=1).fit(folder=folder, callbacks=[Steps(0, None)])
    assert seen == [None, 1, 2, 3, 4, 5]
    monkeypatch.setattr(run_folder, "HEARTBEAT_SECONDS", 1000.0)
    folder = new_folder(tmp_path)
    trainer_of(epochs=1).fit(folder=folder)
    assert "step" not in folder.read_status()


def test_folders_are_named_by_the_time_to_the_second(tmp_path):
    name = RunFolder.create(tmp_path).path.name
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", name)


class Stopped(datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 2, 3, 4, 5, 6)


def test_runs_of_one_second_have_folders_of_their_own_in_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "datetime", Stopped)
    names = [RunFolder.create(tmp_path).path.name for _ in range(12)]
    assert names[:3] == [f"2026-01-02_03-04-05{end}" for end in ("", "_02", "_03")]
    assert names == sorted(set(names))
    assert folder_of_now(tmp_path, "sweep-").name == "sweep-2026-01-02_03-04-05"
    # Earlier versions wrote microseconds and an id.
    others = ["2026-01-02_03-04-04.999999-ffff", "2026-01-02_03-04-06.000000-0000"]
    assert sorted([*names, *others]) == [others[0], *names, others[1]]


def test_processes_that_begin_at_once_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "datetime", Stopped)
    with ThreadPoolExecutor(16) as pool:
        paths = list(pool.map(lambda _: folder_of_now(tmp_path / "runs"), range(64)))
    assert len(set(paths)) == 64 and all(path.is_dir() for path in paths)


def test_a_folder_that_is_there_is_never_taken_for_a_new_one(tmp_path):
    RunFolder.create(tmp_path, "job")
    with pytest.raises(RunFolderError, match=r"cannot make the run folder .*exists"):
        RunFolder.create(tmp_path, "job")


def test_a_place_that_is_a_file_is_refused_with_what_to_set(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(RunFolderError, match=r"set paths\.runs_dir"):
        RunFolder.create(tmp_path / "runs")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("3-lr=0.1,seed=2", "3-lr-0.1-seed-2"),
        ("../../etc passwd", "etc-passwd"),
        ("naïve (1)", "naïve-1"),
        ("a" * 200, "a" * 80),
    ],
)
def test_names_have_no_character_that_a_shell_or_hydra_stumbles_over(text, name):
    assert safe_name(text) == name


def test_the_environment_tells_versions_and_nothing_about_who_and_where():
    found = environment("cpu")
    assert {"python", "packages", "device", "threads", "commit", "dirty"} <= set(found)
    text = json.dumps(found)
    secrets = [os.getcwd(), os.path.expanduser("~") + "/", os.uname().nodename, sys.prefix]
    assert not [secret for secret in secrets if len(secret) > 3 and secret in text]


def test_small_files_are_replaced_in_one_step(tmp_path, monkeypatch):
    folder = RunFolder.create(tmp_path)
    folder.write("a.json", {"value": 1})

    def die(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        folder.write("a.json", {"value": 2})
    assert folder.read("a.json") == {"value": 1}


def test_a_broken_or_missing_status_is_an_empty_one(tmp_path):
    folder = RunFolder.create(tmp_path)
    assert folder.read_status() == {}
    for damaged in ('{"state": "runn', "[1]", "7", "[" * 100_000):
        (folder.path / "status.json").write_text(damaged)
        assert folder.read_status() == {}


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "make room or set paths.runs_dir"), (errno.EROFS, "allow it, or set")],
)
def test_a_folder_without_room_for_a_report_is_not_begun(number, advice, tmp_path, monkeypatch):
    folder = RunFolder.create(tmp_path)

    def refuse(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(RunFolderError, match=advice), folder.reporting():
        pass
    assert list(folder.path.iterdir()) == []
