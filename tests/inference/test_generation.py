import itertools

import pytest
import torch
from torch import nn

from zoo.inference.generation import Sampler, continuation, without

VOCABULARY = 7


class Sums(nn.Module):
    """Logits from the sum of all embeddings up to a place: later tokens change nothing before."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(VOCABULARY, 8)
        self.head = nn.Linear(8, VOCABULARY)
        self.read = 0

    def sums(self, tokens, before=0.0):
        self.read += tokens.shape[1]
        return before + self.embedding(tokens).double().cumsum(1)

    def logits(self, sums):
        return self.head(sums.float().tanh())

    def forward(self, tokens):
        return self.logits(self.sums(tokens))


class Carrying(Sums):
    def forward(self, tokens, state=0.0):
        sums = self.sums(tokens, state)
        return self.logits(sums), sums[:, -1:]


class Windowed(Sums):
    sequence_length = 6

    def forward(self, tokens):
        assert tokens.shape[1] <= self.sequence_length
        return super().forward(tokens)


class Cached(Windowed):
    def new_cache(self):
        return [torch.zeros(1, 1, 8, dtype=torch.float64), 0]

    def forward(self, tokens, cache=None):
        if cache is None:
            return super().forward(tokens)
        sums = self.sums(tokens, cache[0])
        cache[0], cache[1] = sums[:, -1:], cache[1] + tokens.shape[1]
        assert cache[1] <= self.sequence_length
        return self.logits(sums)


def drawn(model, tokens, length, **options):
    return torch.cat(
        list(itertools.islice(continuation(model, tokens, Sampler(**options)), length)), 1
    )


def by_hand(model, tokens, length, **options):
    """Everything that the model may see, read anew for each token."""
    sampler, text = Sampler(**options), tokens
    for _ in range(length):
        window = text[:, -getattr(model, "sequence_length", 10**6) :]
        output = model(window)
        logits = output[0] if isinstance(output, tuple) else output
        text = torch.cat([text, sampler(logits[:, -1])], 1)
    return text[:, tokens.shape[1] :]


@pytest.mark.parametrize("kind", [Sums, Carrying, Windowed, Cached])
@pytest.mark.parametrize("start", [1, 5, 6, 9])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_continuation_is_that_of_reading_everything_anew(kind, start, temperature):
    model = kind()
    tokens = torch.randint(VOCABULARY, (3, start), generator=torch.Generator().manual_seed(1))
    found = drawn(model, tokens, 12, temperature=temperature)
    assert torch.equal(found, by_hand(model, tokens, 12, temperature=temperature))


def test_state_and_cache_read_each_token_once():
    tokens = torch.tensor([[1, 2]])
    carrying, cached, without = Carrying(), Cached(), Windowed()
    drawn(carrying, tokens, 5)
    assert carrying.read == 2 + 4
    drawn(cached, tokens, 5)
    assert cached.read == 2 + 4
    drawn(without, tokens, 5)
    assert without.read == 2 + 3 + 4 + 5 + 6


def test_generation_needs_no_gradients():
    (token,) = itertools.islice(continuation(Sums(), torch.tensor([[1]]), lambda x: x), 1)
    assert not token.requires_grad


def test_temperature_zero_takes_the_most_probable_token():
    logits = torch.randn(50, VOCABULARY)
    assert torch.equal(Sampler(0.0)(logits), logits.argmax(1, keepdim=True))
    assert torch.equal(Sampler(1.0, top_k=1)(logits), logits.argmax(1, keepdim=True))
    assert torch.equal(Sampler(1.0, top_p=1e-6)(logits), logits.argmax(1, keepdim=True))


def test_top_k_takes_no_more_where_tokens_are_as_probable():
    for seed in range(8):
        assert Sampler(top_k=1, seed=seed)(torch.tensor([[0.0, 1.0, 1.0, 1.0]])).item() == 1
        drawn = Sampler(top_k=2, seed=seed)(torch.ones(50, 4))
        assert len(drawn.unique()) == 2


def test_some_tokens_are_never_drawn():
    logits = torch.randn(500, 4)
    assert without([1, 2], Sampler())(logits).unique().tolist() == [0, 3]
    assert torch.equal(without([], Sampler())(logits), Sampler()(logits))
    assert (without([0, 3], Sampler(0.0))(logits)[:, 0] == logits[:, 1:3].argmax(1) + 1).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_as_often_as_they_are_probable(temperature):
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    draws = Sampler(temperature)(logits.expand(40_000, -1))
    frequencies = torch.bincount(draws[:, 0], minlength=4) / len(draws)
    torch.testing.assert_close(frequencies, (logits / temperature).softmax(0), atol=0.01, rtol=0)


def test_top_k_and_top_p_draw_from_what_they_leave_as_often_as_it_is_probable():
    probabilities = torch.tensor([0.1, 0.4, 0.2, 0.3])
    logits = probabilities.log().expand(40_000, -1)

    def frequencies(**options):
        return torch.bincount(Sampler(**options)(logits)[:, 0], minlength=4) / len(logits)

    expected = torch.tensor([0.0, 4 / 7, 0.0, 3 / 7])
    torch.testing.assert_close(frequencies(top_k=2), expected, atol=0.01, rtol=0)
    # 0.4 alone is less than 0.6, and 0.4 + 0.3 is the first sum that is not.
    torch.testing.assert_close(frequencies(top_p=0.6), expected, atol=0.01, rtol=0)
    expected = torch.tensor([0.0, 4 / 9, 2 / 9, 3 / 9])
    torch.testing.assert_close(frequencies(top_p=0.75), expected, atol=0.01, rtol=0)
    torch.testing.assert_close(frequencies(top_p=1.0), probabilities, atol=0.01, rtol=0)
    torch.testing.assert_close(frequencies(top_k=99), probabilities, atol=0.01, rtol=0)


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_top_p_leaves_the_fewest_tokens_also_where_they_add_up_to_it_exactly(temperature):
    tenths = [4, 2, 1, 1, 1, 1]
    logits = (torch.tensor(tenths) / 10).log() * temperature
    for count in range(1, len(tenths)):
        sampler = Sampler(temperature, top_p=sum(tenths[:count]) / 10)
        assert sorted(sampler(logits.expand(2000, -1)).unique().tolist()) == list(range(count))


def test_top_p_of_one_leaves_even_what_is_most_improbable():
    logits = torch.tensor([[0.0, -17.0]])  # a probability of 4e-8
    assert Sampler(top_p=1.0)._restricted(logits).isfinite().all()


def test_a_seed_is_a_text_and_the_global_random_state_is_left_alone():
    model, tokens = Sums(), torch.tensor([[3]])
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = drawn(model, tokens, 20, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(drawn(model, tokens, 20, seed=1), first)
    assert not torch.equal(drawn(model, tokens, 20, seed=2), first)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
    ],
)
def test_values_out_of_range_are_refused(options, name):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        Sampler(**options)
