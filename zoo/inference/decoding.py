r"""Greedy and beam search: from an encoder-decoder's probabilities to a sequence.

The model has three methods. ``encode(source, source_lengths)`` gives a state, ``decode(tokens,
state)`` the logits after new tokens and the state after them, ``reorder(state, rows)`` the state of
other rows of the batch.

A hypothesis is judged by its log-probability divided by the length penalty of Wu et al. 2016,
"Google's neural machine translation system", https://arxiv.org/abs/1609.08144, equation 14:

.. math:: lp(y) = \left( \frac{5 + |y|}{6} \right)^\alpha

where the end counts as a token. With :math:`\alpha = 0` short ones are preferred, since every
factor is below 1. Of that paper, the coverage penalty and the pruning are omitted. The search of a
sentence is over when as many hypotheses have ended within the beam as it is wide, as in fairseq
(https://arxiv.org/abs/1904.01038), and no open one is better so far than the best of them; so
a beam of 1 is greedy search.
"""

import math
from typing import Any, Protocol

import torch
from torch import Tensor

PAD, UNKNOWN, BEGIN, END = range(4)
"""Special tokens, the same in every vocabulary that has them."""
NEVER = (PAD, UNKNOWN, BEGIN)
"""What is never written: an unknown word means nothing to a reader either."""
CHECK_EVERY = 8
"""Steps between two checks whether all is done: off the CPU, each waits for the device."""


class EncoderDecoder(Protocol):
    """What a model has to have for its sequences to be searched."""

    def encode(self, source: Tensor, source_lengths: Tensor | None = None) -> Any: ...

    def decode(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]: ...

    def reorder(self, state: Any, rows: Tensor) -> Any: ...


def length_penalty(length: int, alpha: float) -> float:
    """What the log-probability of a hypothesis of ``length`` tokens is divided by."""
    return ((5 + length) / 6) ** alpha


def greedy_search(
    model: EncoderDecoder, source: Tensor, source_lengths: Tensor, *, most: Tensor
) -> Tensor:
    """Always takes the most probable next token.

    Args:
        model: in evaluation mode; call this without gradients.
        source: tokens ``(batch, S)``.
        source_lengths: ``(batch,)`` on the CPU.
        most: tokens that each result may have, its end included, ``(batch,)`` on the CPU.

    Returns:
        Tokens ``(batch, T)``: those of each result, its end, and padding.
    """
    state = model.encode(source, source_lengths)
    tokens = torch.full((len(source), 1), BEGIN, device=source.device)
    done = torch.zeros(len(source), dtype=torch.bool, device=source.device)
    limits, written = most.to(source.device), []
    for step in range(1, int(most.max()) + 1):
        logits, state = model.decode(tokens, state)
        scores = _allowed(logits[:, -1], limits == step)  # (batch, vocabulary)
        chosen = scores.argmax(-1).masked_fill(done, PAD)  # (batch,)
        written.append(chosen)
        done = done | (chosen == END)
        if _looks(step, source) and bool(done.all()):
            break
        tokens = chosen.unsqueeze(1)  # (batch, 1)
    return _trimmed(torch.stack(written, 1))  # (batch, T)


def beam_search(
    model: EncoderDecoder,
    source: Tensor,
    source_lengths: Tensor,
    *,
    most: Tensor,
    beam_size: int,
    alpha: float = 0.6,
) -> Tensor:
    """Follows the ``beam_size`` most probable beginnings of each sentence side by side.

    Args:
        model: in evaluation mode; call this without gradients.
        source: tokens ``(batch, S)``.
        source_lengths: ``(batch,)`` on the CPU.
        most: tokens that each result may have, its end included, ``(batch,)`` on the CPU.
        beam_size: beginnings of a sentence.
        alpha: exponent of the length penalty.

    Returns:
        Tokens ``(batch, T)``: those of the best hypotheses, their ends, and padding.
    """
    batch, longest, device = len(source), int(most.max()), source.device
    limits = most.to(device).unsqueeze(1)  # (batch, 1)
    first_row = torch.arange(batch, device=device).unsqueeze(1) * beam_size  # (batch, 1)
    state = model.encode(source, source_lengths)
    state = model.reorder(state, first_row.expand(-1, beam_size).flatten() // beam_size)
    # The beams of a sentence begin alike, so all but one are out of the running.
    scores = torch.full((batch, beam_size), -math.inf, device=device)
    scores[:, 0] = 0.0
    tokens = torch.full((batch * beam_size, 1), BEGIN, device=device)
    beams = torch.full((batch, beam_size, longest), PAD, device=device)
    best = torch.full((batch, longest), PAD, device=device)
    best_score = torch.full((batch,), -math.inf, device=device)
    ended = torch.zeros(batch, dtype=torch.int64, device=device)
    done = torch.zeros(batch, dtype=torch.bool, device=device)
    for step in range(1, longest + 1):
        logits, state = model.decode(tokens, state)
        logits = logits[:, -1].unflatten(0, (batch, beam_size))  # (batch, beams, vocabulary)
        steps = _allowed(logits, (limits == step).expand(-1, beam_size))
        vocabulary = steps.size(-1)
        candidates = (scores.unsqueeze(2) + steps).flatten(1)  # (batch, beams * vocabulary)
        # At most one candidate of each beam is its end, so enough are left to continue with.
        top, place = candidates.topk(min(2 * beam_size, candidates.size(1)))
        parent, token = place // vocabulary, place % vocabulary  # (batch, candidates)
        is_end = token == END

        ends = is_end[:, :beam_size] & top[:, :beam_size].isfinite() & ~done.unsqueeze(1)
        judged = (top[:, :beam_size] / length_penalty(step, alpha)).masked_fill(~ends, -math.inf)
        score, which = judged.max(1)  # (batch,)
        of_parent = parent.gather(1, which.unsqueeze(1))  # (batch, 1)
        found = _rows(beams, of_parent).squeeze(1)  # (batch, longest)
        found[:, step - 1] = END
        best = torch.where((score > best_score).unsqueeze(1), found, best)
        best_score = torch.maximum(score, best_score)
        ended = ended + ends.sum(1)

        kept = is_end.byte().argsort(dim=1, stable=True)[:, :beam_size]  # (batch, beams)
        scores, parent = top.gather(1, kept), parent.gather(1, kept)
        token = token.gather(1, kept)
        is_beaten = scores[:, 0] / length_penalty(step, alpha) <= best_score
        done = done | (is_beaten & ((ended >= beam_size) | (limits[:, 0] <= step)))
        if step == longest or (_looks(step, source) and bool(done.all())):
            break
        beams = _rows(beams, parent)
        beams[:, :, step - 1] = token
        state = model.reorder(state, (first_row + parent).flatten())
        tokens = token.view(-1, 1)  # (batch * beams, 1)
    return _trimmed(best)


def _looks(step: int, source: Tensor) -> bool:
    """Whether to see now if all is done."""
    return source.device.type == "cpu" or step % CHECK_EVERY == 0


def _allowed(logits: Tensor, is_last: Tensor) -> Tensor:
    """Log-probabilities, without what no hypothesis may continue with; the last token is the end.

    Shape:
        - logits and output: ``(*, vocabulary)``
        - is_last: ``(*)``
    """
    scores = logits.float().log_softmax(-1)
    scores[..., list(NEVER)] = -math.inf
    is_end = torch.arange(scores.size(-1), device=scores.device) == END
    return scores.masked_fill(is_last.unsqueeze(-1) & ~is_end, -math.inf)


def _rows(beams: Tensor, chosen: Tensor) -> Tensor:
    """Beams ``(batch, beams, time)`` by number ``(batch, n)``: ``(batch, n, time)``."""
    return beams.gather(1, chosen.unsqueeze(2).expand(-1, -1, beams.size(2)))


def _trimmed(tokens: Tensor) -> Tensor:
    """Without the columns at the right that are all padding."""
    return tokens[:, : max(1, int((tokens != PAD).sum(1).max()))]
