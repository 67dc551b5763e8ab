"""The table of run folders: what became of each, and means over those that differ in their seed."""

import csv
import io
import json
import statistics

import pytest
import yaml
from filelock import FileLock

from tests.scripts.test_compare import load

runs = load("runs")


def made(path, state="finished", *, test=None, monitor="accuracy", mode="max", step=3, **changed):
    """A run folder: its accuracy on test, and 0.1 less on val."""
    path.mkdir(parents=True)
    config = {
        **{"seed": 0, "name": "made", "task": {}, "model": {}, "schedule": {}},
        **{"data": {"_target_": "zoo.data.images.digits.Digits"}, "optimizer": {"lr": 0.1}},
    }
    words = []
    for key, value in changed.items():
        group, _, name = key.partition("__")
        config |= {group: config[group] | {name: value}} if name else {group: value}
        words.append(f"{key.replace('__', '.')}={value}")
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    (path / "overrides.yaml").write_text(yaml.safe_dump(words))
    status = {"state": state, "error": "OSError: disk full" if state == "failed" else None}
    (path / "status.json").write_text(json.dumps(status))
    if test is not None:
        results = {"val": {monitor: test - 0.1, "loss": 1.0}, "test": {monitor: test}}
        results |= {"monitor": monitor, "mode": mode, "steps": step, "seconds": 10 * test}
        (path / "results.json").write_text(json.dumps(results))
    return path


def said(capsys, *words, code=0):
    capsys.readouterr()
    assert runs.main([str(word) for word in words]) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def table(capsys, *words):
    return list(csv.DictReader(io.StringIO(said(capsys, *words, "format=csv"))))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs" / "made"


def test_every_run_below_a_folder_is_shown_with_what_became_of_it(here, capsys):
    made(here / "a", test=0.5)
    made(here / "b", "failed")
    made(here / "c", "interrupted")
    for number, state in enumerate(("running", "running")):
        run = made(here / "sweep-1" / f"{number}-seed", state)
        rows = [{"step": s, "epoch": 1, "split": "val", "loss": 1 / s} for s in (2, 4)]
        lines = [json.dumps(row) for row in [*rows, {"step": 5, "split": "train", "loss": 3}]]
        (run / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 6, "spl']))
    bare = here / "sweep-1" / "2-seed"  # of a job that failed before it had a configuration
    bare.mkdir()
    (bare / "status.json").write_text('{"state": "failed", "error": "ConfigError: no"}')
    made(here / "d" / "failed-1", "interrupted")  # put aside, and killed before it began again
    with FileLock(here / "sweep-1" / "1-seed" / ".lock"):
        rows = table(capsys, "runs")
        out = said(capsys, "runs", here / "a")
    states = ["finished", "failed", "stopped", "killed", "running", "failed"]
    assert [row["state"] for row in rows] == states
    assert rows[0]["run"] == "runs/made/a"
    shown = [(r["step"], r["val/loss"], r["val/accuracy"], r["seconds"]) for r in rows]
    assert shown[0] == ("3", "1.0", "0.4", "5.0")
    assert shown[1] == ("0", "", "", "")
    assert shown[3] == ("5", "0.25", "", "")
    assert out.count("runs/made/a ") == 1
    assert "runs/made/b failed: OSError: disk full" in out
    assert "2-seed failed: ConfigError: no" in out


def test_runs_that_differ_in_their_seed_are_one_row(here, capsys):
    values = {1: 0.5, 2: 0.7, 3: 0.9}
    for seed, value in values.items():
        made(here / f"a{seed}", test=value, seed=seed)
    made(here / "again", test=0.9, seed=3)
    made(here / "lost", "failed", seed=4)
    made(here / "other", test=0.95, seed=1, optimizer__lr=0.2)
    first, second = table(capsys, "runs", "by=seed", "sort=test/accuracy")
    assert (first["runs"], first["finished"]) == ("optimizer.lr=0.2", "1")
    assert first["test/accuracy deviation"] == ""
    assert (second["finished"], second["others"]) == ("3", "1 failed, 1 repeated")
    for column, scale in (("test/accuracy", 1), ("seconds", 10)):
        found = [float(second[f"{column}{end}"]) for end in ("", " deviation")]
        reached = [scale * value for value in values.values()]
        assert found == pytest.approx([statistics.fmean(reached), statistics.stdev(reached)])
    assert "0.7000 ± 0.2000" in said(capsys, "runs", "by=seed")
    alone = table(capsys, here / "a1", here / "other", "by=optimizer.lr")
    assert [row["finished"] for row in alone] == ["2"]


def test_the_best_comes_first_whichever_way_is_better_and_what_lacks_it_last(here, capsys):
    for name, value in {"a": 0.5, "b": 0.9, "c": 0.7}.items():
        made(here / name, test=value, step=int(10 * value))
    made(here / "d", "failed")

    def order(*words):
        return "".join(row["run"][-1] for row in table(capsys, "runs", *words))

    assert order() == "abcd"
    assert order("sort=test/accuracy") == "bcad"
    assert order("sort=seconds") == "acbd"
    for name in "abc":
        file = here / name / "results.json"
        file.write_text(file.read_text().replace('"max"', '"min"'))
    assert order("sort=test/accuracy") == "acbd"


def test_runs_that_were_selected_by_other_metrics_show_these_alone(here, capsys):
    made(here / "a", test=0.5)
    made(here / "b", test=0.25, monitor="rmse", mode="min")
    lines = said(capsys, "runs", "format=markdown").splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert rows[0] == ["run", "state", "step", "metric", "val", "test", "seconds"]
    assert rows[2][3:6] == ["accuracy", "0.4000", "0.5000"]
    assert rows[3][3:6] == ["rmse", "0.1500", "0.2500"]
    assert "test/rmse" in said(capsys, "runs", "sort=test/rmse").splitlines()[0]


def test_what_there_is_not_is_one_sentence(here, capsys):
    made(here / "a", test=0.5)
    (here / "empty").mkdir()
    for words, message in (
        ([], "runs.py takes folders of runs"),
        (["nowhere"], "nowhere: there is no such folder"),
        ([here / "empty"], "empty: holds no run"),
        (["runs", "format=html"], "format=html: must be one of terminal, csv, markdown"),
        (["runs", "sort=test/acuracy"], "none of these runs has it; did you mean 'test/accuracy'"),
        (["runs", "by=sed"], "by=sed: none of these runs has such a setting"),
    ):
        error = said(capsys, *words, code=2)
        assert message in error and error.count("\n") == 1
    (here / "a" / "status.json").write_text('{"state": "failed"}')
    (here / "a" / "metrics.jsonl").write_text("{\n{}\n")
    assert "metrics.jsonl: a line is damaged" in said(capsys, "runs", code=2)
