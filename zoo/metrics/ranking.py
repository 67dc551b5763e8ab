"""How well scores put what is positive before what is not: area under the ROC curve, precision."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Self

import torch
from torch import Tensor

from zoo.metrics.sums import float64_on


class Ranking:
    r"""Area under the ROC curve and average precision, exact over all that was seen.

    - ``auc``: the probability that a positive has a higher score than a negative, both drawn at
      random; equal scores count half (Hanley and McNeil, 1982).
    - ``average_precision``: :math:`\sum_n (R_n - R_{n-1}) P_n` over the thresholds :math:`n`, from
      the highest score down, with precision :math:`P` and recall :math:`R`; equal scores are one
      threshold.

    Scores are kept, not counted in bins. Without positives or without negatives both are NaN.

    Shape:
        - scores, targets: ``(batch,)``; a target is 1 (positive) or 0
    """

    higher_is_better: Mapping[str, bool] = MappingProxyType(
        {"auc": True, "average_precision": True}
    )

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.scores: list[Tensor] = []
        self.targets: list[Tensor] = []

    def update(self, scores: Tensor, targets: Tensor) -> None:
        self.scores.append(scores.detach())
        self.targets.append(targets.detach() > 0)

    def merge(self, other: "Ranking") -> None:
        """Adds what another one has seen."""
        self.scores += other.scores
        self.targets += other.targets

    def to(self, device: torch.device | str) -> Self:
        self.scores = [scores.to(device) for scores in self.scores]
        self.targets = [targets.to(device) for targets in self.targets]
        return self

    def compute(self) -> dict[str, Tensor]:
        scores = torch.cat(self.scores) if self.scores else torch.zeros(0)
        targets = torch.cat(self.targets) if self.targets else torch.zeros(0)
        dtype = float64_on(scores.device)
        ordered, order = scores.sort(descending=True)
        hits = targets[order].to(dtype).cumsum(0)
        ends = torch.ones(len(ordered), dtype=torch.bool, device=ordered.device)
        ends[:-1] = ordered[1:] != ordered[:-1]  # the last of equal scores
        hits = hits[ends]  # positives down to each threshold, (thresholds,)
        seen = ends.nonzero().squeeze(1) + 1  # all samples down to it
        zero = hits.new_zeros(1)
        positives = hits[-1:].sum()
        steps = torch.diff(hits, prepend=zero)
        misses = torch.diff(seen - hits, prepend=zero)
        area = (misses * (hits - steps / 2)).sum()  # trapezoids: equal scores count half
        return {
            "auc": area / (positives * (len(ordered) - positives)),
            "average_precision": (steps * hits / seen).sum() / positives,
        }
