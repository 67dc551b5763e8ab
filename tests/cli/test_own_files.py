"""Training from one's own files, as a user does: what the start says, and what is refused."""

import numpy as np
import pytest
from PIL import Image

import train

WORDS = (
    *("data=image_folder", "data.folder=mine", "data.image_size=32", "data.in_channels=1"),
    *("data.batch_size=4", "model=lenet5", "task=classification", "trainer.epochs=1"),
    *("trainer.device=cpu", "logger=off"),
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("ant", "bee"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for number in range(10):
            pixels = np.random.default_rng(number).integers(0, 4000, (32, 32)).astype(np.uint16)
            Image.fromarray(pixels).save(tmp_path / "mine" / name / f"{number:02}.png")
    return tmp_path


def test_the_start_says_what_was_found(here, capsys):
    (here / "mine" / "bee" / "._00.png").write_bytes(b"\0")
    assert train.main(WORDS) == 0
    out = capsys.readouterr().out
    assert "images of mine: 16 train, 2 val, 2 test; in train: ant 8, bee 8\n" in out
    assert "not read: 1 hidden\n" in out
    assert "the largest value seen is 3,9" in out and "set data.max_value=4095\n" in out
    (log,) = here.glob("runs/*/*/log.txt")
    assert "in train: ant 8, bee 8" in log.read_text()


def test_the_name_of_a_class_does_not_reach_the_terminal_raw(here, capsys):
    (here / "mine" / "bee").rename(here / "mine" / "\x1b[31mbee")
    assert train.main(WORDS) == 0
    out = capsys.readouterr().out
    assert "in train: \\x1b[31mbee 8, ant 8\n" in out and "\x1b" not in out


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_unreadable_streamed_image_is_one_line_with_its_name(num_workers, here, capsys):
    """Whether the rehearsal meets it or the training."""
    path = here / "mine" / "bee" / "05.png"
    path.write_bytes(path.read_bytes()[:200])
    words = (*WORDS, "data.in_memory=false", f"data.num_workers={num_workers}")
    assert train.main(words) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("error: mine/bee/05.png cannot be read as an image (")
    assert err.endswith("): replace or remove it\n")


@pytest.mark.parametrize(
    ("move", "said"),
    [
        ("mine/up", "holds one folder, up, .* (ant, bee) are the classes, set data.folder=mine/up"),
        ("mine/train_set/up", "mine/train_set holds one folder, up, "),
        ("mine/test", "mine holds test, which looks like a split, but no folder train: "),
    ],
)
def test_what_would_make_a_wrong_classification_is_refused(move, said, here, capsys):
    (here / "mine").rename(here / "old")
    (here / move).parent.mkdir(parents=True)
    (here / "old").rename(here / move)
    assert train.main(WORDS) in (1, 2)
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and not (here / "runs").exists()
    for part in said.split(" .* "):
        assert part in err
