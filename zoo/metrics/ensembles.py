"""How much the members of an ensemble differ from one another."""

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.metrics.sums import SumMetric, zero


class Disagreement(SumMetric):
    r"""The share of pairs of members that choose different classes, over all samples.

    .. math:: 1 - \frac{\sum_k n_k (n_k - 1)}{M (M - 1)}

    for a sample with :math:`n_k` of the :math:`M` votes for class k; 0 for a single member.

    Shape:
        - outputs: scores ``(members, batch, *, classes)``
        - counted: which samples count, ``(batch, *)``; None: all
    """

    def __init__(self) -> None:
        super().__init__(total=zero(), count=zero())

    def update(self, outputs: Tensor, counted: Tensor | None = None) -> None:
        members = len(outputs)
        votes = F.one_hot(outputs.argmax(-1), outputs.size(-1)).sum(0)  # (batch, *, classes)
        agreeing = (votes * (votes - 1)).sum(-1) / max(members * (members - 1), 1)
        apart = (1 - agreeing) * (members > 1)  # (batch, *)
        counted = torch.ones_like(apart) if counted is None else counted.to(apart)
        self.add(total=(apart * counted).sum(), count=counted.sum())

    def compute(self) -> Tensor:
        return self.sums["total"] / self.sums["count"]


class Spread(SumMetric):
    """Mean squared distance of the members' values from their mean.

    The squared error of the mean is the mean squared error of the members minus this, exactly
    (Krogh and Vedelsby, 1995).

    Shape:
        - outputs: ``(members, batch, *)``
        - weights: of the mean, ``(members,)``
    """

    def __init__(self) -> None:
        super().__init__(total=zero(), count=zero())

    def update(self, outputs: Tensor, weights: Tensor) -> None:
        outputs = outputs.to(self.sums["total"])
        weights = weights.to(outputs).view(-1, *[1] * (outputs.ndim - 1))  # (members, 1, ...)
        mean = (outputs * weights).sum(0)  # (batch, *)
        self.add(total=(weights * (outputs - mean).square()).sum(), count=mean.numel())

    def compute(self) -> Tensor:
        return self.sums["total"] / self.sums["count"]
