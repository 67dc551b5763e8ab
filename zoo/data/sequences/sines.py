"""Synthetic waves: to be continued from a noisy beginning, or to be made from their description."""

import math
from typing import Any, Unpack

import torch
from torch import Tensor

from zoo.data.loading.drawn import DrawnOptions, DrawnTensors

AMPLITUDES = (0.5, 1.5)


class NoisySine(DrawnTensors):
    r"""A window of a noisy sine wave, and its next values: forecasting.

    .. math:: x_t = A \sin(2 \pi t / P + \varphi) + \sigma \varepsilon_t

    with amplitude A in [0.5, 1.5], period P and phase :math:`\varphi` drawn anew for each sample.
    The values to be forecast are as noisy as those given, so no forecast has a mean squared error
    below :math:`\sigma^2` on average; always predicting 0 gives
    :math:`13/24 + \sigma^2 = 0.54 + \sigma^2`.

    A batch is ``(inputs, targets)``, float32 ``(batch, window, 1)`` and ``(batch, horizon)``.

    Args:
        batch_size: windows a batch.
        window: values given.
        horizon: values to be forecast.
        min_period: steps of the shortest period.
        max_period: steps of the longest.
        noise: standard deviation of the noise.
        num_samples: windows to train on.
        options: see :class:`~zoo.data.loading.drawn.DrawnSamples`.
    """

    kind = "noisy sine"

    def __init__(
        self,
        *,
        batch_size: int = 64,
        window: int = 50,
        horizon: int = 10,
        min_period: float = 10.0,
        max_period: float = 40.0,
        noise: float = 0.1,
        num_samples: int = 10_000,
        **options: Unpack[DrawnOptions],
    ) -> None:
        super().__init__(batch_size=batch_size, num_samples=num_samples, **options)
        for name, value in (("window", window), ("horizon", horizon)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if not min_period > 2:
            raise ValueError(
                f"min_period must be greater than 2, below which steps do not show a wave, "
                f"not {min_period}"
            )
        if not min_period <= max_period < math.inf:
            raise ValueError(
                f"max_period must be at least min_period {min_period}, not {max_period}"
            )
        if not 0 <= noise < math.inf:
            raise ValueError(f"noise must be at least 0, not {noise}")
        self.window, self.horizon = window, horizon
        self.min_period, self.max_period = min_period, max_period
        self.noise = noise

    def _draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        amplitude = _uniform(AMPLITUDES, count, generator)
        period = _uniform((self.min_period, self.max_period), count, generator)
        phase = _uniform((0.0, 2 * math.pi), count, generator)
        steps = torch.arange(self.window + self.horizon)
        waves = amplitude * torch.sin(2 * math.pi * steps / period + phase)  # (count, time)
        waves = waves + self.noise * torch.randn(waves.shape, generator=generator)
        given, following = waves.split([self.window, self.horizon], dim=1)
        return given.unsqueeze(2).contiguous(), following.contiguous()  # (count, window, 1)

    def facts(self) -> dict[str, Any]:
        return {"in_features": 1, "out_features": self.horizon}


class SineSynthesis(DrawnTensors):
    r"""The description of a sine wave, and the wave: a sequence to be made from one vector.

    .. math:: x = (A, f, \cos \varphi, \sin \varphi), \qquad
        y_t = A \sin(2 \pi f t / T + \varphi), \quad t = 0, \dots, T - 1

    with amplitude A in [0.5, 1.5], f periods in the sequence and phase :math:`\varphi`. Always
    predicting 0 gives the mean squared error 13/24 = 0.54.

    A batch is ``(inputs, targets)``, float32 ``(batch, 4)`` and ``(batch, length, 1)``.

    Args:
        batch_size: waves a batch.
        length: steps T of each wave.
        max_periods: most periods in a sequence; the fewest are half of one.
        num_samples: waves to train on.
        options: see :class:`~zoo.data.loading.drawn.DrawnSamples`.
    """

    kind = "sine synthesis"

    def __init__(
        self,
        *,
        batch_size: int = 64,
        length: int = 50,
        max_periods: float = 3.0,
        num_samples: int = 5_000,
        **options: Unpack[DrawnOptions],
    ) -> None:
        super().__init__(batch_size=batch_size, num_samples=num_samples, **options)
        if length < 2:
            raise ValueError(f"length must be at least 2, not {length}")
        if not 0.5 <= max_periods < length / 2:
            raise ValueError(
                f"max_periods must be at least 0.5 and less than half the length {length}, "
                f"not {max_periods}"
            )
        self.length = length
        self.max_periods = max_periods

    def _draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        amplitude = _uniform(AMPLITUDES, count, generator)
        periods = _uniform((0.5, self.max_periods), count, generator)
        phase = _uniform((0.0, 2 * math.pi), count, generator)
        times = torch.arange(self.length) / self.length
        waves = amplitude * torch.sin(2 * math.pi * periods * times + phase)  # (count, length)
        vectors = torch.cat([amplitude, periods, phase.cos(), phase.sin()], dim=1)  # (count, 4)
        return vectors, waves.unsqueeze(2)  # (count, length, 1)

    def facts(self) -> dict[str, Any]:
        return {"in_features": 4, "out_features": 1, "sequence_length": self.length}


def _uniform(bounds: tuple[float, float], count: int, generator: torch.Generator) -> Tensor:
    low, high = bounds
    return low + (high - low) * torch.rand(count, 1, generator=generator)
