"""Images made again from their latent variables, and what lies between two."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import evaluate
from train import train
from zoo.app.generative.latents import in_layers, traversal
from zoo.app.main import main
from zoo.app.rebuild import prepare_evaluation

RUNS = Path(__file__).parents[1] / "fixtures" / "runs"
LATENTS = "from top to bottom latent variables "
TINY = ("trainer.epochs=null", "trainer.steps=2", "task.importance_samples=0", "logger=off")


def trained(place, *words):
    assert main(train, [*words, *TINY, "logger.console=off", f"paths.runs_dir={place}"]) == 0
    (folder,) = place.glob("*/*")
    return folder


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("vae"), "experiment=vae_digits")


@pytest.fixture
def run(trained_once, tmp_path, monkeypatch):
    """A copy of the run, and a folder of its own to stand in, with eleven images."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained_once, tmp_path / "run")
    (tmp_path / "in").mkdir()
    random = np.random.default_rng(0)
    for number in range(11):
        pixels = random.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{number:02}.png")
    return Path("run")


def parts_of(run):
    return prepare_evaluation(run, ["trainer.device=cpu"])


def test_reconstructions_are_what_decoder_makes_of_the_encoding(run, capsys):
    assert evaluate.main([f"run={run}", "reconstruct=in", "out=made.pt"]) == 0
    assert capsys.readouterr().out == "made.pt\n"
    parts = parts_of(run)
    images = [Image.open(f"in/{number:02}.png") for number in range(11)]
    inputs = torch.stack([parts.data.preprocess(image) for image in images])
    with torch.no_grad():
        expected = parts.task.decode(parts.task.latents(inputs))
    torch.testing.assert_close(torch.load("made.pt", weights_only=True), expected)


def test_grid_has_rows_of_inputs_above_rows_of_reconstructions(run, capsys):
    assert evaluate.main([f"run={run}", "reconstruct=in"]) == 0
    assert capsys.readouterr().out == "run/reconstructions.png\n"
    assert evaluate.main([f"run={run}", "reconstruct=in/03.png", "out=one.png"]) == 0
    with Image.open("run/reconstructions.png") as grid, Image.open("one.png") as one:
        assert grid.size == (8 * 10, 4 * 10)
        assert one.size == (10, 20)
        pixels = np.array(grid)
    assert not pixels[20:, 30:].any()  # the last rows have three images


def test_layers_keep_their_columns():
    above = torch.arange(11.0).view(11, 1, 1, 1) / 40
    laid = in_layers(above, above + 0.5).flatten() * (30 / 40)
    expected = [*range(8), *range(20, 28), 8, 9, 10, *[0] * 5, 28, 29, 30, *[0] * 5]
    torch.testing.assert_close(laid, torch.tensor(expected) / 40)


def test_interpolation_goes_from_one_image_to_the_other_in_a_straight_line(run, capsys):
    words = ["interpolate=in/00.png,in/01.png", "steps=5", "out=way.pt"]
    assert evaluate.main([f"run={run}", *words]) == 0
    assert capsys.readouterr().out == "way.pt\n"
    parts = parts_of(run)
    inputs = torch.stack(
        [parts.data.preprocess(Image.open(f"in/{number}.png")) for number in ("00", "01")]
    )
    with torch.no_grad():
        first, last = parts.task.latents(inputs)
        shares = torch.tensor([0, 0.25, 0.5, 0.75, 1]).unsqueeze(1)
        expected = parts.task.decode(first + shares * (last - first))
    torch.testing.assert_close(torch.load("way.pt", weights_only=True), expected)


def test_interpolation_of_seeds_begins_and_ends_with_their_samples(run):
    assert evaluate.main([f"run={run}", "interpolate=3,4", "out=way.pt"]) == 0
    way = torch.load("way.pt", weights_only=True)
    assert len(way) == 8
    for seed, end in ((3, way[:1]), (4, way[-1:])):
        assert evaluate.main([f"run={run}", "sample=1", f"seed={seed}", f"out={seed}.pt"]) == 0
        torch.testing.assert_close(torch.load(f"{seed}.pt", weights_only=True), end)
    assert evaluate.main([f"run={run}", "interpolate=3,4"]) == 0
    with Image.open("run/interpolation.png") as grid:
        assert grid.size == (80, 10)


def test_traversal_moves_one_variable_and_leaves_the_others():
    start = torch.tensor([[0.5, -1.0, 7.0]])
    moved = traversal(start, 2, 5)
    assert moved.shape == (2, 5, 3)
    way = torch.tensor([-3, -1.5, 0, 1.5, 3])
    for row in range(2):
        expected = start.repeat(5, 1)
        expected[:, row] = way
        assert torch.equal(moved[row], expected)


@pytest.mark.parametrize("start", ["in/02.png", "7"])
def test_traversal_shows_the_variables_that_change_the_image_most(start, run, capsys):
    assert evaluate.main([f"run={run}", f"traverse={start}", "steps=4", "out=moved.pt"]) == 0
    said, file = capsys.readouterr().out.splitlines()
    assert file == "moved.pt"
    parts = parts_of(run)
    with torch.no_grad():
        if start.isdecimal():
            generator = torch.Generator().manual_seed(int(start))
            (latents,) = parts.task.draw_latents(1, generator)
        else:
            image = parts.data.preprocess(Image.open(start))
            (latents,) = parts.task.latents(image.unsqueeze(0))
        made = []
        for number in range(len(latents)):
            way = latents.repeat(4, 1)
            way[:, number] = torch.tensor([-3.0, -1.0, 1.0, 3.0])
            made.append(parts.task.decode(way))
    made.sort(key=lambda images: -images.var(0, correction=0).mean().item())
    found = torch.load("moved.pt", weights_only=True)
    torch.testing.assert_close(found, torch.stack(made[:8]))
    rows = [int(number) for number in said.removeprefix(LATENTS).split(", ")]
    assert said.startswith(LATENTS) and len(set(rows)) == len(found)


def test_traversal_grid_has_a_row_for_each_variable(run):
    assert evaluate.main([f"run={run}", "traverse=3"]) == 0
    rows = min(8, parts_of(run).task.normal_latents)
    with Image.open("run/traversal.png") as grid:
        assert grid.size == (7 * 10, rows * 10)


def test_classes_of_a_conditional_model_and_noise_of_a_gan_are_moved_alike(run, tmp_path, capsys):
    conditional = trained(tmp_path / "other", "experiment=conditional_vae_digits")
    assert evaluate.main([f"run={conditional}", "traverse=0", "out=a.png"]) == 0
    gan = shutil.copytree(RUNS / "gan", Path("gan"))
    capsys.readouterr()
    assert evaluate.main([f"run={gan}", "traverse=0", "out=b.png"]) == 0
    assert evaluate.main([f"run={gan}", "traverse=in/00.png", "out=c.png"]) == 2
    assert "Adversarial has no latent variables of an image" in capsys.readouterr().err


def test_images_that_cannot_be_used_are_named_and_omitted(run, capsys):
    Path("in/05.png").write_bytes(b"nothing")
    assert evaluate.main([f"run={run}", "reconstruct=in", "out=made.pt"]) == 1
    out, err = capsys.readouterr()
    assert out == "made.pt\n" and len(torch.load("made.pt", weights_only=True)) == 10
    assert err.splitlines()[0].startswith("reconstruct: in/05.png cannot be read as an image")
    assert err.splitlines()[1] == "error: 1 of 11 images cannot be used and were omitted"


def test_samples_of_64_are_a_grid_of_eight_by_eight(run):
    assert evaluate.main([f"run={run}", "sample=64", "seed=0", "out=grid.png"]) == 0
    with Image.open("grid.png") as grid:
        assert grid.size == (80, 80)


def test_conditional_model_says_that_it_needs_a_class(run, tmp_path, capsys):
    conditional = trained(tmp_path / "other", "experiment=conditional_vae_digits")
    capsys.readouterr()
    assert evaluate.main([f"run={conditional}", "reconstruct=in"]) == 2
    err = capsys.readouterr().err
    assert "this model is conditional" in err and err.count("\n") == 1
    assert evaluate.main([f"run={conditional}", "interpolate=0,1"]) == 0


def test_estimate_with_many_samples_is_made_of_a_stored_run(run, capsys):
    assert evaluate.main([f"run={run}", "task.importance_samples=20"]) == 0
    out = capsys.readouterr().out
    assert "negative_elbo" in out and "nll_k20" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["reconstruct=no.png"], "reconstruct=no.png: there is no such file or folder"),
        (["reconstruct=empty"], "reconstruct=empty: holds no image"),
        (["reconstruct=in", "out=in/00.png"], "out=in/00.png: already exists"),
        (["reconstruct=in", "out=a.jpg"], "out=a.jpg: must end in .png (images in a grid) or .pt"),
        (["reconstruct=in", "sample=3"], "reconstruct and sample exclude each other"),
        (["reconstruct=in", "split=val"], "split and reconstruct exclude each other"),
        (["reconstruct=in", "seed=3"], "seed goes with sample=<count>, neighbours=<count>"),
        (["reconstruct=in", "steps=3"], "steps goes with interpolate="),
        (["interpolate=in/00.png"], "interpolate=in/00.png: must be two image files or two seeds"),
        (["interpolate=1,"], "interpolate=1,: must be two image files or two seeds, with a comma"),
        (["interpolate=1,in/00.png"], "interpolate=1,in/00.png: there is no file 1"),
        (["interpolate=0,1", "steps=1"], "steps=1: must be a whole number, at least 2"),
        (["traverse=no.png"], "traverse=no.png: there is no file no.png"),
        (["traverse=0", "steps=1"], "steps=1: must be a whole number, at least 2"),
        (["traverse=0", "interpolate=0,1"], "interpolate and traverse exclude each other"),
        ([f"traverse={2**63}"], "seeds must be below 2**63"),
        (["interpolate=0,1", "tta=flip"], "tta and interpolate exclude each other"),
        ([f"interpolate=0,{2**63}"], "seeds must be below 2**63"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(words, said, run, capsys):
    Path("empty").mkdir()
    before = sorted(Path().rglob("*"))
    assert evaluate.main([f"run={run}", *words]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("words", ["reconstruct=in", "interpolate=in/00.png,in/01.png"])
@pytest.mark.parametrize("name", ["image", "masks", "graph"])
def test_a_run_without_latent_variables_says_so(name, words, run, capsys):
    other = shutil.copytree(RUNS / name, Path(name))
    assert evaluate.main([f"run={other}", words]) == 2
    err = capsys.readouterr().err
    assert "has no latent variables of an image; name the run of an autoencoder" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", ["image", "graph"])
def test_a_run_without_variables_to_move_says_so(name, run, capsys):
    other = shutil.copytree(RUNS / name, Path(name))
    assert evaluate.main([f"run={other}", "traverse=0"]) == 2
    err = capsys.readouterr().err
    assert "has no vector of latent variables with a normal prior; name the run of a" in err
    assert err.count("\n") == 1


def test_a_run_without_a_prior_says_so(run, capsys):
    other = shutil.copytree(RUNS / "image", Path("image"))
    assert evaluate.main([f"run={other}", "interpolate=0,1"]) == 2
    err = capsys.readouterr().err
    assert "interpolate: Classification draws no latent variables; name the run of a model" in err
    assert err.count("\n") == 1
