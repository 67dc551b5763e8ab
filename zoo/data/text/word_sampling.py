"""The random draws of word2vec: which words are dropped, how far a window reaches, and negatives.

Mikolov et al. 2013, https://arxiv.org/abs/1310.4546, sections 2.2 and 2.3.
"""

import torch
from torch import Tensor

NOISE_POWER = 0.75


def keep_probabilities(counts: Tensor, threshold: float) -> Tensor:
    r"""With which probability an occurrence of each word is kept: :math:`\min(1, \sqrt{t / f})`.

    Args:
        counts: how often each word occurs, ``(words,)``.
        threshold: t, a share of the text; 0 keeps every word.
    """
    frequency = counts / counts.sum()
    return (threshold / frequency).sqrt().clamp(max=1) if threshold else torch.ones_like(frequency)


def kept_places(keep: Tensor, generator: torch.Generator) -> Tensor:
    """Draws which places of a text are kept, given the probability of each, ``(time,)``."""
    is_kept = torch.rand(len(keep), generator=generator) < keep
    is_kept[:2] = True  # so that no word is ever without a context
    return is_kept.nonzero().squeeze(1)


def contexts(
    words: Tensor, centers: Tensor, window: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The words around places of a text, and which of them a window of random size reaches.

    Args:
        words: the text, ``(time,)``.
        centers: places in it, ``(batch,)``.
        window: largest reach to either side; the reach of each place is drawn from 1 to this.
        generator: of the reaches.

    Returns:
        Words and whether they are reached, ``(batch, 2 * window)`` each.
    """
    reach = torch.randint(1, window + 1, (len(centers), 1), generator=generator)
    offsets = torch.arange(-window, window + 1)
    offsets = offsets[offsets != 0]
    around = centers.unsqueeze(1) + offsets  # (batch, 2 * window)
    is_reached = (offsets.abs() <= reach) & (around >= 0) & (around < len(words))
    return words[around.clamp(0, len(words) - 1)], is_reached


class NoiseDistribution:
    """Words in proportion to their counts to the power of 3/4.

    Args:
        counts: how often each word occurs, ``(words,)``.
    """

    def __init__(self, counts: Tensor) -> None:
        weights = counts.double() ** NOISE_POWER
        self._cumulative = (weights / weights.sum()).cumsum(0)  # (words,)

    def draw(self, *shape: int, generator: torch.Generator) -> Tensor:
        """Independent draws, int64 of the given shape."""
        uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
        # The word in whose part of [0, 1) a number falls; rounding may leave the last part open.
        drawn = torch.searchsorted(self._cumulative, uniform, right=True)
        return drawn.clamp(max=len(self._cumulative) - 1)
