import threading
from collections import OrderedDict
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
import torch

from tests.training.tiny import (
    At,
    differences,
    fit,
    mlp,
    new_folder,
    read_rows,
    trainer_of,
    without_timings,
)
from zoo.training.callback import Callback
from zoo.training.checkpoints import saving
from zoo.training.checkpoints.background import copied
from zoo.training.checkpoints.checkpoint import CheckpointError, CheckpointFolder, read
from zoo.training.checkpoints.shard_files import ShardError
from zoo.training.distributed.strategy import OneProcess


def test_a_checkpoint_is_written_when_asked_for(tmp_path):
    steps = []

    class Folder(CheckpointFolder):
        def save(self, state, **options):
            steps.append(state["position"]["step"])
            super().save(state, **options)

    def saves(**options):
        steps.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("zoo.training.trainer.CheckpointFolder", Folder)
            patch.setattr(
                "zoo.training.checkpoints.saving.HEARTBEAT_SECONDS", 0.0
            )  # the clock's resolution
            trainer_of(**options).fit(folder=new_folder(tmp_path), callbacks=callbacks)
        return list(steps)

    callbacks = []
    assert saves(epochs=2) == [0, 6, 12]
    assert saves(epochs=1, checkpoints={"every_steps": 2}) == [0, 2, 4, 6, 6]
    assert saves(epochs=1, checkpoints={"every_minutes": 1e-9}) == [0, 1, 2, 3, 4, 5, 6, 6]
    callbacks = [At(3, lambda t: setattr(t.signals, "save", True))]
    assert saves(epochs=1) == [0, 3, 6]


def test_a_beginning_that_is_large_is_not_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "SMALL", 100)
    seen, folder = [], new_folder(tmp_path)

    def look(trainer):
        seen.append(sorted(f.name for f in (folder.path / "checkpoints").glob("*")))

    trainer_of(epochs=1).fit(folder=folder, callbacks=[At(1, look)])
    assert seen == [[]]
    assert (folder.path / "checkpoints" / "last.pt").exists()


def test_there_is_something_to_do_only_when_it_is_time():
    trainer = trainer_of(checkpoints={"every_steps": 3})
    trainer.saving.start_clock()
    trainer.saving._next_housekeeping += 1000
    assert [trainer.saving.is_due(step) for step in (1, 2, 3, 4)] == [False, False, True, False]
    trainer.signals.save = True
    assert trainer.saving.is_due(1)
    trainer.signals.save = False
    trainer.saving._next_housekeeping = 0.0
    assert trainer.saving.is_due(1)


class Clock:
    """Time passes only where a test says so."""

    def __init__(self, monkeypatch, *, save):
        self.now, self.steps = 1000.0, []
        clock = self

        class Folder(CheckpointFolder):
            def save(self, state, **options):
                clock.steps.append(state["position"]["step"])
                clock.now += save
                super().save(state, **options)

        monkeypatch.setattr("zoo.training.trainer.CheckpointFolder", Folder)
        monkeypatch.setattr(saving, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def passes(self, seconds):
        """A callback for each step."""
        return [At(step, lambda _: setattr(self, "now", self.now + seconds)) for step in range(40)]


WORSE = {"monitor": "loss", "mode": "max", "every_minutes": None}
"""The first evaluation is the best."""


@pytest.mark.parametrize(
    ("save", "changes", "expected"),
    [
        (0.9, {}, [0, 2, 4, 6, 8, 10, 12]),  # brief
        (5, {}, [0, 2, 6, 10, 12]),  # after 50 seconds or more
        (20, {}, [0, 2, 12]),  # the beginning, the best, the end
        (20, {"keep_every": 4}, [0, 2, 8, 12]),
        (20, {"every_steps": 5}, [0, 2, 5, 10, 12]),
        (20, {"every_minutes": 1.7}, [0, 2, 8, 12]),
        (20, {"mode": "min"}, [0, 2, 4, 6, 8, 10, 12]),  # each is the best
    ],
    ids=str,
)
def test_long_saves_take_a_small_share_of_the_time(save, changes, expected, tmp_path, monkeypatch):
    clock = Clock(monkeypatch, save=save)
    trainer = trainer_of(epochs=2, evaluate_every=2, checkpoints=WORSE | changes)
    fit(trainer, new_folder(tmp_path), clock.passes(20))
    assert clock.steps == expected


def test_a_signal_and_an_early_stop_always_save(tmp_path, monkeypatch):
    clock = Clock(monkeypatch, save=100)
    options = {"epochs": 3, "evaluate_every": 2, "checkpoints": WORSE}
    now = At(5, lambda trainer: setattr(trainer.signals, "save", True))
    stop = At(7, lambda trainer: trainer.stop("enough"))
    fit(trainer_of(**options), new_folder(tmp_path), [*clock.passes(20), now, stop])
    assert clock.steps == [0, 2, 5, 8]


def test_a_run_killed_after_an_unsaved_evaluation_repeats_it(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(trainer):
        trainer.callbacks.clear()
        raise Killed

    clock = Clock(monkeypatch, save=100)
    options = {"epochs": 2, "evaluate_every": 2, "checkpoints": WORSE}
    whole, parts = new_folder(tmp_path / "a"), new_folder(tmp_path / "b")
    expected = fit(trainer_of(**options), whole, clock.passes(1))
    with pytest.raises(Killed):
        fit(trainer_of(**options), parts, [*clock.passes(1), At(9, kill)])
    clock.steps.clear()
    results = fit(trainer_of(**options), parts, clock.passes(1), resume=True)
    assert clock.steps == [4, 12]  # This process has yet to see how long a save takes.
    assert read_rows(parts.path) == read_rows(whole.path)
    assert {k: results[k] for k in ("val", "test")} == {k: expected[k] for k in ("val", "test")}
    ends = [CheckpointFolder(f.path / "checkpoints").newest()["model"] for f in (whole, parts)]
    assert all(value.equal(ends[1][name]) for name, value in ends[0].items())


def test_shards_that_cannot_be_written_end_the_run_in_one_sentence(tmp_path, monkeypatch):
    def full(self, state, folder):
        failed = Future()
        failed.set_exception(ShardError("cannot write the shards of a checkpoint (No space left)"))
        return state, failed

    trainer, folder = trainer_of(), new_folder(tmp_path)
    trainer.fit(folder=folder)
    before = (folder.path / "checkpoints" / "last.pt").read_bytes()
    monkeypatch.setattr(OneProcess, "write_shards", full)
    longer = trainer_of(epochs=3)
    with pytest.raises(CheckpointError, match=r"No space left\); the checkpoint before it is int"):
        longer.fit(folder=folder, resume=True)
    assert (folder.path / "checkpoints" / "last.pt").read_bytes() == before


class Held(CheckpointFolder):
    """Checkpoints whose writing in the background waits until it is let go on."""

    def save(self, state, **options):
        if threading.current_thread() is not threading.main_thread():
            assert self.go_on.wait(60)
            self.written.append(state["position"]["step"])
        super().save(state, **options)


@pytest.fixture
def held(monkeypatch):
    monkeypatch.setattr("zoo.training.trainer.CheckpointFolder", Held)
    Held.go_on, Held.written = threading.Event(), []
    return Held


SIX = {"epochs": None, "steps": 6, "evaluate_every": 6}
"""Steps, and one evaluation at their end."""


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_steps_go_on_while_a_checkpoint_is_written_and_do_not_change_it(kind, held, tmp_path):
    def state_of_three(folder, background):
        seen = {}

        def look(trainer):
            seen["at 5"] = list(held.written)
            held.go_on.set()
            trainer.saving.complete()
            seen["state"] = read(folder.path / "checkpoints" / "last.pt")

        options = {"checkpoints": {"every_steps": 3, "background": background}, **SIX}
        trainer = trainer_of(mlp(dropout=0.2), kind=kind, ema_decay=0.9, **options)
        trainer.fit(folder=folder, callbacks=[At(5, look)])
        return seen

    late = state_of_three(new_folder(tmp_path / "a"), True)
    at_once = state_of_three(new_folder(tmp_path / "b"), False)
    assert late["at 5"] == [] and held.written == [3, 6]
    assert late["state"]["position"]["step"] == 3
    assert differences(*(without_timings(seen["state"]) for seen in (late, at_once))) == []


def test_a_checkpoint_that_fails_in_the_background_ends_the_run_soon(tmp_path, monkeypatch):
    class Full(CheckpointFolder):
        def save(self, state, **options):
            if threading.current_thread() is not threading.main_thread():
                raise CheckpointError("no room")
            super().save(state, **options)

    monkeypatch.setattr("zoo.training.trainer.CheckpointFolder", Full)
    monkeypatch.setattr("zoo.training.checkpoints.saving.HEARTBEAT_SECONDS", 0.0)
    folder, steps = new_folder(tmp_path), []
    options = {
        "checkpoints": {"every_steps": 3, "background": True},
        "steps": 10**6,
        "evaluate_every": 10**6,
    }

    class Count(Callback):
        def on_step_end(self, trainer):
            steps.append(trainer.step)

    with pytest.raises(CheckpointError, match="no room"):
        fit(trainer_of(epochs=None, **options), folder, [Count()])
    assert len(steps) < 10**5
    assert folder.read_status()["state"] == "failed"
    assert read(folder.path / "checkpoints" / "last.pt")["position"]["step"] == 0


def test_a_run_that_fails_waits_for_its_checkpoint_and_says_if_that_fails_too(held, tmp_path):
    def fail(trainer):
        held.go_on.set()
        raise RuntimeError("something else")

    folder = new_folder(tmp_path)
    options = {"checkpoints": {"every_steps": 3, "background": True}, **SIX}
    with pytest.raises(RuntimeError, match="something else"):
        trainer_of(**options).fit(folder=folder, callbacks=[At(5, fail)])
    assert read(folder.path / "checkpoints" / "last.pt")["position"]["step"] == 3

    def fail_twice(trainer):
        (folder.path / "checkpoints").rename(tmp_path / "gone")
        (folder.path / "checkpoints").write_text("")
        fail(trainer)

    held.go_on.clear()
    with pytest.raises(RuntimeError, match="something else"), pytest.warns(match="cannot make"):
        options["checkpoints"]["every_steps"] = 4
        trainer_of(**options).fit(folder=folder, resume=True, callbacks=[At(5, fail_twice)])


def test_a_copy_of_a_state_shares_nothing_with_it_and_as_much_within():
    class Own(OrderedDict):
        pass

    weight = torch.randn(4, 3)
    state = Own(a=weight, b=[weight, (1, "x", None)], c={"numbers": [1, 2]})
    state._metadata = {"version": 2}
    copy = copied(state)
    assert differences(copy, state) == [] and copy._metadata == state._metadata
    assert copy["a"] is copy["b"][0]
    weight.zero_()
    state["c"]["numbers"].append(3)
    assert copy["a"].any() and copy["c"] == {"numbers": [1, 2]}
