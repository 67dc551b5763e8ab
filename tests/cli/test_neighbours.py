"""Samples beside the training images that are nearest to them."""

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from sklearn.neighbors import NearestNeighbors

import evaluate
from train import train
from zoo.app.generative.neighbours import nearest
from zoo.app.main import main
from zoo.app.rebuild import prepare_evaluation

RUNS = Path(__file__).parents[1] / "fixtures" / "runs"


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["trainer.epochs=null", "trainer.steps=2", "logger=off", "logger.console=off"]
    assert main(train, ["experiment=gan_digits", *words, "paths.runs_dir=runs"]) == 0
    (folder,) = Path("runs").glob("*/*")
    return folder


@pytest.mark.parametrize("sizes", [[50], [7, 43], [1, 1, 1, 20, 27]])
def test_nearest_are_those_of_scikit_learn_however_the_samples_are_batched(sizes):
    torch.manual_seed(0)
    queries, samples = torch.randn(9, 1, 4, 3), torch.randn(50, 1, 4, 3)
    found, distances = nearest(queries, samples.split(sizes), 3)
    expected = NearestNeighbors(n_neighbors=3, algorithm="brute").fit(samples.flatten(1).numpy())
    far, places = expected.kneighbors(queries.flatten(1).numpy())
    assert torch.equal(found, samples[torch.from_numpy(places)])
    torch.testing.assert_close(distances, torch.from_numpy(far).float())


def test_a_copy_is_at_distance_zero_from_its_original():
    torch.manual_seed(0)
    samples = 100 + torch.rand(64, 1, 28, 28)  # where a matrix product would round to something
    found, distances = nearest(samples[[40, 3]], samples.split(10), 2)
    assert torch.equal(found[:, 0], samples[[40, 3]])
    assert torch.equal(distances[:, 0], torch.zeros(2)) and bool((distances[:, 1] > 1).all())


def test_fewer_samples_than_asked_for_are_all_found():
    samples = torch.tensor([[5.0], [1.0]])
    found, distances = nearest(torch.zeros(1, 1), samples.split(1), 3)
    assert found.flatten().tolist() == [1, 5] and distances.tolist() == [[1, 5]]


def test_tensor_holds_each_sample_and_its_nearest_training_images(run, capsys):
    capsys.readouterr()
    assert evaluate.main([f"run={run}", "neighbours=5", "seed=3", "out=found.pt"]) == 0
    said, file = capsys.readouterr().out.splitlines()
    assert evaluate.main([f"run={run}", "sample=5", "seed=3", "out=samples.pt"]) == 0
    found, samples = (torch.load(f"{n}.pt", weights_only=True) for n in ("found", "samples"))
    assert file == "found.pt" and torch.equal(found[:, 0], samples)

    data = prepare_evaluation(run, ["trainer.device=cpu"]).data
    data.setup()
    train = torch.cat([images for images, _ in data.batches("train", 0)])
    val = torch.cat([images for images, _ in data.batches("val", 0)])[:5]
    far = torch.cdist(torch.cat([samples, val]).flatten(1).double(), train.flatten(1).double())
    closest = far.topk(3, largest=False)
    assert torch.equal(found[:, 1:], train[closest.indices[:5]])
    ours, theirs = (part.mean().item() for part in closest.values[:, 0].split(5))
    assert said == (
        f"nearest training image: {ours:.3f} away on average, of 5 val images {theirs:.3f}"
    )


def test_grid_has_three_rows_below_each_row_of_samples(run):
    assert evaluate.main([f"run={run}", "neighbours=9"]) == 0
    with Image.open(run / "neighbours.png") as grid:
        assert grid.size == (8 * 10, 2 * 4 * 10)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("image", "neighbours: this run draws no samples; name a generator's"),
        ("graph", "neighbours: this run draws no samples; name a generator's"),
    ],
)
def test_a_run_that_draws_no_samples_says_so(name, said, tmp_path, capsys):
    folder = shutil.copytree(RUNS / name, tmp_path / name)
    assert evaluate.main([f"run={folder}", "neighbours=4"]) == 2
    assert capsys.readouterr().err == f"error: {said}\n"


def test_a_run_on_points_says_that_it_has_no_images(tmp_path, capsys):
    words = ["trainer.epochs=null", "trainer.steps=1", "logger=off", "logger.console=off"]
    words += ["data.num_samples=1000", "data.eval_samples=100", f"paths.runs_dir={tmp_path}"]
    assert main(train, ["experiment=gan_ring", "trainer.evaluate_every=1", *words]) == 0
    (folder,) = tmp_path.glob("*/*")
    capsys.readouterr()
    assert evaluate.main([f"run={folder}", "neighbours=4"]) == 2
    err = capsys.readouterr().err
    assert err == "error: neighbours: GaussianRing gives no images; name a run on images\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["neighbours=0"], "neighbours=0: must be a whole number, at least 1"),
        (["neighbours=2", "sample=2"], "neighbours and sample exclude each other"),
        (["neighbours=2", "split=val"], "split and neighbours exclude each other"),
        (["neighbours=2", "out=a.jpg"], "out=a.jpg: must end in .png (images in a grid) or .pt"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(words, said, run, capsys):
    before = sorted(Path().rglob("*"))
    capsys.readouterr()
    assert evaluate.main([f"run={run}", *words]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before
