import pytest

from zoo.data.sequences import special
from zoo.data.text.vocabularies import KINDS, learn_vocabulary
from zoo.inference import decoding


def test_decoding_has_the_special_tokens_of_the_data():
    for name in ("PAD", "UNKNOWN", "BEGIN", "END"):
        assert getattr(decoding, name) == getattr(special, name)


@pytest.mark.parametrize("kind", KINDS)
def test_every_vocabulary_has_the_special_tokens_at_their_numbers(kind):
    size = 300 if kind == "bpe" else None
    vocabulary = learn_vocabulary(kind, ["some text"], mask=True, vocab_size=size)
    assert (vocabulary.pad, vocabulary.unknown) == (special.PAD, special.UNKNOWN)
    assert (vocabulary.begin, vocabulary.end) == (special.BEGIN, special.END)
    assert vocabulary.mask == len(special.SPECIAL)
