import itertools
from collections import Counter

import pytest
import torch

from zoo.data.download import DataError
from zoo.data.text.huffman import huffman_tree
from zoo.data.text.skip_gram import WordWindows
from zoo.data.text.skip_gram_loader import SkipGramLoader
from zoo.data.text.text import WholeText

WORDS = 12


class Fable(WholeText):
    """Words w1 ... w12 by the power law of languages, with a comma and a rarity in each line."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed

    def text(self) -> str:
        generator = torch.Generator().manual_seed(self.seed)
        chances = 1.0 / torch.arange(1, WORDS + 1)
        words = torch.multinomial(chances, 3_000, replacement=True, generator=generator) + 1
        names = [("W" if n % 7 == 0 else "w") + str(n) for n in words.tolist()]
        lines = [" ".join(names[i : i + 30]) + f", rare{i}" for i in range(0, 3_000, 30)]
        return "\n".join(lines)


def windows(**arguments):
    data = WordWindows(Fable(), **{"batch_size": 64, "min_frequency": 20, **arguments})
    data.setup(seed=3)
    return data


def loader(tokens, counts=None, **arguments):
    counts = torch.bincount(tokens) if counts is None else counts
    return SkipGramLoader(tokens, counts, **{"batch_size": 4, "window": 2, **arguments})


def everything(batches, name):
    return torch.cat([getattr(batch, name) for batch in batches])


def equal(batch, other):
    return all(torch.equal(a, b) for a, b in zip(batch[:3], other[:3], strict=True))


def test_vocabulary_is_the_frequent_words_of_the_training_text_without_punctuation():
    data = windows()
    names = data.vocabularies["vocabulary"].tokens()
    assert names[0] == "<unk>"
    assert sorted(names[1:]) == sorted(f"w{n}" for n in range(1, WORDS + 1))
    assert data.facts() == {"vocab_size": WORDS + 1, "out_features": WORDS + 1}
    assert windows(output="hierarchical_softmax").facts()["out_features"] == WORDS
    assert windows(vocab_size=5).vocabularies["vocabulary"].tokens() == names[:5]
    assert "W7" in windows(lower_case=False).vocabularies["vocabulary"].tokens()
    for split in data.splits:
        for batch in data.batches(split, 0):
            assert batch.inputs.min() > 0 and batch.outputs.min() > 0  # nowhere <unk>


def test_val_is_the_last_tenth_with_the_words_of_the_rest():
    data = windows(subsample=0)
    assert data.splits == ("train", "val")
    text = Fable().text()
    train, val = (len(part.split()) for part in (text[: len(text) * 9 // 10], text))
    assert data.loaders["val"].num_samples == pytest.approx((val - train) * 30 / 31, abs=8)


def test_a_given_vocabulary_is_used_and_none_learned():
    first, second = windows(), WordWindows(Fable(), batch_size=64, min_frequency=1)
    second.vocabularies = first.vocabularies
    second.setup(seed=3)
    assert second.facts() == first.facts()
    assert equal(next(first.batches("train", 0)), next(second.batches("train", 0)))


def test_another_text_than_that_of_the_run_is_refused():
    checksum = windows().resolved()["sha256"]
    windows(sha256=checksum)
    other = WordWindows(Fable(seed=1), sha256=checksum)
    with pytest.raises(DataError, match="not the one of this run"):
        other.setup()


def test_evaluation_pairs_every_word_with_those_within_its_reach():
    tokens = torch.arange(10)
    batches = list(loader(tokens, window=1).batches(0))
    pairs = list(zip(everything(batches, "inputs").tolist(), strict=True))
    told = everything(batches, "outputs")[:, 0].tolist()
    found = [(word, near) for (word,), near in zip(pairs, told, strict=True)]
    assert found == [(i, j) for i in range(10) for j in (i - 1, i + 1) if 0 <= j < 10]


def test_near_words_count_for_more_in_proportion_to_the_reaches_that_see_them():
    window, size = 4, 4_000
    tokens = torch.arange(size)
    batches = loader(tokens, torch.ones(size), window=window, batch_size=100).batches(0)
    distances = Counter()
    for batch in batches:
        distances.update((batch.inputs - batch.outputs[:, 0]).abs().tolist())
    assert set(distances) == {1, 2, 3, 4}
    for distance, count in distances.items():
        expected = 2 * size * (window - distance + 1) / window
        assert count == pytest.approx(expected, rel=0.05)


def test_cbow_gives_the_words_around_and_tells_the_one_in_the_middle():
    tokens = torch.tensor([1, 2, 3, 4, 5])
    (batch,) = loader(tokens, kind="cbow", window=1, batch_size=5).batches(0)
    assert batch.inputs.tolist() == [[-1, 2], [1, 3], [2, 4], [3, 5], [4, -1]]
    assert batch.outputs[:, 0].tolist() == tokens.tolist()
    assert batch.outputs.shape == batch.signs.shape == (5, 6)


def test_each_row_has_one_true_word_and_the_negatives():
    batch = next(windows(num_negatives=3).batches("train", 0))
    assert batch.outputs.shape == (len(batch.inputs), 4) == batch.signs.shape
    assert batch.signs.unique(dim=0).tolist() == [[1, -1, -1, -1]]
    assert batch.inputs.dtype == batch.outputs.dtype == torch.int64
    assert not batch.is_tree


def test_negatives_have_the_smoothed_frequencies():
    counts = torch.tensor([0, 1, 2, 50, 400])
    tokens = torch.arange(1, 5).repeat(500)
    batches = loader(tokens, counts, batch_size=200, num_negatives=20).batches(0)
    drawn = everything(batches, "outputs")[:, 1:]
    found = torch.bincount(drawn.flatten(), minlength=5)
    assert found[0] == 0
    expected = counts.double() ** 0.75
    expected *= drawn.numel() / expected.sum()
    chi_square = ((found - expected).square() / expected)[1:].sum().item()
    assert drawn.numel() > 50_000 and chi_square < 16.3  # 3 degrees of freedom, p = 0.001


def test_hierarchical_softmax_gives_the_path_of_the_word_to_be_told():
    counts = torch.tensor([0, 5, 9, 2, 4])
    tokens = torch.arange(1, 5).repeat(10)
    arguments = {"kind": "cbow", "batch_size": 40}
    (batch,) = loader(tokens, counts, output="hierarchical_softmax", **arguments).batches(0)
    tree = huffman_tree(counts)
    assert batch.is_tree
    assert torch.equal(batch.outputs, tree.nodes[tokens])
    assert torch.equal(batch.signs, tree.signs[tokens])


def test_subsampling_keeps_each_word_with_its_probability():
    counts = torch.tensor([16_000, 3_600, 400])
    tokens = torch.arange(3).repeat_interleave(counts)
    t = 0.05
    kept = torch.zeros(3)
    made = loader(tokens, batch_size=50, subsample=t, shuffle=True, kind="cbow")
    for epoch in range(3):
        for number in range(len(made)):
            kept += torch.bincount(tokens[made.indices(epoch, number)], minlength=3)
    expected = counts * (t / (counts / counts.sum())).sqrt().clamp(max=1)
    torch.testing.assert_close(kept / 3, expected, rtol=0.1, atol=0)


def test_windows_reach_over_dropped_words():
    # The first word of all is never dropped, and all others of its kind almost always are.
    tokens = torch.tensor([1, 2] + [0, 0, 0, 3] * 50)
    counts = torch.tensor([10_000_000, 1, 1, 1])
    batches = list(loader(tokens, counts, window=1, subsample=1e-9).batches(0))
    pairs = set(
        zip(
            everything(batches, "inputs").tolist(),
            everything(batches, "outputs")[:, 0].tolist(),
            strict=True,
        )
    )
    assert (3, 3) in pairs and not any(0 in pair for pair in pairs)


@pytest.mark.parametrize("kind", ["skip_gram", "cbow"])
@pytest.mark.parametrize("output", ["negative_sampling", "hierarchical_softmax"])
def test_epochs_differ_and_can_be_entered_anywhere(kind, output):
    data, again = (windows(kind=kind, output=output) for _ in range(2))
    epochs = [list(data.batches("train", epoch)) for epoch in range(2)]
    assert [len(batches) for batches in epochs] == [data.num_batches("train")] * 2
    assert not equal(epochs[0][0], epochs[1][0])
    for epoch, start in itertools.product((1, 0), (0, 1, len(epochs[0]) - 1, len(epochs[0]))):
        rest = list(again.batches("train", epoch, start))
        assert len(rest) == len(epochs[0]) - start
        assert all(map(equal, rest, epochs[epoch][start:]))
    other = WordWindows(Fable(), kind=kind, output=output, batch_size=64, min_frequency=20)
    other.setup(seed=4)
    assert not equal(next(other.batches("train", 0)), epochs[0][0])


def test_val_is_the_same_in_every_epoch_and_for_every_seed():
    data, other = windows(), WordWindows(Fable(), batch_size=64, min_frequency=20)
    other.setup(seed=4)
    batches = list(data.batches("val", 0))
    assert len(batches) == data.num_batches("val")
    for found in (data.batches("val", 5), other.batches("val", 0)):
        assert all(map(equal, list(found), batches))
    seen = [i for number in range(len(batches)) for i in data.loaders["val"].indices(0, number)]
    assert len(seen) == data.loaders["val"].num_samples
    assert seen == sorted(set(seen))


def test_an_epoch_visits_no_word_twice_while_there_are_others():
    tokens = torch.arange(5).repeat(40)
    made = loader(tokens, batch_size=30, shuffle=True)
    seen = [i for number in range(len(made)) for i in made.indices(0, number)]
    assert len(made) == 6 and len(set(seen)) == len(seen) == 180


def test_two_epochs_at_a_time_do_not_disturb_each_other():
    data = windows()
    alone = [list(data.batches("train", epoch)) for epoch in (0, 1)]
    both = list(zip(data.batches("train", 0), data.batches("train", 1), strict=True))
    assert all(equal(a, b) for (a, _), b in zip(both, alone[0], strict=True))
    assert all(equal(a, b) for (_, a), b in zip(both, alone[1], strict=True))


def test_global_random_state_is_left_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(windows().batches("train", 0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"window": 0}, "window must be at least 1, not 0"),
        ({"num_negatives": 0}, "num_negatives must be at least 1, not 0"),
        ({"subsample": 1.5}, r"subsample must be a share of the text in \[0, 1\), not 1.5"),
        ({"min_frequency": 0}, "min_frequency must be at least 1, not 0"),
        ({"vocab_size": 2}, "vocab_size must be at least 3 or null, not 2"),
        ({"batch_size": 100_000}, "batch_size must be at most "),
        ({"min_frequency": 9_999}, "min_frequency must leave two words or more"),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        windows(**arguments)
