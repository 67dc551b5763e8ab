"""Metrics of segmentation, all from one matrix of pixel counts."""

from types import MappingProxyType

import torch
from torch import Tensor

from zoo.metrics.sums import SumMetric, float64_on


class SegmentationScores(SumMetric):
    r"""Mean IoU, Dice, and the shares of right and wrong pixels, over all pixels of a data set.

    With :math:`n_{jk}` the number of pixels of class j that are taken for class k,
    :math:`t_k = n_{kk}`, and :math:`s_k = \sum_j n_{jk} + n_{kj}`:

    .. math:: \text{IoU}_k = \frac{t_k}{s_k - t_k}, \qquad \text{Dice}_k = \frac{2 t_k}{s_k}

    The means are over the classes that are there or predicted anywhere (:math:`s_k > 0`), as in
    torchmetrics. ``mean_iou`` is Pascal VOC's measure; ``dice`` is the mean F1 score.

    ``pixel_error`` is the share of wrong pixels, :math:`1 - \sum_k t_k / \sum_{jk} n_{jk}`. The
    ISBI 2012 EM challenge (http://brainiac2.mit.edu/isbi_challenge/evaluation) defines its pixel
    error as "1 - the maximal F-score of pixel similarity, or squared Euclidean distance between
    the original and the result labels": for labels 0 and 1 that distance, divided by the number of
    pixels, is this share. The maximum there is over thresholds of the submitted probabilities;
    here the more probable class counts.

    Args:
        num_classes: number of classes.
        ignore_index: pixels whose target is this do not count.

    Shape:
        - predicted: ``(batch, height, width)``
        - targets: ``(batch, height, width)``
    """

    higher_is_better = MappingProxyType(
        {"mean_iou": True, "dice": True, "pixel_accuracy": True, "pixel_error": False}
    )

    def __init__(self, num_classes: int, *, ignore_index: int = 255) -> None:
        super().__init__(matrix=torch.zeros(num_classes, num_classes, dtype=torch.int64))
        self.ignore_index = ignore_index

    def update(self, predicted: Tensor, targets: Tensor) -> None:
        # Ignored pixels add zero: to leave them out, a device would have to say how many are left.
        counted = targets != self.ignore_index
        self.sums["matrix"].index_put_(
            (targets.masked_fill(~counted, 0), predicted), counted.long(), accumulate=True
        )

    def iou(self) -> Tensor:
        """IoU of each class, NaN where it is neither there nor predicted: ``(classes,)``."""
        right, size = self._right_and_size()
        return right / (size - right)

    def compute(self) -> dict[str, Tensor]:
        right, size = self._right_and_size()
        absent = size == 0
        num_present = (~absent).sum().clamp_min(1)
        num_right, num_pixels = right.sum(), size.sum() / 2
        return {
            "mean_iou": (right / (size - right)).masked_fill(absent, 0).sum() / num_present,
            "dice": (2 * right / size).masked_fill(absent, 0).sum() / num_present,
            "pixel_accuracy": num_right / num_pixels.clamp_min(1),
            "pixel_error": (num_pixels - num_right) / num_pixels.clamp_min(1),
        }

    def _right_and_size(self) -> tuple[Tensor, Tensor]:
        # Double precision wherever there is one: a data set may have more than 2^24 pixels.
        matrix = self.sums["matrix"]
        matrix = matrix.to(float64_on(matrix.device))
        return matrix.diagonal(), matrix.sum(0) + matrix.sum(1)
