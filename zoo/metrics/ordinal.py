"""How far off guesses are, of classes that have an order."""

from types import MappingProxyType
from typing import Any

import torch

from zoo.metrics.sums import ConfusionMatrix


class OrdinalScores(ConfusionMatrix):
    r"""``class_mae`` and ``quadratic_kappa``, of classes numbered in their order.

    .. math:: \mathrm{MAE} = \frac{1}{n} \sum_i |\hat y_i - y_i|, \qquad
        \kappa = 1 - \frac{\sum_{jk} (j - k)^2 C_{jk}}{\sum_{jk} (j - k)^2 r_j c_k / n}

    with the confusion matrix C, its row sums r and column sums c (Cohen, 1968,
    https://doi.org/10.1037/h0026256): 1 for no mistake, 0 for guesses that know nothing of the
    class. NaN where all samples are of one class, and guessed so.
    """

    higher_is_better = MappingProxyType({"class_mae": False, "quadratic_kappa": True})

    def compute(self) -> Any:
        counts = super().compute().double()
        places = torch.arange(len(counts), device=counts.device).to(counts)
        apart = (places.unsqueeze(1) - places).abs()  # (true, predicted)
        n = counts.sum()
        by_chance = counts.sum(1, keepdim=True) * counts.sum(0) / n
        square = apart.square()
        return {
            "class_mae": (apart * counts).sum() / n,
            "quadratic_kappa": 1 - (square * counts).sum() / (square * by_chance).sum(),
        }
