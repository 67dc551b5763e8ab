"""Whether a classifier is right as often as it says."""

from typing import NamedTuple

import torch
from torch import Tensor

from zoo.metrics.sums import IGNORED, SumMetric


class Reliability(NamedTuple):
    """Samples by the probability of their predicted class: ``(bins,)`` each, 0 in empty bins."""

    share: Tensor
    """Of the samples that lie in the bin."""
    confidence: Tensor
    """Mean probability of the predicted class."""
    accuracy: Tensor


class CalibrationError(SumMetric):
    r"""Expected calibration error (ECE): how far confidence and accuracy lie apart.

    .. math:: \mathrm{ECE} = \sum_{m=1}^M \frac{|B_m|}{n} \,
        \bigl| \mathrm{acc}(B_m) - \mathrm{conf}(B_m) \bigr|

    The confidence of a sample is the probability of the class with the highest score;
    :math:`B_m` are the samples whose confidence is in :math:`((m-1)/M, m/M]`. Guo et al., 2017, "On
    calibration of modern neural networks", https://arxiv.org/abs/1706.04599, equation 3.
    (torchmetrics has a bin more, for confidences of exactly 1.)

    Absolute values of noise do not cancel: of few samples the error of a perfectly calibrated
    network is above 0 too.

    Args:
        bins: M.

    Shape:
        - logits: ``(batch, classes)``
        - targets: ``(batch,)``; -100 does not count
    """

    higher_is_better = False
    grows_with_noise = True  # so the bootstrap, which adds some, says nothing of it

    def __init__(self, bins: int = 15) -> None:
        if bins < 1:
            raise ValueError(f"bins must be at least 1, not {bins}")
        names = ("count", "confidence", "correct")
        super().__init__(**{name: torch.zeros(bins, dtype=torch.float64) for name in names})

    def update(self, logits: Tensor, targets: Tensor) -> None:
        confidence, predicted = logits.detach().softmax(1, dtype=torch.float32).max(1)  # (batch,)
        bins = len(self.sums["count"])
        places = (confidence * bins).ceil().long().sub(1).clamp(0, bins - 1)
        counted = (targets != IGNORED).to(self.sums["count"])
        for name, values in (
            ("count", counted),
            ("confidence", confidence * counted),
            ("correct", (predicted == targets) * counted),
        ):
            self.sums[name] = self.sums[name].index_add(0, places, values)

    def reliability(self) -> Reliability:
        """The bins, for a diagram."""
        count = self.sums["count"]
        filled = count.clamp_min(1)
        return Reliability(
            count / count.sum(), self.sums["confidence"] / filled, self.sums["correct"] / filled
        )

    def compute(self) -> Tensor:
        share, confidence, accuracy = self.reliability()
        return (share * (accuracy - confidence).abs()).sum()
