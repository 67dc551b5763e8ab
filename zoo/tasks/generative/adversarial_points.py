"""Adversarial learning of points whose modes are known (Lin et al., 2018)."""

from typing import Any, Unpack

import torch
from torch import Tensor, nn

from zoo.figures.points import scatter_image
from zoo.metrics.modes import ModeCoverage
from zoo.tasks.generative.adversarial import Adversarial, AdversarialOptions
from zoo.tasks.task import Image, Shown

MOST_POINTS = 2_500
"""Generated samples that are drawn."""


class AdversarialPoints(Adversarial):
    """A generator of points against a discriminator, judged by the modes that it finds.

    The metrics are those of :class:`~zoo.metrics.modes.ModeCoverage` for as many generated samples
    as a split has real ones and, with ``real_`` before their names, for the real ones; and those of
    :class:`~zoo.tasks.generative.adversarial.Adversarial`. Checkpoints are selected by
    ``mode_divergence``.

    Args:
        model: the two networks.
        modes: centres of the modes.
        mode_std: standard deviation of a mode in each direction.
        options: see :class:`~zoo.tasks.generative.adversarial.Adversarial`.

    Shape:
        - samples: ``(batch, features)``
    """

    monitor = "mode_divergence"

    def __init__(
        self,
        model: nn.Module,
        *,
        modes: tuple[tuple[float, ...], ...],
        mode_std: float,
        **options: Unpack[AdversarialOptions],
    ) -> None:
        super().__init__(model, **options)
        if not mode_std > 0:
            raise ValueError(f"mode_std must be greater than 0, not {mode_std}")
        self.modes = torch.tensor(modes)  # (modes, features)
        self.coverage = ModeCoverage(self.modes, mode_std)
        self.real_coverage = RealCoverage(self.modes, mode_std)
        self.metrics |= {"modes": self.coverage, "real_modes": self.real_coverage}

    def compare(self, real: Tensor, fake: Tensor) -> None:
        super().compare(real, fake)
        self.coverage.update(fake)
        self.real_coverage.update(real)

    def show(self) -> dict[str, Shown]:
        """``samples``: generated points, and the centres of the modes."""
        samples = self.sample(MOST_POINTS).samples
        return {"samples": Image(lambda: scatter_image(samples, self.modes))}


class RealCoverage(ModeCoverage):
    """What the metrics of real samples are: what a perfect generator would get."""

    higher_is_better = None

    def compute(self) -> dict[str, Tensor]:
        values: dict[str, Any] = super().compute()
        return {f"real_{name}": value for name, value in values.items()}
