import gzip
import hashlib

import pytest

from zoo.data.download import DataError
from zoo.data.text.multi30k import Multi30k

LINES = {
    "de": ["Zwei Männer gehen.", "Eine Frau geht.", "Zwei Frauen gehen."],
    "en": ["Two men walk.", "A woman walks.", "Two women walk."],
}
PARTS = ("train", "val", "test_2016_flickr")


@pytest.fixture
def small(web, monkeypatch):
    """Small files in the real format on a server on this machine, known to our checksums."""
    checksums = {}
    for part in PARTS:
        for language, lines in LINES.items():
            content = gzip.compress("".join(f"{line}\n" for line in lines).encode(), mtime=0)
            (web.folder / f"{part}.{language}.gz").write_bytes(content)
            checksums[f"{part}.{language}.gz"] = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(Multi30k, "checksums", checksums)
    monkeypatch.setattr(Multi30k, "url", web.url)
    return web


def test_the_six_files_are_downloaded_once(small, tmp_path):
    root = tmp_path / "data"
    Multi30k(root=str(root), batch_size=2).setup()
    names = {f"{part}.{language}.gz" for part in PARTS for language in LINES}
    assert {f"/{name}" for name in names} == set(small.requests) and len(small.requests) == 6
    assert {path.name for path in (root / "multi30k").iterdir()} == names
    data = Multi30k(root=str(root), batch_size=2)
    data.setup()
    assert len(small.requests) == 6
    assert {split: data.loaders[split].num_samples for split in data.splits} == {
        "train": 3,
        "val": 3,
        "test": 3,
    }


@pytest.mark.parametrize(("source", "target"), [("de", "en"), ("en", "de")])
def test_both_directions(source, target, small, tmp_path):
    data = Multi30k(
        root=str(tmp_path), source=source, target=target, min_frequency=1, lower_case=False
    )
    data.setup()
    (batch,) = data.batches("val", 0)
    texts = [data.vocabularies["source_vocabulary"].decode(row) for row in batch.source.tolist()]
    pairs = set(zip(LINES[source], LINES[target], strict=True))
    assert set(zip(texts, batch.references, strict=True)) == pairs


def test_another_file_than_the_published_one_is_refused(small, tmp_path):
    (small.folder / "val.en.gz").write_bytes(gzip.compress(b"Two men walk.\n" * 3))
    with pytest.raises(DataError, match=r"val.en.gz gave a file with the wrong checksum"):
        Multi30k(root=str(tmp_path)).setup()


def test_without_a_connection_one_sentence_says_what_to_do(dead_url, tmp_path, monkeypatch):
    monkeypatch.setattr(Multi30k, "url", dead_url)
    with pytest.raises(DataError, match=r"could not download .*multi30k/train.de.gz by hand"):
        Multi30k(root=str(tmp_path)).setup()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "fr"}, "source must be de or en, not 'fr'"),
        ({"source": "en"}, "target must differ from the source, not 'en'"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
    ],
)
def test_nonsense_is_refused_with_the_value(settings, message):
    with pytest.raises(ValueError, match=message):
        Multi30k(**settings)


@pytest.mark.data
def test_real_multi30k_has_its_published_sizes(data_dir):
    if not (data_dir / "multi30k").is_dir():
        pytest.skip(f"no multi30k in {data_dir}")
    data = Multi30k(root=str(data_dir))
    data.setup()
    counts = {split: data.loaders[split].num_samples for split in data.splits}
    assert counts == {"train": 29_000, "val": 1_014, "test": 1_000}
    # The public recipe's 7,853 and 5,893 come from another division into words.
    assert data.facts() == {"source_vocab_size": 7_861, "target_vocab_size": 5_927}
    real = padded = 0
    for batch in data.batches("train", 0):
        real += int(batch.source_lengths.sum() + batch.target_lengths.sum())
        padded += batch.source.numel() + batch.target.numel()
    assert 1 - real / padded < 0.11
