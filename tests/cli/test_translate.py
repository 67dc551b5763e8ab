"""A translation that is trained on files of one's own, and translates from its run folder alone."""

import io
import json
import random
import shutil
import sys
from pathlib import Path

import pytest

import evaluate
import train
from scripts import translate

WORDS = {
    "ein": "a",
    "der": "the",
    "Hund": "dog",
    "Mann": "man",
    "läuft": "runs",
    "schläft": "sleeps",
}


def sentences(n, seed):
    draw = random.Random(seed).choice
    for _ in range(n):
        german = [draw(["ein", "der"]), draw(["Hund", "Mann"]), draw(["läuft", "schläft"])]
        german += german[:2] if draw([True, False]) else []
        yield " ".join(german) + ".", " ".join(WORDS[word] for word in german) + "."


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    place = tmp_path_factory.mktemp("translation")
    for split, count in (("train", 400), ("test", 20)):
        pairs = list(sentences(count, seed=count))
        for side, name in enumerate(("de", "en")):
            text = "".join(f"{pair[side]}\n" for pair in pairs)
            (place / f"{split}.{name}").write_text(text, encoding="utf-8")
    words = (
        *("data=parallel_text", "data.train=[train.de,train.en]", "data.test=[test.de,test.en]"),
        *(f"data.root={place}", "data.batch_size=20", "task=translation", "task.label_smoothing=0"),
        *(
            "model=seq2seq_attention",
            "model.embed_dim=24",
            "model.hidden_size=48",
            "model.dropout=0",
        ),
        *("optimizer=adam", "optimizer.lr=1e-2", "trainer.epochs=8", "logger=off"),
        f"paths.runs_dir={place}/runs",
    )
    assert train.main(words) == 0
    (folder,) = (place / "runs").glob("*/*")
    return folder


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    """A copy of the run, elsewhere, without its data."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(trained, tmp_path / "run")).relative_to(tmp_path)


@pytest.fixture
def say(run, monkeypatch, capsys):
    """Translates text, or bytes, with more words on the command line; returns code and output."""

    def call(text, *words):
        content = text if isinstance(text, bytes) else text.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        capsys.readouterr()
        code = translate.main([f"run={run}", *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_training_learns_these_few_words(trained):
    results = json.loads((trained / "results.json").read_text())
    for split in ("val", "test"):
        assert results[split]["sequence_accuracy"] > 0.9
        assert results[split]["bleu"] > 90 and results[split]["perplexity"] < 1.2


def test_every_line_has_its_translation_in_its_place(say):
    pairs = list(sentences(30, seed=7))
    pairs.insert(4, ("", ""))
    pairs.insert(9, ("  ", ""))
    pairs.append(("", ""))
    text = "".join(f"{german}\n" for german, _ in pairs)
    for words in ([], ["batch_size=7"], ["batch_size=1", "beam_size=3"]):
        code, out, _ = say(text, *words)
        assert code == 0
        assert out == "".join(f"{english}\n" for _, english in pairs)


def test_an_end_of_windows_and_a_missing_one_change_nothing(say):
    assert say("der Hund läuft.\r\nein Mann schläft.")[1] == "the dog runs.\na man sleeps.\n"
    assert say("") == (0, "", "")
    assert say(b"\xef\xbb\xbfder Hund l\xc3\xa4uft.\n")[1] == "the dog runs.\n"


def test_what_the_vocabulary_lacks_is_no_error(say):
    code, out, _ = say("der Kühlschrank läuft 🙂\n")
    assert code == 0 and out.count("\n") == 1


def test_translations_may_go_to_a_new_file(say, tmp_path):
    assert say("der Hund läuft.\n", "out=a b.txt") == (0, "", "")
    assert (tmp_path / "a b.txt").read_text() == "the dog runs.\n"
    code, _, err = say("ein Mann läuft.\n", "out=a b.txt")
    assert code == 2 and "out=a b.txt: already exists" in err
    assert (tmp_path / "a b.txt").read_text() == "the dog runs.\n"


def test_a_failure_leaves_no_half_file(say, tmp_path):
    before = {*tmp_path.iterdir()}
    code, _, err = say(b"der Hund l\xe4uft.\n", "out=out.txt", "batch_size=1")
    assert code == 2 and "line 1 of standard input is not UTF-8" in err
    assert {*tmp_path.iterdir()} == before


def test_evaluation_needs_the_data_and_gives_the_trained_figures(run, trained, capsys):
    assert evaluate.main([f"run={run}"]) == 0
    found = json.loads((run / "evaluation-test.json").read_text())
    assert found["bleu"] == json.loads((trained / "results.json").read_text())["test"]["bleu"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["out=nowhere/a.txt"], "out=nowhere/a.txt: there is no folder nowhere"),
        (["beam_size=0"], "beam_size=0: must be a whole number, at least 1"),
        (["length_penalty=x"], "length_penalty=x: must be a number"),
        (["length_penalty=-1"], "length_penalty must be between 0 and 10, not -1.0"),
        (["checkpoint=nope"], "checkpoint=nope: there is no such file; this run has best, last"),
        (["beamsize=3"], "beamsize=3: there is no such setting"),
        (["--bogus"], "--bogus: there is no such flag"),
    ],
)
def test_mistakes_are_one_sentence(words, said, say):
    code, out, err = say("der Hund läuft.\n", *words)
    assert code == 2 and out == ""
    assert said in err and err.count("\n") == 1


def test_a_run_is_required_and_must_be_a_translation(capsys, tmp_path):
    assert translate.main([]) == 2
    assert "run=<run folder> is required" in capsys.readouterr().err
    assert translate.main(["run=nowhere"]) == 2
    assert "run=nowhere: there is no such folder" in capsys.readouterr().err
    words = ("experiment=lenet_digits", "trainer.steps=1", "trainer.epochs=null", "logger=off")
    assert train.main([*words, f"paths.runs_dir={tmp_path}"]) == 0
    (folder,) = tmp_path.glob("*/*")
    assert translate.main([f"run={folder}"]) == 2
    assert "this run does not translate" in capsys.readouterr().err
    words = ("experiment=copy_seq2seq", "trainer.steps=1", "data.num_samples=64", "logger=off")
    assert train.main([*words, f"paths.runs_dir={tmp_path}"]) == 0
    (folder,) = tmp_path.glob("copy_seq2seq/*")
    assert translate.main([f"run={folder}"]) == 2
    assert "the data of this model are numbers; name a run on sentences" in capsys.readouterr().err
    assert translate.main(["--help"]) == 0
    assert "beam_size=" in capsys.readouterr().out
