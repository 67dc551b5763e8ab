"""Signals before there is anything to save."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import train
from zoo.app import main as entry
from zoo.app.place import NOTHING, RunLocation
from zoo.app.sweeps import sweep
from zoo.config import compose as composition

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
ROOT = Path(__file__).parents[2]
TINY = (
    *("trainer.epochs=1", "trainer.limit_train_batches=1", "trainer.limit_eval_batches=1"),
    *("logger=off", "model=softmax_regression", "data=digits"),
)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("words", [(), ("-m", "seed=1,2")])
@pytest.mark.parametrize("moment", ["set_up_data", "compose"])
def test_run_that_is_ended_before_it_begins_says_that_there_is_nothing(
    moment, words, name, tmp_path, monkeypatch, capsys
):
    def end(*_, **__):
        os.kill(os.getpid(), getattr(signal, name))
        raise AssertionError("it went on")

    monkeypatch.chdir(tmp_path)
    for owner in (composition, sweep) if moment == "compose" else (RunLocation,):
        monkeypatch.setattr(owner, moment, end)
    before = signal.getsignal(getattr(signal, name))
    assert train.main([*words, *TINY]) == {"SIGTERM": 143, "SIGHUP": 129}[name]
    assert signal.getsignal(getattr(signal, name)) == before == signal.SIG_DFL
    assert capsys.readouterr().err == f"interrupted by {name}\n{NOTHING}\n"
    assert not list(tmp_path.iterdir())


def test_run_that_is_ended_before_its_first_step_names_its_folder(tmp_path, monkeypatch, capsys):
    def end(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(RunLocation, "describe", end)
    assert train.main(list(TINY)) == 143
    (folder,) = Path("runs").glob("*/*")
    said = f"interrupted by SIGTERM\nthere is no checkpoint yet in {folder}\n"
    assert capsys.readouterr().err == said


def test_signal_that_was_ignored_from_the_start_stays_ignored(tmp_path, monkeypatch):
    def go_on(recipe, place):
        os.kill(os.getpid(), signal.SIGHUP)
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert entry.main(go_on, list(TINY)) == 130
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_second_signal_ends_the_process_itself():
    text = "import os, signal\nfrom zoo.training.interruption import early_requests\n"
    text += "with early_requests():\n    try:\n        os.kill(os.getpid(), signal.SIGTERM)\n"
    text += "    except BaseException:\n        os.kill(os.getpid(), signal.SIGTERM)\n"
    assert subprocess.run([sys.executable, "-c", text], cwd=ROOT).returncode == -signal.SIGTERM
