"""Samples of every evaluation in one strip, and the newest image of each kind as a file."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import evaluate
from train import train
from zoo.app.main import main
from zoo.app.rebuild import prepare_evaluation
from zoo.training.tensorboard import TensorBoard

RUNS = Path(__file__).parents[1] / "fixtures" / "runs"
WORDS = (
    *("experiment=gan_digits", "trainer.epochs=null", "trainer.steps=12"),
    *("trainer.evaluate_every=3", "logger.images_every=1", "logger.graph=false"),
    *("logger.console=off", "trainer.device=cpu"),
)


def trained(place, *words):
    code = main(train, [*WORDS, *words, f"paths.runs_dir={place}"])
    (folder,) = place.glob("*/*")
    return code, folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    code, folder = trained(tmp_path_factory.mktemp("whole"))
    assert code == 0
    return folder


def tile(path, row, column, side=66):
    with Image.open(path) as image:
        pixels = np.array(image)
    return pixels[row * side : (row + 1) * side, column * side : (column + 1) * side]


def test_strip_has_a_row_for_each_evaluation_that_ends_with_the_last_weights(finished, capsys):
    capsys.readouterr()
    assert evaluate.main([f"run={finished}", "over_training=5"]) == 0
    said, file = capsys.readouterr().out.splitlines()
    assert said == "from top to bottom steps 3, 6, 9, 12"
    strip = finished / "samples_over_training.png"
    assert Path(file).resolve() == strip
    with Image.open(strip) as image:
        assert image.size == (5 * 66, 4 * 66)
    # The last row by way of the checkpoint: 8x8 pixels, each eight times as large.
    task = prepare_evaluation(finished, ["trainer.device=cpu"], checkpoint="last").task
    samples = task.sample(64).samples
    low, high = samples.min(), samples.max()
    expected = ((samples - low) / (high - low) * 255).round()
    for column in range(5):
        shown = tile(strip, 3, column)[:64:8, :64:8, 0].astype(float)
        assert np.abs(shown - expected[column, 0].numpy()).max() <= 1
    assert (tile(strip, 0, 0) != tile(strip, 3, 0)).any()


def test_strip_and_images_of_a_killed_and_resumed_run_are_those_of_a_whole_one(
    finished, tmp_path, monkeypatch
):
    after = TensorBoard.on_evaluation_end

    def killed(self, trainer, split, metrics):
        after(self, trainer, split, metrics)
        if trainer.step == 9:  # its images are written, its checkpoint is not
            raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(TensorBoard, "on_evaluation_end", killed)
        code, folder = trained(tmp_path)
    assert code == 1
    (folder / "images" / "val_samples.png.00.tmp").write_bytes(b"half")
    assert main(train, [f"resume={folder}"]) == 0
    strips = []
    for run in (finished, folder):
        out = tmp_path / f"{len(strips)}.png"
        assert evaluate.main([f"run={run}", "over_training=8", f"out={out}"]) == 0
        strips.append(out.read_bytes())
    assert strips[0] == strips[1]
    files = ["test_samples.png", "val_samples.png"]
    for run in (finished, folder):
        assert sorted(path.name for path in (run / "images").iterdir()) == files
    for name in files:
        assert (folder / "images" / name).read_bytes() == (finished / "images" / name).read_bytes()


def test_file_of_an_image_is_its_newest(finished):
    evaluate.main([f"run={finished}", "over_training=8", f"out={finished / 'strip.png'}"])
    for column in range(8):
        newest = tile(finished / "images" / "val_samples.png", 0, column).astype(int)
        # TensorBoard rounds to whole levels otherwise.
        assert np.abs(newest - tile(finished / "strip.png", 3, column)).max() <= 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gan", "over_training: there are no images of samples in "),
        ("masks", "over_training: this run draws no samples; name a generator's"),
        ("graph", "over_training: this run draws no samples; name a generator's"),
    ],
)
def test_a_run_without_images_of_samples_says_so(name, said, tmp_path, capsys):
    folder = shutil.copytree(RUNS / name, tmp_path / name)
    assert evaluate.main([f"run={folder}", "over_training=4"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {said}") and err.count("\n") == 1
    assert not (folder / "samples_over_training.png").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["over_training=0"], "over_training=0: must be a whole number, at least 1"),
        (["over_training=65"], "over_training=65: this run shows only 64 samples"),
        (["over_training=4", "out=a.pt"], "out=a.pt: must end in .png"),
        (["over_training=4", "seed=1"], "seed goes with sample=<count>, neighbours=<count>"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(words, said, finished, capsys):
    capsys.readouterr()
    assert evaluate.main([f"run={finished}", *words]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
