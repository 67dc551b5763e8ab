import importlib.util
import json
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "scripts" / "results.py"


@pytest.fixture
def results(tmp_path, monkeypatch):
    """The program, with records and experiments of its own."""
    spec = importlib.util.spec_from_file_location("results_program", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("RECORDS", "EXPERIMENTS"):
        monkeypatch.setattr(module, name, tmp_path / name.lower())
        (tmp_path / name.lower()).mkdir()
    return module


def add(results, name, tests, *, data="mnist", binarize="dynamic"):
    header = f"defaults:\n  - override /data: {data}\n"
    values = f"data:\n  binarize: {binarize}\n"
    (results.EXPERIMENTS / f"{name}.yaml").write_text(header + values)
    runs = [
        {"seed": seed, "test": test, "seconds": 60.0, "parameters": 1000}
        for seed, test in enumerate(tests)
    ]
    content = {
        "experiment": name,
        "command": f"python train.py experiment={name} seed=0",
        "monitor": next(iter(tests[0])),
        "environment": {"threads": 1, "gpu": None},
        "runs": runs,
    }
    (results.RECORDS / f"{name}.json").write_text(json.dumps(content))


def test_likelihoods_are_ranked_and_say_what_they_are(results):
    add(results, "vae", [{"negative_elbo": 95.0, "nll_k500": 90.5, "kl": 25.0}])
    add(results, "made", [{"nll": 86.0, "bits_per_dim": 0.158}, {"nll": 88.0, "bits_per_dim": 0.2}])
    add(results, "rbm", [{"nll_ais": 100.0, "nll_ais_error": 0.1}])
    lines = results.likelihoods().splitlines()[2:]
    assert [line.split(" | ")[1:3] for line in lines] == [
        ["87.00 ± 1.41", "exact"],
        ["90.50", "bound, K = 500"],
        ["95.00", "bound, K = 1"],
        ["100.00", "estimate"],
    ]


def test_other_pixels_and_other_data_are_not_ranked(results):
    add(results, "grey", [{"negative_elbo": 70.0}], binarize="none")
    add(results, "digits", [{"nll": 20.0}], data="digits")
    assert results.likelihoods() == ""


def test_a_bound_that_was_evaluated_later_is_recorded_too(results, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    files = {
        "status.json": {"state": "finished"},
        "environment.json": {"threads": 1, "gpu": None},
        "results.json": {
            "test": {"negative_elbo": 95.0},
            "selected_step": 7,
            "steps": 9,
            "monitor": "x",
        },
        "evaluation-test.json": {"step": 7, "negative_elbo": 95.2, "nll_k500": 90.0},
    }
    for name, content in files.items():
        (run / name).write_text(json.dumps(content))
    (run / "config.yaml").write_text("seed: 0\nname: vae\n")
    (run / "overrides.yaml").write_text("- experiment=vae\n")
    path = results.record(run)
    assert json.loads(path.read_text())["runs"][0]["test"] == {
        "negative_elbo": 95.0,
        "nll_k500": 90.0,
    }
    (run / "evaluation-test.json").write_text(json.dumps({"step": 9, "nll_k500": 80.0}))
    results.record(run)
    assert json.loads(path.read_text())["runs"][0]["test"] == {"negative_elbo": 95.0}


def finished(folder, *, seed, fold=None, accuracy=0.5):
    """A run folder as far as a record needs it."""
    folder.mkdir(parents=True)
    data = {"_target_": "zoo.data.images.digits.Digits"}
    if fold is not None:
        data = {"_target_": "zoo.data.graphs.tudataset.TUDataset", "fold": fold}
    words = ["experiment=made_up", f"seed={seed}", *([] if fold is None else [f"data.fold={fold}"])]
    content = {
        "status": {"state": "finished"},
        "environment": {"threads": 1, "gpu": None},
        "overrides": words,
        "config": {"name": "made_up", "seed": seed, "data": data},
        "results": {"monitor": "accuracy", "test": {"accuracy": accuracy}}
        | {"seconds": 2.0, "steps": 9, "selected_step": 3, "parameters": 7},
    }
    for name, value in content.items():
        suffix = "yaml" if name in ("config", "overrides") else "json"
        (folder / f"{name}.{suffix}").write_text(json.dumps(value))


def test_a_sweep_over_folds_is_recorded_with_its_mean(results, tmp_path):
    for number, (seed, fold) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        finished(tmp_path / "sweep" / str(number), seed=seed, fold=fold, accuracy=number / 4)
    content = json.loads(results.record(tmp_path / "sweep").read_text())
    assert content["command"] == "python train.py -m experiment=made_up data.fold=0,1 seed=0,1"
    assert [(run["seed"], run["data.fold"]) for run in content["runs"]] == [
        *((0, 0), (0, 1), (1, 0), (1, 1))
    ]
    summary = results.summary(content)
    assert summary["seeds"] == "2 folds x 2 seeds"
    assert summary["value"].startswith("0.3750 ± 0.3227")


def test_a_sweep_over_seeds_is_recorded_as_before(results, tmp_path):
    for seed in (2, 1):
        finished(tmp_path / "sweep" / str(seed), seed=seed)
    content = json.loads(results.record(tmp_path / "sweep").read_text())
    assert content["command"] == "python train.py -m experiment=made_up seed=1,2"
    assert results.summary(content)["seeds"] == "2"


def test_runs_that_differ_in_something_else_are_not_recorded(results, tmp_path):
    for number in range(2):
        finished(tmp_path / "sweep" / str(number), seed=0, fold=3)
    with pytest.raises(SystemExit, match=r"must differ in seed or data\.fold and nothing else"):
        results.record(tmp_path / "sweep")


def test_the_baseline_that_val_chooses_stands_beside_a_network(results):
    def row(model, val, test, metric="accuracy"):
        return {"model": model, f"val_{metric}": val, f"test_{metric}": test}

    runs = [
        {"test": {"accuracy": 0.8}, "baselines": [row("svm", 0.9, 0.7), row("knn", 0.8, 0.9)]},
        {"test": {"accuracy": 0.9}, "baselines": [row("svm", 0.9, 0.8), row("knn", 0.9, 0.9)]},
    ]
    add(results, "net", [{"accuracy": 0.8}])
    content = json.loads((results.RECORDS / "net.json").read_text())
    content["runs"] = [content["runs"][0] | run for run in runs]
    said = results.summary(content)["value"]
    assert said.startswith("0.8500") and said.endswith(
        "; scikit-learn's best (svm) accuracy 0.7500"
    )
    del content["runs"][1]["baselines"]
    assert "scikit-learn" not in results.summary(content)["value"]
    numbers = [row("ridge", 0.7, 0.6, "rmse"), row("lasso", 0.6, 0.65, "rmse")]
    content["runs"] = [content["runs"][0] | {"test": {"loss": 0.2, "rmse": 0.5}}]
    content["runs"][0]["baselines"] = numbers
    content["monitor"] = "loss"
    said = results.summary(content)["value"]
    assert said == "0.2000, rmse 0.5000; scikit-learn's best (lasso) rmse 0.6500"


def test_what_was_evaluated_later_and_intervals_are_told(results):
    add(results, "net", [{"accuracy": 0.8, "calibration_error": 0.02}])
    content = json.loads((results.RECORDS / "net.json").read_text())
    content["later"] = {
        "ensemble-mean": {"accuracy": 0.9, "loss": 0.3, "members": []},
        "pgd": {
            "limit_eval_batches": 16,
            "table": [{"eps": "0.1", "accuracy": 0.5}, {"eps": "0.2", "accuracy": 0.25}],
        },
    }
    assert results.summary(content)["value"] == (
        "0.8000, calibration error 0.0200; all together accuracy 0.9000, loss 0.3000; "
        "under PGD of 0.1 accuracy 0.5000, 0.2 accuracy 0.2500 (first 16 batches)"
    )
    add(results, "line", [{"loss": 1.0, "coverage": 0.91, "width": 2.5}])
    content = json.loads((results.RECORDS / "line.json").read_text())
    assert results.summary(content)["value"] == "1.0000, coverage 0.9100, width 2.5000"
