"""Losses of a regression, and what the numbers mean that a network returns for each target.

With the residual r, predicted minus true:

| loss | of a target | numbers a target | at its least |
|---|---|---|---|
| ``mse`` | r^2 | 1 | mean |
| ``mae`` | abs(r) | 1 | median |
| ``huber`` | r^2 / 2 up to delta, then delta (abs(r) - delta / 2) | 1 | between these |
| ``log_cosh`` | log cosh r | 1 | between these |
| ``quantile`` | max(-q r, (1 - q) r), the mean over the q | one for each q | quantiles |
| ``gaussian_nll`` | -log of the density of N(mu, sigma^2) | mu, log sigma | mean, deviation |
| ``laplace_nll`` | log 2b + abs(true - mu) / b | mu, log b | median, scale |

Huber, 1964, https://doi.org/10.1214/aoms/1177703732; Koenker and Bassett, 1978,
https://doi.org/10.2307/1913643 (quantiles); Nix and Weigend, 1994,
https://doi.org/10.1109/ICNN.1994.374138 (a network that says how sure it is).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

LossName = Literal["mse", "mae", "huber", "log_cosh", "quantile", "gaussian_nll", "laplace_nll"]


class Interval(NamedTuple):
    """Between which two values a target should lie: each of the targets' shape."""

    low: Tensor
    high: Tensor


class RegressionLoss(ABC):
    """A loss of every target, and the single value that a prediction stands for."""

    outputs: int = 1
    """Numbers that the network returns for each target, in the last dimension if there are more."""
    has_interval = False

    @abstractmethod
    def each(self, output: Tensor, targets: Tensor) -> Tensor:
        """The loss of every target.

        Shape:
            - output: as the targets, or ``(*targets, outputs)``
            - targets, losses: ``(batch, *)``
        """

    def value(self, output: Tensor) -> Tensor:
        """What is predicted, as a number for each target."""
        return output

    def interval(self, output: Tensor) -> Interval | None:
        """Where a target is said to lie; None: nothing is said."""
        return None


class SquaredLoss(RegressionLoss):
    """``mse``."""

    def each(self, output: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(output, targets, reduction="none")


class AbsoluteLoss(RegressionLoss):
    """``mae``."""

    def each(self, output: Tensor, targets: Tensor) -> Tensor:
        return F.l1_loss(output, targets, reduction="none")


class HuberLoss(RegressionLoss):
    """``huber``.

    Args:
        delta: the residual from which on the loss is linear.
    """

    def __init__(self, delta: float = 1.0) -> None:
        if not 0 < delta < math.inf:
            raise ValueError(f"delta must be greater than 0, not {delta}")
        self.delta = delta

    def each(self, output: Tensor, targets: Tensor) -> Tensor:
        return F.huber_loss(output, targets, reduction="none", delta=self.delta)


class LogCoshLoss(RegressionLoss):
    """``log_cosh``, by a formula that does not overflow."""

    def each(self, output: Tensor, targets: Tensor) -> Tensor:
        residual = (output - targets).abs()
        return residual + F.softplus(-2 * residual) - math.log(2)


class QuantileLoss(RegressionLoss):
    """``quantile``, several at once. The value is the median, or what is nearest to it.

    Nothing keeps the quantiles that a network predicts in order.

    Args:
        quantiles: rising, in (0, 1). The outermost two bound the interval.
    """

    def __init__(self, quantiles: Sequence[float] = (0.05, 0.5, 0.95)) -> None:
        rising = all(low < high for low, high in pairwise(quantiles))
        if not quantiles or not rising or not 0 < quantiles[0] <= quantiles[-1] < 1:
            raise ValueError(
                f"quantiles must be rising numbers between 0 and 1, not {list(quantiles)}"
            )
        self.quantiles = tuple(quantiles)
        self.outputs = len(quantiles)
        self.has_interval = self.outputs > 1
        self._middle = min(range(self.outputs), key=lambda i: abs(quantiles[i] - 0.5))

    def each(self, output: Tensor, targets: Tensor) -> Tensor:
        output = output.unsqueeze(-1) if self.outputs == 1 else output  # (*targets, quantiles)
        residuals = (output - targets.unsqueeze(-1)).unbind(-1)
        each = [
            torch.maximum(-quantile * residual, (1 - quantile) * residual)
            for quantile, residual in zip(self.quantiles, residuals, strict=True)
        ]
        return torch.stack(each).mean(0)

    def value(self, output: Tensor) -> Tensor:
        return output if self.outputs == 1 else output[..., self._middle]

    def interval(self, output: Tensor) -> Interval | None:
        return None if not self.has_interval else Interval(output[..., 0], output[..., -1])


class _LikelihoodLoss(RegressionLoss):
    """A location and the logarithm of a scale for each target.

    Args:
        coverage: share of the targets that the central interval should hold.
    """

    outputs = 2
    has_interval = True

    def __init__(self, coverage: float = 0.9) -> None:
        if not 0 < coverage < 1:
            raise ValueError(f"coverage must be between 0 and 1, not {coverage}")
        self.coverage = coverage

    def value(self, output: Tensor) -> Tensor:
        return output[..., 0]

    def interval(self, output: Tensor) -> Interval:
        location, scale = output[..., 0], output[..., 1].exp()
        reach = self.reach * scale
        return Interval(location - reach, location + reach)

    @property
    @abstractmethod
    def reach(self) -> float:
        """Half the width of the interval, in scales."""


class GaussianLoss(_LikelihoodLoss):
    """``gaussian_nll``, in nats, with all its constants."""

    def each(self, output: Tensor, targets: Tensor) -> Tensor:
        location, log_scale = output.unbind(-1)
        errors = (targets - location) * (-log_scale).exp()
        return 0.5 * errors.square() + log_scale + 0.5 * math.log(2 * math.pi)

    @property
    def reach(self) -> float:
        return torch.special.ndtri(torch.tensor((1 + self.coverage) / 2).double()).item()


class LaplaceLoss(_LikelihoodLoss):
    """``laplace_nll``, in nats, with all its constants."""

    def each(self, output: Tensor, targets: Tensor) -> Tensor:
        location, log_scale = output.unbind(-1)
        return (targets - location).abs() * (-log_scale).exp() + log_scale + math.log(2)

    @property
    def reach(self) -> float:
        return -math.log(1 - self.coverage)


def regression_loss(
    name: LossName,
    *,
    delta: float = 1.0,
    quantiles: Sequence[float] = (0.05, 0.5, 0.95),
    coverage: float = 0.9,
) -> RegressionLoss:
    """A loss by its name.

    Args:
        name: see the table above.
        delta: of ``huber``.
        quantiles: of ``quantile``.
        coverage: of the intervals of ``gaussian_nll`` and ``laplace_nll``.

    Raises:
        ValueError: there is no such loss, or an argument is outside its range.
    """
    if name not in get_args(LossName):
        raise ValueError(f"loss must be one of {', '.join(get_args(LossName))}, not {name!r}")
    losses: dict[str, RegressionLoss] = {
        "mse": SquaredLoss(),
        "mae": AbsoluteLoss(),
        "huber": HuberLoss(delta),
        "log_cosh": LogCoshLoss(),
        "quantile": QuantileLoss(quantiles),
        "gaussian_nll": GaussianLoss(coverage),
        "laplace_nll": LaplaceLoss(coverage),
    }
    return losses[name]
