"""How often labels that a sample has or has not are told right."""

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from zoo.metrics.sums import SumMetric, zero


class LabelScores(SumMetric):
    r"""Shares of right answers, of labels one by one and of samples as a whole.

    .. math:: P = \frac{TP}{TP + FP}, \qquad R = \frac{TP}{TP + FN}, \qquad
        F_\beta = \frac{(1 + \beta^2) TP}{(1 + \beta^2) TP + \beta^2 FN + FP}

    with the numbers of true and false positives and of false negatives (van Rijsbergen, 1979). A
    score whose denominator is 0 is 0.

    - of one label: ``accuracy``, ``precision``, ``recall`` and ``f<beta>``;
    - of several: ``accuracy`` over all labels, ``subset_accuracy``, the share of samples all labels
      of which are right, ``macro_f<beta>``, the mean over labels, and ``micro_f<beta>``, that of
      all labels taken together.

    Args:
        num_labels: how many labels a sample has.
        beta: how many times as much a recall counts as a precision.

    Shape:
        - predicted, targets: ``(batch, labels)``, true or false
    """

    def __init__(self, num_labels: int, *, beta: float = 1.0) -> None:
        super().__init__(
            hits=torch.zeros(num_labels, dtype=torch.float64),
            predicted=torch.zeros(num_labels, dtype=torch.float64),
            positives=torch.zeros(num_labels, dtype=torch.float64),
            wrong=torch.zeros(num_labels, dtype=torch.float64),
            exact=zero(),
            count=zero(),
        )
        self.beta = beta
        self.name = f"f{beta:g}"

    @property
    def higher_is_better(self) -> Mapping[str, bool]:  # type: ignore[override]
        return MappingProxyType(dict.fromkeys(self.compute(), True))

    def update(self, predicted: Tensor, targets: Tensor) -> None:
        predicted, targets = predicted.bool(), targets.bool()
        wrong = predicted ^ targets
        self.add(
            hits=(predicted & targets).sum(0),
            predicted=predicted.sum(0),
            positives=targets.sum(0),
            wrong=wrong.sum(0),
            exact=(~wrong.any(1)).sum(),
            count=len(targets),
        )

    def by_label(self) -> dict[str, Tensor]:
        """Precision, recall, F and the number of positives of each label, ``(labels,)``."""
        hits, predicted, positives = (self.sums[k] for k in ("hits", "predicted", "positives"))
        return {
            "precision": hits / predicted.clamp_min(1),
            "recall": hits / positives.clamp_min(1),
            self.name: self._f(hits, predicted, positives),
            "support": positives.long(),
        }

    def compute(self) -> dict[str, Tensor]:
        scores, sums = self.by_label(), self.sums
        accuracy = 1 - sums["wrong"].mean() / sums["count"]
        if len(sums["hits"]) == 1:
            names = ("precision", "recall", self.name)
            return {"accuracy": accuracy, **{name: scores[name][0] for name in names}}
        together = (sums[k].sum() for k in ("hits", "predicted", "positives"))
        return {
            "accuracy": accuracy,
            "subset_accuracy": sums["exact"] / sums["count"],
            f"macro_{self.name}": scores[self.name].mean(),
            f"micro_{self.name}": self._f(*together),
        }

    def _f(self, hits: Tensor, predicted: Tensor, positives: Tensor) -> Tensor:
        # TP + FP = predicted, TP + FN = positives
        square = self.beta**2
        total = predicted + square * positives
        return (1 + square) * hits / total.where(total > 0, 1.0)
