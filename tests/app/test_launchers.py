"""Sweeps whose jobs run in processes of their own: joblib's, and those of a queue."""

import os
import signal

import pytest

import train
from faults.outcomes import assert_same, outcome
from zoo.app import main as entry
from zoo.app.sweeps.queued import gpu_of_job
from zoo.training.callback import Callback
from zoo.training.checkpoints.checkpoint import read
from zoo.training.interruption import Interrupted, Signals, queue_signal
from zoo.training.run_folder import RunFolder

TINY = [
    *("data=digits", "model=mlp", "model.hidden_sizes=[8]", "trainer.epochs=2"),
    *("trainer.limit_train_batches=4", "trainer.limit_eval_batches=1", "trainer.log_every=2"),
    *("trainer.device=cpu", "trainer.threads=1", "logger=off"),
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def folder_of(capsys, here):
    return here / capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("number", "device", "devices", "expected"),
    [
        (0, "auto", 4, "cuda:0"),
        (5, "auto", 4, "cuda:1"),
        (5, "auto", 1, "auto"),
        (5, "auto", 0, "auto"),
        (5, "cuda:0", 4, "cuda:0"),
        (5, "cpu", 4, "cpu"),
    ],
)
def test_jobs_beside_one_another_have_gpus_by_their_numbers(number, device, devices, expected):
    assert gpu_of_job(number, device, devices) == expected


@pytest.mark.slow
def test_jobs_of_joblib_train_what_one_process_trains(here, capsys):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="pip install '.[sweeps]'")
    words = ["-m", *TINY, "seed=1,2,1"]
    assert train.main(words) == 0
    alone = folder_of(capsys, here)
    parallel = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    assert train.main([*words, *parallel]) == 0
    together = folder_of(capsys, here)
    assert sorted(p.name for p in together.glob("*/")) == ["0-seed-1", "1-seed-2"]
    for name in ("0-seed-1", "1-seed-2"):
        assert_same(together / name, outcome(alone / name))
    rows = [(folder / "sweep.csv").read_text().splitlines() for folder in (alone, together)]
    assert len(rows[0]) == len(rows[1]) == 3 and rows[0][0] == rows[1][0]
    assert RunFolder(together / "0-seed-1").read_status()["pid"] != os.getpid()


class Preempted(Callback):
    """Has the queue send its signals in the fifth step of the run, as Slurm does: SIGTERM first."""

    def on_step_end(self, trainer):
        if trainer.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGUSR2)


def preempted(recipe, place):
    place.callbacks = [] if place.resume else [Preempted()]
    return train.train(recipe, place)


@pytest.mark.slow
def test_a_job_that_its_queue_preempts_is_queued_again_and_goes_on(here, capsys):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install '.[sweeps]'")
    assert entry.main(preempted, ["-m", *TINY, "seed=1", "hydra/launcher=submitit_local"]) == 0
    folder = folder_of(capsys, here)
    assert train.main([*TINY, "seed=1"]) == 0
    run = folder / "0"
    assert_same(run, outcome(folder_of(capsys, here)))
    log = (run / "log.txt").read_text()
    assert "interrupted by SIGUSR2 at step 5; the state is saved" in log
    assert log.count("running, process") == 2
    (said,) = folder.glob(".submitit/*/*.out")
    assert "going on from step 5" in said.read_text()


@pytest.fixture
def job_of_a_queue(monkeypatch):
    """The signals that reach submitit's own handlers in this process, which is like one of its."""
    received = []
    before = {
        number: signal.signal(number, lambda number, frame: received.append(number))
        for number in (signal.SIGTERM, signal.SIGUSR2)
    }
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.delenv("SUBMITIT_PREEMPT_SIGNAL", raising=False)
    yield received
    for number, handler in before.items():
        signal.signal(number, handler)


def test_only_the_queue_ends_a_run_in_one_of_its_jobs(job_of_a_queue):
    with Signals() as signals:
        signal.raise_signal(signal.SIGTERM)  # Slurm's first word before it preempts
        signals.check()
        assert signals.save
        signal.raise_signal(signal.SIGUSR2)
        with pytest.raises(Interrupted, match="SIGUSR2"):
            signals.check()
    assert job_of_a_queue == []
    signal.raise_signal(signal.SIGUSR2)  # Afterwards submitit hears it again.
    assert job_of_a_queue == [signal.SIGUSR2]


def test_what_submitit_leaves_alone_is_no_signal_of_a_queue(job_of_a_queue, monkeypatch):
    assert queue_signal() == signal.SIGUSR2
    monkeypatch.setenv("SUBMITIT_PREEMPT_SIGNAL", "USR1")
    assert queue_signal() is None  # nobody listens to it
    monkeypatch.delenv("SUBMITIT_PREEMPT_SIGNAL")
    monkeypatch.delenv("SUBMITIT_EXECUTOR")
    assert queue_signal() is None


def test_a_job_that_may_not_be_queued_again_stays_interrupted(here, capsys, job_of_a_queue):
    def refuse(number, frame):
        raise RuntimeError("Job not requeued because: timed-out too many times.")

    signal.signal(signal.SIGUSR2, refuse)
    assert entry.main(preempted, ["-m", *TINY, "seed=1,2"]) == 1
    folder = folder_of(capsys, here)
    for run in folder.glob("*-seed-*"):
        assert RunFolder(run).read_status()["state"] == "interrupted"
        assert read(run / "checkpoints" / "last.pt")["position"]["step"] == 5
    assert len((folder / "sweep.csv").read_text().splitlines()) == 3
