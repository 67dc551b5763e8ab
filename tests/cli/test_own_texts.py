"""Texts of one's own, as a user does: train, then predict texts that the network has never seen."""

import csv
import random

import pytest

import evaluate
import train

WORDS = (
    *("data=labelled_text", "data.train=mine.csv", "data.batch_size=16", "data.num_folds=4"),
    *("model=text_cnn", "model.embed_dim=16", "model.num_filters=8"),
    *("task=sequence_classification", "optimizer=adam", "optimizer.lr=0.01", "trainer.epochs=10"),
    *("trainer.device=cpu", "logger=off"),
)
MOODS = {"praise": ("fine", "funny", "moving"), "blame": ("dull", "empty", "silly")}


def sentences(count, seed):
    """Sentences of 2 to 9 words, of which one says what they are."""
    choice = random.Random(seed)
    for number in range(count):
        kind = ("praise", "blame")[number % 2]
        words = choice.choices(("the", "film", "is", "and", "so", ","), k=choice.randint(1, 8))
        words.insert(choice.randint(0, len(words)), choice.choice(MOODS[kind]))
        yield " ".join(words), kind


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open("mine.csv", "w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *sentences(160, 0)])
    with open("new.csv", "w", newline="") as file:
        csv.writer(file).writerows([("id", "text"), *((i, t) for i, (t, _) in enumerate(NEW))])
    return tmp_path


NEW = list(sentences(70, 1))


def test_texts_that_training_has_not_seen_are_classified_in_their_order(here, capsys):
    assert train.main(WORDS) == 0
    out = capsys.readouterr().out
    assert "mine.csv: 160 rows" in out and "predict=<texts.csv>" in out
    (run,) = here.glob("runs/*/*")
    (here / "mine.csv").rename(here / "gone.csv")  # a prediction needs the run folder alone
    assert evaluate.main([f"run={run}", "predict=new.csv"]) == 0
    printed = capsys.readouterr().out
    assert "70 predictions" in printed and f"{NEW[0][0]}: praise (" in printed
    with open(run / "predictions.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == [text for text, _ in NEW]
    assert sum(row["class"] == kind for row, (_, kind) in zip(rows, NEW, strict=True)) >= 66
    assert all(0.5 <= float(row["probability"]) <= 1 for row in rows)
    # Alone in its batch or padded beside longer ones: the same.
    for number in (0, 69):
        (here / "one.txt").write_text(NEW[number][0] + "\n")
        assert evaluate.main([f"run={run}", "predict=one.txt", f"out={number}.csv"]) == 0
        with open(f"{number}.csv", newline="") as file:
            (row,) = csv.DictReader(file)
        expected = (
            rows[number]["class"],
            pytest.approx(float(rows[number]["probability"]), abs=2e-6),
        )
        assert (row["class"], float(row["probability"])) == expected


def test_what_cannot_be_predicted_is_one_line_and_leaves_no_table(here, capsys):
    assert train.main((*WORDS, "trainer.steps=1")) == 0
    (run,) = here.glob("runs/*/*")
    capsys.readouterr()
    (here / "bad.csv").write_text("text\n" + "good\n" * 40 + '" "\n')
    (here / "other.csv").write_text("words\na\n")
    for words, said in (
        (["predict=bad.csv"], "predict: bad.csv, line 42: the column 'text' is empty"),
        (["predict=other.csv"], "predict: other.csv, line 1: there must be one column 'text'"),
        (["predict=nowhere.csv"], "predict=nowhere.csv: there is no such file or folder"),
        (["predict=runs"], "predict: runs cannot be read"),
        (["predict=new.csv", "tta=flip"], "tta=flip: this run does not classify images"),
    ):
        assert evaluate.main([f"run={run}", *words]) == 2
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1
    assert not (run / "predictions.csv").exists()
