import io
import re

import pytest

from tests.training.tiny import At, trainer_of
from zoo.training import console
from zoo.training.console import Console
from zoo.training.settings import LoggerSettings


def said(capsys, style, **options):
    trainer_of(epochs=1, log_every=3, **options).fit(
        callbacks=[Console(LoggerSettings(console=style))]
    )
    return capsys.readouterr().out.splitlines()


def test_lines_have_split_epoch_step_and_values(capsys):
    start, train, _, val, test = said(capsys, "lines")
    assert (
        start
        == "MLP, 83 parameters; samples: train 22, val 10, test 7; to step 6, 6 steps an epoch"
    )
    assert train.startswith("train epoch 0.5    step 3/6  loss ")
    assert train.endswith(" samples/s")
    assert val.startswith("val   epoch 1      step 6/6  loss ")
    assert test.startswith("test ")


def test_training_metrics_are_for_charts_alone(capsys):
    assert len(said(capsys, "lines", train_metrics=True)) == 5


def test_off_says_nothing(capsys):
    assert said(capsys, "off") == []


def test_auto_is_lines_where_there_is_no_terminal(capsys):
    assert Console(LoggerSettings(console="auto")).style == "lines"


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_bar_leaves_the_lines_of_evaluations(capsys, split):
    pytest.importorskip("rich")
    assert any(line.startswith(split) for line in said(capsys, "bar"))


def test_a_bar_knows_the_step_without_a_line_of_the_curve(monkeypatch):
    pytest.importorskip("rich")
    trainer, seen = trainer_of(epochs=1, log_every=100), []
    shown = Console(LoggerSettings(console="bar"))

    def look(trainer):
        shown._bar.refresh()
        seen.append(shown._bar.tasks[0].completed)

    trainer.fit(callbacks=[shown, At(1, look), At(4, look)])
    assert seen == [1, 4]


def test_a_bar_is_up_to_date_whenever_a_line_is_printed_above_it():
    rich = pytest.importorskip("rich")
    drawn, before = io.StringIO(), rich.get_console().__dict__.copy()
    try:
        rich.reconfigure(file=drawn, force_terminal=True, width=100)
        trainer_of(epochs=1, log_every=3).fit(callbacks=[Console(LoggerSettings(console="bar"))])
    finally:
        rich.get_console().__dict__ = before
    bars = re.findall(r"(?:\r|\x1b\S*|^)step (\d)/6 \x1b|(val) |(test) ", drawn.getvalue())
    found = ["".join(groups) for groups in bars]
    assert found[0] == "0" and found[-1] == "6"
    for split in ("val", "test"):  # A run of less than a quarter of a second was never drawn again.
        assert found[found.index(split) + 1] == "6"


def test_a_slow_run_says_how_far_it_is_without_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(console, "FIRST_LINE", 0.0)
    monkeypatch.setattr(console, "SILENCE", 0.0)
    monkeypatch.setattr("zoo.training.checkpoints.saving.HEARTBEAT_SECONDS", 0.0)
    lines = said(capsys, "lines")
    slow = [line for line in lines if line.startswith("train step ")]
    assert slow[0].startswith("train step 1/6  ") and slow[0].endswith(" steps/s")


def test_between_two_lines_there_is_silence(capsys, monkeypatch):
    monkeypatch.setattr(console, "FIRST_LINE", 0.0)
    monkeypatch.setattr("zoo.training.checkpoints.saving.HEARTBEAT_SECONDS", 0.0)
    lines = said(capsys, "lines")
    assert sum(line.startswith("train step ") for line in lines) == 1  # before the first of them
