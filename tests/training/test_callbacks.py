import json
import math
import os

import pytest

from tests.training.tiny import (
    At,
    falling,
    new_folder,
    trainer_of,
)
from zoo.training.callback import Callback
from zoo.training.callbacks import EarlyStopping, MetricsFile
from zoo.training.checkpoints.checkpoint import read
from zoo.training.settings import EarlyStoppingSettings


def test_early_stopping_waits_for_its_patience_and_says_why(tmp_path):
    folder = new_folder(tmp_path)
    trainer = falling((3.0, 2.0, 2.5, 1.9, 2.0, 2.0, 1.0), epochs=9)
    stopping = EarlyStopping(EarlyStoppingSettings(patience=2))
    results = trainer.fit(folder=folder, callbacks=[stopping])
    assert results["steps"] == 6 * 6
    assert results["selected_step"] == 4 * 6
    reason = "callbacks.early_stopping.patience=2 (no better loss in 2 evaluations)"
    assert results["ended_by"] == reason
    assert f"stopped early: {reason}" in (folder.path / "log.txt").read_text("utf-8")
    assert folder.read_status()["state"] == "finished"


def test_early_stopping_counts_only_improvements_above_its_threshold():
    trainer = falling((3.0, 2.95, 2.92, 1.0), epochs=9)
    stopping = EarlyStopping(EarlyStoppingSettings(patience=2, min_delta=0.1))
    assert trainer.fit(callbacks=[stopping])["steps"] == 3 * 6


def test_early_stopping_takes_nan_for_no_improvement_even_at_first():
    trainer = falling((math.nan, 2.0, 1.0, 1.5, 1.5), epochs=9)
    stopping = EarlyStopping(EarlyStoppingSettings(patience=2))
    assert trainer.fit(callbacks=[stopping])["steps"] == 5 * 6


def rows_of(folder):
    text = (folder.path / "metrics.jsonl").read_text("utf-8")

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_what_is_not_finite_is_null_in_every_file_and_noted(tmp_path):
    folder = new_folder(tmp_path)
    trainer = falling((math.nan, math.inf), epochs=2)
    trainer.fit(folder=folder, callbacks=[MetricsFile(folder.path)])
    validations = [row for row in rows_of(folder) if row["split"] == "val"]
    assert [row["loss"] for row in validations] == [None, None]
    text = (folder.path / "results.json").read_text("utf-8")
    assert "NaN" not in text and "Infinity" not in text
    assert folder.read("results.json")["val"]["loss"] is None
    log = (folder.path / "log.txt").read_text("utf-8")
    assert log.count("loss is nan at step 6: null in JSON") == 1


@pytest.mark.parametrize("cut", [1, 40, 10_000])
def test_rows_that_a_power_failure_cut_off_are_missed_and_the_next_is_whole(cut, tmp_path):
    folder = new_folder(tmp_path)
    trainer_of(epochs=1).fit(folder=folder, callbacks=[MetricsFile(folder.path)])
    file = folder.path / "metrics.jsonl"
    before = rows_of(folder)
    state = read(folder.path / "checkpoints" / "last.pt")["callbacks"]["MetricsFile"]
    os.truncate(file, max(0, state["bytes"] - cut))
    with pytest.warns(UserWarning, match="metrics.jsonl is shorter than its checkpoint"):
        trainer_of(epochs=2).fit(folder=folder, callbacks=[MetricsFile(folder.path)], resume=True)
    after = rows_of(folder)
    kept = [row for row in after if row in before]
    assert kept == before[: len(kept)] and len(kept) < len(before)
    assert {row["step"] for row in after[len(kept) :]} >= {12}


def test_rows_are_on_the_disk_before_the_checkpoint_that_counts_them(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(handle), fsync(handle))[1])
    file = MetricsFile(tmp_path)
    file.on_fit_start(None)
    file.state_dict()
    assert synced == [file._file.fileno()]
    file.on_fit_end(None, None)


class Diary(Callback):
    def __init__(self, events, name):
        self.events, self.name = events, name

    def on_fit_start(self, trainer):
        self.events.append(f"{self.name} start")

    def on_step_end(self, trainer):
        self.events.append(f"{self.name} step {trainer.step}")

    def on_log(self, trainer, row):
        self.events.append(f"{self.name} log {row['split']}")

    def on_evaluation_end(self, trainer, split, metrics):
        self.events.append(f"{self.name} {split}")

    def on_fit_end(self, trainer, results):
        self.events.append(f"{self.name} end {results is not None}")


def test_events_come_in_this_order_and_each_to_every_callback_in_turn():
    events = []
    trainer = trainer_of(epochs=1, limit_train_batches=2)
    trainer.fit(callbacks=[Diary(events, "a"), Diary(events, "b")])
    of_a = [
        "start",
        "log train",
        "step 1",
        "log train",
        "step 2",
        "log val",
        "val",
        "log test",
        "test",
        "end True",
    ]
    assert [e[2:] for e in events if e.startswith("a")] == of_a
    assert events == [f"{name} {event}" for event in of_a for name in "ab"]


def test_a_callback_that_fails_at_the_end_does_not_hide_the_first_error(tmp_path):
    events = []

    class Failing(Callback):
        def on_fit_end(self, trainer, results):
            events.append(results)
            raise ValueError("at the end")

    def fail(trainer):
        raise ZeroDivisionError("in the middle")

    folder = new_folder(tmp_path)
    diary = Diary(events, "a")
    with pytest.raises(ZeroDivisionError, match="in the middle"):
        trainer_of().fit(folder=folder, callbacks=[Failing(), At(2, fail), diary])
    assert events[-2:] == [None, "a end False"]  # and those after it still hear of the end
    assert folder.read_status()["error"] == "ZeroDivisionError: in the middle"
    assert "in the middle" in (folder.path / "log.txt").read_text("utf-8")


def test_a_callback_that_fails_at_the_end_of_a_good_run_is_reported(tmp_path):
    class Failing(Callback):
        def on_fit_end(self, trainer, results):
            raise ValueError("at the end")

    folder = new_folder(tmp_path)
    with pytest.raises(ValueError, match="at the end"):
        trainer_of(epochs=1).fit(folder=folder, callbacks=[Failing()])
    assert folder.read_status()["state"] == "failed"


def test_two_callbacks_of_one_class_keep_their_own_memories(tmp_path):
    class Memory(Callback):
        def __init__(self, value):
            self.value = value

        def state_dict(self):
            return {"value": self.value}

        def load_state_dict(self, state):
            self.value = state["value"]

    folder = new_folder(tmp_path)
    trainer_of(epochs=1).fit(folder=folder, callbacks=[Memory(1), Memory(2)])
    again = [Memory(0), Memory(0), Memory(3)]
    trainer_of(epochs=1).fit(folder=folder, callbacks=again, resume=True)
    assert [memory.value for memory in again] == [1, 2, 3]
