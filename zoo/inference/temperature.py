"""Temperature scaling: a trained classifier whose probabilities are made to be meant."""

import math
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

IGNORED = -100
LEAST, MOST = 1e-3, 1e3
"""Between which a temperature is looked for."""
STEPS = 60


class Tempered(nn.Module):
    r"""A classifier's logits divided by a temperature.

    .. math:: p(x) = \mathrm{softmax}(f(x) / T)

    Above 1 it takes confidence from all probabilities, below 1 it adds some; the order of the
    classes stays. Guo et al., 2017, "On calibration of modern neural networks",
    https://arxiv.org/abs/1706.04599, section 4.2. It stands in for the model in a task.

    Args:
        model: anything to logits.
        temperature: T.
    """

    def __init__(self, model: nn.Module, temperature: float) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature={temperature:g}: must be greater than 0")
        self.model = model
        self.temperature = temperature

    def forward(self, *inputs: Any) -> Tensor:
        logits: Tensor = self.model(*inputs)
        return logits / self.temperature


def fit_temperature(logits: Tensor, targets: Tensor) -> float:
    r"""The temperature at which the targets are most probable.

    In :math:`b = 1/T` the mean of :math:`-\log \mathrm{softmax}(b z)_y` is convex, and its slope,

    .. math:: \frac{1}{n} \sum_i \Bigl( \sum_k p_{ik} z_{ik} - z_{i y_i} \Bigr),

    rises: where it crosses 0 is found by halving, in double precision.

    Args:
        logits: z, ``(samples, classes)``, of samples that the network was not trained on.
        targets: class numbers, ``(samples,)``; -100 does not count.

    Raises:
        ValueError: there is no such temperature: all answers are right, or no better than chance.
    """
    counted = targets != IGNORED
    z, y = logits[counted].cpu().double(), targets[counted].cpu()
    z = z - F.one_hot(y, z.size(1)).mul(z).sum(1, keepdim=True)  # of the true class 0
    low, high = 1 / MOST, 1 / LEAST
    if _slope(z, low) >= 0:
        raise ValueError("the true classes are no more probable than others at any temperature")
    if _slope(z, high) <= 0:
        raise ValueError("nearly all answers are right, so the colder, the better")
    for _ in range(STEPS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if _slope(z, middle) < 0 else (low, middle)
    return 1 / math.sqrt(low * high)


def _slope(z: Tensor, inverse: float) -> float:
    """Of the mean loss by 1/T, where the logit of the true class is 0."""
    return float(((inverse * z).softmax(1) * z).sum(1).mean())
