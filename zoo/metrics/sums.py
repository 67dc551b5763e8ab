"""Metrics that accumulate where the data is and cost no device sync until they are read.

They have torchmetrics' interface (``update``, ``compute``, ``reset``, ``to``), and where they give
numbers, say with ``higher_is_better`` in which direction these are good. Each is a handful of
sums over samples, so ``merge`` combines the evaluations of two halves of a data set by adding them.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Self

import torch
from torch import Tensor

IGNORED = -100
"""A target that does not count, as in torch."""


class SumMetric:
    """A metric computed from sums over samples.

    Sums of floating point are kept in double precision (single on devices that lack it), since
    single precision stops counting at 2^24 samples.

    Args:
        sums: the initial value of each sum by name.
    """

    higher_is_better: bool | Mapping[str, bool] | None = None
    """Of its value, or of each of them by name; None if that is not known."""

    def __init__(self, **sums: Tensor) -> None:
        self.sums = sums

    def add(self, **terms: Tensor | float) -> None:
        """Adds to sums by name; a scalar sum takes the shape of its first term."""
        for name, term in terms.items():
            total = self.sums[name]
            if isinstance(term, Tensor):
                term = term.detach().to(total)
            self.sums[name] = total + term

    def merge(self, other: "SumMetric") -> None:
        """Adds what another metric of the same kind has seen."""
        self.add(**other.sums)

    def reset(self) -> None:
        self.sums = {name: torch.zeros_like(total) for name, total in self.sums.items()}

    def to(self, device: torch.device | str) -> Self:
        device = torch.device(device)
        for name, total in self.sums.items():
            dtype = float64_on(device) if total.is_floating_point() else total.dtype
            self.sums[name] = total.to(device, dtype)
        return self


def float64_on(device: torch.device) -> torch.dtype:
    """Double precision, or single on Apple's mps, which has no other."""
    return torch.float32 if device.type == "mps" else torch.float64


def zero() -> Tensor:
    """A sum of floating point before its first term."""
    return torch.zeros((), dtype=torch.float64)


class Mean(SumMetric):
    """Mean of values that are themselves means over ``count`` terms.

    Args:
        higher_is_better: whether a higher mean is better; None if that is not known.
    """

    def __init__(self, *, higher_is_better: bool | None = None) -> None:
        super().__init__(total=zero(), count=zero())
        if higher_is_better is not None:
            self.higher_is_better = higher_is_better

    def update(self, value: Tensor | float, count: Tensor | int = 1) -> None:
        if isinstance(value, Tensor):
            value = value.detach().to(self.sums["total"])
        self.add(total=value * count, count=count)

    def compute(self) -> Tensor:
        return self.sums["total"] / self.sums["count"]


class Residuals(SumMetric):
    """What is predicted minus what is true: ``rmse``, ``mae`` and, its mean, ``bias``.

    Shape:
        - predictions, targets: ``(batch, *)``
    """

    higher_is_better = MappingProxyType({"rmse": False, "mae": False})

    def __init__(self) -> None:
        super().__init__(count=zero(), total=zero(), absolute=zero(), squares=zero())

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        residuals = predictions.to(self.sums["total"]) - targets.to(self.sums["total"])
        self.add(
            count=residuals.numel(),
            total=residuals.sum(),
            absolute=residuals.abs().sum(),
            squares=residuals.square().sum(),
        )

    def compute(self) -> dict[str, Tensor]:
        total, absolute, squares = (
            self.sums[name] / self.sums["count"] for name in ("total", "absolute", "squares")
        )
        return {"rmse": squares.sqrt(), "mae": absolute, "bias": total}


class Intervals(SumMetric):
    """The share of targets that lie in their interval, ``coverage``, and its mean ``width``.

    Shape:
        - low, high, targets: ``(batch, *)``
    """

    higher_is_better = MappingProxyType({"width": False})

    def __init__(self) -> None:
        super().__init__(count=zero(), covered=zero(), width=zero())

    def update(self, low: Tensor, high: Tensor, targets: Tensor) -> None:
        self.add(
            count=targets.numel(),
            covered=((low <= targets) & (targets <= high)).sum(),
            width=(high.to(self.sums["width"]) - low.to(self.sums["width"])).sum(),
        )

    def compute(self) -> dict[str, Tensor]:
        count = self.sums["count"]
        return {"coverage": self.sums["covered"] / count, "width": self.sums["width"] / count}


class Accuracy(SumMetric):
    """Share of samples whose class is among the ``top_k`` with the highest scores.

    Args:
        top_k: how many guesses a sample has.
        ignore_index: targets of this value do not count.

    Shape:
        - scores: ``(batch, classes, *)``
        - targets: ``(batch, *)``
    """

    higher_is_better = True

    def __init__(self, top_k: int = 1, *, ignore_index: int = IGNORED) -> None:
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, not {top_k}")
        super().__init__(correct=zero(), count=zero())
        self.top_k = top_k
        self.ignore_index = ignore_index

    def update(self, scores: Tensor, targets: Tensor) -> None:
        if self.top_k == 1:
            guesses = scores.argmax(1, keepdim=True)  # (batch, 1, *); of equal scores the first
        else:
            guesses = scores.topk(self.top_k, dim=1).indices  # (batch, top_k, *)
        counted = targets != self.ignore_index
        correct = (guesses == targets.unsqueeze(1)).any(1) & counted  # (batch, *)
        self.add(correct=correct.sum(), count=counted.sum())

    def compute(self) -> Tensor:
        return self.sums["correct"] / self.sums["count"]


class ConfusionMatrix(SumMetric):
    """Counts of samples by true class (row) and predicted class (column).

    Args:
        num_classes: rows and columns of the matrix.

    Shape:
        - predicted: classes ``(batch,)`` or scores ``(batch, classes)``
        - targets: ``(batch,)``; -100 does not count
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(matrix=torch.zeros(num_classes, num_classes, dtype=torch.int64))

    def update(self, predicted: Tensor, targets: Tensor) -> None:
        if predicted.ndim > targets.ndim:
            predicted = predicted.argmax(1)  # (batch,)
        counted = targets != IGNORED
        # bincount would be shorter, but it waits for the device to learn the size of its result.
        self.sums["matrix"].index_put_(
            (targets.masked_fill(~counted, 0), predicted), counted.long(), accumulate=True
        )

    def compute(self) -> Tensor:
        return self.sums["matrix"]


class R2(SumMetric):
    r"""Coefficient of determination, averaged over the outputs.

    .. math:: R^2 = 1 - \frac{\sum_i (y_i - \hat y_i)^2}{\sum_i (y_i - \bar y)^2}

    An output whose targets are all equal counts as 1 if it is predicted exactly, else as 0. The
    denominator is kept as such, not as a difference of two sums, which of large targets would be a
    difference of rounding errors (Chan, Golub and LeVeque, 1979).

    Shape:
        - predictions, targets: ``(batch, *)``
    """

    higher_is_better = True

    def __init__(self) -> None:
        super().__init__(count=zero(), mean=zero(), deviations=zero(), errors=zero())

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        if not len(targets):
            return
        y = targets.flatten(1) if targets.ndim > 1 else targets.unsqueeze(1)  # (batch, outputs)
        y = y.to(self.sums["mean"])
        errors = predictions.reshape(y.shape).to(y) - y
        rest = y - y[0]  # exactly 0 where all are equal
        mean = rest.mean(0)
        self._join(
            count=torch.full_like(self.sums["count"], len(y)),
            mean=y[0] + mean,
            deviations=(rest - mean).square().sum(0),
            errors=errors.square().sum(0),
        )

    def merge(self, other: SumMetric) -> None:
        self._join(**other.sums)

    def _join(self, *, count: Tensor, mean: Tensor, deviations: Tensor, errors: Tensor) -> None:
        """Adds what other samples have: how many, their mean, and squares about that mean."""
        before, both = self.sums["count"], self.sums["count"] + count
        share, apart = count / both.clamp_min(1), mean - self.sums["mean"]
        between = apart.square() * before * share
        self.add(count=count, mean=apart * share, deviations=deviations + between, errors=errors)

    def compute(self) -> Tensor:
        total, errors = self.sums["deviations"], self.sums["errors"]
        return torch.where(total > 0, 1 - errors / total, (errors == 0).to(total)).mean()


def class_scores(matrix: Tensor) -> dict[str, Tensor]:
    r"""Precision, recall, F1 and support of each class, from a confusion matrix.

    .. math:: P_k = \frac{C_{kk}}{\sum_j C_{jk}}, \qquad R_k = \frac{C_{kk}}{\sum_j C_{kj}}, \qquad
        F_k = \frac{2 P_k R_k}{P_k + R_k}

    A class that is never predicted has precision 0, one without samples recall 0.

    Shape:
        - matrix: counts ``(true, predicted)``
        - output: ``(classes,)`` each
    """
    matrix = matrix.cpu()
    hits, support, predicted = matrix.diagonal().double(), matrix.sum(1), matrix.sum(0)
    return {
        "precision": hits / predicted.clamp_min(1),
        "recall": hits / support.clamp_min(1),
        "f1": 2 * hits / (support + predicted).clamp_min(1),
        "support": support,
    }
