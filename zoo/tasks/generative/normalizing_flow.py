"""Normalizing flows: density estimation through an invertible network, of pixels with noise."""

import math
from collections.abc import Iterable
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from zoo.tasks.generative.base import Modes
from zoo.tasks.generative.density_estimation import DensityEstimation
from zoo.tasks.task import inputs_of

EXACT, BOUND = "nll", "nll_bound"


class Flow(Protocol):
    """What the task asks of its model besides being a density."""

    latent_dim: int

    def latents(self, x: Tensor) -> Tensor: ...

    def inverse(self, latents: Tensor) -> Tensor: ...


class NormalizingFlow(DensityEstimation):
    r"""Minus the mean log-density; of discrete pixels, a bound of their log-likelihood.

    Real data (points of a plane) have a density, and the metric ``nll`` is exact. Pixels of
    ``levels`` values :math:`0, 1/(K-1), \dots, 1` have probabilities. Uniform noise makes real
    numbers of them (Theis et al., 2016, https://arxiv.org/abs/1511.01844, section 3.1):

    .. math:: y = \frac{(K - 1) x + u}{K}, \; u \sim U[0, 1)^D, \qquad
        \log P(x) \ge \mathbb{E}_u \log p(y) - D \log K

    The right side, with the sign turned and one draw of the noise an image, is the loss and the
    metric ``nll_bound``: never better than the model's ``nll``, which nobody knows. Its
    ``bits_per_dim`` is of the bound too. Samples are put back into their levels.

    Args:
        model: an invertible network with ``log_prob``, ``sample``, ``latents`` and ``inverse``.
        levels: number of values that a pixel has: 2 if binary, 256 if grey; None for real data.
        modes: centres of the modes of points: samples are judged by these, see
            :class:`~zoo.metrics.modes.ModeScores`.
        mode_std: standard deviation of a mode in each direction.

    Shape:
        - inputs: ``(batch, *)``
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        levels: int | None = None,
        modes: Modes | None = None,
        mode_std: float | None = None,
    ) -> None:
        if levels is not None and levels < 2:
            raise ValueError(f"levels must be at least 2, or null for real data, not {levels}")
        self.levels = levels
        self.monitor = EXACT if levels is None else BOUND
        super().__init__(model)
        if not hasattr(model, "latents") or not hasattr(model, "inverse"):
            raise TypeError(f"model must have latents and inverse, not {type(model).__name__}")
        self.flow = cast(Flow, model)
        self.judge_by_modes(modes, mode_std)

    def prepare(self, batches: Iterable[Any]) -> None:
        """Makes sure that the pixels have the levels that they are said to have."""
        if self.levels is None:
            return
        for batch in batches:
            steps = inputs_of(batch) * (self.levels - 1)
            is_level = (steps - steps.round()).abs() < 1e-3
            if not bool((is_level & (steps > -0.5) & (steps < self.levels - 0.5)).all()):
                raise ValueError(
                    f"task.levels is {self.levels}, so the pixels must be multiples of "
                    f"1/{self.levels - 1} from 0 to 1, and these are not: set data.scaling=unit, "
                    "with data.binarize=dynamic for 2 levels, or task.levels=null for real data"
                )

    def nll(self, inputs: Tensor) -> Tensor:
        if self.levels is None:
            return super().nll(inputs)
        noisy = ((self.levels - 1) * inputs + torch.rand_like(inputs)) / self.levels
        return super().nll(noisy) + math.prod(inputs.shape[1:]) * math.log(self.levels)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return self._to_levels(super().draw(count, generator))

    @property
    def normal_latents(self) -> int:
        return self.flow.latent_dim

    def draw_latents(self, count: int, generator: torch.Generator) -> Tensor:
        """Latent variables from the prior, a standard normal distribution."""
        noise = torch.randn(count, self.flow.latent_dim, generator=generator)
        return noise.to(self.device)

    def decode(self, latents: Tensor) -> Tensor:
        """The samples that latent variables stand for."""
        return self._to_levels(self.flow.inverse(latents))

    def latents(self, inputs: Tensor) -> Tensor:
        """Latent variables of samples, ``(batch, latent_dim)``; of pixels the middle of a level."""
        if self.levels is not None:
            inputs = ((self.levels - 1) * inputs + 0.5) / self.levels
        return self.flow.latents(inputs)

    def _to_levels(self, samples: Tensor) -> Tensor:
        if self.levels is None:
            return samples
        steps = (samples * self.levels).floor().clamp(0, self.levels - 1)
        return steps / (self.levels - 1)
