"""Regression with sequences: how a series continues, or a sequence made from a vector."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from zoo.figures.curves import curves_image
from zoo.tasks.regression import Regression, matched
from zoo.tasks.regression_losses import LossName
from zoo.tasks.task import Image, Shown


class Curves(NamedTuple):
    """Some samples of an evaluation."""

    given: Tensor | None  # (samples, window)
    targets: Tensor  # (samples, time)
    predictions: Tensor  # (samples, time)


class SequenceRegression(Regression):
    r"""Squared error, or another loss, averaged over samples, steps and features.

    .. math:: L = \frac{1}{nTp} \sum_{i=1}^n \sum_{t=1}^T \sum_{j=1}^p (\hat y_{itj} - y_{itj})^2

    The task and the metrics are those of :class:`~zoo.tasks.regression.Regression`. After an
    evaluation there is an image of some curves: what was given, what followed, and what was
    predicted; of several features the first.

    With ``teacher_forcing``, training gives the targets to the model too, which may feed back each
    of them in place of its own output (Williams and Zipser 1989,
    https://doi.org/10.1162/neco.1989.1.2.270). Evaluation never does: its loss is that of free
    running, and the curve of training may lie far below.

    Args:
        model: inputs to predictions; with ``teacher_forcing`` it takes ``targets=`` too.
        teacher_forcing: give the model the targets during training.
        num_curves: curves in the image, 0 for none.
        loss: see :class:`~zoo.tasks.regression.Regression`, as of the next three.
        delta: of ``huber``.
        quantiles: of ``quantile``.
        coverage: of the intervals of ``gaussian_nll`` and ``laplace_nll``.

    Shape:
        - inputs: ``(batch, features)`` or ``(batch, window, features)``
        - targets: ``(batch, time)`` or ``(batch, time, features)``
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        teacher_forcing: bool = False,
        num_curves: int = 6,
        loss: LossName = "mse",
        delta: float = 1.0,
        quantiles: Sequence[float] = (0.05, 0.5, 0.95),
        coverage: float = 0.9,
    ) -> None:
        super().__init__(model, loss=loss, delta=delta, quantiles=quantiles, coverage=coverage)
        if num_curves < 0:
            raise ValueError(f"num_curves must be at least 0, not {num_curves}")
        self.teacher_forcing = teacher_forcing
        self.num_curves = num_curves
        self.curves: Curves | None = None

    def loss(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
        if not self.teacher_forcing:
            return super().loss(batch)
        inputs, targets = batch
        output = matched(self.model(inputs, targets=targets), targets, self.criterion.outputs)
        return self.criterion.each(output, targets).mean(), targets.numel()

    def evaluate(self, batch: tuple[Tensor, Tensor]) -> None:
        inputs, targets = batch
        predictions = self.judge(*self.outputs(batch))
        if self.curves is None and self.num_curves > 0 and targets.ndim > 1:
            given = inputs if inputs.ndim == 3 else None
            shown = (_first_feature(x, self.num_curves) for x in (given, targets, predictions))
            self.curves = Curves(*shown)  # type: ignore[arg-type]

    def reset(self) -> None:
        super().reset()
        self.curves = None

    def show(self) -> dict[str, Shown]:
        """``curves``, unless there are none."""
        if self.curves is None:
            return {}
        return {"curves": Image(partial(curves_image, *self.curves))}


def _first_feature(x: Tensor | None, count: int) -> Tensor | None:
    """The first feature of the first samples: ``(samples, time)``."""
    if x is None:
        return None
    x = x[:count].detach()
    return (x if x.ndim == 2 else x[..., 0]).clone()  # no view that holds on to the batch
