"""Regression: real numbers, learned by mean squared error."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.figures.points import fit_image
from zoo.metrics.sums import R2, SquaredError
from zoo.tasks.prediction import Values
from zoo.tasks.task import Image, Shown, Task

MOST_POINTS = 1_000  # of an evaluation, in the image


class Regression(Task):
    r"""Squared error, averaged over samples and outputs.

    .. math:: L(W) = \frac{1}{np} \sum_{i=1}^n \sum_{j=1}^p (\hat y_{ij} - y_{ij})^2

    A batch is ``(inputs, targets)``. The metrics are ``loss``, ``rmse`` and ``r2``. After an
    evaluation there is an image of the first thousand predictions against the true values.

    Ridge regression is this task with a linear model and weight decay. SGD with
    ``weight_decay=λ`` adds :math:`\lambda W` to the gradient, so it minimises
    :math:`L(W) + \frac{\lambda}{2} \lVert W \rVert^2`. Multiplied by :math:`np`, which moves no
    minimum, that is :math:`\lVert Y - XW \rVert^2 + \alpha \lVert W \rVert^2`, which scikit-learn's
    ``Ridge(alpha=α)`` minimises, and :math:`W = (X^\top X + \alpha I)^{-1} X^\top Y`, with

    .. math:: \alpha = \frac{n p \lambda}{2}

    for ``n`` training samples and ``p`` outputs, provided that the bias does not decay. Steps on
    the whole data set arrive there; on mini-batches they hover around it.

    Args:
        model: inputs to predictions.

    Shape:
        - inputs: ``(batch, *)``
        - targets: as the predictions, where ``(batch,)`` also goes with ``(batch, 1)``
    """

    predicts = Values
    unit = "values"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.metrics = {"loss": SquaredError(), "r2": R2()}
        self._points: list[tuple[Tensor, Tensor]] = []  # targets and predictions
        self._num_points = 0

    def loss(self, batch: Any) -> tuple[Tensor, int]:
        predictions, targets = self._predictions(batch)
        return F.mse_loss(predictions, targets), targets.numel()

    def evaluate(self, batch: Any) -> None:
        predictions, targets = self._predictions(batch)
        self.metrics["loss"].update(F.mse_loss(predictions, targets), targets.numel())
        self.metrics["r2"].update(predictions, targets)
        left = MOST_POINTS - self._num_points
        if left > 0:
            points = (targets.flatten()[:left].clone(), predictions.flatten()[:left].clone())
            self._points.append(points)
            self._num_points += len(points[0])

    def reset(self) -> None:
        super().reset()
        self._points, self._num_points = [], 0

    def show(self) -> dict[str, Shown]:
        """``fit``: predictions against true values."""
        if not self._points:
            return {}
        targets, predictions = map(torch.cat, zip(*self._points, strict=True))
        return {"fit": Image(partial(fit_image, targets, predictions))}

    def predict(self, batch: Any) -> Values:
        """The model's predictions: ``(batch, *)``."""
        return Values(self.model(*self.example_inputs(batch)))

    def _predictions(self, batch: Any) -> tuple[Tensor, Tensor]:
        """The model's predictions, and the targets."""
        targets = self.targets_of(batch)
        return matched(self.model(*self.example_inputs(batch)), targets), targets


def matched(predictions: Tensor, targets: Tensor) -> Tensor:
    """Predictions of the targets' shape; others would broadcast to all pairs of samples.

    Raises:
        ValueError: they have another shape, and not merely a last dimension of 1 too many.
    """
    if predictions.shape == (*targets.shape, 1):
        predictions = predictions.squeeze(-1)  # as targets
    if predictions.shape != targets.shape:
        raise ValueError(
            f"the model must return predictions of the targets' shape {tuple(targets.shape)}, "
            f"not {tuple(predictions.shape)}"
        )
    return predictions
