import pytest

from tests.training.tiny import trainer_of
from zoo.training.console import Console
from zoo.training.settings import LoggerSettings


def said(capsys, style, **options):
    trainer_of(epochs=1, log_every=3, **options).fit(
        callbacks=[Console(LoggerSettings(console=style))]
    )
    return capsys.readouterr().out.splitlines()


def test_lines_have_split_epoch_step_and_values(capsys):
    train, _, val, test = said(capsys, "lines")
    assert train.startswith("train epoch 0.5    step 3/6  loss ")
    assert train.endswith("/s")
    assert val.startswith("val   epoch 1      step 6/6  loss ")
    assert test.startswith("test ")


def test_training_metrics_are_for_charts_alone(capsys):
    assert len(said(capsys, "lines", train_metrics=True)) == 4


def test_off_says_nothing(capsys):
    assert said(capsys, "off") == []


def test_auto_is_lines_where_there_is_no_terminal(capsys):
    assert Console(LoggerSettings(console="auto")).style == "lines"


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_bar_leaves_the_lines_of_evaluations(capsys, split):
    pytest.importorskip("rich")
    assert any(line.startswith(split) for line in said(capsys, "bar"))
