"""task.features: samples judged by the features of another run's classifier."""

import json
import shutil

import pytest
import torch

import evaluate
import train
from faults.tiny import SMALLER
from tests.data.images.test_mnist import lay_out, raw_files
from zoo.data.images.mnist import MNIST

SCORES = {
    *("feature_distance", "kernel_distance", "precision", "recall", "density", "coverage"),
    *("recognised", "modes_covered", "reverse_kl", "class_divergence"),
}
GAN = ("experiment=gan_digits", "trainer.steps=4", "trainer.evaluate_every=2", "logger=off")


def run_in(place, *words):
    assert train.main([*words, f"paths.runs_dir={place}"]) == 0
    (folder,) = place.glob("*/*")
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    words = ("experiment=lenet_digits", "trainer.steps=30", "trainer.epochs=null", "logger=off")
    return run_in(tmp_path_factory.mktemp("classifier"), *words)


@pytest.fixture(scope="module")
def generator(classifier, tmp_path_factory):
    return run_in(tmp_path_factory.mktemp("generator"), *GAN, f"task.features={classifier}")


def test_every_evaluation_has_the_scores_of_generated_and_of_real_images(generator):
    lines = (generator / "metrics.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["split"] == "val"]
    assert len(rows) == 2
    for row in rows:
        assert {name for name in row if name in SCORES} == SCORES
        assert {f"real_{name}" for name in SCORES} <= set(row)
    assert rows[-1]["real_recognised"] > rows[-1]["recognised"]
    assert rows[-1]["real_feature_distance"] < rows[-1]["feature_distance"]
    results = json.loads((generator / "results.json").read_text())
    assert results["monitor"] == "feature_distance"
    assert results["val"]["feature_distance"] == min(row["feature_distance"] for row in rows)


@pytest.mark.parametrize("task", ["gan", "ddpm", "vae"])
def test_the_other_metrics_are_the_same_with_and_without_them(task, classifier, tmp_path):
    words = (f"experiment={task}_digits", "trainer.steps=2", "trainer.epochs=null", "logger=off")
    words += tuple(SMALLER["ddpm_digits"]) if task == "ddpm" else ("trainer.evaluate_every=2",)
    plain, judged = (
        json.loads((run_in(tmp_path / name, *words, *more) / "results.json").read_text())["test"]
        for name, more in (("plain", ()), ("judged", (f"task.features={classifier}",)))
    )
    assert {name: judged[name] for name in plain} == plain and "recognised" in judged


def test_training_is_the_same_with_and_without_them(generator, tmp_path):
    plain = run_in(tmp_path, *GAN)
    weights = [
        torch.load(folder / "checkpoints" / "last.pt", weights_only=True)["model"]
        for folder in (plain, generator)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_run_folder_is_enough(classifier, tmp_path, capsys):
    place = tmp_path / "classifier"
    shutil.copytree(classifier, place)
    folder = run_in(tmp_path / "runs", *GAN, f"task.features={place}")
    results = json.loads((folder / "results.json").read_text())["test"]
    shutil.rmtree(place)
    assert evaluate.main([f"run={folder}"]) == 0
    found = json.loads((folder / "evaluation-test.json").read_text())
    assert {name: found[name] for name in results} == pytest.approx(results)
    assert train.main([f"resume={folder}", "trainer.steps=6"]) == 0


def test_what_is_copied_stays_in_the_new_folder(classifier, tmp_path):
    place, outside = tmp_path / "classifier", tmp_path / "outside.txt"
    shutil.copytree(classifier, place)
    outside.write_text("secret")
    data = json.loads((place / "data.json").read_text())
    (place / "data.json").write_text(json.dumps(data | {"learned": {"../outside.txt": "0"}}))
    folder = run_in(tmp_path / "runs", *GAN, f"task.features={place}")
    assert [path.parent.name for path in tmp_path.rglob("outside.txt")] == [tmp_path.name]
    assert sorted(path.name for path in (folder / "features").iterdir()) == [
        *("checkpoints", "config.yaml", "data.json", "origin.json")
    ]


def test_an_altered_copy_is_refused(generator, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(generator, folder)
    with (folder / "features" / "checkpoints" / "best.pt").open("ab") as file:
        file.write(b"x")
    assert evaluate.main([f"run={folder}"]) == 2
    assert "not as this run copied it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("experiment=mlp_mnist", "data=digits"), "Classification draws no samples to judge"),
        ((*GAN, "data.image_size=12"), "its images have 32 pixels a side, and these 12"),
    ],
)
def test_what_does_not_go_together_is_refused(words, message, classifier, tmp_path, capsys):
    code = train.main([*words, f"task.features={classifier}", f"paths.runs_dir={tmp_path}"])
    assert code == 2 and message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_run_of_another_kind_is_refused(generator, tmp_path, capsys):
    code = train.main([*GAN, f"task.features={generator}", f"paths.runs_dir={tmp_path}"])
    assert code == 2
    assert "must be a run that classifies images" in capsys.readouterr().err
    assert train.main([*GAN, "task.features=nowhere", f"paths.runs_dir={tmp_path}"]) == 2
    assert "task.features=nowhere" in capsys.readouterr().err


STACKED = (
    *("data.num_samples=16", "data.val_samples=32", "data.test_samples=48", "data.val_digits=10"),
    *("model.base_channels=2", "task.num_components=2", "data.batch_size=8", "trainer.steps=2"),
)


@pytest.mark.slow
def test_stacked_digits_are_judged_by_a_classifier_of_digits(tmp_path, monkeypatch):
    monkeypatch.setattr(MNIST, "checksums", {})
    lay_out(tmp_path / "data", raw_files())
    place = (f"paths.data_dir={tmp_path / 'data'}", "logger=off")
    words = ("experiment=lenet_mnist", "data.val_size=10", "trainer.steps=2")
    lenet = run_in(tmp_path / "classifier", *words, "trainer.epochs=null", *place)
    words = ("experiment=pacdcgan_stacked_mnist", *STACKED, *place)
    folder = run_in(tmp_path / "judged", *words, f"task.features={lenet}")
    judged = json.loads((folder / "results.json").read_text())["test"]
    assert set(judged) >= SCORES | {f"real_{name}" for name in SCORES}
    assert 1 <= judged["modes_covered"] <= 24
    folder = run_in(tmp_path / "plain", *words)
    plain = json.loads((folder / "results.json").read_text())["test"]
    assert not SCORES & set(plain) and {name: judged[name] for name in plain} == plain
