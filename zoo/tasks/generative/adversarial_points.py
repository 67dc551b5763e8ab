"""Adversarial learning of points whose modes are known (Lin et al., 2018)."""

from typing import Unpack

from torch import nn

from zoo.tasks.generative.adversarial import Adversarial, AdversarialOptions
from zoo.tasks.generative.base import Modes


class AdversarialPoints(Adversarial):
    """A generator of points against a discriminator, judged by the modes that it finds.

    The metrics are those of :class:`~zoo.metrics.modes.ModeScores` for as many generated samples
    as a split has real ones, and those of
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
        modes: Modes,
        mode_std: float,
        **options: Unpack[AdversarialOptions],
    ) -> None:
        super().__init__(model, **options)
        self.judge_by_modes(modes, mode_std)
