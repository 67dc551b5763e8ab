import gzip

import pytest
import torch

from zoo.data.download import DataError
from zoo.data.text.parallel_text import ParallelText, read_lines, read_pairs
from zoo.data.text.vocabularies import load_vocabulary

GERMAN = ["Ein Hund läuft.", "Der Hund läuft schnell.", "Ein Mann läuft.", "Der Mann schläft."]
ENGLISH = ["A dog runs.", "The dog runs fast.", "A man runs.", "The man sleeps."]


@pytest.fixture
def corpus(tmp_path):
    """Plain and packed files in `tmp_path`: 40 pairs for training, 4 for val, 2 for the test."""

    def write(name, lines):
        content = "".join(f"{line}\n" for line in lines).encode()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)

    write("train.de", GERMAN * 10)
    write("train.en.gz", ENGLISH * 10)
    write("val.de", [*GERMAN[:3], "Eine Katze schläft auf einem sehr alten Sofa"])
    write("val.en", [*ENGLISH[:3], "A cat sleeps on a very old couch"])
    write("test.de", GERMAN[:2])
    write("test.en", ENGLISH[:2])
    return tmp_path


def module(root, **settings):
    files = {"val": ("val.de", "val.en"), "test": ("test.de", "test.en")}
    settings = {"root": str(root), "batch_size": 4} | files | settings
    return ParallelText(("train.de", "train.en.gz"), **settings)


def test_pairs_belong_together_and_references_are_the_text_as_it_was_written(corpus):
    data = module(corpus)
    data.setup()
    source, target = (data.vocabularies[f"{s}_vocabulary"] for s in ("source", "target"))
    translations = dict(zip(GERMAN, ENGLISH, strict=True))
    for split in ("train", "test"):
        for batch in data.batches(split, 0):
            for row, reference in enumerate(batch.references):
                german = source.decode(batch.source[row])
                assert translations[german] == target.decode(batch.target[row]) == reference
    assert {split: data.loaders[split].num_samples for split in data.splits} == {
        "train": 40,
        "val": 4,
        "test": 2,
    }


def test_vocabularies_are_learned_from_the_training_pairs_alone(corpus):
    data = module(corpus)
    data.setup()
    (batch,) = data.batches("val", 0)
    row = batch.references.index("A cat sleeps on a very old couch")
    unknown = (batch.target[row] == 1).sum()
    assert unknown == 6  # all but "A" and "sleeps"
    assert "Sofa" not in data.vocabularies["source_vocabulary"].tokens()
    assert data.facts() == {
        "source_vocab_size": 4 + 8,  # Ein Der Hund Mann läuft schläft schnell .
        "target_vocab_size": 4 + 8,  # A The dog man runs sleeps fast .
    }


def test_rare_words_are_unknown_and_capitals_may_be_dropped(corpus):
    data = module(corpus, limit=4, lower_case=True, min_frequency=2)
    data.setup()
    assert sorted(data.vocabularies["target_vocabulary"].tokens()[4:]) == sorted(
        [".", "a", "dog", "man", "runs", "the"]
    )
    assert next(data.batches("test", 0)).references[0][0] in "AT"


@pytest.mark.parametrize("kind", ["words", "bpe", "characters"])
@pytest.mark.parametrize("shared", [True, False])
def test_every_kind_of_vocabulary_gives_the_text_back(corpus, kind, shared):
    data = module(corpus, vocabulary=kind, shared=shared, vocab_size=280 if kind == "bpe" else None)
    data.setup()
    source, target = data.vocabularies.values()
    assert (source is target) == shared
    assert (target.pad, target.unknown, target.begin, target.end) == (0, 1, 2, 3)
    for batch in data.batches("test", 0):
        assert [target.decode(row) for row in batch.target.tolist()] == batch.references


def test_vocabularies_of_a_run_are_used_and_not_learned_again(corpus):
    first = module(corpus)
    first.setup()
    stored = {name: v.to_json() for name, v in first.vocabularies.items()}
    (corpus / "train.de").write_text("Ganz anderes\n" * 40)
    again = module(corpus)
    again.vocabularies = {name: load_vocabulary(v) for name, v in stored.items()}
    assert again.facts() == first.facts()
    again.setup()
    a, b = (next(data.batches("test", 0)) for data in (first, again))
    assert torch.equal(a.source, b.source) and torch.equal(a.target, b.target)


def test_long_training_pairs_are_left_out_with_a_warning_and_others_are_not(corpus):
    data = module(corpus, max_length=4)
    with pytest.warns(UserWarning, match="10 of 40 training pairs are omitted: .*max_length=4"):
        data.setup()
    assert data.loaders["train"].num_samples == 30 and data.loaders["val"].num_samples == 4
    with pytest.raises(ValueError, match="max_length must leave a training pair, and 2 leaves no"):
        module(corpus, max_length=2).setup()


def test_limit_takes_the_first_training_pairs(corpus):
    data = module(corpus, limit=3)
    data.setup()
    references = [text for batch in data.batches("train", 0) for text in batch.references]
    assert sorted(references) == sorted(ENGLISH[:3])
    assert data.loaders["val"].num_samples == 4


def test_without_files_for_validation_a_share_of_the_pairs_is_set_aside(corpus):
    (corpus / "train.de").write_text("".join(f"Satz {i}\n" for i in range(40)))
    (corpus / "train.en.gz").write_bytes(
        gzip.compress("".join(f"sentence {i}\n" for i in range(40)).encode())
    )

    def split_of(**settings):
        data = module(corpus, val=None, test=None, val_fraction=0.2, **settings)
        assert data.splits == ("train", "val")
        data.setup()
        return [
            {text for batch in data.batches(split, 0) for text in batch.references}
            for split in data.splits
        ]

    train, val = split_of()
    assert len(train) == 32 and len(val) == 8 and not train & val
    assert split_of() == [train, val] != split_of(split_seed=1)


def test_token_budgets_hold(corpus):
    data = module(corpus, batch_size=None, tokens_per_batch=24)
    data.setup()
    for batch in data.batches("train", 0):
        assert max(batch.source.numel(), batch.target.numel()) <= 24


def test_a_corpus_of_other_peoples_files_is_read_as_it_is(tmp_path):
    file = tmp_path / "a"
    # A byte order mark, line ends of Windows, separators that are no line ends, none at the end.
    file.write_bytes(b"\xef\xbb\xbfeins\r\n zwei\xe2\x80\xa8drei\x0cvier \r\nf\xc3\xbcnf")
    assert read_lines(file) == ["eins", " zwei\u2028drei\x0cvier ", "fünf"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a\n\nb\n", r"line 2 is empty: remove it and its translation$"),
        (b"a\nb\n \t\r\n", r"line 3 is empty"),
        (b"a\nb\xfcb\n", r"line 2 is not UTF-8 \(byte 2: 0xfc\): convert the file$"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_line(content, said, tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(content)
    with pytest.raises(DataError, match=f"a.txt, {said}"):
        read_pairs(file, file)


def test_an_empty_file_is_told(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"")
    with pytest.raises(DataError, match=r"a.txt is empty: name a file with one sentence per line$"):
        read_lines(tmp_path / "a.txt")


@pytest.mark.parametrize("cut", [5, 20, -1])
def test_a_damaged_packed_file_is_named(cut, tmp_path):
    file = tmp_path / "a.gz"
    file.write_bytes(gzip.compress(b"some lines\n" * 100)[:cut])
    with pytest.raises(DataError, match=r"a.gz cannot be read \("):
        read_lines(file)


def test_files_that_do_not_fit_together_and_missing_ones_are_named(tmp_path):
    (tmp_path / "a").write_text("1\n2\n3\n")
    (tmp_path / "b").write_text("1\n2\n")
    with pytest.raises(DataError, match=r"a has 3 lines and \S+b 2: line n of one"):
        read_pairs(tmp_path / "a", tmp_path / "b")
    with pytest.raises(DataError, match=r"c cannot be read \(No such file or directory\)"):
        read_pairs(tmp_path / "a", tmp_path / "c")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"batch_size": None}, "batch_size and tokens_per_batch exclude each other"),
        ({"vocabulary": "x"}, "vocabulary must be one of words, bpe, characters, not 'x'"),
        ({"limit": 0}, "limit must be at least 1 or null, not 0"),
        ({"max_length": 0}, "max_length must be at least 1 or null, not 0"),
        ({"val_fraction": 1.0}, "val_fraction must be between 0 and 1, not 1.0"),
    ],
)
def test_nonsense_is_refused_with_the_value(settings, message):
    with pytest.raises(ValueError, match=message):
        module(".", **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocabulary": "bpe"}, "vocab_size must be .*, not None"),
        ({"vocabulary": "bpe", "vocab_size": 300, "lower_case": True}, "lower_case must be false"),
        ({"min_frequency": 0}, "min_frequency must be at least 1, not 0"),
    ],
)
def test_what_a_vocabulary_cannot_be_is_refused_before_anything_is_trained(
    settings, message, corpus
):
    with pytest.raises(ValueError, match=message):
        module(corpus, **settings).setup()


def test_too_few_pairs_for_a_val_split_are_refused(corpus):
    with pytest.raises(DataError, match=r"train.de holds too few samples \(40\) .* for val"):
        module(corpus, val=None, val_fraction=0.001).setup()


def test_sizes_are_known_after_setup_only(corpus):
    with pytest.raises(RuntimeError, match=r"needs setup\(\) before it has vocabularies"):
        module(corpus).facts()
