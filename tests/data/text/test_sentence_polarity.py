import csv
import hashlib
import io
import tarfile

import pytest

from zoo.data.download import DataError
from zoo.data.text.sentence_polarity import SentencePolarity

SENTENCES = {
    "pos": [f"a fine film , number {n} . " for n in range(20)],
    "neg": [f'" dull " , number {n}' for n in range(20)],
}
SENTENCES["pos"][3] = "touché … a fine film . "  # bytes that UTF-8 does not have


def packed(sentences, folder="rt-polaritydata"):
    """An archive like the authors'."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for label, lines in sentences.items():
            text = "".join(f"{line}\n" for line in lines).encode("cp1252")
            member = tarfile.TarInfo(f"{folder}/rt-polarity.{label}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    return content.getvalue()


def as_table(sentences):
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["text", "label"])
    for pair in zip(sentences["pos"], sentences["neg"], strict=True):
        rows.writerows([(pair[0].strip(), "pos"), (pair[1].strip(), "neg")])
    return table.getvalue().encode()


@pytest.fixture
def small(web, monkeypatch):
    """A small archive on a server on this machine, whose table our checksum knows."""
    (web.folder / "small.tar.gz").write_bytes(packed(SENTENCES))
    monkeypatch.setattr(SentencePolarity, "url", f"{web.url}/small.tar.gz")
    known = hashlib.sha256(as_table(SENTENCES)).hexdigest()
    monkeypatch.setattr(SentencePolarity, "sha256", known)
    return web


def texts(root, **options):
    data = SentencePolarity(root=str(root), **options)
    data.setup()
    return {
        split: {(text, data.class_names[c]) for text, c in zip(some, classes, strict=True)}
        for split, (some, classes) in data.texts().items()
    }


def test_the_archive_is_downloaded_once_and_kept_as_a_table(small, tmp_path):
    found = texts(tmp_path)
    table = tmp_path / "sentence_polarity" / "sentence_polarity.csv"
    assert table.read_bytes() == as_table(SENTENCES)
    expected = {(s.strip(), label) for label, some in SENTENCES.items() for s in some}
    assert set().union(*found.values()) == expected
    (table.parent / "rt-polaritydata.tar.gz").unlink()
    assert texts(tmp_path) == found and small.requests == ["/small.tar.gz"]


def test_folds_are_disjoint_halves_of_either_kind_and_together_everything(small, tmp_path):
    folds = [texts(tmp_path, num_folds=5, fold=fold) for fold in range(5)]
    tests = [fold["test"] for fold in folds]
    assert sum(map(len, tests)) == len(set().union(*tests)) == 40
    for fold in folds:
        labels = [label for _, label in fold["test"]]
        assert labels.count("pos") == labels.count("neg") == 4
        assert {split: len(part) for split, part in fold.items()} == {
            "train": 29,
            "val": 3,
            "test": 8,
        }


def test_other_sentences_than_the_published_ones_are_refused(small, tmp_path):
    other = {label: some[::-1] for label, some in SENTENCES.items()}
    for content, reason in (
        (packed(other), "it has other sentences"),
        (packed(SENTENCES, folder="elsewhere"), "rt-polarity.pos"),
        (packed(SENTENCES | {"neg": ["one"]}), "shorter"),
        (packed(SENTENCES)[:100], ""),
        (b"<html>", "not a gzip file"),
    ):
        archive = tmp_path / "sentence_polarity" / "rt-polaritydata.tar.gz"
        archive.parent.mkdir(exist_ok=True)
        archive.write_bytes(content)
        with pytest.raises(DataError, match=f"is damaged or another file .*{reason}.*delete it"):
            texts(tmp_path)
        assert [path.name for path in archive.parent.iterdir()] == [archive.name]
    (archive.parent / "sentence_polarity.csv").write_bytes(as_table(other))
    with pytest.raises(DataError, match=r"polarity.csv is damaged or another file: its sha256 is"):
        texts(tmp_path)


def test_without_a_connection_one_sentence_says_what_to_do(dead_url, tmp_path, monkeypatch):
    monkeypatch.setattr(SentencePolarity, "url", f"{dead_url}/rt-polaritydata.tar.gz")
    with pytest.raises(DataError, match=r"could not download .*/rt-polaritydata.tar.gz by hand"):
        texts(tmp_path)


@pytest.mark.data
def test_real_sentences_are_half_positive_in_every_split(data_dir):
    if not (data_dir / "sentence_polarity").is_dir():
        pytest.skip(f"no sentence_polarity in {data_dir}")
    data = SentencePolarity(root=str(data_dir), fold=9)
    data.setup()
    found = data.texts()
    assert {split: len(some) for split, (some, _) in found.items()} == {
        "train": 8_636,
        "val": 960,
        "test": 1_066,
    }
    for _, classes in found.values():
        assert abs(classes.double().mean() - 0.5) < 0.001
