import math
from collections import Counter
from fractions import Fraction

import pytest
import torch

from zoo.models.ngram import FALLBACK_DISCOUNTS, NGram, _discounts

WORDS = 4


class ByTheBook:
    """Chen and Goodman's equations over dictionaries of tuples, in exact fractions."""

    def __init__(self, text, order):
        self.order = order
        self.counts = {}
        for n in range(1, order + 1):
            grams = [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]
            if n == order:
                self.counts[n] = Counter(grams)
            else:
                longer = {tuple(text[i : i + n + 1]) for i in range(len(text) - n)}
                self.counts[n] = Counter(gram[1:] for gram in longer)
        self.discounts = {n: self.discount(counts) for n, counts in self.counts.items()}

    @staticmethod
    def discount(counts):
        n1, n2, n3, n4 = (sum(c == i for c in counts.values()) for i in (1, 2, 3, 4))
        if not (n1 and n2 and n3):
            return Fraction(1, 2), Fraction(1), Fraction(3, 2)
        y = Fraction(n1, n1 + 2 * n2)
        values = 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3
        fits = all(0 < value <= i for i, value in enumerate(values, start=1))
        return values if fits else (Fraction(1, 2), Fraction(1), Fraction(3, 2))

    def __call__(self, token, history, n=None):
        n = min(self.order, len(history) + 1) if n is None else n
        if n == 0:
            return Fraction(1, WORDS)
        context = tuple(history[len(history) - n + 1 :])
        following = {g: c for g, c in self.counts[n].items() if g[:-1] == context}
        lower = self(token, history, n - 1)
        total = sum(following.values())
        if total == 0:
            return lower
        discount = (0, *self.discounts[n])
        count = following.get((*context, token), 0)
        taken = sum(discount[min(c, 3)] for c in following.values())
        return (count - discount[min(count, 3)] + taken * lower) / total


def text(length, seed=0, skew=2.0):
    """Tokens of a Markov chain that likes some transitions better, and never has the last token."""
    generator = torch.Generator().manual_seed(seed)
    tokens = [0]
    chances = torch.rand(WORDS, WORDS - 1, generator=generator) ** skew + 0.02
    for _ in range(length - 1):
        tokens.append(torch.multinomial(chances[tokens[-1]], 1, generator=generator).item())
    return torch.tensor(tokens)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("length", [8, 60])
def test_probabilities_are_those_of_the_equations(order, length):
    model, tokens = NGram(WORDS, order=order), text(length, seed=order)
    model.fit(tokens)
    slow = ByTheBook(tokens.tolist(), order)
    history = [3, *text(12, seed=9).tolist(), 3, 0, 1, 1, 2, 0]  # the last token is never seen
    found, _ = model(torch.tensor([history]))
    expected = [
        [float(slow(token, history[: t + 1])) for token in range(WORDS)]
        for t in range(len(history))
    ]
    torch.testing.assert_close(found[0].exp(), torch.tensor(expected, dtype=torch.float64))


def test_discounts_of_the_paper_are_used_where_they_have_an_estimate():
    tokens = text(60, seed=3)
    slow = ByTheBook(tokens.tolist(), 3)
    for order, is_estimated in ((1, False), (3, True)):
        found = _discounts(torch.tensor(list(slow.counts[order].values())))
        expected = torch.tensor([0.0, *map(float, slow.discounts[order])], dtype=torch.float64)
        torch.testing.assert_close(found, expected)
        assert (tuple(found[1:].tolist()) != FALLBACK_DISCOUNTS) == is_estimated


def test_probabilities_add_up_to_one_and_none_is_zero():
    model = NGram(30, order=4)
    generator = torch.Generator().manual_seed(0)
    model.fit(torch.randint(20, (500,), generator=generator))
    found, _ = model(torch.randint(30, (3, 40), generator=generator))
    assert found.dtype == torch.float64 and found.isfinite().all()
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(3, 40, dtype=torch.float64))


def test_the_lowest_order_of_one_is_the_smoothed_frequency():
    model = NGram(3, order=1)
    model.fit(torch.tensor([0, 0, 0, 0, 1, 1, 2]))  # n1 = n2 = 1, n3 = 0: no estimate
    rest = (0.5 + 1 + 1.5) / 7 / 3
    expected = [(4 - 1.5) / 7 + rest, (2 - 1) / 7 + rest, (1 - 0.5) / 7 + rest]
    torch.testing.assert_close(
        model(torch.tensor([[0]]))[0][0, 0].exp(), torch.tensor(expected, dtype=torch.float64)
    )


@pytest.mark.parametrize("order", [1, 2, 4])
def test_two_halves_with_carried_state_equal_one_pass(order):
    model, tokens = NGram(WORDS, order=order), text(200)
    model.fit(tokens)
    rows = torch.stack([text(9, seed=1), text(9, seed=2)])
    whole, end = model(rows)
    for cut in (1, 2, 6):
        first, state = model(rows[:, :cut])
        second, state = model(rows[:, cut:], state)
        assert torch.equal(torch.cat([first, second], 1), whole)
        assert torch.equal(state, end) and state.shape[1] == order - 1


def test_a_row_alone_equals_the_row_in_its_batch_and_looks_back_only():
    model = NGram(WORDS, order=3)
    model.fit(text(200))
    rows = torch.stack([text(9, seed=1), text(9, seed=2)])
    changed = rows.clone()
    changed[:, 5] = (rows[:, 5] + 1) % WORDS
    both, after = model(rows)[0], model(changed)[0]
    assert torch.equal(model(rows[1:])[0], both[1:])
    assert torch.equal(both[:, :5], after[:, :5])
    assert torch.equal(both[:, 7:], model(rows[:, 6:])[0][:, 1:])  # two tokens are all it sees


def test_an_order_that_sees_enough_reaches_the_entropy_of_the_source():
    def chain(length, seed):
        generator, tokens = torch.Generator().manual_seed(seed), [0, 1]
        while len(tokens) < length:
            if torch.rand((), generator=generator) < 0.9:
                tokens.append((tokens[-1] + tokens[-2]) % WORDS)
            else:
                tokens.append(int(torch.randint(WORDS, (), generator=generator)))
        return torch.tensor(tokens)

    p = 0.9 + 0.1 / WORDS
    entropy = -p * math.log(p) - 0.1 * 3 / 4 * math.log(0.1 / 4)
    train, val = chain(20_000, 0), chain(20_000, 1)
    losses = {}
    for order in (1, 2, 3, 5):
        model = NGram(WORDS, order=order)
        model.fit(train)
        found, _ = model(val[None, :-1])
        losses[order] = -found[0].gather(1, val[1:, None]).mean().item()
    assert losses[1] == pytest.approx(math.log(WORDS), abs=0.01)
    assert losses[2] == pytest.approx(math.log(WORDS), abs=0.01)  # one token says nothing
    assert losses[3] == pytest.approx(entropy, abs=0.02)
    assert losses[5] == pytest.approx(losses[3], abs=0.02)


def test_a_second_text_replaces_the_first():
    model, alone = NGram(WORDS, order=3), NGram(WORDS, order=3)
    model.fit(text(100, seed=1))
    model.fit(text(90, seed=2))
    alone.fit(text(90, seed=2))
    rows = text(20, seed=3)[None]
    assert torch.equal(model(rows)[0], alone(rows)[0])


def test_wrong_arguments_are_refused_by_name():
    with pytest.raises(ValueError, match=r"^order must be at least 1, not 0"):
        NGram(3, order=0)
    model = NGram(3, order=3)
    with pytest.raises(RuntimeError, match="fit"):
        model(torch.tensor([[0]]))
    with pytest.raises(ValueError, match=r"^tokens must be 3 or more in one dimension, not \(2,\)"):
        model.fit(torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"^tokens must be from 0 to 2"):
        model.fit(torch.tensor([0, 1, 3]))
