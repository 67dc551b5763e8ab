"""Continuing a text: tokens drawn one after the other from what a language model expects."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo.inference.protocols import BoundedContext, HasCache


class Sampler:
    r"""Draws a token from the scores of the next one.

    .. math:: p \propto \exp(\mathrm{logits} / \mathrm{temperature})

    restricted to the ``top_k`` most probable tokens and, of those, to the fewest that together have
    at least the probability ``top_p`` (nucleus sampling, Holtzman et al. 2020,
    https://arxiv.org/abs/1904.09751), to one part in a million, which is what single precision can
    tell.

    The random numbers are its own, from the CPU: a sample does not change the training that
    continues after it, and they are the same on every device.

    Args:
        temperature: divides the logits; 0 always takes the most probable token.
        top_k: how many tokens may be drawn; None for all.
        top_p: probability that the tokens that may be drawn add up to; None for all.
        seed: of the random numbers.

    Shape:
        - logits: ``(batch, vocabulary)``
        - output: tokens ``(batch, 1)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    def __init__(
        self,
        temperature: float = 1.0,
        *,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
    ) -> None:
        if not 0 <= temperature < math.inf:
            raise ValueError(f"temperature must be finite and at least 0, not {temperature}")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1 or null, not {top_k}")
        if top_p is not None and not 0 < top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, or null, not {top_p}")
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, logits: Tensor) -> Tensor:
        scores = logits.float()
        if self.temperature > 0:
            scores = self._restricted(scores / self.temperature)
            # The largest of scores plus Gumbel noise is a draw from their softmax.
            noise = torch.empty(scores.shape).exponential_(generator=self._generator)
            scores = scores - noise.log().to(scores.device)
        return scores.argmax(-1, keepdim=True)  # (batch, 1)

    def _restricted(self, scores: Tensor) -> Tensor:
        if self.top_k is not None and self.top_k < scores.shape[-1]:
            # So many, and of equally probable ones the first, as where temperature is 0.
            order = scores.sort(descending=True, stable=True).indices
            scores = scores.scatter(1, order[:, self.top_k :], -math.inf)
        if self.top_p is not None and self.top_p < 1:
            ordered, order = scores.softmax(-1).sort(descending=True, stable=True)
            enough = ordered.cumsum(-1) >= self.top_p * (1 - 1e-6)
            dropped = torch.zeros_like(enough)
            dropped.scatter_(1, order[:, 1:], enough[:, :-1])  # (batch, vocabulary)
            scores = scores.masked_fill(dropped, -math.inf)
        return scores


Draw = Callable[[Tensor], Tensor]
"""Draws tokens ``(batch, 1)`` from logits ``(batch, vocabulary)``, as :class:`Sampler` does."""


def without(tokens: Sequence[int], draw: Draw) -> Draw:
    """Draws as before, but never one of some tokens."""
    if not tokens:
        return draw

    def drawn(logits: Tensor) -> Tensor:
        never = torch.tensor(tokens, dtype=torch.int64, device=logits.device)
        return draw(logits.index_fill(-1, never, -math.inf))

    return drawn


def continuation(model: nn.Module, tokens: Tensor, draw: Draw) -> Iterator[Tensor]:
    """The tokens that follow, endlessly.

    The model says itself how it reads on: one that returns a state is given it back; one with a
    cache (``new_cache``) reads each token once, until the cache is full; from then on, and where
    there is no cache, the last ``sequence_length`` tokens are read again for every token. A model
    with neither reads all from the start.

    Args:
        model: tokens to logits, see :class:`~zoo.tasks.language_modeling.LanguageModeling`.
        tokens: the beginning, at least one token.
        draw: takes a token from the scores of the next one.

    Shape:
        - tokens: ``(batch, time)``
        - each output: ``(batch, 1)``
    """
    longest = model.sequence_length if isinstance(model, BoundedContext) else None
    text = tokens if longest is None else tokens[:, -longest:]
    cache = model.new_cache() if isinstance(model, HasCache) else None
    state, unread = cache, text
    while True:
        with torch.no_grad():
            logits, state = step(model, unread, state)
            new = draw(logits[:, -1])
        yield new
        unread = new
        if state is not None and cache is None:
            continue  # It has read all that came before.
        text = torch.cat([text, new], 1)
        if longest is not None and text.shape[1] > longest:
            text, state = text[:, -longest:], None  # No room is left in the cache.
        if state is None:
            unread = text


def step(model: nn.Module, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
    """Logits of a language model, and its state if it has one: ``(batch, time)`` to logits."""
    output = model(tokens) if state is None else model(tokens, state)
    return output if isinstance(output, tuple) else (output, state)
