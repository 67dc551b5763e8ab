"""Regression: real numbers, learned by squared error or another loss."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from zoo.figures.points import fit_image
from zoo.metrics.sums import R2, Intervals, Mean, Residuals
from zoo.tasks.prediction import Values
from zoo.tasks.regression_losses import LossName, regression_loss
from zoo.tasks.task import Image, Shown, Task

MOST_POINTS = 1_000  # of an evaluation, in the image


class Regression(Task):
    r"""A loss of every target, averaged over samples and outputs; as a rule their squared error.

    .. math:: L(W) = \frac{1}{np} \sum_{i=1}^n \sum_{j=1}^p (\hat y_{ij} - y_{ij})^2

    A batch is ``(inputs, targets)``. The metrics are ``loss``, ``rmse``, ``mae``, ``bias`` (mean of
    predicted minus true) and ``r2``; of losses that say how sure a prediction is also ``coverage``,
    the share of targets that lie in their interval, and its mean ``width``. After an evaluation
    there is an image of the first thousand predictions against the true values.

    Ridge regression is this task with a linear model and weight decay. SGD with
    ``weight_decay=λ`` adds :math:`\lambda W` to the gradient, so it minimises
    :math:`L(W) + \frac{\lambda}{2} \lVert W \rVert^2`. Multiplied by :math:`np`, which moves no
    minimum, that is :math:`\lVert Y - XW \rVert^2 + \alpha \lVert W \rVert^2`, which scikit-learn's
    ``Ridge(alpha=α)`` minimises, and :math:`W = (X^\top X + \alpha I)^{-1} X^\top Y`, with

    .. math:: \alpha = \frac{n p \lambda}{2}

    for ``n`` training samples and ``p`` outputs, provided that the bias does not decay. Steps on
    the whole data set arrive there; on mini-batches they hover around it.

    Args:
        model: inputs to predictions; see ``loss`` for how many numbers a target.
        loss: ``mse``, ``mae``, ``huber``, ``log_cosh``, ``quantile``, ``gaussian_nll`` or
            ``laplace_nll``: see ``zoo/tasks/regression_losses.py``. Of ``quantile`` the model
            returns a number for each quantile and target, of the last two a location and the
            logarithm of a scale.
        delta: of ``huber``: the residual from which on the loss is linear.
        quantiles: of ``quantile``, rising; the outermost two bound the interval.
        coverage: share of the targets that an interval of ``gaussian_nll`` or ``laplace_nll``
            should hold.
        target_weights: how much each of several targets ``(batch, targets)`` counts in the loss,
            of which only the ratios matter: tasks that share all of the model but its last layer.
            None: all alike.

    Shape:
        - inputs: ``(batch, *)``
        - targets: ``(batch, *)``
        - predictions: as the targets, where ``(batch,)`` also goes with ``(batch, 1)``; of several
          numbers a target ``(*targets, numbers)``, or those of the last dimension side by side; of
          targets of more than two dimensions also all of a sample's side by side
    """

    predicts = Values
    unit = "values"

    def __init__(
        self,
        model: nn.Module,
        *,
        loss: LossName = "mse",
        delta: float = 1.0,
        quantiles: Sequence[float] = (0.05, 0.5, 0.95),
        coverage: float = 0.9,
        target_weights: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__(model)
        if target_weights is not None and not (
            all(0 <= weight < math.inf for weight in target_weights) and sum(target_weights) > 0
        ):
            raise ValueError(
                f"target_weights must be numbers from 0 on, not all 0, not {list(target_weights)}"
            )
        self.target_weights = None
        if target_weights is not None:
            weights = torch.tensor(target_weights, dtype=torch.float64)
            self.target_weights = (weights / weights.mean()).float()
        self.criterion = regression_loss(loss, delta=delta, quantiles=quantiles, coverage=coverage)
        self.metrics = {
            "loss": Mean(higher_is_better=False),
            "residuals": Residuals(),
            "r2": R2(),
        }
        if self.criterion.has_interval:
            self.metrics["intervals"] = Intervals()
        # A mixture of Laplace distributions is not near to being one.
        kinds: dict[str, Any] = {"gaussian_nll": "normals", "laplace_nll": None}
        self.output_kind = kinds.get(loss, "values")
        self._points: list[tuple[Tensor, Tensor]] = []  # targets and predictions
        self._num_points = 0

    def loss(self, batch: Any) -> tuple[Tensor, int]:
        output, targets = self.outputs(batch)
        return self._mean(self.criterion.each(output, targets)), targets.numel()

    def evaluate(self, batch: Any) -> None:
        output, targets = self.outputs(batch)
        predictions = self.judge(output, targets)
        left = MOST_POINTS - self._num_points
        if left > 0:
            points = (targets.flatten()[:left].clone(), predictions.flatten()[:left].clone())
            self._points.append(points)
            self._num_points += len(points[0])

    def judge(self, output: Tensor, targets: Tensor) -> Tensor:
        """Adds a batch to the metrics, and returns the predictions, of the targets' shape."""
        losses, predictions = self.criterion.each(output, targets), self.criterion.value(output)
        self.metrics["loss"].update(self._mean(losses), targets.numel())
        self.metrics["residuals"].update(predictions, targets)
        self.metrics["r2"].update(predictions, targets)
        interval = self.criterion.interval(output)
        if interval is not None:
            self.metrics["intervals"].update(*interval, targets)
        return predictions

    def _mean(self, losses: Tensor) -> Tensor:
        """The mean over samples and targets, these weighed: a scalar."""
        if self.target_weights is None:
            return losses.mean()
        if losses.ndim != 2 or losses.size(1) != len(self.target_weights):
            raise ValueError(
                f"target_weights must be one for each target, and there are {losses.shape[1:]}, "
                f"not {len(self.target_weights)}"
            )
        return (losses * self.target_weights.to(losses)).mean()

    def reset(self) -> None:
        super().reset()
        self._points, self._num_points = [], 0

    def show(self) -> dict[str, Shown]:
        """``fit``: predictions against true values."""
        if not self._points:
            return {}
        targets, predictions = map(torch.cat, zip(*self._points, strict=True))
        return {"fit": Image(partial(fit_image, targets, predictions))}

    def next_steps(self, data: Any) -> list[str]:
        return ["evaluate.py run={run} predict=<table.csv>"] if hasattr(data, "read_inputs") else []

    def predict(self, batch: Any) -> Values:
        """The model's predictions, ``(batch, *)``, with their intervals where there are any."""
        output = self.model(*self.example_inputs(batch))
        if self.criterion.outputs == 1:
            return Values(output)
        output = unfolded(output, self.criterion.outputs)
        interval = self.criterion.interval(output)
        return Values(self.criterion.value(output), *(interval or ()))

    def outputs(self, batch: Any) -> tuple[Tensor, Tensor]:
        """What the model returns, as the loss takes it, and the targets: see :meth:`judge`."""
        targets = self.targets_of(batch)
        if not targets.is_floating_point():
            raise ValueError("the targets are classes: set task=classification")
        output = self.model(*self.example_inputs(batch))
        return matched(output, targets, self.criterion.outputs), targets


def unfolded(output: Tensor, numbers: int) -> Tensor:
    """What belongs to one target in a dimension of its own: ``(*, targets, numbers)``."""
    if output.size(-1) % numbers:
        raise ValueError(
            f"the loss wants {numbers} numbers for each target, and the model returns "
            f"{output.size(-1)}: give it {numbers} outputs for each target (model.out_features, or "
            "model.num_classes of an MLP)"
        )
    return output.unflatten(-1, (-1, numbers))


def matched(output: Tensor, targets: Tensor, numbers: int = 1) -> Tensor:
    """Predictions of the targets' shape; others would broadcast to all pairs of samples.

    A model that returns vectors may have targets of more dimensions, if the numbers are as many.

    Args:
        output: what the model returns.
        targets: what it is compared with.
        numbers: how many it returns for each target; if several, they get a last dimension.

    Raises:
        ValueError: the output has another shape, and not merely a last dimension of 1 too many.
    """
    sizes = targets.shape[1:]
    if len(sizes) > 1 and output.shape[1:] == (numbers * sizes.numel(),):
        output = output.reshape(*targets.shape, *((numbers,) if numbers > 1 else ()))
    elif numbers > 1 and output.shape != (*targets.shape, numbers):
        output = unfolded(output, numbers)
        if output.shape == (*targets.shape, 1, numbers):
            output = output.squeeze(-2)
    elif numbers == 1 and output.shape == (*targets.shape, 1):
        output = output.squeeze(-1)
    shape = targets.shape if numbers == 1 else (*targets.shape, numbers)
    if output.shape != shape:
        of = "" if numbers == 1 else f" times {numbers} numbers of the loss"
        raise ValueError(
            f"the model must return predictions of the targets' shape {tuple(targets.shape)}{of}, "
            f"not {tuple(output.shape)}"
        )
    return output
