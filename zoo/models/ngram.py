r"""n-gram language model with interpolated modified Kneser-Ney smoothing (Chen and Goodman, 1998).

"An empirical study of smoothing techniques for language modeling",
https://dash.harvard.edu/handle/1/25104739, after Kneser and Ney 1995, "Improved backing-off for
m-gram language modeling", https://doi.org/10.1109/ICASSP.1995.479394

The probability of the next token is how often it followed the last n - 1 tokens. A little is taken
off every count and given to the model of n - 1; and below the longest n-grams, a token counts by
the number of different tokens that it follows, not by how often (few would expect "Francisco" after
anything but "San"). Nothing is learned by gradients: it is the baseline for what is.

Differences from the paper: one long text rather than sentences, so there are no marks of beginning
and end, and the first tokens of a text are predicted from what there is before them; the lowest
order is interpolated with the uniform distribution, as in KenLM, so that every token has a
probability; where the discounts have no estimate, since no n-gram occurs once or twice (characters
in a large text), they are 0.5, 1 and 1.5, as in KenLM (`--discount_fallback`).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one

FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)


class _Grams(NamedTuple):
    """The different n-grams of one length, sorted, by their number in the order.

    Attributes:
        keys: number of the (n - 1)-gram before it times the vocabulary, plus the last token.
        shares: discounted count as a share of all that follows that (n - 1)-gram.
        starts: the first n-gram of each (n - 1)-gram, and the end of the last.
        rests: the weight of the next lower order, by (n - 1)-gram.
    """

    keys: Tensor
    shares: Tensor
    starts: Tensor
    rests: Tensor


class NGram(nn.Module):
    r"""Counts of tokens after their last n - 1 tokens, smoothed.

    .. math::
        p_n(w \mid h) = \frac{\max(c_n(h w) - D_n(c_n(h w)), 0)}{\sum_v c_n(h v)}
            + \gamma_n(h)\, p_{n-1}(w \mid h'), \qquad p_0(w) = \frac{1}{V}

    where :math:`h'` is :math:`h` without its first token, :math:`c_n` the count in the text for the
    highest order and the number of different tokens before the n-gram for the others, and

    .. math::
        D(1) &= 1 - 2Y \frac{n_2}{n_1}, \qquad D(2) = 2 - 3Y \frac{n_3}{n_2}, \qquad
        D(3+) = 3 - 4Y \frac{n_4}{n_3}, \qquad Y = \frac{n_1}{n_1 + 2 n_2}

    with :math:`n_i` the number of n-grams that count i. :math:`\gamma` makes the sum one. Has the
    face of a recurrent language model; the state is the last n - 1 tokens. The counts are no part
    of its state dict and stay where the text was: :meth:`fit` again instead of loading.

    Args:
        vocab_size: number V of different tokens.
        order: the longest n, 1 for the frequency of each token alone.

    Shape:
        - input: tokens ``(batch, time)`` of type int64, and a state or None for none before
        - output: log-probabilities of the next token ``(batch, time, vocab_size)``, float64, and
          the state after the last token
        - state: int64 ``(batch, at most order - 1)``

    Raises:
        ValueError: if an argument is outside its range.
        RuntimeError: if it is asked before :meth:`fit`.
    """

    def __init__(self, vocab_size: int, *, order: int = 5) -> None:
        super().__init__()
        check_at_least_one(vocab_size=vocab_size, order=order)
        self.vocab_size = vocab_size
        self.order = order
        self._grams: list[_Grams] = []

    def fit(self, tokens: Tensor) -> None:
        """Counts a text, int64 ``(time,)``, and forgets any other.

        Raises:
            ValueError: the text is shorter than the order, or has tokens out of range.
        """
        if tokens.ndim != 1 or len(tokens) < self.order:
            raise ValueError(
                f"tokens must be {self.order} or more in one dimension, not {tuple(tokens.shape)}"
            )
        if int(tokens.min()) < 0 or int(tokens.max()) >= self.vocab_size:
            raise ValueError(f"tokens must be from 0 to {self.vocab_size - 1}")
        numbers = torch.zeros_like(tokens)  # of the n-gram that ends at each place
        num_before = 1
        found: list[tuple[Tensor, Tensor, int]] = []  # keys, counts, how many (n - 1)-grams
        self._grams = []
        for length in range(1, self.order + 1):
            # An n-gram is the (n - 1)-gram that ends one place earlier, and a token.
            before = numbers[:-1] if length > 1 else numbers
            shorter = numbers[1:] if length > 1 else None
            keys, numbers, counts = torch.unique(
                before * self.vocab_size + tokens[length - 1 :],
                return_inverse=True,
                return_counts=True,
            )
            if shorter is not None:
                # An n-gram is also a token and, behind it, the (n - 1)-gram that ends there.
                ends = torch.empty_like(keys).scatter_(0, numbers, shorter)
                lower_keys, lower_counts, lower_before = found.pop()
                continuations = torch.bincount(ends, minlength=len(lower_counts))
                self._grams.append(self._smoothed(lower_keys, continuations, lower_before))
            found.append((keys, counts, num_before))
            num_before = len(keys)
        self._grams.append(self._smoothed(*found.pop()))

    def _smoothed(self, keys: Tensor, counts: Tensor, num_before: int) -> _Grams:
        discounts = _discounts(counts).to(keys.device)[counts.clamp(max=3)]
        before = keys // self.vocab_size
        sums = torch.zeros(2, num_before, dtype=torch.float64, device=keys.device)
        sums[0].index_add_(0, before, counts.double())
        sums[1].index_add_(0, before, discounts)
        total, taken = sums
        # What nothing was seen to follow (the end of the text) leaves all to the lower order.
        rests = torch.where(total > 0, taken / total, 1.0)
        shares = torch.where(counts > 0, (counts - discounts) / total[before], 0.0)
        heads = torch.arange(num_before + 1, device=keys.device) * self.vocab_size
        return _Grams(keys, shares, torch.searchsorted(keys, heads), rests)

    def forward(self, tokens: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if not self._grams:
            raise RuntimeError("NGram needs fit() before it can predict")
        batch, time = tokens.shape
        history = tokens if state is None else torch.cat([state, tokens], 1)
        numbers = torch.zeros_like(history)  # of the longest n-gram so far that ends at each place
        shape = (batch * time, self.vocab_size)
        p = torch.full(shape, 1 / self.vocab_size, dtype=torch.float64, device=tokens.device)
        for length, grams in enumerate(self._grams, start=1):
            self._refine(p, numbers[:, -time:].flatten(), grams)
            if length < self.order:
                before = numbers.roll(1, 1)
                before[:, 0] = -1 if length > 1 else 0
                numbers = self._find(before, history, grams.keys)  # (batch, history)
        first = max(0, history.shape[1] - self.order + 1)
        return p.log().view(batch, time, -1), history[:, first:]

    def _find(self, before: Tensor, tokens: Tensor, keys: Tensor) -> Tensor:
        """The number of each n-gram, -1 for those that the text did not have."""
        wanted = before * self.vocab_size + tokens
        place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
        return torch.where((before >= 0) & (keys[place] == wanted), place, -1)

    def _refine(self, p: Tensor, contexts: Tensor, grams: _Grams) -> None:
        """Turns probabilities of one order into those of the next, in place."""
        known = (contexts >= 0).nonzero().squeeze(1)  # (rows,)
        contexts = contexts[known]
        p[known] *= grams.rests[contexts].unsqueeze(1)
        first, counts = grams.starts[contexts], grams.starts.diff()[contexts]
        # All n-grams of all contexts side by side.
        rows = known.repeat_interleave(counts)
        offsets = torch.arange(len(rows), device=p.device)
        offsets = offsets - (counts.cumsum(0) - counts).repeat_interleave(counts)
        places = first.repeat_interleave(counts) + offsets
        p.view(-1).index_add_(
            0, rows * self.vocab_size + grams.keys[places] % self.vocab_size, grams.shares[places]
        )


def _discounts(counts: Tensor) -> Tensor:
    """What is taken off counts of 0, 1, 2 and 3 or more: float64 ``(4,)``."""
    n = torch.bincount(counts.clamp(max=5), minlength=5)[:5].tolist()
    values = FALLBACK_DISCOUNTS
    if all(n[1:4]):
        y = n[1] / (n[1] + 2 * n[2])
        estimates = tuple(i - (i + 1) * y * n[i + 1] / n[i] for i in (1, 2, 3))
        if all(0 < value <= i for i, value in enumerate(estimates, start=1)):
            values = estimates
    return torch.tensor([0.0, *values], dtype=torch.float64)
