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
