"""Multi-task learning: one network predicts several targets, numbers and classes among them."""

import math
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from zoo.metrics.sums import Mean
from zoo.tasks.classification import Classification
from zoo.tasks.prediction import Several
from zoo.tasks.regression import Regression
from zoo.tasks.task import Loss, Metric, Shown, Task, inputs_of


class MultiTask(Task):
    r"""The weighted mean of a loss for each target (Caruana, 1997).

    .. math:: L = \frac{\sum_t w_t L_t}{\sum_t w_t}

    with the squared error of a target that is a number, as in
    :class:`~zoo.tasks.regression.Regression`, and the cross-entropy of one that is a class, as in
    :class:`~zoo.tasks.classification.Classification`. The targets share all of the model but its
    last layer, of which each has the rows that are its own: one for a number, one for each class.
    So the gradient of what is shared is the weighted mean of those of the targets alone. What is
    learned for one target helps another where both need the same of the inputs.

    The metrics are ``loss``, which the checkpoint is selected by, and those of each target as of
    its own task, behind its name: ``species_accuracy``, ``body_mass_g_rmse``. The training curve
    has the losses of the targets, not yet weighted.

    R. Caruana, "Multitask learning", 1997, https://doi.org/10.1023/A:1007379606734.

    Args:
        model: inputs to the outputs of all targets, side by side.
        target_names: what the targets are called.
        target_classes: of each target the names of its classes; none of a number.
        target_weights: how much each counts in the loss, of which only the ratios matter. None: all
            alike. The squared error of a standardised number is 1 before anything is learned, the
            cross-entropy of K classes log K.

    Shape:
        - inputs: ``(batch, *)``
        - targets: ``(batch, targets)``, a class by its number
        - outputs: ``(batch, outputs)``
    """

    mode: Literal["min", "max"] = "min"
    predicts = Several

    def __init__(
        self,
        model: nn.Module,
        *,
        target_names: tuple[str, ...],
        target_classes: tuple[tuple[str, ...], ...],
        target_weights: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__(model)
        count = len(target_names)
        if not count or len(target_classes) != count:
            raise ValueError(
                f"target_classes must be a list for each of {count} targets, not "
                f"{len(target_classes)}"
            )
        weights = target_weights or (1.0,) * count
        if len(weights) != count or not all(0 <= w < math.inf for w in weights) or not sum(weights):
            raise ValueError(
                f"target_weights must be {count} numbers from 0 on, not all 0, not {list(weights)}"
            )
        self.weights = [weight / sum(weights) for weight in weights]
        # Each is a task of its own, whose inputs are what the model says of its target.
        self.parts: dict[str, Classification | Regression] = {
            name: Classification(nn.Identity(), num_classes=len(classes), class_names=classes)
            if classes
            else Regression(nn.Identity())
            for name, classes in zip(target_names, target_classes, strict=True)
        }
        self.sizes = [len(classes) or 1 for classes in target_classes]
        self.metrics = {"loss": Mean(higher_is_better=False)}

    def loss(self, batch: Any) -> Loss:
        return self._loss(*self.outputs(batch))

    def evaluate(self, batch: Any) -> None:
        self.judge(*self.outputs(batch))

    def outputs(self, batch: Any) -> tuple[Tensor, Tensor]:
        """What the model says of all targets, and the targets: what :meth:`judge` takes."""
        targets = self.targets_of(batch)
        if targets.ndim != 2 or targets.size(1) != len(self.parts):
            raise ValueError(
                f"the targets must be (batch, {len(self.parts)}), a column for each of "
                f"{', '.join(self.parts)}, not {tuple(targets.shape)}"
            )
        return self._outputs(batch), targets

    def judge(self, output: Tensor, targets: Tensor) -> None:
        """Adds samples to the metrics."""
        loss, count, *_ = self._loss(output, targets)
        self.metrics["loss"].update(loss, count)
        for part, own in zip(self.parts.values(), self._split(output, targets), strict=True):
            part.evaluate(own)

    def predict(self, batch: Any) -> Several:
        """What each target's own task predicts, by its name."""
        outputs = self._outputs(batch).split(self.sizes, 1)
        return Several(
            {
                n: part.predict(own)
                for (n, part), own in zip(self.parts.items(), outputs, strict=True)
            }
        )

    def compute(self) -> dict[str, float]:
        return super().compute() | {
            f"{name}_{metric}": value
            for name, part in self.parts.items()
            for metric, value in part.compute().items()
        }

    def directions(self) -> dict[str, Literal["min", "max"]]:
        return super().directions() | {
            f"{name}_{metric}": direction
            for name, part in self.parts.items()
            for metric, direction in part.directions().items()
        }

    def show(self) -> dict[str, Shown]:
        """What each target's own task shows, behind its name."""
        return {
            f"{name}_{key}": shown
            for name, part in self.parts.items()
            for key, shown in part.show().items()
        }

    def every_metric(self) -> dict[str, Metric]:
        return self.metrics | {
            f"{name}_{key}": metric
            for name, part in self.parts.items()
            for key, metric in part.every_metric().items()
        }

    def reset(self) -> None:
        super().reset()
        for part in self.parts.values():
            part.reset()

    def to(self, device: torch.device | str) -> Self:
        for part in self.parts.values():
            part.to(device)
        return super().to(device)

    def _outputs(self, batch: Any) -> Tensor:
        output: Tensor = self.model(inputs_of(batch))
        if output.ndim != 2 or output.size(1) != sum(self.sizes):
            sizes = ", ".join(f"{s} for {n}" for n, s in zip(self.parts, self.sizes, strict=True))
            raise ValueError(
                f"the model must return {sum(self.sizes)} numbers a sample, {sizes}, not "
                f"{tuple(output.shape)}"
            )
        return output

    def _split(self, output: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The outputs and targets that belong to each target, as its own task takes them."""
        return [
            (own, column if isinstance(part, Regression) else column.long())
            for part, own, column in zip(
                self.parts.values(), output.split(self.sizes, 1), targets.unbind(1), strict=True
            )
        ]

    def _loss(self, output: Tensor, targets: Tensor) -> Loss:
        losses = [
            part.loss(own)[0]
            for part, own in zip(self.parts.values(), self._split(output, targets), strict=True)
        ]
        total = sum(
            (weight * loss for weight, loss in zip(self.weights, losses, strict=True)),
            output.new_zeros(()),
        )
        terms = {f"{n}_loss": loss.detach() for n, loss in zip(self.parts, losses, strict=True)}
        return total, len(targets), terms
