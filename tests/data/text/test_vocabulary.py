import itertools
import json
import os
import subprocess
import sys

import pytest
import torch

from zoo.data.text.bpe import BPEVocabulary
from zoo.data.text.characters import ByteVocabulary, CharacterVocabulary
from zoo.data.text.strings import cut
from zoo.data.text.text import StandardLibrary
from zoo.data.text.vocabularies import learn_vocabulary, load_vocabulary
from zoo.data.text.words import join, split

TEXT = (
    "Der Bäcker sagt: „Guten Tag!“ A man's 3,000 dogs — isn't it nice?\n\n\tTwo  blanks <s>.\n" * 3
)
STRANGE = [
    "",
    " ",
    "\n \n",
    "naïve 日本語 😀\u200d🔥 e\u0301",
    "\x00\x1c \x85 \u3000x",
    "<pad></s>",
    "  a",
]
LOSSLESS = ["characters", "bytes", "bpe"]
KINDS = [*LOSSLESS, "words"]
ENDS = [{}, {"special": True}, {"mask": True}]


def learn(kind, texts=(TEXT, *STRANGE), **options):
    size = {"vocab_size": 300} if kind == "bpe" else {}
    return learn_vocabulary(kind, texts, **(size | options))


@pytest.mark.parametrize("options", ENDS, ids=str)
@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize("text", [TEXT, *STRANGE])
def test_a_lossless_vocabulary_gives_back_the_text(kind, text, options):
    vocabulary = learn(kind, **options)
    tokens = vocabulary.encode(text)
    assert vocabulary.decode(tokens) == text
    assert vocabulary.decode(torch.tensor(tokens, dtype=torch.int64)) == text
    assert vocabulary.encode_tensor(text).tolist() == tokens
    assert vocabulary.encode_tensor(text).dtype == torch.int64
    assert all(len(vocabulary.special) <= token < len(vocabulary) for token in tokens)


@pytest.mark.parametrize("text", ["中文", "\U0010ffff", "ß🙂" * 5])
@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_bytes_and_bpe_take_text_that_they_were_not_learned_from(kind, text):
    vocabulary = learn(kind, ["only a little English"])
    assert vocabulary.decode(vocabulary.encode(text)) == text


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize("options", ENDS, ids=str)
def test_characters_that_begin_in_the_tokens_add_up_to_those_of_the_text(kind, options):
    vocabulary = learn(kind, **options)
    counts = vocabulary.characters()
    assert len(counts) == len(vocabulary)
    for text in (TEXT, *STRANGE):
        assert sum(counts[token] for token in vocabulary.encode(text)) == len(text)


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_have_their_numbers_and_are_not_decoded(kind):
    vocabulary = learn(kind, special=True)
    numbers = vocabulary.pad, vocabulary.unknown, vocabulary.begin, vocabulary.end, vocabulary.mask
    assert numbers == (0, 1, 2, 3, None)
    assert vocabulary.tokens()[:4] == ["<pad>", "<unk>", "<s>", "</s>"]
    with_mask = learn(kind, mask=True)
    assert (with_mask.end, with_mask.mask) == (3, 4) and with_mask.tokens()[4] == "<mask>"
    tokens = vocabulary.encode("Guten Tag")
    assert vocabulary.decode([2, tokens[0], 1, *tokens[1:], 3, 0, 0]) == "Guten Tag"
    plain = learn(kind)
    assert (plain.pad, plain.begin, plain.end, plain.mask) == (None,) * 4
    assert plain.unknown == (0 if kind == "words" else None)


def test_a_text_that_holds_the_name_of_a_special_token_holds_no_special_token():
    for kind in LOSSLESS:
        vocabulary = learn(kind, ["<s> </s> <pad> <mask>" * 200], mask=True)
        tokens = vocabulary.encode("<s></s><pad><mask>")
        assert min(tokens) > 4 and vocabulary.decode(tokens) == "<s></s><pad><mask>"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", ENDS, ids=str)
def test_what_is_stored_is_the_same_vocabulary(kind, options, tmp_path):
    vocabulary = learn(kind, **options)
    (tmp_path / "vocabulary.json").write_text(json.dumps(vocabulary.to_json()))
    again = load_vocabulary(json.loads((tmp_path / "vocabulary.json").read_text()))
    assert type(again) is type(vocabulary) and again.kind == kind
    assert again.to_json() == vocabulary.to_json()
    assert again.checksum() == vocabulary.checksum()
    assert again.tokens() == vocabulary.tokens() and len(again) == len(vocabulary)
    assert again.encode(TEXT) == vocabulary.encode(TEXT)
    assert again.characters() == vocabulary.characters()
    assert vocabulary.checksum() != learn(kind, ["something else"], **options).checksum() or (
        kind == "bytes"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_token_has_a_name_for_one_line(kind):
    vocabulary = learn(kind)
    names = vocabulary.tokens()
    assert len(names) == len(vocabulary)
    assert all(name and name.isprintable() and name == name.strip() for name in names)
    if kind != "words":
        assert {"␣", "\\n", "D"} <= set(names)


def test_names_of_tokens_are_their_text():
    vocabulary = learn("bpe")
    names = [vocabulary.tokens()[token] for token in vocabulary.encode("nä\n")]
    assert "".join(names) in ("nä\\n", "n<C3><A4>\\n")
    assert ByteVocabulary().tokens()[0xE4] == "<E4>"


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_gives_whole_characters_as_soon_as_they_are_there(kind):
    vocabulary = learn(kind)
    tokens = vocabulary.encode("naïve 日本語 😀 dogs nice?")
    taken = []

    def reader():
        for token in tokens:
            taken.append(token)
            yield token

    parts = []
    for part in vocabulary.decode_stream(reader()):
        parts.append(part)
        assert part and "\ufffd" not in part
        if kind != "words":
            assert vocabulary.decode(taken) == "".join(parts)  # nothing is held back
    assert "".join(parts) == vocabulary.decode(tokens)
    assert len(parts) > 3


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_broken_bytes_become_replacement_characters_at_the_end_only(kind):
    vocabulary = learn(kind, ["x"], **({"vocab_size": 256} if kind == "bpe" else {}))
    first = vocabulary.encode("é")[0]
    letter = vocabulary.encode("a")[0]
    assert vocabulary.decode([first, letter]) == "\ufffda"
    assert vocabulary.decode([letter, first]) == "a\ufffd"
    assert list(vocabulary.decode_stream([letter, first])) == ["a", "\ufffd"]


@pytest.mark.parametrize("number", [-1, 10_000])
@pytest.mark.parametrize("kind", KINDS)
def test_a_number_that_is_no_token_is_refused(kind, number):
    with pytest.raises(ValueError, match=f"tokens must be from 0 to .*, not {number}"):
        learn(kind).decode([5, number])


@pytest.mark.parametrize("stranger", ["é", "\U0001f600", "\x00", "\ud800"])
def test_characters_refuse_a_stranger_by_name_or_take_it_as_unknown(stranger):
    with pytest.raises(ValueError, match=f"text must .* 4 characters .*U\\+{ord(stranger):04X}"):
        CharacterVocabulary("fox ").encode("fox " + stranger)
    vocabulary = learn("characters", ["fox "], special=True)
    assert vocabulary.encode("fox " + stranger)[-1] == vocabulary.unknown
    assert vocabulary.decode(vocabulary.encode("fox " + stranger)) == "fox "


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_half_a_surrogate_pair_is_refused(kind):
    for encode in (learn(kind).encode, learn(kind).encode_tensor):
        with pytest.raises(ValueError, match=r"text must not hold half .* \(U\+D800\)"):
            encode("a\ud800")
    if kind == "bpe":
        with pytest.raises(ValueError, match="text must not hold half"):
            learn("bpe", ["\ud800"])


def test_characters_are_sorted_and_words_go_by_frequency_then_by_letters():
    assert learn("characters", ["cab", "bad"]).tokens() == ["a", "b", "c", "d"]
    texts = ["b a c. B", "b a"]
    assert learn("words", texts).tokens() == ["<unk>", "a", "b", ".", "B", "c"]
    assert learn("words", texts, lower_case=True).tokens() == ["<unk>", "b", "a", ".", "c"]
    assert learn("words", texts, min_frequency=2).tokens() == ["<unk>", "a", "b"]
    assert learn("words", texts, special=True, vocab_size=6).tokens()[4:] == ["a", "b"]
    vocabulary = learn("words", texts, min_frequency=2, lower_case=True)
    assert vocabulary.encode("A b, C") == [2, 1, 0, 0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The dog, isn't it?", ["The", "dog", ",", "isn", "'t", "it", "?"]),
        ("3,000.50 or 1.", ["3,000.50", "or", "1", "."]),
        ("3rd T-shirt snake_case", ["3rd", "T-shirt", "snake_case"]),
        ("wait... what?! -- 'tis", ["wait", "...", "what", "?", "!", "--", "'", "tis"]),
        ("Bäcker\n\u00a0Straße", ["Bäcker", "Straße"]),
        ("cafe\u0301", ["café"]),
        ("", []),
    ],
)
def test_words_numbers_and_punctuation_are_told_apart(text, words):
    assert split(text) == words


@pytest.mark.parametrize(
    "text",
    [
        "A man's dog, isn't it? Yes: (it is) [so]!",
        'He said: "Go away!", then "come" and "go".',
        "„Guten Tag“, sagt er. “Good day”, she said; “so”. «Oui»",
        "3,000.50 or 50% of $7; #1 and/or 2... -- no",
        "the 'big' dog’s",
        '"Quoted."',
        "",
    ],
)
def test_words_become_the_text_that_one_would_write(text):
    assert "".join(join(split(text))) == text


def test_bpe_is_that_of_the_tokenizers_library_and_its_file_is_inside():
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = learn("bpe", special=True)
    theirs = tokenizers.Tokenizer.from_str(json.dumps(vocabulary.to_json()["tokenizer"]))
    text = "Guten Tag, 3,000 日本語 dogs\n\n  isn't"
    assert theirs.encode(text, add_special_tokens=False).ids == vocabulary.encode(text)
    assert theirs.decode(vocabulary.encode(text)) == text
    assert theirs.get_vocab_size() == len(vocabulary)
    assert vocabulary.encode_batch(["dog", "", "Tag"]) == [
        vocabulary.encode(part) for part in ("dog", "", "Tag")
    ]


def test_bpe_merges_the_most_frequent_pair_first_and_keeps_to_its_size():
    vocabulary = learn("bpe", ["abab abab abab cd"], vocab_size=258)
    assert vocabulary.tokens()[256:] == ["ab", "abab"]
    frequent = learn("bpe", ["abab abab abab cd"], vocab_size=5_000, min_frequency=2)
    assert frequent.tokens()[256:] == ["ab", "abab", "␣abab"]


PROGRAM = """
import random
from zoo.data.text.vocabularies import learn_vocabulary
chance = random.Random(0)
# Many pairs are equally frequent here, so that only a fixed rule gives the same merges.
words = ["".join(chance.choices("abcdefgh", k=6)) for _ in range(3000)]
texts = [" ".join(words[i : i + 100]) for i in range(0, 3000, 100)]
for kind, size in (("bpe", 900), ("words", 500), ("characters", None)):
    print(learn_vocabulary(kind, texts, vocab_size=size).checksum())
"""


def test_learning_gives_the_same_in_every_process_and_with_any_number_of_threads(capsys):
    changes = {"PYTHONHASHSEED": "12", "RAYON_NUM_THREADS": "4", "TOKENIZERS_PARALLELISM": "true"}
    there = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | changes,
        capture_output=True,
        text=True,
        check=True,
    )
    for _ in range(2):
        exec(PROGRAM, {})
        assert capsys.readouterr().out == there.stdout
    assert len(there.stdout.split()) == 3


@pytest.mark.parametrize("size", [1, 2, 7, 100])
@pytest.mark.parametrize("chunk", [1, 3, 10_000])
def test_a_text_is_cut_where_no_token_is_cut(size, chunk):
    text = TEXT + "x" * 50 + " \n  y \u3000z\n" + TEXT + "end   "
    vocabularies = [learn(kind, [text]) for kind in KINDS]
    chunks = [text[i : i + chunk] for i in range(0, len(text), chunk)]
    pieces = list(cut(chunks, size))
    assert "".join(pieces) == text and len(pieces) > 2
    assert all(len(piece) >= size for piece in pieces[:-1])
    for vocabulary in vocabularies:
        parts = itertools.chain.from_iterable(vocabulary.encode_batch(pieces))
        assert list(parts) == vocabulary.encode(text)


def test_long_text_is_encoded_like_a_short_one():
    text = StandardLibrary().text()[:100_000]
    vocabulary = learn("bpe", [text], vocab_size=1000)
    assert vocabulary.encode_tensor(text).tolist() == vocabulary.encode(text)
    assert len(vocabulary.encode(text)) < 0.5 * len(text)
    assert vocabulary.decode(vocabulary.encode_tensor(text)) == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "letters"}, "kind must be one of characters, .* not 'letters'"),
        ({"kind": "bpe", "vocab_size": None}, "vocab_size must be at least 256 for bpe, not None"),
        ({"kind": "bpe", "vocab_size": 255}, "vocab_size must be at least 256 for bpe, .* not 255"),
        ({"kind": "words", "vocab_size": 1}, "vocab_size must be at least 2 for words, .* not 1"),
        ({"kind": "bytes", "vocab_size": 256}, "vocab_size must be None with bytes, not 256"),
        ({"kind": "words", "min_frequency": 0}, "min_frequency must be at least 1, not 0"),
        ({"kind": "bpe", "lower_case": True}, "lower_case must be false with bpe"),
        ({"kind": "characters", "texts": []}, "characters must not be empty"),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    kind = arguments.pop("kind")
    with pytest.raises(ValueError, match=f"^{message}"):
        learn_vocabulary(kind, **({"texts": ["text"]} | arguments))


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (None, "kind of a vocabulary must be one of characters, .* not 'None'"),
        ({"kind": ["x"]}, "kind of a vocabulary must be one of"),
        ({"kind": "bytes"}, "kind bytes of a vocabulary is damaged"),
        ({"kind": "bytes", "special": ["<s>"]}, r"special must be one of .* not \['<s>'\]"),
        ({"kind": "words", "special": [], "words": 3, "lower_case": False}, "kind words .*damaged"),
        ({"kind": "characters", "special": [], "characters": ["a", "a"]}, "characters must differ"),
        ({"kind": "bpe", "special": [], "tokenizer": {}}, "tokenizer must be one of the tokenizer"),
    ],
)
def test_a_damaged_vocabulary_is_refused(stored, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        load_vocabulary(stored)


def test_a_tokenizer_without_the_special_tokens_is_refused():
    stored = learn("bpe").to_json()
    with pytest.raises(ValueError, match="tokenizer must begin with"):
        BPEVocabulary(stored["tokenizer"], ("<pad>", "<unk>", "<s>", "</s>"))
