"""The program that draws what a network is trained on."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data.images.base import Normalize
from zoo.figures.palette import voc_colours

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def program():
    spec = importlib.util.spec_from_file_location("show_data", ROOT / "scripts" / "show_data.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_draws_augmented_images_of_an_epoch_in_a_grid(program, here, capsys):
    words = ("data=digits", "data.augment=true", "count=10")
    for epoch in (0, 1):
        assert program.main([*words, f"epoch={epoch}", f"out={epoch}.png"]) == 0
    (here / "again").mkdir()
    assert program.main([*words, "out=again/0.png"]) == 0
    assert capsys.readouterr().out.split() == ["0.png", "1.png", "again/0.png"]
    first, second, again = (
        np.array(Image.open(here / name)) for name in ("0.png", "1.png", "again/0.png")
    )
    assert first.shape == (2 * (96 + 4 + 14), 8 * (96 + 4), 3)
    assert (first == again).all() and (first != second).any()
    image = first[2:98, 2:98]
    assert image.min() == 0 and image.max() > 200  # the normalisation is undone


def test_a_file_that_is_there_is_not_overwritten(program, here, capsys):
    (here / "data.png").write_text("mine")
    assert program.main(["data=digits"]) == 2
    assert "out=data.png: already exists; remove it" in capsys.readouterr().err
    assert (here / "data.png").read_text() == "mine"


def test_images_of_files_are_shown_with_the_names_and_shares_of_their_classes(program, here):
    for name in ("cat", "dog"):
        (here / "pets" / name).mkdir(parents=True)
        for i in range(10):
            colour = (200, 30, 30) if name == "cat" else (30, 30, 200)
            Image.new("RGB", (20, 16), colour).save(here / "pets" / name / f"{i}.png")
    data = ("data=image_folder", "data.folder=pets", f"data.root={here}", "data.num_workers=0")
    mixed = (*data, "data.mixup=1.0", "count=3", "out=mixed.png")
    assert program.main([*data, "split=val", "count=1", "out=plain.png"]) == 0
    assert program.main(mixed) == 0
    plain, mixed = (np.array(Image.open(here / f"{name}.png")) for name in ("plain", "mixed"))
    assert abs(plain[50, 50].astype(int) - [200, 30, 30]).max() <= 1
    assert plain.shape == (96 + 4 + 14, 100, 3) and mixed.shape == (96 + 4 + 28, 300, 3)
    names = program.label(torch.tensor([0.25, 0.0, 0.75]), ("cat", "dog", "newt"))
    assert names == "0.75 newt\n0.25 cat"


def test_masks_are_laid_over_their_images(program):
    class Data:
        normalize = Normalize((0.0,), (1.0,))
        class_names = ("background", "cell", "border")

    mask = torch.tensor([[0, 1], [2, 255]])
    ((image, text),) = program.drawn((torch.full((1, 1, 2, 2), 0.5), mask.unsqueeze(0)), Data())
    assert text == ""
    shown = np.array(image)
    assert shown[0, 0].tolist() == [128] * 3
    for number in (1, 2, 255):
        (place,) = (mask == number).nonzero().tolist()
        colour = voc_colours()[number].numpy()
        assert abs(shown[tuple(place)] - (127.5 + colour) / 2).max() <= 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data=stdlib_text",), "data: StandardLibrary holds no images"),
        (("data=digits", "split=all"), "split=all: these data have train, val, test"),
        (("data=digits", "count=0"), "count=0: must be a whole number, at least 1"),
        (("data=digits", "epoch=x"), "epoch=x: must be a whole number, at least 0"),
        (("data=digits", "out=grid.txt"), "out=grid.txt: must end in .png or .jpg"),
        (("data=digit",), "did you mean 'digits'"),
        (("data=digits", "data.augmnt=true"), "data.augmnt"),
        (("--bogus",), "there is no such flag"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_file(words, message, program, here, capsys):
    assert program.main(list(words)) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert list(here.iterdir()) == []


def test_help_says_what_there_is(program, capsys):
    assert program.main(["--help"]) == 0
    assert "out=data.png" in capsys.readouterr().out
