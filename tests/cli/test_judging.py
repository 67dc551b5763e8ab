"""evaluate.py with a temperature, and with intervals."""

import csv
import json

import pytest
import torch
from PIL import Image

import evaluate
import train
import zoo
from zoo.app.predict import Predictor


def trained(place, *words):
    words = (*words, "logger=off", f"paths.runs_dir={place}/runs")
    assert train.main(list(words)) == 0
    (folder,) = (place / "runs").glob("*/*")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that is surer than it should be."""
    words = ("data=digits", "model=softmax_regression", "data.augment=false", "data.image_size=8")
    more = ("optimizer.lr=0.3", "trainer.epochs=20", "callbacks.checkpoint.monitor=loss")
    return trained(tmp_path_factory.mktemp("judging"), *words, *more)


@pytest.fixture
def calibrated(run, capsys):
    """Its folder, with a temperature; what was printed as it was found."""
    capsys.readouterr()
    assert evaluate.main([f"run={run}", "calibrate=true"]) == 0
    yield run, capsys.readouterr().out
    (run / "calibration.json").unlink()


def stored(run, name):
    return json.loads((run / name).read_text())


def test_temperature_is_found_on_val_and_changes_no_class(calibrated):
    run, out = calibrated
    found = stored(run, "calibration.json")
    model, data = zoo.load(run)
    data.setup()
    with torch.no_grad():
        pairs = [(model(x), y) for x, y in data.batches("val", 0)]
    logits, targets = map(torch.cat, zip(*pairs, strict=True))
    grid = torch.linspace(0.5, 8, 7_501, dtype=torch.float64)
    nll = torch.stack([torch.nn.functional.cross_entropy(logits / t, targets) for t in grid])
    assert found["temperature"] == pytest.approx(grid[nll.argmin()].item(), abs=2e-3)
    assert found["step"] == stored(run, "results.json")["selected_step"]
    rows = {(row["split"], row["temperature"] == 1): row for row in found["rows"]}
    assert set(rows) == {(split, raw) for split in ("val", "test") for raw in (True, False)}
    for split in ("val", "test"):
        before, after = rows[split, True], rows[split, False]
        assert before["accuracy"] == after["accuracy"]
    assert rows["val", False]["nll"] < rows["val", True]["nll"]
    assert out.startswith(f"temperature {found['temperature']:.4f}, found on val; weights of step ")
    assert out.rstrip().endswith("calibration.json")


def test_temperature_is_used_where_it_is_asked_for(calibrated, tmp_path, capsys):
    run, _ = calibrated
    found = stored(run, "calibration.json")
    assert evaluate.main([f"run={run}"]) == 0
    assert evaluate.main([f"run={run}", "temperature=stored"]) == 0
    assert f"temperature={found['temperature']:.6g}\n" in capsys.readouterr().out
    plain = stored(run, "evaluation-test.json")
    tempered = stored(run, "evaluation-test-temperature-stored.json")
    assert "temperature" not in plain and tempered["temperature"] == found["temperature"]
    for values, row in ((plain, found["rows"][2]), (tempered, found["rows"][3])):
        assert values["loss"] == pytest.approx(row["nll"], rel=1e-5)
        for name in ("accuracy", "calibration_error"):
            assert values[name] == pytest.approx(row[name], abs=1e-6)
    assert evaluate.main([f"run={run}", "temperature=1"]) == 0
    same = stored(run, "evaluation-test-temperature-1.json")
    assert {name: same[name] for name in plain} == plain
    assert evaluate.main([f"run={run}", "temperature=2", "tta=flip"]) == 0
    both = stored(run, "evaluation-test-temperature-2-flip.json")
    assert (both["temperature"], both["tta"]) == (2, "flip")


def test_predictions_are_no_surer_than_they_are_told_to(calibrated, tmp_path):
    run, _ = calibrated
    picture = tmp_path / "a.png"
    Image.new("L", (8, 8), 90).save(picture)
    logits = Predictor(run, device="cpu")(str(picture)).probabilities.log()
    for word in ("1", "2.5", "stored", None):
        out = tmp_path / f"{word}.csv"
        words = [] if word is None else [f"temperature={word}"]
        assert evaluate.main([f"run={run}", f"predict={picture}", f"out={out}", *words]) == 0
        number = stored(run, "calibration.json")["temperature"] if word == "stored" else word or 1
        with out.open() as file:
            (row,) = csv.DictReader(file)
        best = (logits / float(number)).softmax(1).max().item()
        assert float(row["probability"]) == pytest.approx(best, rel=1e-4)


def test_temperature_of_other_weights_is_refused(calibrated, capsys):
    run, _ = calibrated
    content = stored(run, "calibration.json")
    (run / "calibration.json").write_text(json.dumps(content | {"step": 3}))
    assert evaluate.main([f"run={run}", "temperature=stored"]) == 2
    assert "temperature=stored: is of the weights of step 3, not of step" in capsys.readouterr().err


def test_intervals_stand_beside_the_metrics_and_in_the_file(run, capsys):
    assert evaluate.main([f"run={run}", "bootstrap=200"]) == 0
    out = capsys.readouterr().out
    assert ", with 95 % intervals\n" in out
    found = stored(run, "evaluation-test.json")
    assert set(found["intervals"]) == {"loss", "accuracy"}
    for name, (low, high) in found["intervals"].items():
        assert low < found[name] < high
        assert f"{found[name]:.4f}  {low:.4f} to {high:.4f}" in out
    assert evaluate.main([f"run={run}", "bootstrap=200", "seed=0"]) == 0
    assert stored(run, "evaluation-test.json") == found
    assert evaluate.main([f"run={run}", "bootstrap=200", "seed=1"]) == 0
    assert stored(run, "evaluation-test.json")["intervals"] != found["intervals"]
    assert evaluate.main([f"run={run}"]) == 0
    assert "intervals" not in stored(run, "evaluation-test.json")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["calibrate=yes"], "calibrate=yes: must be true, or be omitted"),
        (["calibrate=true", "split=val"], "split and calibrate exclude each other"),
        (["calibrate=true", "out=x.json"], "out goes with predict="),
        (["temperature=stored"], "temperature=stored: there is none yet; find it with"),
        (["temperature=warm"], "temperature=warm: must be a number"),
        (["temperature=0"], "temperature=0: must be greater than 0"),
        (["calibrate=true", "temperature=2"], "temperature and calibrate exclude each other"),
        (["bootstrap=10"], "bootstrap=10: must be a whole number, at least 100"),
        (["bootstrap=100", "predict=x"], "bootstrap and predict exclude each other"),
    ],
)
def test_wrong_words_are_one_sentence(run, words, said, capsys):
    before = sorted(run.iterdir())
    assert evaluate.main([f"run={run}", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert sorted(run.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "option", "said"),
    [
        (["experiment=linear_diabetes"], "calibrate=true", "calibrate: the outputs of this run"),
        (["experiment=linear_diabetes"], "temperature=2", "temperature=2: the outputs of this run"),
        (["experiment=gcn_karate"], "bootstrap=100", "does not judge its samples one by one"),
    ],
)
def test_runs_for_which_it_makes_no_sense_are_told_so(words, option, said, tmp_path, capsys):
    run = trained(tmp_path, *words, "trainer.epochs=1")
    assert evaluate.main([f"run={run}", option]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_numbers_have_intervals_too(tmp_path):
    run = trained(tmp_path, "experiment=linear_diabetes", "trainer.epochs=1")
    assert evaluate.main([f"run={run}", "bootstrap=100"]) == 0
    found = stored(run, "evaluation-test.json")
    assert all(low < found[name] < high for name, (low, high) in found["intervals"].items())
    assert {"loss", "rmse", "mae", "bias", "r2"} == set(found["intervals"])
