"""Silhouette: how much nearer vectors are to their own class than to the nearest other one."""

import torch
from torch import Tensor
from torch.nn import functional as F


def silhouette(vectors: Tensor, labels: Tensor) -> Tensor:
    r"""The mean over vectors of the silhouette, by distances of :math:`1 - \cos`.

    .. math:: s_i = \frac{b_i - a_i}{\max(a_i, b_i)}

    with :math:`a_i` the mean distance to the others of the same class and :math:`b_i` the mean
    distance to the nearest other class: 1 for classes far apart, 0 where they cannot be told apart.
    A vector that is alone in its class counts as 0.

    P. J. Rousseeuw, "Silhouettes: a graphical aid to the interpretation and validation of cluster
    analysis", 1987, https://doi.org/10.1016/0377-0427(87)90125-7

    Args:
        vectors: ``(count, dim)``; all pairs of them are compared.
        labels: classes from 0, two or more of them, ``(count,)``.

    Returns:
        A scalar in double precision.
    """
    unit = F.normalize(vectors.detach().double(), dim=1)
    distances = (1 - unit @ unit.mT).clamp(min=0)
    distances.fill_diagonal_(0)
    members = F.one_hot(labels).double()  # (count, classes)
    sizes = members.sum(0)
    totals = distances @ members  # (count, classes)
    own = sizes[labels]
    within = totals.gather(1, labels.unsqueeze(1)).squeeze(1) / (own - 1).clamp(min=1)
    is_other = (members == 0) & (sizes > 0)
    between = (totals / sizes).where(is_other, torch.inf).amin(1)
    widths = (between - within) / torch.maximum(within, between).clamp(min=1e-30)
    return widths.where(own > 1, 0.0).mean()
