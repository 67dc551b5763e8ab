"""A series of one's own: train, evaluate, and forecast what follows another file."""

import csv
import json
import math
import random

import pytest
import torch

import evaluate
import train
import zoo

WORDS = (
    *("data=series", "data.path=load.csv", "data.time=hour", "data.targets=[load]"),
    *("data.context=24", "data.horizon=6", "data.period=24", "task=sequence_regression"),
    *("trainer.device=cpu", "logger=off", "optimizer.lr=0.01"),
)
LSTM = ("model=rnn_regressor", "model.hidden_size=16")
LINEAR = ("model=linear_regression", "data.flatten=true")


def load(hour):
    return 1000 + 200 * math.sin(2 * math.pi * hour / 24)


def write(path, hours):
    choice = random.Random(0)
    rows = [
        f"2024-03-{hour // 24 + 1:02} {hour % 24:02}:00,{choice.gauss(20, 5):.2f},{load(hour):.3f}"
        for hour in hours
    ]
    path.write_text("\n".join(["hour,temperature,load", *rows, ""]))


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "load.csv", range(480))
    write(tmp_path / "new.csv", range(500, 530))
    return tmp_path


@pytest.mark.parametrize("words", [LSTM, LINEAR], ids=["lstm", "linear"])
def test_what_follows_another_file_is_forecast_in_the_units_of_the_column(words, here, capsys):
    assert train.main([*WORDS, *words, "trainer.epochs=20"]) == 0
    out = capsys.readouterr().out
    assert "series of load.csv: 480 rows from 2024-03-01 00:00 to 2024-03-20 23:00, " in out
    assert "forecast: load; also given: temperature" in out and "predict=<table.csv>" in out
    (run,) = here.glob("runs/*/*")
    assert evaluate.main([f"run={run}", "split=val"]) == 0
    found = json.loads((run / "evaluation-val.json").read_text())
    stored = json.loads((run / "results.json").read_text())["val"]
    assert {name: found[name] for name in stored} == stored
    (here / "load.csv").rename(here / "gone.csv")  # a prediction needs the run folder alone
    assert evaluate.main([f"run={run}", "predict=new.csv", "out=found.csv"]) == 0
    rows = rows_of("found.csv")
    assert [list(row) for row in rows] == [["step", "load"]] * 6
    assert [row["step"] for row in rows] == list("123456")
    forecast = [float(row["load"]) for row in rows]
    # By hand: the last day of the file, standardised, through the model, and back.
    model, data = zoo.load(run)
    window = torch.tensor(
        [[float(row[name]) for name in ("load", "temperature")] for row in rows_of("new.csv")[-24:]]
    )
    scale = json.loads((run / "scale.json").read_text())
    mean, std = (
        torch.tensor([scale[name][part] for name in ("load", "temperature")])
        for part in ("mean", "std")
    )
    window = ((window - mean) / std).unsqueeze(0)
    with torch.no_grad():
        output = model(window.flatten(1) if data.flatten else window)[0]
    assert forecast == pytest.approx((output * std[0] + mean[0]).tolist(), abs=1e-2)
    assert forecast == pytest.approx([load(hour) for hour in range(530, 536)], abs=150)


def test_intervals_of_several_columns_have_a_name_each(here, capsys):
    words = [word for word in WORDS if not word.startswith("data.targets")]
    quantiles = ("task.loss=quantile", "model.out_features=36", "trainer.epochs=5")
    assert train.main([*words, *LSTM, *quantiles]) == 0
    assert "coverage" in capsys.readouterr().out
    (run,) = here.glob("runs/*/*")
    assert evaluate.main([f"run={run}", "predict=new.csv"]) == 0
    rows = rows_of(run / "predictions.csv")
    ends = ("", "_low", "_high")
    columns = [f"{name}{end}" for name in ("temperature", "load") for end in ends]
    assert list(rows[0]) == ["step", *columns] and len(rows) == 6
    assert all(600 < float(row["load"]) < 1400 and float(row["temperature"]) < 60 for row in rows)


def test_what_cannot_be_forecast_is_one_line(here, capsys):
    assert train.main([*WORDS, *LINEAR, "trainer.epochs=1"]) == 0
    (run,) = here.glob("runs/*/*")
    capsys.readouterr()
    write(here / "short.csv", range(20))
    (here / "other.csv").write_text("hour,load\n1,2\n")
    write(here / "gap.csv", [*range(40), *range(41, 60)])
    for words, said in (
        (["predict=short.csv"], "short.csv holds 20 rows, and a forecast needs the last 24: add"),
        (["predict=other.csv"], "other.csv, line 1: there must be one column 'temperature'"),
        (["predict=gap.csv"], "gap.csv, line 42: from '2024-03-02 15:00' to '2024-03-02 17:00'"),
    ):
        assert evaluate.main([f"run={run}", *words]) == 2
        err = capsys.readouterr().err
        assert f"predict: {said}" in err and err.count("\n") == 1
    assert not (run / "predictions.csv").exists()
    text = (run / "scale.json").read_text()
    (run / "scale.json").write_text(text.replace("mean", "maen", 1))
    assert evaluate.main([f"run={run}", "predict=load.csv"]) == 2
    assert "scale.json cannot be read ('mean')" in capsys.readouterr().err
    (run / "scale.json").write_text(text.replace("1", "2"))
    assert evaluate.main([f"run={run}", "predict=load.csv"]) == 2
    assert "scale.json is not as this run wrote it" in capsys.readouterr().err


def test_a_bad_file_leaves_no_run_behind(here, capsys):
    write(here / "load.csv", range(36))
    assert train.main([*WORDS, *LINEAR]) == 1
    err = capsys.readouterr().err
    assert "load.csv holds 36 rows, and windows of 24 and the 6 that follow need " in err
    assert err.count("\n") == 1 and not (here / "runs").exists()
