import itertools
import math

import pytest
import torch
from torch import nn

from zoo.inference.decoding import (
    BEGIN,
    END,
    PAD,
    UNKNOWN,
    beam_search,
    greedy_search,
    length_penalty,
)

NEVER = {PAD, UNKNOWN, BEGIN}


class Tiny(nn.Module):
    """A GRU that writes from what another has read; padding is not read."""

    def __init__(self, vocab_size=7, hidden_size=8, seed=0, scale=4.0):
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(vocab_size, hidden_size)
        self.reader = nn.GRU(hidden_size, hidden_size, batch_first=True)
        self.writer = nn.GRU(hidden_size, hidden_size, batch_first=True)
        self.head = nn.Linear(hidden_size, vocab_size)
        self.scale = scale
        self.calls = 0
        self.double()

    def encode(self, source, source_lengths=None):
        packed = nn.utils.rnn.pack_padded_sequence(
            self.embedding(source), source_lengths, batch_first=True, enforce_sorted=False
        )
        return self.reader(packed)[1]

    def decode(self, tokens, state):
        self.calls += 1
        output, state = self.writer(self.embedding(tokens), state)
        return self.scale * self.head(output), state

    def reorder(self, state, rows):
        return state[:, rows]


class Scripted(nn.Module):
    """Whose next token depends on the one before alone: probabilities by hand."""

    def __init__(self, table):
        super().__init__()
        self.table = table

    def encode(self, source, source_lengths=None):
        return torch.zeros(len(source))

    def decode(self, tokens, state):
        return self.table[tokens], state

    def reorder(self, state, rows):
        return state[rows]


def sources(n=7, vocab_size=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 6, (n,), generator=generator)
    source = torch.randint(4, vocab_size, (n, int(lengths.max())), generator=generator)
    return source * (torch.arange(source.size(1)) < lengths[:, None]), lengths


def score(model, source, tokens):
    """Log-probability of what follows `<s>`, token by token."""
    state = model.encode(source[None], torch.tensor([len(source)]))
    logits, _ = model.decode(torch.tensor([[BEGIN, *tokens[:-1]]]), state)
    return logits[0].log_softmax(-1)[range(len(tokens)), tokens].sum().item()


def hypotheses(vocab_size, most):
    """Everything that may be written: no other special token than the end at the end."""
    usual = range(END + 1, vocab_size)
    for length in range(most):
        for tokens in itertools.product(usual, repeat=length):
            yield [*tokens, END]


def written(rows):
    return [[token for token in row if token != PAD] for row in rows.tolist()]


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.5])
@pytest.mark.parametrize("seed", range(4))
def test_a_beam_that_holds_everything_finds_the_best_of_all_sequences(alpha, seed):
    most, model = 4, Tiny(seed=seed)
    source, lengths = sources(n=3, seed=seed)
    limits = torch.tensor([most, most - 1, most])
    with torch.no_grad():
        found = beam_search(model, source, lengths, most=limits, beam_size=60, alpha=alpha)
        for row, length, limit, tokens in zip(
            source, lengths, limits.tolist(), written(found), strict=True
        ):
            every = list(hypotheses(7, limit))
            judged = [score(model, row[:length], h) / length_penalty(len(h), alpha) for h in every]
            assert tokens == every[max(range(len(every)), key=judged.__getitem__)]


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("seed", [0, 3, 7])
def test_a_beam_of_one_is_greedy_search(seed, alpha):
    model = Tiny(vocab_size=12, seed=seed)
    source, lengths = sources(n=20, vocab_size=12, seed=seed)
    most = 2 * lengths + 4
    with torch.no_grad():
        greedy = greedy_search(model, source, lengths, most=most)
        beam = beam_search(model, source, lengths, most=most, beam_size=1, alpha=alpha)
    assert torch.equal(greedy, beam)
    assert len({len(row) for row in written(greedy)}) > 1


def test_greedy_search_takes_the_most_probable_token_each_time():
    model = Tiny(vocab_size=12, seed=1)
    source, lengths = sources(vocab_size=12)
    with torch.no_grad():
        found = written(greedy_search(model, source, lengths, most=lengths + 3))
        for row, length, tokens in zip(source, lengths.tolist(), found, strict=True):
            state, last, expected = (
                model.encode(row[None, :length], lengths.new([length])),
                BEGIN,
                [],
            )
            while last != END:
                logits, state = model.decode(torch.tensor([[last]]), state)
                logits[..., list(NEVER)] = -math.inf
                last = int(logits.argmax()) if len(expected) < length + 2 else END
                expected.append(last)
            assert tokens == expected


def test_wider_beams_find_no_less_probable_sequences():
    model = Tiny(vocab_size=12, seed=0)
    source, lengths = sources(n=30, vocab_size=12)
    means = []
    with torch.no_grad():
        for beam_size in (1, 4, 64):
            found = beam_search(
                model, source, lengths, most=lengths + 4, beam_size=beam_size, alpha=0.0
            )
            scores = [
                score(model, row[:n], tokens)
                for row, n, tokens in zip(source, lengths, written(found), strict=True)
            ]
            means.append(sum(scores) / len(scores))
    assert means[0] < means[1] < means[2]


def logits_of(rows, vocab_size=7):
    """Logarithms of the probabilities after each token; what is not named is next to impossible."""
    table = torch.full((vocab_size, vocab_size), -60.0, dtype=torch.float64)
    for token, following in rows.items():
        for after, probability in following.items():
            table[token, after] = math.log(probability)
    return table


def test_beam_search_looks_past_a_bad_second_step():
    # After the more probable 4 everything is improbable; 5 wins in the end.
    model = Scripted(
        logits_of(
            {BEGIN: {4: 0.6, 5: 0.4}, 4: {END: 0.4, 6: 0.6}, 5: {END: 0.9, 6: 0.1}, 6: {6: 1}}
        )
    )
    most = torch.tensor([3])
    source, lengths = torch.tensor([[4]]), torch.tensor([1])
    assert written(greedy_search(model, source, lengths, most=most)) == [[4, 6, END]]
    beam = beam_search(model, source, lengths, most=most, beam_size=2, alpha=0.0)
    assert written(beam) == [[5, END]]


def test_a_sure_long_sequence_is_not_lost_to_short_ones_that_end_first():
    sure = {token: {token + 1: 0.97, END: 0.02} for token in (4, 5, 6)}
    table = logits_of({BEGIN: {4: 0.97, END: 0.02}, **sure, 7: {END: 1.0}}, vocab_size=8)
    source, lengths, most = torch.tensor([[4]]), torch.tensor([1]), torch.tensor([9])
    for beam_size in (1, 2, 3):
        found = beam_search(Scripted(table), source, lengths, most=most, beam_size=beam_size)
        assert written(found) == [[4, 5, 6, 7, END]]


def test_length_penalty_is_that_of_the_paper_and_prefers_longer_sequences():
    assert length_penalty(1, 0.6) == 1.0
    assert length_penalty(10, 0.65) == pytest.approx((15 / 6) ** 0.65)
    model = Scripted(logits_of({BEGIN: {END: 0.45, 4: 0.55}, 4: {END: 0.6, 5: 0.4}, 5: {END: 1.0}}))
    source, lengths, most = torch.tensor([[4]]), torch.tensor([1]), torch.tensor([5])
    # log 0.45 = -0.80; log 0.33 = -1.11 over 7/6 is -0.95, over (7/6)^3 it is -0.70.
    for alpha, expected in ((0.0, [END]), (1.0, [END]), (3.0, [4, END])):
        found = beam_search(model, source, lengths, most=most, beam_size=3, alpha=alpha)
        assert written(found) == [expected]


@pytest.mark.parametrize("beam_size", [1, 3])
def test_every_sentence_is_written_as_if_it_were_alone(beam_size):
    model = Tiny(vocab_size=12, seed=2)
    source, lengths = sources(n=12, vocab_size=12)
    most = lengths + 3

    def search(rows):
        part = source[rows, : int(lengths[rows].max())]
        with torch.no_grad():
            if beam_size == 1:
                return greedy_search(model, part, lengths[rows], most=most[rows])
            return beam_search(model, part, lengths[rows], most=most[rows], beam_size=beam_size)

    together = written(search(slice(None)))
    assert together == [written(search(slice(i, i + 1)))[0] for i in range(12)]


@pytest.mark.parametrize("beam_size", [1, 3])
def test_nothing_is_longer_than_allowed_and_everything_ends(beam_size):
    either = {4: 0.6, 5: 0.4}
    never_ends = logits_of({BEGIN: either, 4: either, 5: either})
    never_ends[:, END] = -80.0
    source, lengths = sources(n=5)
    most = torch.tensor([1, 2, 3, 7, 4])
    model = Scripted(never_ends)
    search = greedy_search if beam_size == 1 else beam_search
    options = {} if beam_size == 1 else {"beam_size": beam_size}
    found = search(model, source, lengths, most=most, **options)
    assert written(found) == [[4] * (n - 1) + [END] for n in most.tolist()]


@pytest.mark.parametrize("beam_size", [1, 3])
def test_no_sentence_holds_a_special_token_but_its_end(beam_size):
    eager = torch.zeros(7, 7, dtype=torch.float64)
    eager[:, list(NEVER)] = 50.0
    source, lengths = sources(n=2)
    search = greedy_search if beam_size == 1 else beam_search
    options = {} if beam_size == 1 else {"beam_size": beam_size}
    found = search(Scripted(eager), source, lengths, most=lengths + 5, **options)
    for row in written(found):
        assert row[-1] == END and not {*NEVER, END} & {*row[:-1]}


@pytest.mark.parametrize("beam_size", [1, 2])
def test_search_stops_when_all_have_ended(beam_size):
    model = Tiny()
    with torch.no_grad():
        model.head.bias[END] = 1e4
        source, lengths = sources()
        search = greedy_search if beam_size == 1 else beam_search
        options = {} if beam_size == 1 else {"beam_size": beam_size}
        found = search(model, source, lengths, most=lengths + 1000, **options)
    assert written(found) == [[END]] * len(source)
    assert model.calls <= 2
