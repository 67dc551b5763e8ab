"""Multi-label classification: labels of which a sample has any number."""

import itertools
import math
from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.figures.grids import are_images, input_grid
from zoo.figures.ranking import ranking_image
from zoo.metrics.labels import LabelScores
from zoo.metrics.ranking import Ranking
from zoo.metrics.sums import Mean
from zoo.tasks.prediction import Labels, Prediction, Table
from zoo.tasks.starting import start_with_bias
from zoo.tasks.task import Image, Loss, Shown, Task, inputs_of


class MultiLabelClassification(Task):
    r"""Binary cross-entropy of every label, averaged over samples and labels.

    .. math:: L = -\frac{\sum_{ik} w_{ik} \big( y_{ik} \log p_{ik} + (1 - y_{ik}) \log(1 - p_{ik})
        \big)}{\sum_{ik} w_{ik}}, \qquad p_{ik} = \sigma(z_{ik})

    with the logits :math:`z` of the model; :math:`w_{ik}` is the label's ``pos_weight`` where a
    sample has it, else 1 (so a weight of 3 is having every positive three times).

    A batch is ``(inputs, targets)``. The metrics are ``loss``; ``accuracy``, ``subset_accuracy``,
    ``macro_f1`` and ``micro_f1`` (see :class:`~zoo.metrics.labels.LabelScores`), where a label
    whose probability is at least ``threshold`` is predicted; and ``auc`` and
    ``average_precision``, the means over labels, which depend on no threshold. After an evaluation
    there are a table of the labels and an image of their precision-recall and ROC curves.

    Args:
        model: inputs to a logit for each label.
        num_classes: number of labels.
        threshold: the probability from which on a label is predicted; or one for each.
        pos_weight: how much a positive weighs; or a number for each label; or ``"balanced"``: as
            much as its label has negatives for each positive among the training samples.
        beta: how many times as much a recall counts in F as a precision.
        class_names: of the labels; their numbers if None.
        balanced_start: set the bias of the output layer to the logits of the shares that the labels
            have in training (weighed, where they have weights).

    Shape:
        - inputs: ``(batch, *)``
        - targets: ``(batch, labels)``, 1 or 0
        - logits: ``(batch, labels)``
    """

    monitor = "loss"
    predicts: ClassVar[type[Prediction] | None] = Labels
    unit = "labels"
    changeable = ("threshold", "beta")

    def __init__(
        self,
        model: nn.Module,
        *,
        num_classes: int,
        threshold: float | tuple[float, ...] = 0.5,
        pos_weight: Literal["balanced"] | float | tuple[float, ...] | None = None,
        beta: float = 1.0,
        class_names: tuple[str, ...] | None = None,
        balanced_start: bool = False,
    ) -> None:
        super().__init__(model)
        self.balanced_start = balanced_start
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, not {num_classes}")
        if not 0 < beta < math.inf:
            raise ValueError(f"beta must be greater than 0, not {beta}")
        self._check_names(class_names, num_classes)
        self.num_labels = num_classes
        self.label_names = class_names
        self.threshold = _for_each(threshold, num_classes, "threshold")
        if not ((self.threshold >= 0) & (self.threshold <= 1)).all():
            raise ValueError(f"threshold must be from 0 to 1, not {threshold}")
        self.is_balanced = pos_weight == "balanced"
        self.pos_weight = _pos_weight(pos_weight, num_classes)
        self.scores, self.ranking = LabelScores(num_classes, beta=beta), Ranking()
        self.metrics = {
            "loss": Mean(higher_is_better=False),
            "scores": self.scores,
            "ranking": self.ranking,
        }

    def prepare(self, batches: Iterable[Any]) -> None:
        """Counts the labels of the training samples, where weights or the start follow."""
        batches, shown = itertools.tee(batches)
        super().prepare(shown)
        if not self.is_balanced and not self.balanced_start:
            return
        positives, count = torch.zeros(self.num_labels, dtype=torch.float64), 0
        for batch in batches:
            targets = self._targets(batch)
            positives += targets.sum(0).to(positives)
            count += len(targets)
        if self.is_balanced and self.pos_weight is not None:
            weights = (count - positives) / positives
            # Of a label that all have or that none has there is nothing to balance.
            usable = (positives > 0) & (positives < count)
            self.pos_weight = weights.where(usable, 1.0).to(self.pos_weight)
        if self.balanced_start:
            rest = (count - positives).clamp_min(0.5)  # less than one sample where there is none
            odds = positives.clamp_min(0.5) / rest
            if self.pos_weight is not None:
                odds = odds * self.pos_weight.to(odds)
            self._start(odds.log())

    def _start(self, logits: Tensor) -> None:
        start_with_bias(self.model, logits)

    def loss(self, batch: Any) -> Loss:
        return self._loss(*self.outputs(batch))

    def evaluate(self, batch: Any) -> None:
        self.judge(*self.outputs(batch))

    def outputs(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Logits and targets, ``(batch, labels)``: what :meth:`judge` takes."""
        return self._logits(batch), self._targets(batch)

    def judge(self, logits: Tensor, targets: Tensor) -> None:
        """Adds samples to the metrics."""
        self.metrics["loss"].update(*self._loss(logits, targets))
        self.scores.update(self._decide(logits.float().sigmoid()), targets)
        self.ranking.update(logits.float(), targets)

    def predict(self, batch: Any) -> Prediction:
        """Probabilities of the labels, ``(batch, labels)``, and which of them are predicted."""
        probabilities = self._logits(batch).float().sigmoid()
        return Labels(probabilities, self._decide(probabilities), self.label_names)

    def show_inputs(self, batch: Any) -> dict[str, Image]:
        inputs = inputs_of(batch)
        return {"inputs": Image(input_grid(inputs))} if are_images(inputs) else {}

    def show(self) -> dict[str, Shown]:
        """``labels``: scores of each; ``curves``: precision over recall, and ROC."""
        columns = {**self.scores.by_label(), **self.ranking.by_label()}
        values = {name: column.tolist() for name, column in columns.items()}
        rows: list[dict[str, str | float]] = [
            {"label": name, **{key: column[number] for key, column in values.items()}}
            for number, name in enumerate(self.names)
        ]
        curves = self.ranking.curves()
        return {
            "curves": Image(partial(ranking_image, curves, self.names)),
            "labels": Table(rows),
        }

    @property
    def names(self) -> list[str]:
        """What the labels are called."""
        return list(self.label_names or map(str, range(self.num_labels)))

    def to(self, device: torch.device | str) -> Self:
        self.threshold = self.threshold.to(device)
        if self.pos_weight is not None:
            self.pos_weight = self.pos_weight.to(device)
        return super().to(device)

    def state_dict(self) -> dict[str, Any]:
        return {"pos_weight": self.pos_weight} if self.is_balanced else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if not self.is_balanced:
            super().load_state_dict(state)
        elif self.pos_weight is not None:
            self.pos_weight = state["pos_weight"].to(self.pos_weight)

    def _check_names(self, names: tuple[str, ...] | None, num_labels: int) -> None:
        if names is not None and len(names) != num_labels:
            raise ValueError(
                f"class_names must name {num_labels} labels (num_classes), not {len(names)}"
            )

    def _decide(self, probabilities: Tensor) -> Tensor:
        """Which labels are predicted: bool ``(batch, labels)``."""
        return probabilities >= self.threshold

    def _targets(self, batch: Any) -> Tensor:
        """1 or 0, ``(batch, labels)``."""
        targets: Tensor = self.targets_of(batch)
        if targets.ndim != 2 or targets.size(1) != self.num_labels:
            raise ValueError(
                f"the targets must be 0 or 1 for each of {self.num_labels} labels (num_classes), "
                f"(batch, {self.num_labels}), not of shape {tuple(targets.shape)}: data with one "
                "class a sample go with task=classification or, of two, task=binary_classification"
            )
        return targets

    def _logits(self, batch: Any) -> Tensor:
        logits: Tensor = self.model(*self.example_inputs(batch))
        if logits.ndim != 2 or logits.size(1) != self.num_labels:
            raise ValueError(
                f"num_classes is {self.num_labels}, so the model must return logits of shape "
                f"(batch, {self.num_labels}), not {tuple(logits.shape)}"
            )
        return logits

    def _loss(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | int]:
        """The loss, and the sum of weights that it is the mean over."""
        dtype = torch.promote_types(logits.dtype, torch.float32)
        logits, targets = logits.to(dtype), targets.to(dtype)
        if self.pos_weight is None:
            return F.binary_cross_entropy_with_logits(logits, targets), targets.numel()
        weights = 1 + (self.pos_weight.to(dtype) - 1) * targets  # (batch, labels)
        losses = F.binary_cross_entropy_with_logits(logits, targets, weights, reduction="sum")
        return losses / weights.sum(), weights.sum()


def _for_each(given: float | tuple[float, ...], num_labels: int, name: str) -> Tensor:
    """A number for each label."""
    values = given if isinstance(given, tuple) else (given,) * num_labels
    if len(values) != num_labels:
        raise ValueError(f"{name} must be a number or {num_labels} of them, not {list(values)}")
    return torch.tensor(values, dtype=torch.float32)


def _pos_weight(given: str | float | tuple[float, ...] | None, num_labels: int) -> Tensor | None:
    """Weights of positives; all 1 as long as the training samples have not been counted."""
    if given is None:
        return None
    if isinstance(given, str):
        if given != "balanced":
            raise ValueError(f"pos_weight must be 'balanced', numbers or None, not {given!r}")
        return torch.ones(num_labels)
    weights = _for_each(given, num_labels, "pos_weight")
    if not ((weights > 0) & weights.isfinite()).all():
        raise ValueError(f"pos_weight must be greater than 0, not {given}")
    return weights
