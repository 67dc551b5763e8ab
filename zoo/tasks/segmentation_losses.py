"""Losses of segmentation: cross-entropy, focal and Dice, over the pixels that count."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from zoo.tasks.task import mean_over

Loss = Literal["cross_entropy", "dice", "focal", "cross_entropy_dice"]
SMOOTHING = 1.0  # pixels added to both sides of the Dice ratio


class SegmentationLoss:
    r"""Loss of the classes of pixels, and the weight that it is the mean over.

    With :math:`p_k(x)` the probability of class k at pixel x, :math:`y(x)` its true class, and
    :math:`w(x)` its weight (0 where it is ignored, else the weight of its class times that of the
    batch's weight map):

    .. math::
        L_\text{cross-entropy} &= -\frac{1}{W} \sum_x w(x) \log p_{y(x)}(x), \qquad
            W = \sum_x w(x) \\
        L_\text{focal} &= -\frac{1}{W} \sum_x w(x) (1 - p_{y(x)}(x))^\gamma \log p_{y(x)}(x) \\
        L_\text{Dice} &= \frac{1}{W} \sum_i W_i \Bigl(1 - \frac{1}{K} \sum_k
            \frac{1 + 2 \sum_{x \in i} p_k(x) [y(x) = k]}
                 {1 + \sum_{x \in i} p_k(x) + [y(x) = k]}\Bigr)

    Dice is taken of each image i, over the pixels that are not ignored, and an image counts by
    the weight of its pixels. So all of them are means over one and the same count :math:`W`, and
    may be added, and gradients accumulated over uneven batches equal those of one large batch.

    Cross-entropy with a weight map is the energy of Ronneberger et al., 2015, equation 1, divided
    by the sum of the weights, as ``torch.nn.CrossEntropyLoss`` does. The focal loss is that of Lin
    et al., 2017 (https://arxiv.org/abs/1708.02002), whose :math:`\alpha_t` are the class weights;
    Dice that of Milletari et al., 2016 (https://arxiv.org/abs/1606.04797), with probabilities in
    place of their squares in the denominator, and 1 added above and below, so that a class that is
    neither there nor predicted costs nothing.

    Args:
        name: which loss; ``cross_entropy_dice`` adds ``dice_weight`` times Dice to cross-entropy.
        num_classes: number of classes.
        dice_weight: factor of Dice in the sum.
        focal_gamma: how much less a pixel counts that is right already.
        class_weights: factor of each class's pixels in cross-entropy and focal; None for 1.
        ignore_index: pixels of this class do not count.

    Shape:
        - log_probabilities: ``(batch, classes, height, width)``
        - targets: ``(batch, height, width)``
        - weights: ``(batch, height, width)`` or None for 1

    Raises:
        ValueError: if an argument is outside its range.
    """

    def __init__(
        self,
        name: Loss = "cross_entropy",
        *,
        num_classes: int,
        dice_weight: float = 1.0,
        focal_gamma: float = 2.0,
        class_weights: Sequence[float] | None = None,
        ignore_index: int = 255,
    ) -> None:
        if name not in get_args(Loss):
            raise ValueError(f"loss must be one of {', '.join(get_args(Loss))}, not {name!r}")
        if dice_weight < 0:
            raise ValueError(f"dice_weight must not be negative, but is {dice_weight}")
        if focal_gamma < 0:
            raise ValueError(f"focal_gamma must not be negative, but is {focal_gamma}")
        if class_weights is not None:
            if name == "dice":
                raise ValueError(
                    "class_weights must be null where loss is dice, which ignores them"
                )
            if len(class_weights) != num_classes or min(class_weights) < 0:
                raise ValueError(
                    f"class_weights must be {num_classes} numbers (num_classes), none negative, "
                    f"not {list(class_weights)}"
                )
        self.name = name
        self.dice_weight = 0.0 if name in ("cross_entropy", "focal") else dice_weight
        self.focal_gamma = focal_gamma
        self.ignore_index = ignore_index
        self.class_weights = None if class_weights is None else torch.tensor(class_weights)

    def __call__(
        self, log_probabilities: Tensor, targets: Tensor, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        counted = targets != self.ignore_index
        labels = targets.masked_fill(~counted, 0).unsqueeze(1)  # (batch, 1, height, width)
        weight = counted.to(log_probabilities.dtype)
        if self.name == "dice":
            image_weight = weight.sum((1, 2))  # (batch,)
            dice = self.dice(log_probabilities, labels, counted)
            return _mean(image_weight * dice, image_weight)
        if weights is not None:
            weight = weight * weights
        if self.class_weights is not None:
            self.class_weights = self.class_weights.to(weight)
            weight = weight * self.class_weights[labels[:, 0]]
        image_weight = weight.sum((1, 2))  # (batch,)
        # Not F.cross_entropy, which has no deterministic form for images on a GPU.
        terms = -log_probabilities.gather(1, labels)[:, 0]  # (batch, height, width)
        if self.name == "focal":
            terms = (-(-terms).expm1()).clamp_min(1e-8) ** self.focal_gamma * terms
        total = (weight * terms).sum((1, 2))  # (batch,)
        if self.dice_weight:
            dice = self.dice(log_probabilities, labels, counted)
            total = total + self.dice_weight * image_weight * dice
        return _mean(total, image_weight)

    def dice(self, log_probabilities: Tensor, labels: Tensor, counted: Tensor) -> Tensor:
        """One minus the mean Dice coefficient of each image: ``(batch,)``."""
        probabilities = log_probabilities.exp() * counted.unsqueeze(1)
        truth = torch.zeros_like(probabilities).scatter_(1, labels, 1.0) * counted.unsqueeze(1)
        common = (probabilities * truth).sum((2, 3))  # (batch, classes)
        size = probabilities.sum((2, 3)) + truth.sum((2, 3))
        return 1 - ((2 * common + SMOOTHING) / (size + SMOOTHING)).mean(1)


def _mean(totals: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    count = weights.sum()
    return mean_over(totals.sum(), count), count
