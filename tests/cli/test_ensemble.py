"""evaluate.py run=<several> ensemble=...: runs that answer together."""

import csv
import json
import shutil

import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

import evaluate
import train
import zoo

QUICK = ("trainer.epochs=2", "logger=off", "model=mlp", "model.hidden_sizes=[16]")
DIGITS = ("experiment=lenet_digits", "data.image_size=8", "data.augment=false", *QUICK)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    place = tmp_path_factory.mktemp("ensemble")
    assert train.main(["-m", *DIGITS, "seed=0,1,2", f"paths.runs_dir={place}"]) == 0
    (folder,) = place.glob("*/sweep-*")
    return folder


@pytest.fixture(scope="module")
def regressions(tmp_path_factory):
    place = tmp_path_factory.mktemp("regressions")
    words = ("experiment=linear_diabetes", "trainer.epochs=null", "logger=off")
    code = train.main(["-m", *words, "trainer.steps=5,20,500", f"paths.runs_dir={place}"])
    assert code == 0
    (folder,) = place.glob("*/sweep-*")
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    return tmp_path


def stored(path):
    return json.loads(path.read_text())


def runs_of(sweep):
    return sorted(path for path in sweep.iterdir() if path.is_dir())


def test_a_sweep_is_judged_beside_its_members(sweep, here, capsys):
    assert evaluate.main([f"run={sweep}", "ensemble=mean"]) == 0
    found = stored(sweep / "evaluation-test-ensemble-mean.json")
    metrics = ["loss", "accuracy", "calibration_error", "disagreement"]
    assert list(found) == ["split", "ensemble", *metrics, "members"]
    results = [stored(run / "results.json")["test"] for run in runs_of(sweep)]
    for member, result in zip(found["members"], results, strict=True):
        assert {name: member[name] for name in result} == pytest.approx(result)
        assert member["weight"] == pytest.approx(1 / 3)
    assert found["loss"] < sum(result["loss"] for result in results) / 3
    assert 0 < found["disagreement"] < 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "test, 3 members"
    assert lines[2].split()[0] == "0-seed-0" and lines[-2].startswith("ensemble=mean")


def test_one_member_is_that_run(sweep, here):
    run = runs_of(sweep)[1]
    expected = stored(run / "results.json")["test"]
    for rule in ("mean", "vote", "weighted"):
        out = here / f"{rule}.json"
        assert evaluate.main([f"run={run}", f"ensemble={rule}", f"out={out}"]) == 0
        found = stored(out)
        assert found["accuracy"] == expected["accuracy"] and found["disagreement"] == 0
        assert ("loss" in found) == (rule != "vote")
        assert found.get("loss", expected["loss"]) == pytest.approx(expected["loss"], rel=1e-5)


def test_weights_are_found_on_val_and_do_at_least_as_well_there_as_the_mean(sweep, here):
    loss = {}
    for rule in ("mean", "weighted"):
        words = (f"run={sweep}", f"ensemble={rule}", "split=val", f"out={rule}.json")
        assert evaluate.main([*words]) == 0
        loss[rule] = stored(here / f"{rule}.json")["loss"]
    weights = [member["weight"] for member in stored(here / "weighted.json")["members"]]
    assert sum(weights) == pytest.approx(1) and min(weights) >= 0
    assert loss["weighted"] < loss["mean"]


def test_stacking_is_fitted_on_val_and_judged_elsewhere(sweep, here, capsys):
    """The test's figures are those of scikit-learn's model of what the members say of val."""
    assert evaluate.main([f"run={sweep}", "ensemble=stacking"]) == 0
    said = "stacking: logistic regression on log-probabilities of 3 members, fitted on 269 samples"
    assert capsys.readouterr().out.startswith(f"{said} of val\n")
    found = stored(sweep / "evaluation-test-ensemble-stacking.json")
    assert found["fitted_on"] == "val" and "weight" not in found["members"][0]
    features, targets = {"val": [], "test": []}, {}
    for run in runs_of(sweep):
        model, data = zoo.load(run)
        data.setup()
        for split, columns in features.items():
            batches = list(data.batches(split, 0))
            with torch.no_grad():
                columns += [torch.cat([model(x).log_softmax(1) for x, _ in batches])]
            targets[split] = torch.cat([y for _, y in batches])
    matrix = {split: torch.cat(columns, 1).double() for split, columns in features.items()}
    theirs = LogisticRegression(max_iter=10_000, tol=1e-8).fit(matrix["val"], targets["val"])
    probabilities = theirs.predict_proba(matrix["test"])
    assert found["loss"] == pytest.approx(log_loss(targets["test"], probabilities), rel=1e-3)
    assert found["accuracy"] == pytest.approx(theirs.score(matrix["test"], targets["test"]))
    assert evaluate.main([f"run={sweep}", "ensemble=stacking", "split=val"]) == 2
    assert "is fitted on val and cannot be judged there" in capsys.readouterr().err


def test_stacked_regressions_answer_in_the_targets_units(regressions, here, capsys):
    assert evaluate.main([f"run={regressions}", "ensemble=stacking", "out=all.json"]) == 0
    assert "stacking: ridge regression of 3 members, fitted on" in capsys.readouterr().out
    assert stored(here / "all.json")["r2"] > 0.3


def test_listed_runs_are_written_only_where_it_is_said(sweep, here, capsys):
    first, _, last = runs_of(sweep)
    before = sorted(sweep.rglob("*"))
    assert evaluate.main([f"run={first},{last}", "ensemble=mean"]) == 0
    assert "not written anywhere: name a file with out=<file.json>" in capsys.readouterr().out
    assert sorted(sweep.rglob("*")) == before
    kept = f"{first}/checkpoints/best.pt,{first}/checkpoints/last.pt"
    assert evaluate.main([f"run={kept}", "ensemble=mean", "out=two.json"]) == 0
    assert [member["run"] for member in stored(here / "two.json")["members"]] == [str(first)] * 2
    assert evaluate.main([f"run={first},{last}", "ensemble=mean", "out=two.json"]) == 2
    assert "already exists" in capsys.readouterr().err


def test_snapshots_of_one_run_answer_together(here):
    words = ("schedule=cosine_restarts", "schedule.period=1", "callbacks.checkpoint.keep_every=1")
    assert train.main([*DIGITS, *words, "paths.runs_dir=runs"]) == 0
    (run,) = here.glob("runs/*/*")
    kept = sorted((run / "checkpoints").glob("kept-*.pt"))
    assert evaluate.main([f"run={run}/checkpoints", "ensemble=mean"]) == 0
    members = stored(run / "evaluation-test-ensemble-mean.json")["members"]
    assert [member["run"] for member in members] == [str(file.relative_to(here)) for file in kept]
    assert [member["step"] for member in members] == [20, 40]


def test_regressions_are_averaged_and_the_spread_is_what_that_gains(regressions, here):
    assert evaluate.main([f"run={regressions}", "ensemble=mean", "out=all.json"]) == 0
    found = stored(here / "all.json")
    mean = sum(member["loss"] for member in found["members"]) / 3
    assert found["loss"] == pytest.approx(mean - found["spread"], rel=1e-5)
    assert found["spread"] > 0.01


def test_an_ensemble_predicts(sweep, here, capsys):
    for name in ("a", "b"):
        Image.new("L", (8, 8), 90 if name == "a" else 250).save(here / f"{name}.png")
    assert evaluate.main([f"run={sweep}", "ensemble=mean", "predict=.", "out=all.csv"]) == 0
    probabilities = []
    for number, run in enumerate(runs_of(sweep)):
        words = (f"run={run}", "ensemble=mean", "predict=a.png", f"out={number}.csv")
        assert evaluate.main([*words]) == 0
    with open("all.csv") as file:
        rows = list(csv.DictReader(file))
    for number in range(3):
        with open(f"{number}.csv") as file:
            (row,) = csv.DictReader(file)
        probabilities.append(float(row["probability"]) if row["class"] == rows[0]["class"] else 0)
    assert [row["path"] for row in rows] == ["a.png", "b.png"]
    assert 0 < float(rows[0]["probability"]) <= max(probabilities)
    pair = ",".join(map(str, runs_of(sweep)[:2]))
    assert evaluate.main([f"run={pair}", "ensemble=mean", "predict=a.png"]) == 2
    assert "add out=" in capsys.readouterr().err


def test_runs_that_are_not_finished_are_left_out(sweep, here):
    place = here / "sweep"
    shutil.copytree(sweep, place)
    status = next(place.glob("1-*")) / "status.json"
    status.write_text(json.dumps(stored(status) | {"state": "failed"}))
    assert evaluate.main([f"run={place}", "ensemble=mean"]) == 0
    assert len(stored(place / "evaluation-test-ensemble-mean.json")["members"]) == 2


def test_members_of_other_data_or_kinds_are_refused(sweep, regressions, here, capsys):
    assert train.main([*DIGITS, "data.split_seed=1", f"paths.runs_dir={here}/runs"]) == 0
    (other,) = (here / "runs").glob("lenet_digits/*")
    words = ("task.loss=hinge", "task.label_smoothing=0", f"paths.runs_dir={here}/runs/hinge")
    assert train.main([*DIGITS, *words]) == 0
    (hinge,) = (here / "runs" / "hinge").glob("*/*")
    first, number = runs_of(sweep)[0], runs_of(regressions)[0]
    for run, ours, message in (
        (f"{first},{other}", "ensemble=mean", "data.split_seed=0 in one and 1 in the other"),
        (f"{first},{number}", "ensemble=mean", "cannot be joined with"),
        (f"{number},{number}", "ensemble=vote", "these runs predict no classes"),
        (
            f"{first},{other}",
            "ensemble=most",
            "ensemble=most: must be one of mean, vote, weighted, stacking",
        ),
        (f"{first},nowhere", "ensemble=mean", "run=nowhere: there is no such folder"),
        (f"{hinge},{hinge}", "ensemble=stacking", "these runs have neither"),
        (str(here), "ensemble=mean", "holds no finished run"),
        (f"{first},{other}", "tta=flip", "of several runs say ensemble=mean"),
    ):
        capsys.readouterr()
        if message == "holds no finished run":
            shutil.rmtree(here / "runs")
        assert evaluate.main([f"run={run}", ours]) == 2, message
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error
    assert evaluate.main([f"run={first}", "ensemble=mean", "tta=flip"]) == 2
    assert "ensemble and tta exclude each other" in capsys.readouterr().err
