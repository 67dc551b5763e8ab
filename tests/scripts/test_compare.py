"""The program that compares runs: made-up results against scipy's tests, and real runs."""

import importlib.util
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from zoo.app.train import main as train

ROOT = Path(__file__).parents[2]


def load(name):
    path = ROOT / "scripts" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{name}_program", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


differences, compare = load("differences"), load("compare")
A = [0.90, 0.92, 0.91, 0.93, 0.905, 0.925]
B = [0.92, 0.93, 0.935, 0.94, 0.91, 0.95]


@pytest.fixture
def stats():
    return pytest.importorskip("scipy.stats", reason="scipy is not installed")


def test_pairs_are_scipys_paired_t_and_signed_ranks(stats):
    found, expected = differences.paired(A, B), stats.ttest_rel(B, A)
    interval = expected.confidence_interval()
    assert found == pytest.approx(
        (
            sum(B) / 6 - sum(A) / 6,
            interval.low,
            interval.high,
            expected.pvalue,
            stats.wilcoxon([b - a for a, b in zip(A, B, strict=True)]).pvalue,
        )
    )
    assert found.is_more_than_noise


def test_what_is_not_paired_is_welchs_t(stats):
    found, expected = differences.unpaired(A, B[:4]), stats.ttest_ind(B[:4], A, equal_var=False)
    interval = expected.confidence_interval()
    assert found[1:4] == pytest.approx((interval.low, interval.high, expected.pvalue))
    assert found.wilcoxon is None


def test_folds_widen_the_interval_as_nadeau_and_bengio_say():
    plain, corrected = differences.paired(A, B), differences.paired(A, B, overlap=1 / 9)
    ratio = (corrected.high - corrected.mean) / (plain.high - plain.mean)
    assert ratio == pytest.approx(math.sqrt((1 / 6 + 1 / 9) / (1 / 6)))
    assert corrected.mean == plain.mean and corrected.p > plain.p


def test_no_difference_at_all_is_no_division_by_zero():
    for found in (differences.paired(A, A), differences.unpaired([0.5] * 3, [0.5] * 4)):
        assert found[:4] == (0, 0, 0, 1)
    same = differences.paired([0.5, 0.25], [0.75, 0.5])
    assert (same.mean, same.low, same.high, same.p) == (0.25, 0.25, 0.25, 0)


def made(folder, values, *, samples=None, monitor="accuracy", metrics=None, **changed):
    """Run folders with these test accuracies, of seed 0, 1, ... or fold 0, 1, ... ."""
    for number, value in enumerate(values):
        run = folder / str(number)
        run.mkdir(parents=True)
        config = {
            "seed": number,
            "name": folder.name,
            "data": {"_target_": "zoo.data.images.digits.Digits", "batch_size": 64},
            "model": {"_target_": "zoo.models.mlp.MLP", "hidden": [8]},
            "task": {},
            "optimizer": {"lr": 0.1},
            "schedule": {},
        }
        for key, new in changed.items():
            group, _, name = key.partition("__")
            new = number if new == "number" else new
            config |= {group: config[group] | {name: new}} if name else {group: new}
        results = {"val": {"accuracy": value - 0.1}, "test": {"accuracy": value, "loss": 1 - value}}
        results |= {"monitor": monitor, "mode": "max", "parameters": 10, "steps": 3}
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        (run / "results.json").write_text(json.dumps(results))
        (run / "status.json").write_text('{"state": "finished"}')
        (run / "data.json").write_text(json.dumps(samples or {"train": 90, "val": 5, "test": 10}))
    return folder


def said(capsys, *words, code=0):
    capsys.readouterr()
    assert compare.main([str(word) for word in words]) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def test_sweeps_are_compared_seed_by_seed(tmp_path, capsys, stats):
    a = made(tmp_path / "a", A)
    b = made(tmp_path / "b", B, optimizer__lr=0.2, model__hidden=[8, 8])
    out = said(capsys, a, b)
    assert "configuration, a -> b\n  model.hidden: [8] -> [8, 8]\n  optimizer.lr: 0.1 -> 0.2" in out
    lines = out.splitlines()
    expected = stats.ttest_rel(B, A)
    low, high = expected.confidence_interval()
    assert lines[-1] == (
        f"test/accuracy: b is better by {sum(B) / 6 - sum(A) / 6:.4f} (b - a: 95 % interval "
        f"{low:.4f} to {high:.4f}, p = {expected.pvalue:.3g}, 6 pairs by seed): more than noise"
    )
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "|" in line]
    assert rows[0] == ["metric", "a", "b", "b - a", "low", "high", "p", "p (Wilcoxon)"]
    assert [row[0] for row in rows[2:]] == ["val/accuracy", "test/accuracy", "test/loss"]
    assert rows[4][3] == f"-{rows[3][3]}"  # the loss has been made 1 - accuracy
    assert "Nadeau" not in out


def test_lists_of_other_seeds_are_not_paired(tmp_path, capsys, stats):
    a, b = made(tmp_path / "a", A), made(tmp_path / "b", B)
    out = said(capsys, ",".join(f"{a}/{n}" for n in (0, 1, 2)), f"{b}/3,{b}/4,{b}/5")
    expected = stats.ttest_ind(B[3:], A[:3], equal_var=False)
    assert f"p = {expected.pvalue:.3g}, 3 and 3 runs): could be chance" in out
    assert "Wilcoxon" not in out and "the configurations are equal" in out


def test_small_differences_could_be_chance_and_equal_ones_are_none(tmp_path, capsys):
    a = made(tmp_path / "a", A)
    b = made(tmp_path / "b", [x + (-0.01) ** (1 + n % 2) for n, x in enumerate(A)])
    assert said(capsys, a, b).rstrip().endswith("could be chance")
    assert "b is worse by" in said(capsys, a, b)
    assert said(capsys, a, a).rstrip().endswith("test/accuracy: equal in all runs")


def test_folds_are_corrected_and_it_is_said(tmp_path, capsys):
    target = "zoo.data.graphs.tudataset.TUDataset"
    data = {"seed": 0, "data___target_": target, "data__fold": "number"}
    a, b = made(tmp_path / "a", A, **data), made(tmp_path / "b", B, **data)
    out = said(capsys, a, b)
    assert "6 pairs by data.fold, paired t; folds share training samples" in out
    assert "the variance takes 1/6 + 0.1111 (Nadeau and Bengio, 2003)" in out
    found = differences.paired(A, B, overlap=1 / 9)
    assert f"interval {found.low:.4f} to {found.high:.4f}, p = {found.p:.3g}" in out
    (b / "0" / "data.json").unlink()
    (a / "0" / "data.json").unlink()
    assert "does not say how many samples are in val" in said(capsys, a, b, code=2)
    other = said(capsys, f"{a}/1,{a}/2", f"{b}/3,{b}/4")
    assert "warning: data.fold differs: the runs are on other parts of the data" in other


def test_two_runs_are_compared_without_a_verdict(tmp_path, capsys):
    a, b = made(tmp_path / "a", A), made(tmp_path / "b", B)
    out = said(capsys, a / "0", b / "1")
    assert "  seed: 0 -> 1" in out
    assert "parameters: 10\nsteps: 3\nweights: there are no checkpoints to compare" in out
    assert "one run each: only several seeds can say what is more than noise" in out


def test_what_cannot_be_compared_is_one_sentence(tmp_path, capsys):
    a = made(tmp_path / "a", A)
    other = made(tmp_path / "other", B, data___target_="zoo.data.images.mnist.MNIST")
    fewer = made(tmp_path / "fewer", B, samples={"train": 90, "val": 5, "test": 8})
    mixed = made(tmp_path / "mixed", B, optimizer__lr="number")
    unfinished = made(tmp_path / "unfinished", B)
    (unfinished / "3" / "status.json").write_text('{"state": "failed"}')
    again = made(tmp_path / "again", B, seed=7)
    unknown = made(tmp_path / "unknown", B, monitor="f1")
    (tmp_path / "empty").mkdir()
    for words, message in (
        ([a], "compare.py takes two runs, sweeps or lists"),
        ([a, tmp_path / "empty"], "empty: is neither a run nor a sweep"),
        ([a, other], "data: different data cannot be compared ('zoo.data.images.digits.Digits'"),
        ([a, fewer], "data: 10 and 8 samples in test cannot be compared"),
        ([a, mixed], "mixed: its runs differ in optimizer.lr; name those of one setting"),
        ([a, unfinished], "3: is not finished (failed)"),
        ([again, a], "again: holds seed=7 twice"),
        ([a / "0", a], "1 and 6 runs: give one of each, or several of each"),
        ([unknown, a], "f1 selected the weights of a, and not all of these runs have it"),
    ):
        error = said(capsys, *words, code=2)
        assert message in error and error.count("\n") == 1
    augmented = made(tmp_path / "augmented", B, data__batch_size=32)
    out = said(capsys, a, augmented)
    assert "warning: data.batch_size differs: compare only if it leaves val and test" in out


def test_weights_of_equal_runs_are_equal_and_of_others_not(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["data=diabetes", "model=linear_regression", "task=regression", "logger=off"]
    for name, seed, rate in (("a", 0, 0.01), ("b", 0, 0.01), ("c", 1, 0.02)):
        more = [f"seed={seed}", f"optimizer.lr={rate}", "trainer.epochs=1", f"name={name}"]
        assert train([*words, *more]) == 0
    a, b, c = (next((tmp_path / "runs" / name).iterdir()) for name in "abc")
    out = said(capsys, a, b)
    assert "the configurations are equal" in out and "weights: equal bit for bit" in out
    assert "several seeds" not in out
    out = said(capsys, a, c)
    assert "  optimizer.lr: 0.01 -> 0.02\n  seed: 0 -> 1\n" in out
    assert "weights: they differ by up to " in out and "weight)" in out
    out = said(capsys, a, c, "out=curves.png")
    assert "\ncurves: curves.png\n" in out
    with Image.open("curves.png") as image:
        colours = {tuple(pixel) for row in np.asarray(image)[..., :3] for pixel in row}
    blue, orange = ((31, 119, 180), (255, 127, 14))  # a and b, in matplotlib's colours
    assert {blue, orange} <= colours
    (c / "metrics.jsonl").unlink()
    assert "there is no curve that both have" in said(capsys, a, c, "out=none.png", code=2)
    assert "out=curves.jpg: must end in .png" in said(capsys, a, b, "out=curves.jpg", code=2)
    assert not Path("none.png").exists()
    shutil.rmtree(b / "checkpoints")
    assert "weights: there are no checkpoints to compare" in said(capsys, a, b)
