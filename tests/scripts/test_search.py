"""The program that searches: what it refuses, what it resumes, and what a trial is worth."""

import csv
import importlib.util
import os
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from zoo.app.searching import run
from zoo.app.searching.pruning import Pruning
from zoo.app.searching.space import load_space
from zoo.app.train import train
from zoo.config.compose import compose
from zoo.training.callback import Callback
from zoo.training.run_folder import RunFolder

optuna = pytest.importorskip("optuna", reason="pip install '.[search]'")
ROOT = Path(__file__).parents[2]
TINY = [
    *("data=digits", "model=mlp", "trainer.epochs=2", "trainer.limit_train_batches=2"),
    *("trainer.limit_eval_batches=1", "trainer.device=cpu", "trainer.threads=1", "logger=off"),
]
SPACE = """
model.hidden_sizes: [[4], [8]]
optimizer: [adamw, sgd]
optimizer.lr: {low: 1e-3, high: 0.1, log: true}
optimizer.momentum: {low: 0, high: 0.9, when: {optimizer: sgd}}
"""


def program():
    path = ROOT / "scripts" / "search.py"
    spec = importlib.util.spec_from_file_location("search_program", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


main = program()


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("space.yaml").write_text(SPACE)
    return tmp_path


def only_search():
    (folder,) = Path("runs").glob("*/search-*")
    return folder


def rows_of(folder):
    with open(folder / "trials.csv", newline="") as file:
        return {int(row["trial"]): row for row in csv.DictReader(file)}


def trials_of(folder):
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{folder}/study.db")
    return study.get_trials()


class SendsTerm(Callback):
    def on_step_end(self, trainer):
        if trainer.step == 3:
            signal.raise_signal(signal.SIGTERM)


def test_a_search_that_was_stopped_ends_as_one_that_was_not(here, capsys, monkeypatch):
    words = ["space=space.yaml", *TINY, "trials=3", "seed=3,4"]
    assert main(words) == 0
    whole = only_search().rename(here / "whole")

    begun = []

    def stopped(recipe, place):
        if place.parent.name.startswith("search-"):
            begun.append(place)
            if len(begun) == 4:  # the second seed of the second trial
                place.callbacks = [*place.callbacks, SendsTerm()]
        return train(recipe, place)

    monkeypatch.setattr(run, "train", stopped)
    capsys.readouterr()
    assert main(words) == 143
    said = capsys.readouterr()
    folder = only_search()
    assert "interrupted" in said.out and f"search.py resume={folder}" in said.err
    assert RunFolder(folder / "1-seed-4").read_status()["state"] == "interrupted"
    monkeypatch.setattr(run, "train", train)
    assert main([f"resume={folder}"]) == 0
    expected, found = rows_of(whole), rows_of(folder)
    assert found == expected and len(found) == 3
    log = (folder / "1-seed-4" / "log.txt").read_text()
    assert log.count("running, process") == 2

    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/status.json")}
    assert main([f"resume={folder}", "trials=4"]) == 0
    assert len(rows_of(folder)) == 4
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_a_trial_is_worth_the_mean_over_its_seeds_and_the_best_can_be_trained(here, capsys):
    Path("space.yaml").write_text("model.hidden_sizes: [[4], [16]]")
    assert main(["space=space.yaml", *TINY, "trials=3", "seed=1,2"]) == 0
    out = capsys.readouterr().out
    folder = only_search()
    for number, trial in enumerate(trials_of(folder)):
        if "repeats" in trial.user_attrs:
            assert not (folder / f"{number}-seed-1").exists()
            trial_of = trials_of(folder)[trial.user_attrs["repeats"]]
            assert trial.params == trial_of.params and trial.value == trial_of.value
            continue
        runs = [RunFolder(folder / f"{number}-seed-{seed}") for seed in (1, 2)]
        values = [run.read("results.json")["val"]["accuracy"] for run in runs]
        assert trial.value == pytest.approx(statistics.fmean(values))
        configs = [yaml.safe_load((run.path / "config.yaml").read_text()) for run in runs]
        assert [config["seed"] for config in configs] == [1, 2]
    assert any("repeats" in trial.user_attrs for trial in trials_of(folder))  # 3 trials of 2
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{folder}/study.db")
    assert study.direction.name == "MAXIMIZE"
    (line,) = (line for line in out.splitlines() if line.startswith("train the best:"))
    best = study.best_trial.user_attrs["words"][0]
    assert f"'{best}' seed=1" in line and "train.py data=digits model=mlp" in line


def test_a_trial_that_is_worse_than_the_others_is_pruned(here, monkeypatch):
    """At every validation but the last one, where nothing is left to save."""
    monkeypatch.setattr(optuna.pruners, "MedianPruner", lambda: optuna.pruners.ThresholdPruner(2))
    assert main(["space=space.yaml", *TINY, "trials=1", "seed=1,2"]) == 1
    folder = only_search()
    (trial,) = trials_of(folder)
    assert trial.state.name == "PRUNED" and list(trial.intermediate_values) == [1]
    results = RunFolder(folder / "0-seed-1").read("results.json")
    assert results["ended_by"] == "pruned after 1 validations" and results["steps"] == 2
    assert results["val"]["accuracy"] == trial.value
    assert not (folder / "0-seed-2").exists()
    assert rows_of(folder)[0]["state"] == "pruned"


def test_the_last_validation_prunes_nothing(here, monkeypatch):
    monkeypatch.setattr(optuna.pruners, "MedianPruner", lambda: optuna.pruners.ThresholdPruner(2))
    words = [word for word in TINY if not word.startswith("trainer.epochs")]
    assert main(["space=space.yaml", *words, "trainer.epochs=1", "trials=1"]) == 0


def test_a_pruned_run_that_is_resumed_stays_pruned():
    trial = optuna.create_study().ask()
    pruning = Pruning(trial)
    pruning.load_state_dict({"validations": 2, "reason": "pruned after 2 validations"})
    assert pruning.reason_to_stop(None) == "pruned after 2 validations"
    assert pruning.state_dict() == {"validations": 2, "reason": "pruned after 2 validations"}


def test_failed_trials_are_kept_with_their_errors_and_the_others_go_on(here, capsys):
    Path("space.yaml").write_text("optimizer.lr: [0.01, 1e38]")
    words = ["space=space.yaml", *TINY, "trials=4", "sampler=random", "optimizer=sgd"]
    assert main(words) == 0
    folder, out = only_search(), capsys.readouterr().out
    failed = [row for row in rows_of(folder).values() if row["state"] == "failed"]
    assert failed and all("seed 0: " in row["error"] for row in failed)
    assert f"trial {failed[0]['trial']} failed: seed 0: " in out
    assert RunFolder(folder / failed[0]["trial"]).read_status()["state"] == "failed"


@pytest.mark.parametrize(
    ("text", "words", "said"),
    [
        ("optimizer.lrr: [0.1]", [], "optimizer.lrr=0.1"),
        ("optimizers: [sgd]", [], "there is no 'optimizers'; did you mean"),
        ("optimizer: [adamw, sgdd]", [], "there is no optimizer 'sgdd'; did you mean 'sgd'?"),
        ("model.dropout: {low: 0, high: 1.5}", [], "model.dropout"),
        ("data.batch_size: {low: 8, high: 16}", [], "data.batch_size=8.0"),
        ("optimizer.lr: [0.1]", ["optimizer.lr=0.2"], "optimizer.lr is in the space as well"),
        ("optimizer.lr: [0.1]", ["model.dropout=0,0.5"], "several values belong into the space"),
        ("optimizer.lr: [0.1]", ["pruner=median2"], "pruner=median2: did you mean 'median'?"),
        ("optimizer.lr: [0.1]", ["trials=0"], "trials=0: must be a whole number"),
        ("a: {low: 0}", [], "space.yaml: a.high=null"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(text, words, said, here, capsys):
    Path("space.yaml").write_text(text)
    assert main(["space=space.yaml", *TINY, *words]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1 and err.startswith("error: ")
    assert not Path("runs").exists()


def test_without_optuna_one_sentence_says_how_to_get_it(here, capsys, monkeypatch):
    monkeypatch.setattr(run, "find_spec", lambda name: None)
    assert main(["space=space.yaml"]) == 2
    assert capsys.readouterr().err == "error: optuna is not installed: pip install 'optuna>=5'\n"


def test_a_search_goes_on_as_it_was_and_for_one_process(here, capsys):
    assert main(["space=space.yaml", *TINY, "trials=1"]) == 0
    folder = only_search()
    assert main([f"resume={folder}", "optimizer.lr=1"]) == 2
    assert "only trials= and workers= may change" in capsys.readouterr().err
    assert main([f"resume={folder}/0"]) == 2
    assert "is not the folder of a search" in capsys.readouterr().err
    for name in (".lock", ".worker-1"):
        with FileLock(folder / name):
            assert main([f"resume={folder}", "trials=2"]) == 1
        assert "in use by another process" in capsys.readouterr().err
    assert len(trials_of(folder)) == 1
    Path(folder, "study.db").write_bytes(b"no database")
    assert main([f"resume={folder}"]) == 2
    assert "study.db cannot be read" in capsys.readouterr().err
    Path(folder, "study.db").unlink()
    assert main([f"resume={folder}"]) == 2
    assert "study.db is not there" in capsys.readouterr().err
    text = Path(folder, "search.yaml").read_text()
    Path(folder, "search.yaml").write_text(text.replace("sampler: tpe", "sampler: best"))
    assert main([f"resume={folder}"]) == 2
    assert "search.yaml: sampler is damaged" in capsys.readouterr().err


@pytest.mark.slow
def test_workers_share_the_trials(here):
    command = [sys.executable, str(ROOT / "scripts" / "search.py"), "space=space.yaml", *TINY]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "trials=3", "workers=2", "pruner=none"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    folder = only_search()
    assert [trial.state.name for trial in trials_of(folder)] == ["COMPLETE"] * 3
    assert len(list(folder.glob(".worker-*"))) == 2
    assert all(RunFolder(folder / str(n)).read_status()["state"] == "finished" for n in range(3))


@pytest.mark.parametrize("file", sorted(ROOT.glob("docs/spaces/*.yaml")), ids=lambda f: f.stem)
def test_every_space_that_is_shipped_goes_with_the_command_in_its_first_line(file):
    first, *rest = file.read_text().splitlines()
    assert "\n".join(["```yaml", *rest, "```"]) in (ROOT / "docs" / "sweeps.md").read_text()
    _, found, words = first.partition("scripts/search.py ")
    assert found and f"space={file.relative_to(ROOT)}" in words.split()
    fixed = [w for w in words.split() if not w.startswith(("space=", "trials="))]
    corners = load_space(file)[0].corners()
    assert len(corners) > 2
    for corner in corners:
        compose([*fixed, *corner])
