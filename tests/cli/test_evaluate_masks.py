"""evaluate.py with a segmentation: which masks it writes where, and what it never overwrites."""

import numpy as np
import pytest
from PIL import Image

import evaluate
import train
from zoo.app import prediction_files
from zoo.figures.palette import voc_colours

# Stand-ins: images keep their size, and the class of a pixel is its grey value.
PACKAGE = """
import numpy as np
import torch
from zoo.data.images.digits import Digits
from zoo.tasks.classification import Classification
from zoo.tasks.prediction import Masks

class AnySize(Digits):
    def preprocess(self, image):
        return torch.from_numpy(np.array(image.convert("L"))).float()[None]

class Grey(Classification):
    predicts = Masks
    def predict(self, batch):
        return Masks(batch[:, 0].long())
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("masks")
    (place / "own_masks.py").write_text(PACKAGE)
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(str(place))
    words = (
        *("trusted=[own_masks]", "data._target_=own_masks.AnySize", "task._target_=own_masks.Grey"),
        *("experiment=lenet_digits", "trainer.epochs=1", "trainer.limit_train_batches=1"),
        *("trainer.limit_eval_batches=1", "logger=off", f"paths.runs_dir={place}/runs"),
    )
    assert train.main(words) == 0
    (folder,) = (place / "runs").glob("*/*")
    yield folder
    patch.undo()


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    return tmp_path


def segment(run, *words):
    return evaluate.main([f"run={run}", "trusted=[own_masks]", *words])


def draw(path, shape=(5, 7), seed=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 21, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return pixels


def numbers(path):
    with Image.open(path) as image:
        assert (image.format, image.mode) == ("PNG", "P")
        return np.array(image)


def test_masks_lie_in_the_run_as_the_images_lie_in_their_folder(run, here, capsys):
    drawn = {
        "a.png": draw(here / "in" / "a.png"),
        "b/c d.png": draw(here / "in" / "b" / "c d.png", (30, 20), seed=1),
        "b/e.png": draw(here / "in" / "b" / "e.bmp", (1, 1), seed=2),
    }
    (here / "in" / "notes.txt").write_text("no image")
    assert segment(run, "predict=in") == 0
    out = capsys.readouterr().out
    folder = run / "predictions"
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert found == set(drawn)
    for name, pixels in drawn.items():
        assert np.array_equal(numbers(folder / name), pixels)
    assert "3 predictions" in out
    assert out.splitlines()[-1].endswith("predictions")


def test_colours_are_those_of_pascal_voc(run, here):
    draw(here / "a.png", (40, 40))
    assert segment(run, "predict=a.png", "out=out") == 0
    with Image.open(here / "out" / "a.png") as image:
        palette = np.array(image.getpalette()).reshape(-1, 3)
    published = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        2: (0, 128, 0),
        3: (128, 128, 0),
        4: (0, 0, 128),
        8: (64, 0, 0),
        15: (192, 128, 128),
        20: (0, 64, 128),
        255: (224, 224, 192),
    }
    full = voc_colours().numpy()
    for number, colour in published.items():
        assert tuple(full[number]) == colour
        assert number >= len(palette) or tuple(palette[number]) == colour
    assert len({tuple(colour) for colour in full}) == 256


def test_mask_of_one_image_may_be_named(run, here):
    pixels = draw(here / "a.png")
    assert segment(run, "predict=a.png", "out=sub/mask.png") == 0
    assert np.array_equal(numbers(here / "sub" / "mask.png"), pixels)


def test_second_prediction_replaces_the_first_and_takes_no_mask_for_an_image(run, here, capsys):
    draw(here / "in" / "a.png")
    for seed in (1, 2):
        pixels = draw(here / "in" / "a.png", seed=seed)
        assert segment(run, "predict=in", "out=in/masks") == 0
        assert "1 predictions" in capsys.readouterr().out
        assert np.array_equal(numbers(here / "in" / "masks" / "a.png"), pixels)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: draw(path),
        lambda path: Image.new("P", (3, 3)).save(path),
        lambda path: path.write_text("notes"),
        lambda path: path.mkdir(),
    ],
    ids=["image", "mask", "text", "folder"],
)
def test_files_of_others_are_never_replaced(make, run, here, capsys):
    draw(here / "in" / "a.png")
    draw(here / "in" / "b.png")
    (here / "out").mkdir()
    make(here / "out" / "b.png")
    before = {p: p.is_file() and p.read_bytes() for p in here.rglob("*")}
    assert segment(run, "predict=in", "out=out") == 2
    err = capsys.readouterr().err
    assert "out/b.png exists, and it is not one that evaluate.py wrote" in err
    assert {p: p.is_file() and p.read_bytes() for p in here.rglob("*")} == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["predict=in", "out=in"], "out=in: must be another folder than that of the images"),
        (["predict=both"], "the masks of both/a.bmp and both/a.png would both be"),
        (["predict=in/a.png", "out=in/a.png"], "in/a.png exists, and it is not one"),
        (["predict=in", "out=file"], "cannot be written"),
        (["predict=broken.png"], "broken.png cannot be read as an image"),
        (["predict=in", "tta=flip"], "tta=flip: this run does not classify images"),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_is_lost(words, said, run, here, capsys):
    draw(here / "in" / "a.png")
    draw(here / "both" / "a.png")
    draw(here / "both" / "a.bmp")
    (here / "broken.png").write_bytes((here / "in" / "a.png").read_bytes()[:60])
    (here / "file").write_text("kept")
    before = {p: p.is_file() and p.read_bytes() for p in here.rglob("*")}
    assert segment(run, *words) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
    assert {p: p.is_file() and p.read_bytes() for p in here.rglob("*")} == before


def test_more_classes_than_a_byte_has_are_refused():
    import torch

    from zoo.config.errors import ConfigError

    with pytest.raises(ConfigError, match="class 256 does not fit a mask, which ends at 255"):
        prediction_files.indexed(torch.tensor([[256]]))
