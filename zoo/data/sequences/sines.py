"""Made-up waves: to be continued from a noisy beginning, or to be made from their description."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from zoo.data.loading.tensor import TensorLoader
from zoo.data.module import DataModule, Part, check_batch_size
from zoo.data.sampling import seeded_generator
from zoo.data.sequences.synthetic import SPLITS, check_samples

AMPLITUDES = (0.5, 1.5)


class NoisySine(DataModule):
    r"""A window of a noisy sine wave, and its next values: forecasting.

    .. math:: x_t = A \sin(2 \pi t / P + \varphi) + \sigma \varepsilon_t

    with amplitude A in [0.5, 1.5], period P and phase :math:`\varphi` drawn anew for each sample.
    The values to be forecast are as noisy as those given, so no forecast has a mean squared error
    below :math:`\sigma^2` on average; saying 0 has :math:`13/24 + \sigma^2 = 0.54 + \sigma^2`.

    A batch is ``(inputs, targets)``, float32 ``(batch, window, 1)`` and ``(batch, horizon)``.

    Args:
        batch_size: windows a batch.
        window: values given.
        horizon: values to be forecast.
        min_period: steps of the shortest period.
        max_period: steps of the longest.
        noise: deviation of the noise.
        num_samples: windows to train on.
        eval_samples: windows of val, and of test.
        data_seed: another seed, other waves.
    """

    splits = SPLITS

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
        eval_samples: int = 1_000,
        data_seed: int = 0,
    ) -> None:
        super().__init__()
        check_batch_size(batch_size)
        check_samples(num_samples, eval_samples)
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
        self.batch_size = batch_size
        self.window, self.horizon = window, horizon
        self.min_period, self.max_period = min_period, max_period
        self.noise = noise
        self.num_samples, self.eval_samples = num_samples, eval_samples
        self.data_seed = data_seed

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        counts = (self.num_samples, self.eval_samples)
        name = partial(seeded_generator, "noisy sine", self.data_seed)
        self.loaders |= _loaders(self._draw, name, counts, self.batch_size, seed, device, part)

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


class SineSynthesis(DataModule):
    r"""The description of a sine wave, and the wave: a sequence to be made from one vector.

    .. math:: x = (A, f, \cos \varphi, \sin \varphi), \qquad
        y_t = A \sin(2 \pi f t / T + \varphi), \quad t = 0, \dots, T - 1

    with amplitude A in [0.5, 1.5], f periods in the sequence and phase :math:`\varphi`. Saying 0
    has the mean squared error 13/24 = 0.54.

    A batch is ``(inputs, targets)``, float32 ``(batch, 4)`` and ``(batch, length, 1)``.

    Args:
        batch_size: waves a batch.
        length: steps T of each wave.
        max_periods: most periods in a sequence; the fewest are half of one.
        num_samples: waves to train on.
        eval_samples: waves of val, and of test.
        data_seed: another seed, other waves.
    """

    splits = SPLITS

    def __init__(
        self,
        *,
        batch_size: int = 64,
        length: int = 50,
        max_periods: float = 3.0,
        num_samples: int = 5_000,
        eval_samples: int = 1_000,
        data_seed: int = 0,
    ) -> None:
        super().__init__()
        check_batch_size(batch_size)
        check_samples(num_samples, eval_samples)
        if length < 2:
            raise ValueError(f"length must be at least 2, not {length}")
        if not 0.5 <= max_periods < length / 2:
            raise ValueError(
                f"max_periods must be at least 0.5 and less than half the length {length}, "
                f"not {max_periods}"
            )
        self.batch_size = batch_size
        self.length = length
        self.max_periods = max_periods
        self.num_samples, self.eval_samples = num_samples, eval_samples
        self.data_seed = data_seed

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        counts = (self.num_samples, self.eval_samples)
        name = partial(seeded_generator, "sine synthesis", self.data_seed)
        self.loaders |= _loaders(self._draw, name, counts, self.batch_size, seed, device, part)

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


def _loaders(
    draw: Callable[[int, torch.Generator], tuple[Tensor, Tensor]],
    generator: Callable[[str], torch.Generator],
    counts: tuple[int, int],
    batch_size: int,
    seed: int,
    device: torch.device | str,
    part: Part,
) -> dict[str, TensorLoader]:
    """A loader for each split, whose samples are drawn with a generator of its own."""
    return {
        split: TensorLoader(
            draw(counts[split != "train"], generator(split)),
            batch_size=batch_size,
            shuffle=split == "train",
            seed=seed,
            device=device,
            part=part,
        )
        for split in SPLITS
    }
