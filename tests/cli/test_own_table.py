"""A table of one's own: train, evaluate, and predict rows that the network has never seen."""

import csv
import json

import numpy as np
import pytest
import torch

import evaluate
import train
from zoo.training.checkpoints.checkpoint import read

QUIET = ("trainer.device=cpu", "logger=off", "trainer.threads=1")
CHURN = (
    *("data=table", "data.path=train.csv", "data.test=test.csv", "data.target=churn"),
    *("data.categorical=[zip]", "model=mlp", "model.hidden_sizes=[16]", "task=classification"),
    *("optimizer=adamw", "optimizer.lr=0.01", *QUIET),
)


def customers(count, seed, *, churn=True):
    """Text, gaps, an identifier, and few who leave: those of one city, as a rule."""
    draw = np.random.default_rng(seed)
    lines = []
    for number in range(count):
        city = draw.choice(["York", "Leeds", "Hull", ""], p=[0.45, 0.35, 0.15, 0.05])
        age = "NA" if draw.random() < 0.1 else draw.integers(18, 80)
        leaves = draw.random() < (0.9 if city == "Hull" else 0.02)
        row = [
            1000 + number,
            age,
            city,
            draw.choice(["10115", "20095"]),
            draw.choice(["yes", "no"]),
        ]
        lines.append([*row, ("yes" if leaves else "no")] if churn else row)
    head = ["customer_id", "age", "city", "zip", "member", *(["churn"] if churn else [])]
    return "\n".join(",".join(map(str, line)) for line in [head, *lines]) + "\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.csv").write_text(customers(300, 0))
    (tmp_path / "test.csv").write_text(customers(100, 1))
    return tmp_path


def predictions(file):
    with open(file, newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def test_rows_are_classified_from_the_run_folder_alone(here, capsys):
    assert train.main((*CHURN, "trainer.epochs=15")) == 0
    out = capsys.readouterr().out
    assert "train.csv: 300 rows; 255 train, 45 val, 100 test\n" in out
    assert "target, classes (task=classification): churn, in training no " in out
    assert "number: age\nboolean: member\ncategory: city, zip\n" in out
    assert "left out: customer_id (an identifier)\n" in out and "predict=<table>" in out
    (run,) = here.glob("runs/*/*")
    stored = json.loads((run / "results.json").read_text())["test"]
    assert evaluate.main([f"run={run}"]) == 0
    assert json.loads((run / "evaluation-test.json").read_text())["loss"] == stored["loss"]
    (here / "train.csv").unlink()
    capsys.readouterr()
    assert evaluate.main([f"run={run}", "predict=test.csv", "out=found.csv"]) == 0
    assert "100 predictions\nfound.csv\n" in capsys.readouterr().out
    rows = predictions("found.csv")
    assert list(rows[0]) == ["row", "customer_id", "class", "probability"]
    assert [row["customer_id"] for row in rows] == [str(1000 + i) for i in range(100)]
    true = [row["churn"] for row in predictions("test.csv")]
    right = sum(row["class"] == name for row, name in zip(rows, true, strict=True))
    assert right / 100 == pytest.approx(stored["accuracy"])
    assert right / 100 > 0.9 > true.count("no") / 100  # better than the most frequent class


def test_what_is_new_in_a_table_is_said_and_what_is_wrong_refused(here, capsys):
    assert train.main((*CHURN, "trainer.epochs=1")) == 0
    (run,) = here.glob("runs/*/*")
    new = here / "new.csv"
    new.write_text(customers(5, 2, churn=False).replace("York", "Rome").replace("Leeds", "Rome"))
    assert evaluate.main([f"run={run}", "predict=new.csv"]) == 0
    assert "that no training row has ('Rome'): all zeros\n" in capsys.readouterr().err
    assert len(predictions(run / "predictions.csv")) == 5
    for text, said in (
        ("age,zip,member\n44,10115,no\n", "predict: new.csv has no column 'city'"),
        (
            "age,zip,member,city\nx,1,no,York\n",
            "predict: new.csv, line 2: the column 'age' has 'x'",
        ),
        ("", "predict: new.csv holds no row below its header"),
    ):
        new.write_text(text)
        assert evaluate.main([f"run={run}", "predict=new.csv"]) == 2
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1
    content = (run / "table.json").read_text()
    (run / "table.json").write_text(content.replace('"yes"', '"nay"'))
    new.write_text(customers(5, 2, churn=False))
    assert evaluate.main([f"run={run}", "predict=new.csv"]) == 2
    assert "table.json is not as this run wrote it" in capsys.readouterr().err


def test_a_task_for_other_targets_is_refused_with_the_one_that_fits(here, capsys):
    lines = [f"{i / 7:.3f},{i % 2},{i // 2 % 2},{'pq'[i % 2]}" for i in range(60)]
    (here / "two.csv").write_text("\n".join(["x,a,b,name", *lines, ""]))
    table = ("data=table", "data.path=two.csv", "trainer.epochs=1", *QUIET)
    mlp = ("model=mlp", "model.num_classes=2")
    for words, said in (
        (("data.target=x", "model=mlp"), "the target 'x' is a number: set task=regression"),
        (
            ("data.target=name", "task=regression", "model=linear_regression"),
            "the target 'name' has 2 classes: set task=classification",
        ),
        (("data.target=name", "task=regression", *mlp), "are classes: set task=classification"),
        (("data.target=[a,b]", *mlp), "set task=multi_label_classification for labels"),
        (("data.target=nix", "model=mlp"), "one column 'nix', not 0"),
    ):
        assert train.main((*table, *words)) in (1, 2)
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1
    assert not (here / "runs").exists()


def test_numbers_are_predicted_in_their_own_units(here, capsys):
    (here / "line.csv").write_text("x,price,split\n1,5,train\n2,10,train\n2,10,val\n")
    (here / "new.csv").write_text("x\n3\n-1\n")
    words = (
        *("data=table", "data.path=line.csv", "data.target=price", "data.split=split"),
        *("data.batch_size=null", "model=linear_regression", "task=regression", "optimizer=sgd"),
        *("schedule=constant", *QUIET),
    )
    assert train.main((*words, "trainer.epochs=300", "trainer.evaluate_every=100")) == 0
    (run,) = here.glob("runs/*/*")
    assert evaluate.main([f"run={run}", "predict=new.csv", "out=found.csv"]) == 0
    found = predictions("found.csv")
    assert [list(row) for row in found] == [["row", "price"]] * 2
    assert [float(row["price"]) for row in found] == pytest.approx([15, -5], abs=1e-5)
    interval = ("model.out_features=2", "task.loss=gaussian_nll", "trainer.epochs=3")
    assert train.main((*words, *interval)) == 0
    run = max(here.glob("runs/*/*"), key=lambda path: path.stat().st_mtime_ns)
    assert evaluate.main([f"run={run}", "predict=new.csv", "out=intervals.csv"]) == 0
    for row in predictions("intervals.csv"):
        low, value, high = (float(row[name]) for name in ("price_low", "price", "price_high"))
        assert value - low == pytest.approx(high - value, rel=1e-3) and value - low > 1


def test_a_run_goes_on_with_what_it_has_learned(here):
    words = (*CHURN, "schedule=constant", "trainer.epochs=null")
    assert train.main((*words, "trainer.steps=12", "name=whole")) == 0
    assert train.main((*words, "trainer.steps=5", "name=parts")) == 0
    (whole,), (parts,) = here.glob("runs/whole/*"), here.glob("runs/parts/*")
    assert train.main((f"resume={parts}", "trainer.steps=12")) == 0
    assert (whole / "table.json").read_text() == (parts / "table.json").read_text()
    first, second = (read(run / "checkpoints" / "last.pt")["model"] for run in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_codes_are_for_a_model_with_embeddings(here, capsys):
    words = ("data=penguins", "data.categories=codes", "task=classification", "trainer.epochs=1")
    assert train.main((*words, *QUIET, "model=entity_embeddings", "model.hidden_sizes=[8]")) == 0
    (run,) = here.glob("runs/*/*")
    (here / "new.csv").write_text(
        "bill_length_mm,bill_depth_mm,flipper_length_mm,body_mass_g,year,island,sex\n"
        "39.1,18.7,181,3750,2007,Biscoe,NA\n,,,,2008,Atlantis,male\n"
    )
    assert evaluate.main([f"run={run}", "predict=new.csv"]) == 0
    assert "('Atlantis'): code 0" in capsys.readouterr().err
    assert len(predictions(run / "predictions.csv")) == 2
    assert train.main((*words, *QUIET, "model=mlp")) == 2
    assert "model.in_features=auto: the categories are codes: set" in capsys.readouterr().err
    assert train.main((*words[:1], *words[2:], *QUIET, "model=entity_embeddings")) == 2
    assert "set data.categories=codes" in capsys.readouterr().err


def test_classes_with_an_order_from_the_table_to_predictions(here, capsys):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, generator=generator)
    noise = 0.3 * torch.randn(200, generator=generator)
    names = ("low", "middle", "high")
    levels = torch.bucketize(x + noise, torch.tensor([-0.7, 0.7])).tolist()
    lines = [f"{v:.4f},{names[level]}" for v, level in zip(x.tolist(), levels, strict=True)]
    (here / "levels.csv").write_text("\n".join(["x,level", *lines, ""]))
    words = ("data=table", "data.path=levels.csv", "data.target=level", "model=ordinal_regression")
    words += ("task=classification", "task.ordinal=true", "optimizer=adam", "optimizer.lr=0.05")
    words += (*QUIET, "trainer.epochs=30")
    assert train.main((*words, "data.class_names=[low,middle,high]")) == 0
    (run,) = here.glob("runs/*/*")
    results = json.loads((run / "results.json").read_text())["test"]
    assert results["quadratic_kappa"] > 0.8 and results["class_mae"] < 0.2
    (here / "new.csv").write_text("x\n-3\n0\n3\n")
    assert evaluate.main([f"run={run}", "predict=new.csv"]) == 0
    assert [row["class"] for row in predictions(run / "predictions.csv")] == list(names)
    assert train.main((*words, "data.class_names=[low,high]")) != 0
    assert "which 'middle' does not fit" in capsys.readouterr().err


def test_several_targets_of_different_kinds_are_predicted_side_by_side(here, capsys):
    lines = (here / "train.csv").read_text().splitlines()
    priced = [f"{line},{'spend' if not n else 10 * n % 970}" for n, line in enumerate(lines)]
    (here / "train.csv").write_text("\n".join([*priced, ""]))
    drop = ("data.test=test.csv", "data.target=churn", "task=classification")
    words = [word for word in CHURN if word not in drop]
    words += ["data.target=[churn,spend]", "task=multi_task", "task.target_weights=[2,1]"]
    assert train.main((*words, "trainer.epochs=15")) == 0
    (run,) = here.glob("runs/*/*")
    stored = json.loads((run / "results.json").read_text())["test"]
    assert {"loss", "churn_accuracy", "spend_rmse", "spend_r2"} <= stored.keys()
    (here / "train.csv").unlink()
    assert evaluate.main([f"run={run}", "predict=test.csv", "out=found.csv"]) == 0
    rows = predictions("found.csv")
    assert list(rows[0]) == ["row", "customer_id", "churn", "churn_probability", "spend"]
    assert {row["churn"] for row in rows} == {"yes", "no"}
    assert 200 < np.mean([float(row["spend"]) for row in rows]) < 800  # its own units
    (here / "train.csv").write_text("\n".join([*priced, ""]))
    capsys.readouterr()
    assert train.main((*words[:-2], "task=classification")) == 2
    assert "the targets are of several kinds: set task=multi_task" in capsys.readouterr().err
    assert train.main((*words[:-2], "task=regression")) == 2
    assert "predictions of the targets' shape (64, 2), not (64, 3)" in capsys.readouterr().err
