"""Solves the differential equation of a velocity field, from noise at time 0 to data at time 1."""

from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor

Field = Callable[[Tensor, Tensor], Tensor]
"""The velocity of points ``(batch, *)`` at times ``(batch,)``."""

Method = Literal["euler", "midpoint"]


def integrate(
    field: Field, x: Tensor, *, steps: int, method: Method, backwards: bool = False
) -> Iterator[Tensor]:
    r"""Follows the field for steps of equal length, and gives every state on the way.

    Euler's step is :math:`x + h\, v(x, t)`, of first order; the midpoint's :math:`x + h\,
    v(x + \frac h2 v(x, t), t + \frac h2)`, of second order, asks for the field twice.

    Args:
        field: velocities.
        x: states to begin with, at time 0 (1 if backwards).
        steps: how many.
        method: of a step.
        backwards: from time 1 to 0.

    Raises:
        ValueError: there is no step.
    """
    if steps < 1:
        raise ValueError(f"sampling_steps must be at least 1, not {steps}")
    length = (-1 if backwards else 1) / steps
    for step in range(steps):
        time = (steps - step) / steps if backwards else step / steps
        velocity = field(x, _at(time, x))
        if method == "midpoint":
            velocity = field(x + length / 2 * velocity, _at(time + length / 2, x))
        x = x + length * velocity
        yield x


def _at(time: float, x: Tensor) -> Tensor:
    return torch.full((len(x),), time, dtype=x.dtype, device=x.device)
