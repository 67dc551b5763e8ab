"""How well scores put what is positive before what is not: area under the ROC curve, precision."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, Self

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

    Of several labels both are means over those that have positives and negatives; without any they
    are NaN. Scores are kept, not counted in bins.

    Shape:
        - scores, targets: ``(batch,)`` or ``(batch, labels)``; a target is 1 (positive) or 0
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
        return {name: values.nanmean() for name, values in self.by_label().items()}

    def by_label(self) -> dict[str, Tensor]:
        """Both numbers of each label, ``(labels,)``; NaN without positives or negatives."""
        found = [curve.summary() for curve in self.curves()]
        return {name: torch.stack([each[name] for each in found]) for name in found[0]}

    def curves(self) -> list["Curve"]:
        """What either curve is drawn of, for each label."""
        scores = torch.cat(self.scores) if self.scores else torch.zeros(0)
        targets = torch.cat(self.targets) if self.targets else torch.zeros(0)
        if scores.ndim == 1:
            scores, targets = scores.unsqueeze(1), targets.unsqueeze(1)  # (samples, 1)
        return [Curve.of(*column) for column in zip(scores.mT, targets.mT, strict=True)]


class Curve(NamedTuple):
    """How many positives and samples there are down to each threshold, from the highest on.

    Attributes:
        thresholds: different scores, descending, ``(thresholds,)``.
        hits: positives with at least such a score.
        seen: samples with at least such a score.
    """

    thresholds: Tensor
    hits: Tensor
    seen: Tensor

    @classmethod
    def of(cls, scores: Tensor, targets: Tensor) -> Self:
        """That of scores ``(samples,)``, whose targets are 1 or 0."""
        ordered, order = scores.sort(descending=True)
        hits = targets[order].to(float64_on(scores.device)).cumsum(0)
        ends = torch.ones(len(ordered), dtype=torch.bool, device=ordered.device)
        ends[:-1] = ordered[1:] != ordered[:-1]  # the last of equal scores
        seen = ends.nonzero().squeeze(1) + 1
        return cls(ordered[ends], hits[ends], seen.to(hits))

    def summary(self) -> dict[str, Tensor]:
        """The area under the ROC curve and the average precision."""
        positives, samples = self.hits[-1:].sum(), self.seen[-1:].sum()
        negatives = samples - positives
        zero = self.hits.new_zeros(1)
        steps = torch.diff(self.hits, prepend=zero)
        misses = torch.diff(self.seen - self.hits, prepend=zero)
        area = (misses * (self.hits - steps / 2)).sum()  # trapezoids: equal scores count half
        precision = (steps * self.hits / self.seen).sum() / positives
        return {
            "auc": area / (positives * negatives),
            "average_precision": precision.where(negatives > 0, torch.nan),
        }
