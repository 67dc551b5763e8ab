"""The program that counts n-grams."""

import importlib.util
import math
import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def program():
    path = ROOT / "scripts" / "ngram_baseline.py"
    spec = importlib.util.spec_from_file_location("ngram_baseline", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def words(tmp_path):
    """A text of two letters that alternate, but for a blunder here and there."""
    generator = torch.Generator().manual_seed(0)
    letters = [0]
    while len(letters) < 4_000:
        letters.append(letters[-1] ^ (torch.rand((), generator=generator).item() < 0.9))
    (tmp_path / "text.txt").write_text("".join("ab"[letter] for letter in letters))
    return ["data=text", f"data.path={tmp_path / 'text.txt'}"]


def table(text):
    head, names, *rows = text.splitlines()
    return head, names.split(), [list(map(float, row.split())) for row in rows]


def test_it_prints_what_each_order_is_worth(program, words, capsys):
    assert program.main([*words, "order=3"]) == 0
    head, names, rows = table(capsys.readouterr().out)
    assert head == "2 tokens; 3,600 to count, 400 to predict"
    assert names == ["order", "loss", "perplexity", "bits_per_character"]
    assert [row[0] for row in rows] == [1, 2, 3]
    entropy = -0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    assert rows[0][1] == pytest.approx(math.log(2), abs=0.01)
    assert rows[1][1] == pytest.approx(entropy, abs=0.05)
    for _, loss, perplexity, bits in rows:
        assert perplexity == pytest.approx(math.exp(loss), abs=1e-3)
        assert bits == pytest.approx(loss / math.log(2), abs=1e-3)


def test_the_loss_does_not_depend_on_how_much_is_looked_at_at_a_time(program, monkeypatch):
    from zoo.models.ngram import NGram

    model = NGram(5, order=3)
    tokens = torch.randint(5, (300,), generator=torch.Generator().manual_seed(0))
    model.fit(tokens)
    whole = program.loss(model, tokens)
    monkeypatch.setattr(program, "ENTRIES", 35)
    assert program.loss(model, tokens) == pytest.approx(whole, abs=1e-12)


def test_words_have_no_bits_a_character(program, words, capsys):
    path = Path(words[1].partition("=")[2])
    path.write_text("a b a c, a b. " * 200)
    assert program.main([*words, "data.vocabulary=words", "order=4"]) == 0
    _, names, rows = table(capsys.readouterr().out)
    assert names == ["order", "loss", "perplexity"]
    assert rows[-1][2] == pytest.approx(1, abs=0.2)  # after three words there is no doubt left


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["split=train"], "split=train: must be one of val"),
        (["split=test"], "split=test: must be one of val"),
        (["order=0"], "order=0: must be a whole number, at least 1"),
    ],
)
def test_mistakes_are_named(program, words, capsys, wrong, message):
    assert program.main([*words, *wrong]) == 2
    assert message in capsys.readouterr().err


def test_data_that_are_no_text_are_refused(program, capsys):
    assert program.main(["data=digits"]) == 2
    assert "data: Digits is not text" in capsys.readouterr().err


def test_it_says_what_it_takes(program, capsys):
    assert program.main(["--help"]) == 0
    assert "order=6" in capsys.readouterr().out


@pytest.mark.data
def test_five_grams_of_tiny_shakespeare(program, capsys):
    folder = Path(os.environ["ZOO_DATA_DIR"])
    if not (folder / "tinyshakespeare").is_dir():
        pytest.skip(f"no tinyshakespeare in {folder}")
    assert program.main(["data=tiny_shakespeare", f"paths.data_dir={folder}", "order=5"]) == 0
    _, _, rows = table(capsys.readouterr().out)
    assert rows[4][1] == pytest.approx(1.561, abs=0.005)
