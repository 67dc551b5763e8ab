"""evaluate.py with dropout at work."""

import csv
import json

import pytest
import torch
from PIL import Image

import evaluate
import train
import zoo
from zoo.inference.draws import DropoutDraws


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("dropout")
    words = ("experiment=mc_dropout_digits", "trainer.epochs=2", "logger=off", "trainer.device=cpu")
    assert train.main([*words, f"paths.runs_dir={place}"]) == 0
    (folder,) = place.glob("*/*")
    return folder


def test_metrics_have_a_file_of_their_own(run, capsys):
    assert evaluate.main([f"run={run}"]) == 0
    assert evaluate.main([f"run={run}", "mc_dropout=20", "seed=3"]) == 0
    assert "weights of step 40, mc_dropout=20, seed=3" in capsys.readouterr().out
    plain = json.loads((run / "evaluation-test.json").read_text())
    found = json.loads((run / "evaluation-test-mc_dropout.json").read_text())
    assert (found["mc_dropout"], found["seed"]) == (20, 3)
    assert found["loss"] != plain["loss"]
    model, data = zoo.load(run)
    data.setup()
    drawn, hits, count = DropoutDraws(model, 20, seed=3), 0, 0
    for images, classes in data.batches("test", 0):
        hits, count = hits + (drawn(images).argmax(1) == classes).sum().item(), count + len(classes)
    assert found["accuracy"] == hits / count


def test_predictions_are_the_mean_over_the_draws(run, tmp_path):
    Image.linear_gradient("L").save(tmp_path / "a.png")
    out = tmp_path / "a.csv"
    words = [f"run={run}", f"predict={tmp_path / 'a.png'}", f"out={out}", "mc_dropout=20"]
    assert evaluate.main(words) == 0
    with out.open() as file:
        (row,) = csv.DictReader(file)
    model, data = zoo.load(run)
    with Image.open(tmp_path / "a.png") as image, torch.no_grad():
        p = DropoutDraws(model, 20)(data.preprocess(image)[None]).exp()
    assert float(row["probability"]) == pytest.approx(p.max().item(), abs=1e-3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mc_dropout=0"], "mc_dropout=0: must be a whole number, at least 1"),
        (["mc_dropout=5", "tta=flip"], "mc_dropout and tta exclude each other"),
        (["mc_dropout=5", "attack=fgsm", "eps=0.1"], "mc_dropout and attack exclude each other"),
    ],
)
def test_refused_words(words, said, run, capsys):
    assert evaluate.main([f"run={run}", *words]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_a_run_without_dropout_or_classes_is_refused(tmp_path, capsys):
    for words, said in (
        (["experiment=mc_dropout_digits", "model.dropout=0"], "MLP has no dropout layers"),
        (["experiment=mlp_diabetes"], "mc_dropout=5: this run does not classify"),
    ):
        runs = tmp_path / said[:3]
        more = ("trainer.epochs=1", "logger=off", "trainer.device=cpu", f"paths.runs_dir={runs}")
        assert train.main([*words, *more]) == 0
        (folder,) = runs.glob("*/*")
        assert evaluate.main([f"run={folder}", "mc_dropout=5"]) == 2
        assert said in capsys.readouterr().err
