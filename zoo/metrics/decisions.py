r"""From probabilities to decisions: thresholds, costs and other shares of the classes.

The decision of least expected cost, with costs C[true, decided] and probabilities p, is

.. math:: \arg\min_j \sum_k p_k C_{kj}

(Bishop, 2006, section 1.5.2), of two classes a threshold on the probability. Where the classes
have other shares than in training, the probabilities become (Saerens, Latinne and Decaestecker,
2002, https://doi.org/10.1162/089976602753284446)

.. math:: p'_k \propto p_k \frac{\pi'_k}{\pi_k}

with the shares :math:`\pi` in training and :math:`\pi'` there.
"""

import re
from collections.abc import Callable

import torch
from torch import Tensor

from zoo.metrics.ranking import Curve


def best_threshold(
    scores: Tensor, targets: Tensor, metric: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> tuple[float, float]:
    """The threshold with the best value of a metric, and that value; of equals the highest.

    It lies half way between two neighbouring scores, so that it holds for others between them too.

    Args:
        scores: probabilities of the positive class, ``(samples,)``.
        targets: 1 or 0, ``(samples,)``.
        metric: of numbers of hits, predicted and positives, and of all samples as fourth (see
            :func:`threshold_metric`).

    Raises:
        ValueError: there are no positives, or nothing else.
    """
    curve = Curve.of(scores.double(), targets > 0)
    positives, samples = curve.hits[-1], curve.seen[-1]
    if not 0 < positives < samples:
        raise ValueError(
            f"a threshold needs samples of both classes, and of {int(samples)} there are "
            f"{int(positives)} positive ones"
        )
    values = metric(curve.hits, curve.seen, torch.stack([positives, samples]))
    best = int(values.argmax())
    lower = curve.thresholds[best + 1] if best + 1 < len(values) else curve.thresholds.new_zeros(())
    return float((curve.thresholds[best] + lower) / 2), float(values[best])


def threshold_metric(name: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """A metric of two classes by name, of the numbers at every threshold.

    Args:
        name: ``accuracy``, ``balanced_accuracy`` (the mean recall of both classes) or ``f<beta>``,
            as in ``f1``.

    Returns:
        A function of hits ``(thresholds,)``, predicted ``(thresholds,)`` and ``(positives,
        samples)``.

    Raises:
        ValueError: there is no such metric.
    """
    if name == "accuracy":
        return lambda hits, predicted, total: (
            (2 * hits - predicted + total[1] - total[0]) / total[1]
        )
    if name == "balanced_accuracy":

        def balanced(hits: Tensor, predicted: Tensor, total: Tensor) -> Tensor:
            negatives = total[1] - total[0]
            return (hits / total[0] + 1 - (predicted - hits) / negatives) / 2

        return balanced
    if (found := re.fullmatch(r"f(\d+(?:\.\d+)?)", name)) and (beta := float(found[1])) > 0:
        square = beta**2
        return lambda hits, predicted, total: (1 + square) * hits / (predicted + square * total[0])
    raise ValueError(
        f"metric must be accuracy, balanced_accuracy or f<beta> (f1, f2, f0.5), not {name!r}"
    )


def least_cost(probabilities: Tensor, costs: Tensor) -> Tensor:
    """The decision of least expected cost for each sample: int64 ``(samples,)``.

    Shape:
        - probabilities: ``(samples, classes)``
        - costs: ``(classes, decisions)``, of a decision where that class is the true one
    """
    return (probabilities.to(costs) @ costs).argmin(1)


def with_prior(probabilities: Tensor, trained: Tensor, prior: Tensor) -> Tensor:
    """Probabilities where classes have other shares than in training: ``(samples, classes)``.

    Args:
        probabilities: of a model trained where they have the shares ``trained``.
        trained: the shares there, ``(classes,)``.
        prior: the shares where it is used, ``(classes,)``.
    """
    weighed = probabilities.to(prior) * (prior / trained)
    return weighed / weighed.sum(1, keepdim=True)
