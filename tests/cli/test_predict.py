"""Predictions of every kind: in Python, as files, and by the runs of an earlier version."""

import csv
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import evaluate
import zoo
from zoo.app.prediction_files import rows_of, write_samples, write_table
from zoo.config.errors import ConfigError
from zoo.tasks.prediction import Classes, Masks, Samples, Table, Texts, Values

RUNS = Path(__file__).parents[1] / "fixtures" / "runs"


@pytest.fixture
def old(tmp_path, monkeypatch):
    """A copy of a run of an earlier version, and a folder of its own to stand in."""
    monkeypatch.chdir(tmp_path)
    return lambda name: Path(shutil.copytree(RUNS / name, tmp_path / name).name)


def inputs(tmp_path):
    """The folder `in`, for images to predict."""
    (tmp_path / "in").mkdir(exist_ok=True)
    return tmp_path / "in"


# ------------------------------------------------------------------------------- in Python


def test_paths_images_and_arrays_have_the_same_prediction(old, tmp_path):
    predictor = zoo.Predictor(old("image"), device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.png")
    found = predictor(image)
    assert isinstance(found, Classes)
    ((name, probability),) = found.best()
    assert name == found.class_names[int(found.probabilities.argmax())]
    assert probability == pytest.approx(found.probabilities.max().item())
    for same in (tmp_path / "a.png", "a.png", pixels):
        assert torch.equal(predictor(same).probabilities, found.probabilities)
    grey = predictor(pixels[..., 0])
    assert torch.equal(grey.probabilities, predictor(image.getchannel(0)).probabilities)


def test_a_segmentation_predicts_a_mask_of_the_images_size(old):
    prediction = zoo.Predictor(old("masks"), device="cpu")(np.zeros((40, 48, 3), np.uint8))
    assert isinstance(prediction, Masks) and prediction.masks.shape == (1, 40, 48)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4)), r"a uint8 array \(height, width\).*, not ndarray\(4, 4\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"not ndarray\(2, 4, 4, 3\)"),
        (torch.zeros(3, 4, 4), "not Tensor"),
        (7, "a path, a PIL image or .*, not int"),
    ],
)
def test_what_is_not_an_image_is_refused(image, message, old):
    with pytest.raises(ValueError, match=message):
        zoo.Predictor(old("image"), device="cpu")(image)


def test_files_that_are_not_images_are_refused(old, tmp_path):
    (tmp_path / "a.png").write_text("text")
    with pytest.raises(ConfigError, match=r"predict: a.png cannot be read as an image"):
        zoo.Predictor(old("image"), device="cpu")("a.png")


# ------------------------------------------------------------------------------- programs


def test_every_suffix_that_training_reads_is_predicted(old, tmp_path):
    (tmp_path / "in").mkdir()
    names = ["a.bmp", "b.pgm", "c.png", "d.ppm", "e.tiff"]
    for name in names:
        Image.new("L" if name == "b.pgm" else "RGB", (9, 8)).save(tmp_path / "in" / name)
    assert evaluate.main([f"run={old('image')}", "predict=in", "out=out.csv"]) == 0
    with open("out.csv", newline="", encoding="utf-8") as file:
        assert [row["path"] for row in csv.DictReader(file)] == [f"in/{name}" for name in names]


def test_what_cannot_be_read_is_named_and_omitted(old, tmp_path, monkeypatch, capsys):
    for name in ("a", "b", "c"):
        Image.new("RGB", (9, 8)).save(inputs(tmp_path) / f"{name}.png")
    (tmp_path / "in" / "b.png").write_bytes(b"nothing")
    (tmp_path / "in" / "._a.png").write_bytes(b"\0\5\x16\7")
    Image.new("1", (300, 300)).save(tmp_path / "in" / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40_000)
    run = old("image")
    assert evaluate.main([f"run={run}", "predict=in"]) == 1
    out, err = capsys.readouterr()
    assert "2 predictions" in out and "image/predictions.csv" in out
    lines = err.splitlines()
    assert [line.partition(" cannot")[0] for line in lines[:2]] == [
        "predict: in/b.png",
        "predict: in/bomb.png",
    ]
    assert lines[2:] == ["error: 2 of 4 images cannot be used and were omitted"]
    with open(run / "predictions.csv", newline="", encoding="utf-8") as file:
        assert [row["path"] for row in csv.DictReader(file)] == ["in/a.png", "in/c.png"]
    assert evaluate.main([f"run={run}", "predict=in/bomb.png"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_masks_are_predicted_for_the_readable_images(old, tmp_path, capsys):
    Image.new("RGB", (40, 48)).save(inputs(tmp_path) / "a.png")
    (tmp_path / "in" / "b.png").write_bytes(b"nothing")
    assert evaluate.main([f"run={old('masks')}", "predict=in", "out=masks_out"]) == 1
    assert "1 predictions" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "masks_out").iterdir()] == ["a.png"]


def test_nothing_is_written_where_no_image_can_be_read(old, tmp_path, capsys):
    for name in ("a", "b"):
        (inputs(tmp_path) / f"{name}.png").write_bytes(b"nothing")
    assert evaluate.main([f"run={old('image')}", "predict=in", "out=out.csv"]) == 1
    assert "2 of 2 images cannot be used" in capsys.readouterr().err
    assert not Path("out.csv").exists()


@pytest.mark.parametrize("source", ["in", "in/a.png"])
def test_an_existing_file_is_never_overwritten_by_a_table(source, old, tmp_path, capsys):
    Image.new("RGB", (9, 8)).save(inputs(tmp_path) / "a.png")
    run = old("image")
    for target in (tmp_path / "labels.csv", tmp_path / "in" / "a.png"):
        if not target.exists():
            target.write_text("mine")
        before = target.read_bytes()
        assert evaluate.main([f"run={run}", f"predict={source}", f"out={target}"]) == 2
        assert f"out={target}: already exists" in capsys.readouterr().err
        assert target.read_bytes() == before
    for _ in range(2):  # what it has written itself in the run folder, it replaces
        assert evaluate.main([f"run={run}", f"predict={source}"]) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="names are UTF-8 elsewhere")
def test_names_that_are_not_utf8_are_predicted_and_shown_in_ascii(old, tmp_path, capsys):
    Image.new("RGB", (9, 8)).save(inputs(tmp_path) / os.fsdecode(b"caf\xe9.png"))
    run = old("image")
    assert evaluate.main([f"run={run}", "predict=in"]) == 0
    assert "in/caf\\xe9.png: " in capsys.readouterr().out
    assert "in/caf\\xe9.png," in (run / "predictions.csv").read_text(encoding="utf-8")
    assert evaluate.main([f"run={old('masks')}", "predict=in"]) == 0
    assert "in/caf\\xe9.png: masks/predictions/caf\\xe9.png" in capsys.readouterr().out


def test_a_gan_draws_samples_into_a_grid_or_a_tensor(old, capsys):
    run = old("gan")
    assert evaluate.main([f"run={run}", "sample=3"]) == 0
    assert capsys.readouterr().out == "gan/samples.png\n"
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert evaluate.main([f"run={run}", "sample=3", f"seed={seed}", f"out={name}.pt"]) == 0
    a, b, c = (torch.load(f"{name}.pt", weights_only=True) for name in "abc")
    assert a.shape[0] == 3 and torch.equal(a, b) and not torch.equal(a, c)
    with Image.open(run / "samples.png") as image:
        assert image.size == (3 * (a.shape[3] + 2), a.shape[2] + 2)
        pixels = np.array(image)
    expected = (a - a.min()) / (a.max() - a.min())
    shown = pixels[: a.shape[2], : a.shape[3], 0] / 255
    assert abs(shown - expected[0, 0].numpy()).max() < 1 / 255


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("gan", ["predict=a.png"], "predict: this run draws samples; write sample=<count> instead"),
        ("regression", ["predict=a.png"], "predict: Diabetes cannot prepare an image for this run"),
        ("text", ["predict=a.png"], "cannot prepare an image for this run; name a run on images"),
        ("graph", ["predict=a.png"], "cannot prepare an image for this run; name a run on images"),
        ("image", ["sample=4"], "sample: this run draws no samples"),
        ("gan", ["sample=0"], "sample=0: must be a whole number, at least 1"),
        ("gan", ["sample=2", f"seed={2**63}"], f"seed={2**63}: must be below 2**63"),
        ("gan", ["sample=2", "out=a.jpg"], "out=a.jpg: must end in .png (images in a grid) or .pt"),
        ("gan", ["sample=2", "out=a.png"], "out=a.png: already exists; remove it or name another"),
        ("gan", ["sample=2", "out=no/a.pt"], "out=no/a.pt: there is no folder no; make it first"),
        ("gan", ["sample=2", "split=val"], "split and sample exclude each other"),
        ("gan", ["sample=2", "predict=a.png"], "predict and sample exclude each other"),
        ("gan", ["seed=2"], "seed goes with sample=<count>"),
        ("gan", ["tta=flip"], "tta=flip: this run does not classify images"),
        ("sequence", ["tta=flip"], "tta=flip: this run does not classify images"),
    ],
)
def test_what_a_run_does_not_predict_is_refused_in_a_sentence(name, words, said, old, capsys):
    run = old(name)
    Image.new("L", (8, 8)).save("a.png")
    before = sorted(path for path in Path().rglob("*"))
    assert evaluate.main([f"run={run}", *words]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
    assert sorted(path for path in Path().rglob("*")) == before


# ---------------------------------------------------------------------------------- files


def test_rows_of_every_kind_of_table(tmp_path):
    probabilities = torch.tensor([[0.25, 0.75], [0.9, 0.1]])
    assert rows_of(Classes(probabilities, ("cat", "dog"))) == [
        {"class": "dog", "probability": 0.75},
        {"class": "cat", "probability": pytest.approx(0.9)},
    ]
    assert rows_of(Classes(probabilities))[0]["class"] == "1"
    assert rows_of(Values(torch.tensor([[1.5], [2.0]]))) == [{"value": 1.5}, {"value": 2.0}]
    assert rows_of(Values(torch.tensor([1.5, 2.0]))) == [{"value": 1.5}, {"value": 2.0}]
    assert rows_of(Values(torch.ones(1, 1, 2))) == [{"value_0": 1.0, "value_1": 1.0}]
    assert rows_of(Texts(["a, b", "c"])) == [{"text": "a, b"}, {"text": "c"}]
    assert rows_of(Table([{"x": 1.0}])) == [{"x": 1.0}]
    for kind in (Classes(torch.ones(1, 2, 3)), Samples(torch.ones(1))):
        with pytest.raises(ConfigError, match=f"predict: {type(kind).__name__} cannot be written"):
            rows_of(kind)
    write_table(rows_of(Texts(["a, b", 'c "d"\n'])), tmp_path / "a.csv")
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        assert [row["text"] for row in csv.DictReader(file)] == ["a, b", 'c "d"\n']


def test_samples_that_are_not_images_are_a_tensor(tmp_path):
    samples = torch.randn(4, 2)
    with pytest.raises(ConfigError, match=r"a.png: these samples are not images; write out=<f"):
        write_samples(samples, tmp_path / "a.png")
    write_samples(samples, tmp_path / "a.pt")
    assert torch.equal(torch.load(tmp_path / "a.pt", weights_only=True), samples)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_classes_of_steps_have_no_best_class_of_a_sample():
    with pytest.raises(ValueError, match=r"probabilities must be \(batch, classes\), not \(1, 2, "):
        Classes(torch.ones(1, 2, 3)).best()
