r"""From noise to data, step by step, by way of a network that guesses the data.

`ancestral` is algorithm 2 of Ho, Jain and Abbeel, 2020, https://arxiv.org/abs/2006.11239, and
`ddim` the sampler of Song, Meng and Ermon, 2021, https://arxiv.org/abs/2010.02502. Both give every
state on the way; the last is the sample.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from zoo.layers.noise_schedule import NoiseSchedule

Guess = Callable[[Tensor, Tensor], Tensor]
"""The data behind a noisy batch ``(batch, *)`` at a step ``(batch,)``."""

Variance = Literal["posterior", "beta"]
"""The variance of a step backwards: the least or the largest that is sensible (section 3.2)."""


def evenly_spaced(num_steps: int, count: int) -> list[int]:
    """Steps from the last one down to 0, ``count`` strides apart that differ by at most one.

    Raises:
        ValueError: there are not so many steps.
    """
    if not 1 <= count <= num_steps:
        raise ValueError(f"sampling_steps must be from 1 to {num_steps}, not {count}")
    return [round(num_steps * i / count) for i in range(count, -1, -1)]


def ancestral(
    guess: Guess,
    x: Tensor,
    schedule: NoiseSchedule,
    *,
    steps: Sequence[int],
    variance: Variance,
    generator: torch.Generator,
) -> Iterator[Tensor]:
    """Draws each state given the one before, as if the guess were the data.

    Args:
        guess: the network.
        x: standard normal noise.
        schedule: of the noise.
        steps: falling, the last 0.
        variance: of each state, but the last, which is the mean.
        generator: of the noise of each step; on the CPU.
    """
    for step, following in pairwise(steps):
        t, s = _at(step, x), _at(following, x)
        x, spread = schedule.posterior(guess(x, t), x, t, s)
        if following > 0:
            spread = spread if variance == "posterior" else schedule.beta(t, s, x)
            x = x + spread.sqrt() * _noise(x, generator)
        yield x


def ddim(
    guess: Guess,
    x: Tensor,
    schedule: NoiseSchedule,
    *,
    steps: Sequence[int],
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    r"""Moves along the direction of the noise that the guess leaves, adding a share of new noise.

    .. math:: x_s = \sqrt{\bar\alpha_s}\, \hat x_0 + \sqrt{1 - \bar\alpha_s - \sigma^2}\,
        \hat\epsilon + \sigma z

    (equation 12) with :math:`\sigma^2` the posterior's variance times :math:`\eta^2`: nothing is
    random for 0, and for 1 it is :func:`ancestral` sampling.

    Args:
        guess: the network.
        x: standard normal noise.
        schedule: of the noise.
        steps: falling, the last 0.
        eta: from 0 to 1.
        generator: of the noise of each step, where ``eta`` is above 0; on the CPU.
    """
    for step, following in pairwise(steps):
        t, s = _at(step, x), _at(following, x)
        x0 = guess(x, t)
        noise = schedule.noise(x0, x, t)
        variance = eta**2 * schedule.posterior(x0, x, t, s).variance
        mean, total = schedule.marginal(x0, s)
        x = mean + (total - variance).clamp_min(0).sqrt() * noise
        if eta > 0 and following > 0:
            if generator is None:
                raise ValueError(f"eta={eta} needs a generator")
            x = x + variance.sqrt() * _noise(x, generator)
        yield x


def _at(step: int, x: Tensor) -> Tensor:
    return torch.full((len(x),), step, device=x.device)


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)
