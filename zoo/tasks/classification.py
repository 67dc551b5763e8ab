"""Classification: one class a sample, learned by cross-entropy or another loss."""

import itertools
import math
import warnings
from collections.abc import Iterable
from functools import partial
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.figures.grids import (
    are_images,
    confusion_matrix_image,
    input_grid,
    labelled_image_grid,
    rescale,
)
from zoo.figures.reliability import reliability_image
from zoo.metrics.calibration import CalibrationError
from zoo.metrics.mistakes import ConfidentMistakes
from zoo.metrics.ordinal import OrdinalScores
from zoo.metrics.sums import Accuracy, ConfusionMatrix, Mean, class_scores
from zoo.tasks.classification_losses import ClassificationLoss, focal_loss, hinge_loss
from zoo.tasks.prediction import Classes, Table
from zoo.tasks.starting import start_with_bias
from zoo.tasks.task import Image, Loss, Shown, Task, inputs_of

AUX_WEIGHT = 0.3
"""That of Szegedy et al. (2015), section 5."""


class Classification(Task):
    r"""Cross-entropy between the predicted classes and the true one.

    .. math:: L = -\frac{\sum_i \sum_k w_k q_{ik} \log p_{ik}}{\sum_i \sum_k w_k t_{ik}}, \qquad
        q_{ik} = (1 - \varepsilon) t_{ik} + \frac{\varepsilon}{K}

    with :math:`p = \mathrm{softmax}` of the model's logits, :math:`t_{ik} = [k = y_i]`, the label
    smoothing :math:`\varepsilon` (Szegedy et al., 2016, section 7) and the class weights :math:`w`
    (all 1 unless asked, so that :math:`L` is the mean over the samples).

    A batch is ``(inputs, targets)``, where the targets are class numbers or, where training
    images are mixed (mixup, CutMix), the share :math:`t` of every class. The metrics are ``loss``
    and ``accuracy`` (for mixed targets: of the largest share), ``top<k>_accuracy`` and
    ``calibration_error``. After an evaluation there are a table of the classes, images of the
    confusion matrix, of how reliable the probabilities are and, of image inputs, of the most
    confident mistakes.

    A model may have auxiliary heads: in training it returns a tuple whose first field is the
    logits, and the loss of each further field is added with ``aux_weight``. The training curve then
    shows ``main_loss`` and ``auxiliary_loss``, their sum before it is weighted, besides the loss.

    Args:
        model: inputs to logits.
        num_classes: number of logits.
        label_smoothing: share of the target that is spread over all classes.
        class_weights: a number for each class, of which only the ratios matter; or ``"balanced"``:
            inversely proportional to the class's share of the training samples (a class without
            any weighs 1).
        aux_weight: weight of the losses of auxiliary heads (0.3: Szegedy et al., 2015, section 5).
        top_k: for each k, a metric counts the samples whose class is among the k best guesses.
        class_names: for the tables and images; the class numbers if None.
        loss: ``cross_entropy``, or ``hinge``, ``squared_hinge`` (a linear model is then a support
            vector machine) or ``focal``: see ``zoo/tasks/classification_losses.py``. These take no
            shares of classes. Of the hinge losses the logits are no logarithms: the largest tells
            the class, the probabilities of ``predict`` are a guess, and there is no
            ``calibration_error``.
        gamma: of ``focal``.
        ordinal: whether the classes have an order, which is that of their numbers: adds metrics
            that weigh how far off a guess is, ``class_mae`` and ``quadratic_kappa``
            (:class:`~zoo.metrics.ordinal.OrdinalScores`).
        balanced_start: set the bias of the output layer to the logarithms of the shares that the
            classes have in training (weighed, where they have weights), so that the first steps
            need not learn these.

    Shape:
        - inputs: ``(batch, *)``
        - targets: ``(batch,)``, or shares ``(batch, classes)``
    """

    monitor = "accuracy"
    mode: Literal["min", "max"] = "max"
    predicts = Classes

    def __init__(
        self,
        model: nn.Module,
        *,
        num_classes: int,
        label_smoothing: float = 0.0,
        class_weights: Literal["balanced"] | tuple[float, ...] | None = None,
        aux_weight: float = AUX_WEIGHT,
        top_k: tuple[int, ...] = (),
        class_names: tuple[str, ...] | None = None,
        loss: ClassificationLoss = "cross_entropy",
        gamma: float = 2.0,
        ordinal: bool = False,
        balanced_start: bool = False,
    ) -> None:
        super().__init__(model)
        if loss not in get_args(ClassificationLoss):
            names = ", ".join(get_args(ClassificationLoss))
            raise ValueError(f"loss must be one of {names}, not {loss!r}")
        if not 0 <= gamma < math.inf:
            raise ValueError(f"gamma must be at least 0, not {gamma}")
        if loss != "cross_entropy" and label_smoothing:
            raise ValueError(
                f"label_smoothing must be 0 with loss={loss}, which takes no shares of classes, "
                f"not {label_smoothing}"
            )
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, not {num_classes}")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), not {label_smoothing}")
        if not 0 <= aux_weight < math.inf:
            raise ValueError(f"aux_weight must be at least 0, not {aux_weight}")
        for k in top_k:
            if not 1 < k < num_classes or top_k.count(k) > 1:
                raise ValueError(
                    "top_k must hold different numbers greater than 1 (that is accuracy) and "
                    f"smaller than num_classes ({num_classes}), not {k}"
                )
        if class_names is not None and len(class_names) != num_classes:
            raise ValueError(
                f"class_names must name {num_classes} classes (num_classes), not {len(class_names)}"
            )
        self.loss_name, self.gamma = loss, gamma
        self.output_kind = "values" if loss in ("hinge", "squared_hinge") else "logits"
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        self.is_balanced = class_weights == "balanced"
        self.class_weights = _weights(class_weights, num_classes)
        self.balanced_start = balanced_start
        self.aux_weight = aux_weight
        self._expects_auxiliary = aux_weight != AUX_WEIGHT
        self.class_names = class_names
        self.confusion_matrix = ConfusionMatrix(num_classes)
        self.mistakes = ConfidentMistakes()
        self.calibration = None if "hinge" in loss else CalibrationError()
        self.metrics = {
            "loss": Mean(higher_is_better=False),
            "accuracy": Accuracy(),
            **{f"top{k}_accuracy": Accuracy(k) for k in top_k},
            **({"ordinal": OrdinalScores(num_classes)} if ordinal else {}),
            **({} if self.calibration is None else {"calibration_error": self.calibration}),
            "confusion_matrix": self.confusion_matrix,
            "mistakes": self.mistakes,
        }

    def prepare(self, batches: Iterable[Any]) -> None:
        """Counts the classes of the training samples, where weights or the start follow."""
        batches, shown = itertools.tee(batches)
        super().prepare(shown)
        if not self.is_balanced and not self.balanced_start:
            return
        counts = torch.zeros(self.num_classes, dtype=torch.float64)
        for batch in batches:
            targets = self.targets_of(batch)
            soft = targets.is_floating_point()
            shares = targets if soft else F.one_hot(targets, self.num_classes)  # (batch, classes)
            counts += shares.sum(0).to(counts)
        if self.is_balanced and self.class_weights is not None:
            weights = counts.sum() / (self.num_classes * counts)
            self.class_weights = weights.where(counts > 0, 1.0).to(self.class_weights)
        if self.balanced_start:
            shares = counts.clamp_min(0.5)  # of a class that is not there less than one sample
            if self.class_weights is not None:
                shares = shares * self.class_weights.to(shares)
            start_with_bias(self.model, (shares / shares.sum()).log())

    def loss(self, batch: Any) -> Loss:
        return self._loss_of(self._outputs(batch), self.targets_of(batch))

    def _loss_of(self, outputs: list[Tensor], targets: Tensor) -> Loss:
        """The loss of the logits, and of those of auxiliary heads behind them."""
        logits, *auxiliary = outputs
        main, count = self._loss(logits, targets)
        if not auxiliary:
            # Only its outputs tell what a model has, and only in training.
            if self._expects_auxiliary and self.model.training:
                self._expects_auxiliary = False
                warnings.warn(
                    f"task.aux_weight={self.aux_weight} has no effect: the model has no auxiliary "
                    "heads",
                    stacklevel=2,
                )
            return main, count
        others = [self._loss(other, targets)[0] for other in auxiliary]
        loss = main
        for other in others:
            loss = loss + self.aux_weight * other
        terms = {"main_loss": main.detach(), "auxiliary_loss": torch.stack(others).detach().sum()}
        return loss, count, terms

    def evaluate(self, batch: Any) -> None:
        logits, targets = self.outputs(batch)
        self.judge(logits, targets)
        if are_images(inputs := inputs_of(batch)):
            self.mistakes.update(inputs, logits, _classes(targets))

    def outputs(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Logits and targets, a row for each sample: what :meth:`judge` takes."""
        return self._outputs(batch)[0], self.targets_of(batch)

    def judge(self, logits: Tensor, targets: Tensor) -> None:
        """Adds samples to the metrics."""
        self.metrics["loss"].update(*self._loss(logits, targets))
        classes = _classes(targets)
        for metric in self.metrics.values():
            if isinstance(metric, Accuracy | CalibrationError | ConfusionMatrix):
                metric.update(logits, classes)

    def predict(self, batch: Any) -> Classes:
        """Probabilities of the classes: ``(batch, classes)``."""
        logits = self._outputs(batch)[0]
        return Classes(logits.softmax(1, dtype=torch.float32), self.class_names)

    def show_inputs(self, batch: Any) -> dict[str, Image]:
        inputs = inputs_of(batch)
        return {"inputs": Image(input_grid(inputs))} if are_images(inputs) else {}

    def show(self) -> dict[str, Shown]:
        """The confusion matrix, the reliability, the mistakes, and a report of the classes.

        Returns:
            ``confusion_matrix``; ``reliability``, unless the loss is a hinge loss; ``mistakes``, if
            the inputs are images and there are any; and ``classes``: precision, recall, F1 and
            support of each, in the last row their means.
        """
        matrix = self.confusion_matrix.compute()
        shown: dict[str, Shown] = {
            "confusion_matrix": Image(partial(confusion_matrix_image, matrix, self.class_names))
        }
        if self.calibration is not None:
            reliability = self.calibration.reliability()
            shown["reliability"] = Image(partial(reliability_image, *reliability))
        if (mistakes := self.mistakes.compute()) is not None:
            labels = [
                f"{self._name(target)} → {self._name(predicted)}, {confidence:.2f}"
                for predicted, target, confidence in zip(
                    *(entry.tolist() for entry in mistakes[1:]), strict=True
                )
            ]
            images = rescale(mistakes.images)
            shown["mistakes"] = Image(partial(labelled_image_grid, images, labels))
        return shown | {"classes": self._report(matrix)}

    def _report(self, matrix: Tensor) -> Table:
        scores = class_scores(matrix)
        columns = {name: values.tolist() for name, values in scores.items()}
        rows: list[dict[str, str | float]] = [
            {"class": self._name(index), **{n: column[index] for n, column in columns.items()}}
            for index in range(self.num_classes)
        ]
        mean = {name: values.double().mean().item() for name, values in scores.items()}
        rows.append({"class": "macro mean", **mean, "support": sum(columns["support"])})
        return Table(rows)

    def to(self, device: torch.device | str) -> Self:
        if self.class_weights is not None:
            self.class_weights = self.class_weights.to(device)
        return super().to(device)

    def state_dict(self) -> dict[str, Any]:
        return {"class_weights": self.class_weights} if self.is_balanced else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if not self.is_balanced:
            super().load_state_dict(state)
        elif self.class_weights is not None:
            self.class_weights = state["class_weights"].to(self.class_weights)

    def _outputs(self, batch: Any) -> list[Tensor]:
        """The logits, and behind them those of auxiliary heads."""
        output = self.model(*self.example_inputs(batch))
        outputs = list(output) if isinstance(output, tuple) else [output]
        for logits in outputs:
            if logits.ndim != 2 or logits.size(1) != self.num_classes:
                raise ValueError(
                    f"num_classes is {self.num_classes}, so the model must return logits of shape "
                    f"(batch, {self.num_classes}), not {tuple(logits.shape)}"
                )
        return outputs

    def _loss(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | int]:
        """The loss, and the sum of weights that it is the mean over."""
        if self.loss_name != "cross_entropy":
            return self._other_loss(logits, targets)
        smoothing = self.label_smoothing
        if self.class_weights is None:
            return F.cross_entropy(logits, targets, label_smoothing=smoothing), targets.size(0)
        dtype = torch.promote_types(logits.dtype, torch.float32)
        logits, weights = logits.to(dtype), self.class_weights.to(dtype)
        if not targets.is_floating_point():
            loss = F.cross_entropy(logits, targets, weight=weights, label_smoothing=smoothing)
            return loss, weights[targets].sum()
        # Of shares torch takes the mean over the samples, whatever these weigh.
        count = (targets.to(dtype) @ weights).sum()
        total = F.cross_entropy(
            logits, targets.to(dtype), weight=weights, reduction="sum", label_smoothing=smoothing
        )
        return total / count, count

    def _other_loss(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | int]:
        if targets.is_floating_point():
            raise ValueError(
                f"loss={self.loss_name} takes one class for each sample, and these are mixed: set "
                "loss=cross_entropy, or mix no images"
            )
        dtype = torch.promote_types(logits.dtype, torch.float32)
        logits = logits.to(dtype)
        if self.loss_name == "focal":
            losses = focal_loss(logits, targets, self.gamma)
        else:
            losses = hinge_loss(logits, targets, squared=self.loss_name == "squared_hinge")
        if self.class_weights is None:
            return losses.mean(), len(losses)
        weights = self.class_weights.to(dtype)[targets]  # (batch,)
        return (losses * weights).sum() / weights.sum(), weights.sum()

    def _name(self, index: int) -> str:
        return str(index) if self.class_names is None else self.class_names[index]


def _classes(targets: Tensor) -> Tensor:
    """Class numbers, of mixed targets those of the largest share: ``(batch,)``."""
    if not targets.is_floating_point():
        return targets
    if not (targets.sum(1) - 1).abs().max() < 0.01:
        raise ValueError(
            "the targets are neither classes nor shares of them that add up to 1: set "
            "task=multi_label_classification for labels, task=regression for numbers"
        )
    return targets.argmax(1)


def _weights(given: str | tuple[float, ...] | None, num_classes: int) -> Tensor | None:
    """Class weights of mean 1; all 1 as long as the training samples have not been counted."""
    if given is None:
        return None
    if isinstance(given, str):
        if given != "balanced":
            raise ValueError(f"class_weights must be 'balanced', numbers or None, not {given!r}")
        return torch.ones(num_classes)
    if len(given) != num_classes or not all(0 < weight < math.inf for weight in given):
        raise ValueError(
            f"class_weights must be {num_classes} positive numbers (num_classes), not {list(given)}"
        )
    weights = torch.tensor(given, dtype=torch.float64)
    return (weights / weights.mean()).float()
