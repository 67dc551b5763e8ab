"""evaluate.py with a translation of images: which images it writes where, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import evaluate
import train
import zoo
from zoo.app.prediction_files import write_mask
from zoo.data.masks.shapes import draw_shapes
from zoo.tasks.prediction import Images


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("images")
    words = (
        *("experiment=pix2pix_shapes", "model.base_channels=2", "trainer.epochs=null"),
        *("trainer.steps=1", "data.train_size=4", "data.val_size=2", "data.test_size=2"),
        *("logger=off", f"paths.runs_dir={place}/runs", "trainer.device=cpu"),
    )
    assert train.main(words) == 0
    (folder,) = (place / "runs").glob("*/*")
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _, masks = draw_shapes(2, 64, torch.Generator().manual_seed(0))
    for name, mask in zip(("a", "b/c"), masks, strict=True):
        write_mask(mask, tmp_path / "in" / f"{name}.png")
    capsys.readouterr()
    return tmp_path


def pixels(path):
    with Image.open(path) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        return np.array(image)


def test_translations_lie_in_the_run_as_the_masks_lie_in_their_folder(run, here, capsys):
    assert evaluate.main([f"run={run}", "predict=in"]) == 0
    assert "2 predictions" in capsys.readouterr().out
    folder = run / "predictions"
    assert {str(p.relative_to(folder)) for p in folder.rglob("*.png")} == {"a.png", "b/c.png"}
    predictor = zoo.Predictor(run, device="cpu")
    for name in ("a.png", "b/c.png"):
        found = predictor(here / "in" / name)
        assert isinstance(found, Images)
        expected = found.images[0].permute(1, 2, 0).mul(255).round().byte().numpy()
        assert np.array_equal(pixels(folder / name), expected)


def test_a_mask_has_one_translation_whatever_is_translated_with_it(run, here):
    assert evaluate.main([f"run={run}", "predict=in", "out=both"]) == 0
    assert evaluate.main([f"run={run}", "predict=in/b/c.png", "out=c.png"]) == 0
    assert np.array_equal(pixels(here / "both" / "b" / "c.png"), pixels(here / "c.png"))
    assert evaluate.main([f"run={run}", "predict=in", "out=both"]) == 0  # replaces its own


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sample=4"], "sample: this run makes images of images; write predict=<image or folder>"),
        (["reconstruct=in"], "reconstruct: ImageTranslation has no latent variables of an image"),
        (["interpolate=0,1"], "interpolate: ImageTranslation draws no latent variables"),
        (["predict=other.png"], "other.png: it is no mask of shapes: a pixel is [9, 9, 9]"),
        (["predict=in", "out=others"], "a.png exists, and it is not one that evaluate.py wrote"),
        (["predict=in", "tta=flip"], "tta=flip: this run does not classify images"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_nothing_is_lost(words, said, run, here, capsys):
    Image.new("RGB", (64, 64), (9, 9, 9)).save("other.png")
    Path("others").mkdir()
    Image.new("RGB", (64, 64)).save("others/a.png")
    before = {p: p.is_file() and p.read_bytes() for p in here.rglob("*")}
    assert evaluate.main([f"run={run}", *words]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
    assert {p: p.is_file() and p.read_bytes() for p in here.rglob("*")} == before
