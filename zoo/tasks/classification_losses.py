r"""Losses of a classification besides cross-entropy, for each sample.

With the logits :math:`z`, their softmax :math:`p` and the true class :math:`y`:

.. math:: \text{hinge:} \sum_{k \ne y} \max(0, 1 + z_k - z_y), \qquad
    \text{focal:} -(1 - p_y)^\gamma \log p_y

Weston and Watkins, 1999, "Support vector machines for multi-class pattern recognition"; of two
classes ``hinge`` is that of Cortes and Vapnik, 1995, https://doi.org/10.1007/BF00994018, for the
difference of the logits. Lin et al., 2017, "Focal loss for dense object detection",
https://arxiv.org/abs/1708.02002, equation 4.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

ClassificationLoss = Literal["cross_entropy", "hinge", "squared_hinge", "focal"]


def hinge_loss(logits: Tensor, targets: Tensor, *, squared: bool = False) -> Tensor:
    """How far other classes come nearer than 1 to the true one, summed over them.

    Args:
        logits: ``(batch, classes)``.
        targets: class numbers, ``(batch,)``.
        squared: square each of these distances.

    Returns:
        ``(batch,)``.
    """
    true = targets.unsqueeze(1)  # (batch, 1)
    margins = (logits - logits.gather(1, true) + 1).clamp_min(0).scatter(1, true, 0.0)
    return (margins.square() if squared else margins).sum(1)


def focal_loss(logits: Tensor, targets: Tensor, gamma: float) -> Tensor:
    """Cross-entropy that counts less, the surer the answer is.

    Args:
        logits: ``(batch, classes)``.
        targets: class numbers, ``(batch,)``.
        gamma: 0 is cross-entropy.

    Returns:
        ``(batch,)``.
    """
    nll = F.cross_entropy(logits, targets, reduction="none")
    # The smallest number, not 0, whose power has no slope where gamma is less than 1.
    doubt = (-torch.expm1(-nll)).clamp_min(torch.finfo(nll.dtype).tiny)
    return doubt**gamma * nll
