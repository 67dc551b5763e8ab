import json
import os
import subprocess
import sys
import warnings

import pytest
import torch

from zoo.data.download import DataError
from zoo.data.files import locate
from zoo.data.text import text_files, token_files
from zoo.data.text.characters import ByteVocabulary
from zoo.data.text.text_files import Reader, TextFiles, divide
from zoo.data.text.token_files import TokenFiles
from zoo.data.text.vocabularies import learn_vocabulary

TEXT = "".join(f"Zeile {i}: naïve 日本語 😀 the quick brown fox.\n" for i in range(60))
VOCABULARIES = [("characters", None), ("bytes", None), ("words", None), ("bpe", 300)]


def make(folder, **files):
    for name, content in files.items():
        path = folder / (name.replace("__", "/") + ".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def module_of(folder, path=None, **changes):
    settings = {"batch_size": 2, "sequence_length": 5}
    return TextFiles(str(path or folder), root=str(folder), **(settings | changes))


def test_hidden_files_are_skipped_and_counted(tmp_path):
    make(tmp_path, a="one", _git__b="two").joinpath("_git").rename(tmp_path / ".git")
    (tmp_path / "._a.txt").write_bytes(b"\0\5\x16\7")
    module = module_of(tmp_path)
    assert "".join(texts_of(module).values()) == "one"
    assert module.notes == [f"{tmp_path}: 1 files; not read: 2 hidden"]


def test_a_path_is_taken_from_where_the_user_stands_first(tmp_path, monkeypatch):
    make(tmp_path / "data" / "books", a="root")
    make(tmp_path / "here" / "books", a="here")
    for place, expected in (("here", "here"), ("data", "root"), (".", "root")):
        monkeypatch.chdir(tmp_path / place)
        assert locate("books", tmp_path / "data").resolve() == (
            tmp_path / ("here" if expected == "here" else "data") / "books"
        )
        assert "".join(texts_of(module_of(tmp_path / "data", "books")).values()) == expected
    monkeypatch.chdir(tmp_path / "here")
    assert locate(".", tmp_path / "data").resolve() == tmp_path / "here"
    assert locate("", tmp_path / "data") == tmp_path / "data"
    monkeypatch.setenv("HOME", str(tmp_path / "here"))
    assert locate("~/books", tmp_path / "data") == tmp_path / "here" / "books"


def texts_of(module):
    return {split: "".join(chunks()) for split, chunks in module.parts().items()}


def batches_of(module, epoch=1):
    return {
        split: [(b.inputs, b.targets, b.is_start) for b in module.batches(split, epoch)]
        for split in module.splits
    }


def same(a, b):
    assert a.keys() == b.keys()
    for split in a:
        for (x, y, start), (u, v, begin) in zip(a[split], b[split], strict=True):
            assert torch.equal(x, u) and torch.equal(y, v) and start == begin
            assert x.dtype == y.dtype == torch.int64


def test_files_of_a_folder_and_of_those_in_it_are_one_text_in_the_order_of_their_names(tmp_path):
    make(tmp_path, b="second", a="first", c__d="third", c__e__f="fourth")
    (tmp_path / "a.md").write_text("other")
    module = module_of(tmp_path, val_fraction=0.2)
    assert "".join(texts_of(module).values()) == "first\nsecond\nthird\nfourth"
    assert texts_of(module_of(tmp_path, pattern="*.md"))["train"] == "othe"
    assert "".join(texts_of(module_of(tmp_path, "c")).values()) == "third\nfourth"
    assert "".join(texts_of(module_of(tmp_path, tmp_path / "b.txt")).values()) == "second"


@pytest.mark.parametrize("read", [1, 7, 1 << 20])
@pytest.mark.parametrize("fractions", [(0.1, 0.0), (0.1, 0.1), (0.37, 0.2), (0.001, 0.5)])
def test_splits_are_consecutive_whole_characters_of_about_their_share(
    tmp_path, monkeypatch, fractions, read
):
    monkeypatch.setattr(text_files, "READ", read)
    make(tmp_path, text=TEXT)
    val, test = fractions
    module = module_of(tmp_path, "text.txt", val_fraction=val, test_fraction=test)
    parts = texts_of(module)
    assert tuple(parts) == module.splits == (("train", "val", "test") if test else ("train", "val"))
    assert "".join(parts.values()) == TEXT
    size = len(TEXT.encode())
    assert len(parts["val"].encode()) == pytest.approx(val * size, abs=6)
    assert len(parts.get("test", "").encode()) == pytest.approx(test * size, abs=6)


def test_a_text_in_ascii_is_divided_like_that_of_nanogpt(tmp_path):
    text = "abcdefghij" * 1003 + "xyz"
    make(tmp_path, text=text)
    assert texts_of(module_of(tmp_path))["train"] == text[: int(0.9 * len(text))]


def test_cuts_through_several_files_leave_nothing_out(tmp_path):
    make(tmp_path, a="ää" * 10, b="", c="ß", d="x" * 30)
    spans = [(path, 0, path.stat().st_size) for path in sorted(tmp_path.glob("*.txt"))]
    for shares in ([0.5], [0.9], [0.3, 0.3], [0.05, 0.05], [0.0, 0.5]):
        parts = divide(spans, shares)
        assert len(parts) == len(shares) + 1
        content = "".join("".join(Reader([span])()) for part in parts for span in part)
        assert content == "ää" * 10 + "ß" + "x" * 30


def test_marks_and_line_ends_of_other_systems_are_made_uniform(tmp_path, monkeypatch):
    make(tmp_path, a=b"\xef\xbb\xbfone\r\ntwo\rthree", b="four\n")
    for size in (1, 4, 100):
        monkeypatch.setattr(text_files, "READ", size)
        assert texts_of(module_of(tmp_path, val_fraction=0.01))["train"].startswith(
            "one\ntwo\nthree\nfour"
        )


def test_val_and_test_may_have_files_of_their_own(tmp_path):
    make(tmp_path, train__a="a" * 40, valid="b" * 30, test__x="c" * 20)
    module = module_of(tmp_path, "train", val_path="valid.txt", test_path="test")
    assert texts_of(module) == {"train": "a" * 40, "val": "b" * 30, "test": "c" * 20}
    module.setup()
    assert tuple(module.loaders) == module.splits == ("train", "val", "test")
    assert module.vocabularies["vocabulary"].tokens() == ["a", "b", "c"]
    module = module_of(tmp_path, "train", test_path="test", val_fraction=0.5)
    assert texts_of(module) == {"train": "a" * 20, "val": "a" * 20, "test": "c" * 20}


@pytest.mark.parametrize("order", ["tracks", "windows"])
@pytest.mark.parametrize(("kind", "size"), VOCABULARIES)
def test_a_cache_gives_the_batches_of_memory(tmp_path, monkeypatch, kind, size, order):
    make(tmp_path, texts__a=TEXT, texts__b=TEXT.upper())
    settings = {"vocabulary": kind, "vocab_size": size, "order": order, "mask_token": kind == "bpe"}
    plain = module_of(tmp_path, "texts", **settings)
    plain.setup(seed=3)
    monkeypatch.setattr(token_files, "CHUNK", 100)
    monkeypatch.setattr(text_files, "READ", 33)
    for _ in range(2):  # made, then read
        cached = module_of(tmp_path, "texts", cache="tokens", **settings)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            cached.setup(seed=3)
            same(batches_of(cached), batches_of(plain))
        assert cached.vocabularies["vocabulary"].to_json() == (
            plain.vocabularies["vocabulary"].to_json()
        )
        assert cached.facts() == plain.facts()
        monkeypatch.setattr(Reader, "__call__", None)
    names = {path.name.partition("-")[0] for path in (tmp_path / "tokens").glob("[a-z]*")}
    assert names == {"train", "val", "vocabulary"}


def test_a_changed_text_another_split_and_another_vocabulary_are_tokenised_anew(tmp_path):
    make(tmp_path, text=TEXT)

    def files_after(**settings):
        module = module_of(tmp_path, "text.txt", cache="tokens", **settings)
        module.setup()
        plain = module_of(tmp_path, "text.txt", **settings)
        plain.setup()
        same(batches_of(module), batches_of(plain))
        return len(list((tmp_path / "tokens").glob("*.bin")))

    assert files_after() == 2
    assert files_after() == files_after(order="windows") == files_after(sequence_length=6) == 2
    assert files_after(vocabulary="bytes") == 4
    assert files_after(vocabulary="bytes", val_fraction=0.2) == 6
    make(tmp_path, text=TEXT.replace("fox", "cat"))
    stat = (tmp_path / "text.txt").stat()
    os.utime(tmp_path / "text.txt", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert files_after() == 8


def test_a_run_that_has_its_vocabulary_learns_none(tmp_path):
    make(tmp_path, text=TEXT)
    vocabulary = learn_vocabulary("bpe", ["the quick brown fox"], vocab_size=260)
    module = module_of(tmp_path, "text.txt", cache="x", vocabulary="bpe", vocab_size=260)
    module.vocabularies["vocabulary"] = vocabulary
    module.setup()
    assert not list((tmp_path / "x").glob("vocabulary-*"))
    assert module.facts()["vocab_size"] == 260


def tokens_of(folder, text="the text", **changes):
    arguments = {"name": "x", "source": {"a": 1}, "vocabulary": ByteVocabulary()}
    return TokenFiles(folder).tokens(**(arguments | changes), chunks=lambda: [text])


def refuse():
    raise AssertionError("the text was read again")


@pytest.mark.parametrize("damage", ["short", "long", "gone", "no header", "bad header", "other"])
def test_a_damaged_file_of_tokens_is_made_again(tmp_path, damage):
    tokens_of(tmp_path)
    again = TokenFiles(tmp_path).tokens("x", {"a": 1}, ByteVocabulary(), refuse)
    assert again.tolist() == list(b"the text")
    (file,) = tmp_path.glob("x-*.bin")
    header = file.with_suffix(".json")
    stored = json.loads(header.read_text())
    assert stored["count"] == 8 and stored["vocabulary"] == ByteVocabulary().checksum()
    assert stored["source"] == {"a": 1}
    if damage in ("short", "long"):
        file.write_bytes(file.read_bytes()[:-1] if damage == "short" else bytes(18))
    elif damage == "gone":
        file.unlink()
    elif damage == "no header":
        header.unlink()
    else:
        header.write_text("{" if damage == "bad header" else json.dumps(stored | {"source": 2}))
    assert tokens_of(tmp_path).tolist() == list(b"the text")
    assert not list(tmp_path.glob(".*.part"))


def test_a_text_that_cannot_be_read_leaves_no_file_of_tokens(tmp_path):
    def chunks():
        yield "some text " * 10
        raise DataError("no more")

    with pytest.raises(DataError, match="no more"):
        TokenFiles(tmp_path).tokens("x", {}, ByteVocabulary(), chunks)
    assert not [path for path in tmp_path.iterdir() if not path.name.endswith(".lock")]


def test_many_tokens_take_four_bytes_and_an_empty_text_none(tmp_path):
    words = " ".join(f"w{i}" for i in range(70_000))
    vocabulary = learn_vocabulary("words", [words])
    tokens = tokens_of(tmp_path, words, vocabulary=vocabulary)
    assert tokens.dtype == torch.uint32 and tokens.to(torch.int64).max() == 70_000
    assert torch.equal(tokens.to(torch.int64), vocabulary.encode_tensor(words))
    assert tokens_of(tmp_path).dtype == torch.uint16
    for _ in range(2):
        assert tokens_of(tmp_path, "", name="nothing").tolist() == []


def test_tokens_that_were_read_are_not_changed_by_writing_to_them(tmp_path):
    tokens_of(tmp_path)[0] = 0
    assert tokens_of(tmp_path).tolist() == list(b"the text")


def test_a_cache_that_may_not_be_written_can_be_read(tmp_path):
    tokens_of(tmp_path / "x")
    for file in (tmp_path / "x").iterdir():
        file.chmod(0o444)
    (tmp_path / "x").chmod(0o555)
    assert tokens_of(tmp_path / "x").tolist() == list(b"the text")
    (tmp_path / "x").chmod(0o755)


def test_a_cache_that_cannot_be_made_is_told(tmp_path):
    make(tmp_path, text=TEXT)
    with pytest.raises(DataError, match=r"text.txt.* cannot be written \(.*: free some space"):
        module_of(tmp_path, "text.txt", cache="text.txt").setup()


PROGRAM = """
import sys, time
from pathlib import Path
import torch
from zoo.data.text.token_files import TokenFiles
from zoo.data.text.characters import ByteVocabulary
folder, number = Path(sys.argv[1]), sys.argv[2]
def chunks():
    (folder / f"read-{number}").touch()
    for _ in range(200):
        yield "some text, " * 500
(folder / f"ready-{number}").touch()
while len(list(folder.glob("ready-*"))) < 2:
    time.sleep(0.01)
tokens = TokenFiles(folder / "tokens").tokens("x", {}, ByteVocabulary(), chunks)
print(len(tokens), int(tokens.to(torch.int64).sum()))
"""


def test_processes_that_want_the_same_tokens_make_them_once(tmp_path):
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, tmp_path, str(n)], stdout=subprocess.PIPE, text=True
        )
        for n in range(2)
    ]
    answers = {worker.communicate(timeout=120)[0] for worker in workers}
    assert answers == {f"{200 * 500 * 11} {200 * 500 * sum(b'some text, ')}\n"}
    assert len(list(tmp_path.glob("read-*"))) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"one\ntwo \xff three\n", r"broken.txt is not UTF-8 text \(line 2, byte 5: .*iconv"),
        ("one".encode("utf-16"), r"broken.txt is not UTF-8 text \(line 1, byte 1"),
        (b"one\n" * 300_000 + b"\xc3", r"broken.txt is not UTF-8 text \(line 300001, byte 1"),
    ],
)
def test_a_file_that_is_no_text_is_told_by_name_and_line(tmp_path, content, message):
    make(tmp_path, a=TEXT, broken=content)
    with pytest.raises(DataError, match=message):
        module_of(tmp_path).setup()


def test_files_to_evaluate_on_are_not_trained_on(tmp_path):
    place = make(tmp_path, a=TEXT, val="what is held out")
    module = module_of(place, val_path=str(place / "val.txt"))
    texts = {split: "".join(chunks()) for split, chunks in module.parts().items()}
    assert texts == {"train": TEXT, "val": "what is held out"}
    with pytest.raises(DataError, match="all text is that of val_path"):
        module_of(place, pattern="val*", val_path=str(place / "val.txt")).parts()


def test_a_text_too_short_to_be_judged_by_is_told(tmp_path):
    place = make(tmp_path, a=900 * "x" + 100 * "\n" + "y")
    with pytest.raises(DataError, match=r"^the val text has 1 tokens and 2 are needed: .*val_path"):
        module_of(place).setup()
    with pytest.raises(DataError, match=r"^path=\S+: holds no text: name another file or folder$"):
        module_of(make(tmp_path / "empty", a="")).setup()


def test_files_that_are_not_there_are_told_with_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"^path=nowhere: .*nowhere is neither a file nor a folder"):
        module_of(tmp_path, "nowhere").setup()
    with pytest.raises(DataError, match=r"^pattern=\*.rst: .* holds no matching file"):
        module_of(make(tmp_path, a="x"), pattern="*.rst").setup()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"val_fraction": 0.0}, "val_fraction must be between 0 and 1, not 0.0"),
        ({"test_fraction": 0.95}, r"test_fraction must be in \[0, 0.9\), .* not 0.95"),
        ({"pattern": ""}, "pattern must match file names, such as .*, not ''"),
        ({"vocabulary": "words", "vocab_size": 1}, "vocab_size must be at least 2 for words"),
    ],
)
def test_nonsense_is_refused_with_the_value(settings, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        TextFiles("x", **settings)
