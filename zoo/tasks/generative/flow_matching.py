"""Learning the velocity that carries noise to data along straight lines.

Lipman, Chen, Ben-Hamu, Nickel and Le, 2023, "Flow matching for generative modeling",
https://arxiv.org/abs/2210.02747; Liu, Gong and Liu, 2023, "Flow straight and fast: learning to
generate and transfer data with rectified flow", https://arxiv.org/abs/2209.03003
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zoo.inference.velocity import Method, integrate
from zoo.metrics.sums import Mean
from zoo.tasks.generative.base import Modes
from zoo.tasks.generative.from_noise import FromNoise, check_samples, spread_times
from zoo.tasks.task import Loss, inputs_of


class FlowMatching(FromNoise):
    r"""The velocity of a point on the line from noise to a sample is to be predicted.

    .. math:: L = \mathbb{E}_{t, x_0, x_1} \left\| v_\theta(x_t, t) - (x_1 - (1 - \sigma) x_0)
        \right\|^2, \qquad x_t = (1 - (1 - \sigma) t)\, x_0 + t\, x_1

    with :math:`x_0` standard normal, :math:`x_1` a sample and t uniform between 0 and 1 (Lipman et
    al., equation 23; the mean over a sample's values). With :math:`\sigma = 0` that is the first
    rectified flow. Which samples go with which noise is left to chance.

    The metric is ``loss``, at times that are spread evenly and the same in every evaluation. A
    perfect model's is not 0: many lines pass through a point, and their mean is learned.

    A batch is ``(samples, ...)`` or the samples alone, with labels next if the model knows classes.

    Args:
        model: see :class:`~zoo.tasks.generative.from_noise.FromNoise`; times lie between 0 and 1.
        sigma_min: how wide the noise around a sample still is at the end.
        sampling_steps: steps from noise to a sample.
        method: of a step, see :func:`~zoo.inference.velocity.integrate`.
        label_dropout: see :class:`~zoo.tasks.generative.from_noise.FromNoise`.
        guidance: see there.
        modes: centres of the modes of points: samples are judged by these, see
            :class:`~zoo.metrics.modes.ModeScores`.
        mode_std: standard deviation of a mode in each direction.

    Shape:
        - samples: ``(batch, *)``

    Raises:
        ValueError: an argument is outside its range.
    """

    changeable: ClassVar[tuple[str, ...]] = (*FromNoise.changeable, "method")

    def __init__(
        self,
        model: nn.Module,
        *,
        sigma_min: float = 0.0,
        sampling_steps: int = 50,
        method: Method = "euler",
        label_dropout: float = 0.1,
        guidance: float = 1.0,
        modes: Modes | None = None,
        mode_std: float | None = None,
    ) -> None:
        super().__init__(
            model, sampling_steps=sampling_steps, label_dropout=label_dropout, guidance=guidance
        )
        if not 0 <= sigma_min < 1:
            raise ValueError(f"sigma_min must be in [0, 1), not {sigma_min}")
        if method not in ("euler", "midpoint"):
            raise ValueError(f"method must be 'euler' or 'midpoint', not {method!r}")
        self.sigma_min = sigma_min
        self.method: Method = method
        self.metrics = {"loss": Mean(higher_is_better=False)}
        self.judge_by_modes(modes, mode_std)

    def loss(self, batch: Any) -> Loss:
        x1 = inputs_of(batch)
        check_samples(x1, self.sample_shape)
        times = torch.rand(len(x1), dtype=x1.dtype, device=x1.device)
        return self._error(x1, times, self.training_labels(batch)), len(x1)

    def evaluate(self, batch: Any) -> None:
        x1 = inputs_of(batch)
        times = spread_times(len(x1), x1.device).to(x1.dtype)
        self.metrics["loss"].update(self._error(x1, times, self.labels_of(batch)), len(x1))
        self.judge(x1, asked=self.each_class(len(x1)))

    def line(self, x0: Tensor, x1: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Points on the lines from noise to samples, and their velocities."""
        t = times.view(-1, *[1] * (x1.ndim - 1))  # (batch, 1, ...)
        kept = 1 - self.sigma_min
        return (1 - kept * t) * x0 + t * x1, x1 - kept * x0

    def steps(
        self, x: Tensor, labels: Tensor | None, generator: torch.Generator | None
    ) -> Iterator[Tensor]:
        return integrate(
            lambda x, times: self.guided(x, times, labels),
            x,
            steps=self.sampling_steps,
            method=self.method,
        )

    def _error(self, x1: Tensor, times: Tensor, labels: Tensor | None) -> Tensor:
        x, velocity = self.line(torch.randn_like(x1), x1, times)
        return (self.output(x, times, labels) - velocity).square().mean()
