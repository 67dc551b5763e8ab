import pytest
import torch

from zoo.data.download import DataError
from zoo.data.splits import cross_validation
from zoo.data.text.labelled_text import LabelledText
from zoo.data.text.vocabularies import load_vocabulary
from zoo.data.text.vocabulary import Vocabulary

GOOD = ["good film", "a very good film", "I liked it", "fine, and funny"]
BAD = ["bad film", "a very bad film", "I did not like it", "dull, and long"]


def written(path, rows, *, header="text,label", separator=","):
    path.write_text("\n".join([header, *(separator.join(row) for row in rows), ""]), "utf-8")
    return str(path)


def rows(copies=5):
    """Different texts of two classes."""
    return [
        (f'"{text} {number}"', label)
        for number in range(copies)
        for texts, label in ((GOOD, "pos"), (BAD, "neg"))
        for text in texts
    ]


def made(seed=0, **arguments):
    module = LabelledText(**arguments)
    module.setup(seed=seed)
    return module


def texts(module, split, epoch=0):
    """The texts of a split as their tokens spell them, with the names of their classes."""
    vocabulary = module.vocabularies["vocabulary"]
    return [
        (vocabulary.decode(row[:length]), module.class_names[target])
        for batch in module.batches(split, epoch)
        for row, target, length in zip(
            batch.inputs, batch.targets.tolist(), batch.lengths.tolist(), strict=True
        )
    ]


@pytest.fixture
def table(tmp_path):
    return written(tmp_path / "all.csv", rows())


def test_every_text_is_in_one_split_with_its_own_label(table):
    module = made(train=table, vocabulary="characters")
    parts = {split: texts(module, split) for split in module.splits}
    assert {split: len(part) for split, part in parts.items()} == {
        "train": 28,
        "val": 6,
        "test": 6,
    }
    expected = {(text.strip('"'), label) for text, label in rows()}
    # A character that only val or test has would be `<unk>`; here there is none.
    assert set().union(*map(set, parts.values())) == expected
    assert module.class_names == ("neg", "pos")


def test_division_is_stratified_and_depends_on_split_seed_alone(table):
    first, order, other = (
        made(train=table, seed=seed, split_seed=split_seed)
        for seed, split_seed in ((0, 0), (1, 0), (0, 1))
    )
    for split, each in (("train", 14), ("val", 3), ("test", 3)):
        labels = [label for _, label in texts(first, split)]
        assert labels.count("pos") == labels.count("neg") == each
    assert texts(first, "val") == texts(order, "val")
    assert texts(first, "train") != texts(order, "train")
    assert set(texts(first, "train")) == set(texts(order, "train"))
    assert set(texts(first, "train")) != set(texts(other, "train"))


def test_files_of_their_own_are_the_splits(tmp_path):
    train = written(tmp_path / "train.tsv", rows(), header="text\tlabel", separator="\t")
    val = written(tmp_path / "val.csv", [("new words", "neg")])
    module = made(train=train, val=val)
    assert module.splits == ("train", "val")
    assert sum(batch.targets.numel() for batch in module.batches("train", 0)) == 40
    (batch,) = module.batches("val", 0)
    # Learned from the training texts alone: words of val have no token but `<unk>`.
    assert batch.inputs.tolist() == [[1, 1]] and batch.targets.tolist() == [0]


def test_names_of_columns_and_their_places_are_free_and_quotes_are_those_of_csv(tmp_path):
    lines = ['x,"a, ""b""\nc",1', "y,d,1", "x,e f,2", "y,g,2"]
    path = tmp_path / "t.csv"
    path.write_text("\ufeffkind,words,id\n" + "\n".join(lines) + "\n", "utf-8")
    module = made(
        train=str(path),
        val=str(path),
        text_column="words",
        label_column="kind",
        vocabulary="characters",
    )
    assert set(texts(module, "train")) == {
        ('a, "b"\nc', "x"),
        ("d", "y"),
        ("e f", "x"),
        ("g", "y"),
    }


@pytest.mark.parametrize("line", ['"good" film', '" a film that never ends', 'a "b', '"', '""x'])
def test_quotation_marks_in_tsv_are_characters_and_swallow_no_rows(line, tmp_path):
    plain = [(text.strip('"'), label) for text, label in rows()]
    lines = [*plain[:5], (line, "pos"), *plain[5:]]
    path = written(tmp_path / "t.tsv", lines, header="text\tlabel", separator="\t")
    module = made(train=path, val=path, vocabulary="characters")
    assert sorted(texts(module, "train")) == sorted(lines)
    assert module.notes == [f"{path}: 41 rows"] * 2


def test_quotation_marks_are_read_as_asked(tmp_path):
    """And what they did is said."""
    tsv = written(tmp_path / "t.tsv", rows(), header="text\tlabel", separator="\t")
    module = made(train=tsv, val=tsv)
    assert (
        "40 rows, 40 in quotation marks, which stay (unless data.quoting=true)" in module.notes[0]
    )
    module = made(train=tsv, val=tsv, quoting=True, vocabulary="characters")
    assert sorted(texts(module, "train")) == sorted((t.strip('"'), label) for t, label in rows())
    bare = written(tmp_path / "t.csv", [('"a', "x"), ('b"', "y")])
    module = made(train=bare, val=bare, quoting=False, vocabulary="characters")
    assert sorted(texts(module, "train")) == [('"a', "x"), ('b"', "y")]
    long = written(tmp_path / "l.csv", [("a", "x"), ('"b\nc\nd"', "y")])
    assert made(train=long, val=long).notes[0] == (
        f"{long}: 2 rows, 1 of them over several lines (first: lines 3 to 5)"
    )


@pytest.mark.parametrize(
    ("vocabulary", "settings"),
    [("words", {}), ("characters", {}), ("bytes", {}), ("bpe", {"vocab_size": 280})],
)
def test_sizes_are_those_of_what_was_learned_and_batches_keep_within(table, vocabulary, settings):
    module = made(train=table, vocabulary=vocabulary, **settings)
    learned = module.vocabularies["vocabulary"]
    assert isinstance(learned, Vocabulary) and learned.pad == 0
    names = list(module.class_names)
    assert module.facts() == {"num_classes": 2, "class_names": names, "vocab_size": len(learned)}
    for batch in module.batches("train", 0):
        assert batch.inputs.max() < len(learned)
        padded = torch.arange(batch.inputs.size(1)) >= batch.lengths.unsqueeze(1)
        assert torch.equal(batch.inputs == 0, padded)


def test_stored_vocabulary_is_used_and_not_learned_anew(table, tmp_path):
    first = made(train=table)
    again = LabelledText(train=written(tmp_path / "other.csv", [("x y", "a"), ("z", "b")] * 10))
    stored = first.vocabularies["vocabulary"].to_json()
    again.vocabularies["vocabulary"] = load_vocabulary(stored)
    again.setup()
    assert again.vocabularies["vocabulary"].to_json() == stored
    assert again.facts()["vocab_size"] == first.facts()["vocab_size"]


def test_long_texts_are_cut_and_a_relative_file_lies_within_root(table, tmp_path):
    module = made(train="all.csv", root=str(tmp_path), max_length=2)
    lengths = [length for b in module.batches("train", 0) for length in b.lengths.tolist()]
    assert set(lengths) == {2}


def test_no_share_for_test_means_no_test_split(table):
    module = made(train=table, test_fraction=0.0)
    assert module.splits == tuple(module.loaders) == ("train", "val")


def test_folds_of_one_file_are_those_that_its_labels_and_the_seed_give(table):
    folds = [made(train=table, num_folds=4, fold=fold, test_fraction=0.0) for fold in range(4)]
    assert folds[0].splits == ("train", "val", "test")
    found = [{split: some for split, (some, _) in fold.texts().items()} for fold in folds]
    lines = [text.strip('"') for text, _ in rows()]
    labels = [int(label == "pos") for _, label in rows()]
    for number, parts in enumerate(found):
        expected = cross_validation(labels, fold=number, num_folds=4, val_fraction=0.15, seed=0)
        assert parts == {split: [lines[i] for i in index] for split, index in expected.items()}
    assert sorted(text for parts in found for text in parts["test"]) == sorted(lines)


def test_new_texts_are_read_in_their_order_as_the_training_texts_were(table, tmp_path):
    module = made(train=table, batch_size=3, max_length=6)
    new = ["bad film", "good", "a very good film , and a very funny one", 'say "a"', "unheard of"]
    files = [tmp_path / "new.csv", tmp_path / "new.tsv", tmp_path / "new.txt"]
    quoted = ['"' + text.replace('"', '""') + '"' for text in new]
    written(files[0], [("x", text) for text in quoted], header="id,text")
    written(files[1], [(text, "pos") for text in new], header="text\tlabel", separator="\t")
    files[2].write_text("\n\n".join([*new, ""]), "utf-8")
    tokens = [module.vocabularies["vocabulary"].encode(text)[:6] for text in new]
    for file in files:
        batches = list(module.read_inputs(file))
        assert [len(batch.inputs) for batch, _ in batches] == [3, 2]
        assert [name["text"] for _, names in batches for name in names] == new
        rows_read = [
            row[:length].tolist()
            for batch, _ in batches
            for row, length in zip(batch.inputs, batch.lengths, strict=True)
        ]
        assert rows_read == tokens


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "words\na\n", "t.csv, line 1: there must be one column 'text', not 0"),
        ("t.csv", 'text\na\n" "\n', "t.csv, line 3: the column 'text' is empty"),
        ("t.csv", "text\n", "t.csv holds no text below its header"),
        ("t.txt", " \n\n", "t.txt holds no text"),
        ("t.txt", "", "t.txt is empty"),
        ("none.txt", None, "none.txt cannot be read"),
    ],
)
def test_texts_that_cannot_be_read_are_told_with_the_line(table, tmp_path, name, content, message):
    module = made(train=table)
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        next(module.read_inputs(tmp_path / name))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "t.csv, line 1: there must be one column 'text', not 0; the columns are none"),
        (["words,label"], "line 1: there must be one column 'text', not 0.* are 'words', 'label'"),
        (["text,class"], "line 1: there must be one column 'label', not 0"),
        (["text,label,text"], "line 1: there must be one column 'text', not 2"),
        (["text,label"], "t.csv holds no text below its header"),
        (["text,label", "a,x", "  ,x"], "t.csv, line 3: the column 'text' is empty"),
        (["text,label", "a,x", "b,"], "t.csv, line 3: the column 'label' is empty"),
        (["text,label", '"a\nb",x', "c"], "line 4: there are 1 columns, but 2 in the header"),
        (["text,label", "a,x,y"], "line 2: there are 3 columns, but 2 in the header"),
        (["text,label", "a,x", '"b,y'], "t.csv, line 3: not a valid table"),
        (["text,label", "a,x", '"b,y', "c,x", "d,y"], "t.csv, line 3: not a valid table"),
        (["text,label", "a,x", '"b,y', '"c",x'], "t.csv, line 3: .* set data.quoting=false"),
        (["text,label", *["a,x"] * 20], "all training texts have the label 'x'"),
        (["text,label", "a,x", "b,y"], "holds too few samples .2. to set some aside for test"),
    ],
)
def test_a_bad_table_is_refused_in_one_sentence_with_the_line(tmp_path, lines, message):
    path = tmp_path / "t.csv"
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    with pytest.raises(DataError, match=message) as caught:
        made(train=str(path))
    assert "\n" not in str(caught.value)


def test_label_that_training_does_not_have_is_refused_with_the_line(table, tmp_path):
    val = written(tmp_path / "val.csv", [("fine", "pos"), ("so so", "neutral")])
    with pytest.raises(DataError, match=r"val.csv, line 3: the label 'neutral' .* \(neg, pos\)"):
        made(train=table, val=val)


def test_missing_and_undecodable_files_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"none.csv cannot be read \(No such file"):
        made(train=str(tmp_path / "none.csv"))
    path = tmp_path / "latin.csv"
    path.write_bytes("text,label\ncafé,x\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin.csv is not in UTF-8"):
        made(train=str(path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"max_length": 0}, "max_length must be at least 1 or null, not 0"),
        ({"val_fraction": 0.0}, "val_fraction must be between 0 and 1, not 0.0"),
        ({"test_fraction": 0.9}, "test_fraction must be in .* not 0.9"),
        ({"test": "t.csv"}, "test must be null unless val names a file too"),
        ({"num_folds": 1}, "num_folds must be at least 2, not 1"),
        ({"num_folds": 5, "fold": 5}, r"fold must be from 0 to 4 \(num_folds\), not 5"),
        ({"fold": 4, "val": "v.csv"}, "fold must be null where val names a file, not 4"),
        ({"label_column": "text"}, "label_column must not be the text_column 'text'"),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        LabelledText(train="t.csv", **arguments)
