"""evaluate.py threshold=, costs= and prior=: decisions by the probabilities of a stored run."""

import json
import math

import pytest
import torch

import evaluate
import train
import zoo

WORDS = ("data.num_samples=2000", "data.eval_samples=2000", "trainer.epochs=5", "optimizer.lr=0.3")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("decisions")
    assert (
        train.main(
            ["experiment=logistic_rare_class", *WORDS, "logger=off", f"paths.runs_dir={place}"]
        )
        == 0
    )
    (folder,) = place.glob("*/*")
    return folder


def judge(run, *words):
    return evaluate.main([f"run={run}", *words])


def decisions(run, kind, split="test"):
    return json.loads((run / f"evaluation-{split}-{kind}.json").read_text())["decisions"]


def test_threshold_is_found_on_val_and_judged_on_test(run, capsys):
    assert judge(run, "threshold=best", "metric=f2") == 0
    (row,) = decisions(run, "threshold")
    assert 0 < row["threshold"] < 0.5 and row["test f2"] > row["test f2 at 0.5"]
    assert f"task.threshold={row['threshold']:.6g}" in capsys.readouterr().out
    assert judge(run, f"task.threshold={row['threshold']}", "task.beta=2") == 0
    stored = json.loads((run / "evaluation-test.json").read_text())
    assert stored["f2"] == pytest.approx(row["test f2"])
    assert judge(run, f"task.threshold={row['threshold']}", "task.beta=2", "split=val") == 0
    stored = json.loads((run / "evaluation-val.json").read_text())
    assert stored["f2"] == pytest.approx(row["val f2"])


def test_test_samples_have_no_say_in_the_threshold(run, monkeypatch):
    assert judge(run, "threshold=best") == 0
    (before,) = decisions(run, "threshold")
    assert judge(run, "threshold=best", "split=val") == 0
    (other,) = decisions(run, "threshold", "val")
    assert other["threshold"] == before["threshold"] and other["val f1"] == before["val f1"]


def test_costs_lower_the_mean_cost_and_are_those_of_the_model(run):
    assert judge(run, "costs=[[0,1],[100,0]]") == 0
    plain, best = decisions(run, "decisions")
    assert best["test cost"] < plain["test cost"] and best["test accuracy"] < plain["test accuracy"]
    model, data = zoo.load(run)
    data.setup()
    batches = list(data.batches("test", 0))
    x, y = (torch.cat(part) for part in zip(*batches, strict=True))
    with torch.no_grad():
        positive = model(x)[:, 0] > math.log(1 / 100)
    cost = torch.where(positive, (y == 0).float(), 100 * (y == 1).float()).mean()
    assert best["test cost"] == pytest.approx(cost.item())


def test_equal_shares_where_one_in_a_hundred_was_trained(run):
    assert judge(run, "prior=0.5") == 0
    plain, best = decisions(run, "decisions")
    assert plain["test accuracy"] < 0.7 < best["test accuracy"]  # mean recall of both classes
    assert judge(run, "prior=[0.5,0.5]") == 0
    assert decisions(run, "decisions") == [plain, best]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["threshold=0.3"], "task.threshold=0.3"),
        (["threshold=best", "metric=f"], "metric must be accuracy"),
        (["threshold=best", "costs=[[0,1],[1,0]]"], "costs and threshold exclude each other"),
        (["metric=f1"], "metric goes with threshold=best"),
        (["costs=[[0,1]]"], "must be 2 rows of 2 numbers"),
        (["costs=nan"], "must be 2 rows of 2 numbers"),
        (["prior=1.5"], "must be the shares of 2 classes"),
        (["prior=[0.2,0.2]"], "must be the shares of 2 classes"),
        (["prior=0.5", "tta=flip"], "tta and prior exclude each other"),
        (["prior=0.5", "predict=x.png"], "predict and prior exclude each other"),
        (["prior=0.5", "split=dev"], "split=dev: these data have train, val, test"),
    ],
)
def test_mistakes_are_one_line(run, capsys, words, message):
    capsys.readouterr()
    assert judge(run, *words) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and message in errors[0]
