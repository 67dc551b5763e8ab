r"""A curve under noise that grows along it: how sure can a prediction be? Nothing to download.

.. math:: y = \sin 2 \pi x + \sigma(x)\, \epsilon, \qquad \sigma(x) = 0.1 + 0.4 x, \qquad
    x \sim U(0, 1)

The noise :math:`\epsilon` is normal, or Laplace of the same variance, 1. As it is known, so is the
best that can be predicted: the quantiles, the deviation, and the least loss of each kind.
"""

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from zoo.data.loading.drawn import DrawnTensors

Noise = Literal["normal", "laplace"]


class NoisyCurve(DrawnTensors):
    """Batches ``(x, y)``, float32 ``(batch, 1)`` each, drawn once from a seed of their own.

    Args:
        batch_size: points a batch.
        num_samples: points to train on.
        eval_samples: points of val, and of test.
        noise: ``normal`` or ``laplace``.
        data_seed: another seed, other points.
        drop_last: omit the last training batch of an epoch if it is smaller.

    Raises:
        ValueError: there is no such noise, or a number is smaller than 1.
    """

    kind = "noisy curve"

    def __init__(
        self,
        *,
        batch_size: int = 100,
        num_samples: int = 2_000,
        eval_samples: int = 2_000,
        noise: Noise = "normal",
        data_seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            num_samples=num_samples,
            eval_samples=eval_samples,
            data_seed=data_seed,
            drop_last=drop_last,
        )
        if noise not in get_args(Noise):
            raise ValueError(f"noise must be normal or laplace, not {noise!r}")
        self.noise = noise

    def _draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x = torch.rand(count, 1, generator=generator)
        if self.noise == "normal":
            noise = torch.randn(count, 1, generator=generator)
        else:  # The difference of two exponential variables is a Laplace one.
            uniform = torch.rand(2, count, 1, generator=generator)
            first, second = -torch.log1p(-uniform)
            noise = (first - second) / math.sqrt(2)
        return x, mean(x) + deviation(x) * noise

    def facts(self) -> dict[str, Any]:
        return {"in_features": 1, "out_features": 1}

    def lacks(self) -> dict[str, str]:
        return {"num_classes": "a point has a number and no classes: set it to 1"}


def mean(x: Tensor) -> Tensor:
    """What is expected at x."""
    return (2 * math.pi * x).sin()


def deviation(x: Tensor) -> Tensor:
    """The standard deviation there."""
    return 0.1 + 0.4 * x
