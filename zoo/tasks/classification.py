"""Classification: one class a sample, learned by cross-entropy."""

from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.tasks.figures import (
    are_pictures,
    confusion_matrix_picture,
    input_pictures,
    labelled_picture_grid,
    rescale,
)
from zoo.tasks.metrics import Accuracy, ConfusionMatrix, Mean
from zoo.tasks.task import Task, inputs_of


class Mistakes(NamedTuple):
    """Wrongly classified pictures, the most confident first."""

    pictures: Tensor  # (mistakes, channels, height, width)
    predicted: Tensor  # (mistakes,)
    targets: Tensor  # (mistakes,)
    confidence: Tensor  # (mistakes,)


class ConfidentMistakes:
    """Keeps the wrongly classified pictures with the highest predicted probability.

    Candidates are merged on the device, and a correct answer is a candidate with negative
    confidence: nothing depends on how many mistakes there are, so no batch waits for the device.

    Args:
        size: how many to keep.
    """

    def __init__(self, size: int = 16) -> None:
        self.size = size
        self.kept: Mistakes | None = None

    def update(self, pictures: Tensor, logits: Tensor, targets: Tensor) -> None:
        predicted = logits.argmax(1)
        confidence = logits.softmax(1, dtype=torch.float32).amax(1)
        confidence = confidence.masked_fill(predicted == targets, -1.0)
        batch = self._leading(Mistakes(pictures, predicted, targets, confidence))
        if self.kept is not None:
            pairs = zip(self.kept, batch, strict=True)
            batch = self._leading(Mistakes(*(torch.cat(pair) for pair in pairs)))
        self.kept = batch

    def _leading(self, mistakes: Mistakes) -> Mistakes:
        size = min(self.size, len(mistakes.confidence))
        best = mistakes.confidence.topk(size).indices
        return Mistakes(*(entry[best] for entry in mistakes))

    def compute(self) -> Mistakes | None:
        """The mistakes kept, or None without any."""
        if self.kept is None or not (wrong := self.kept.confidence >= 0).any():
            return None
        return Mistakes(*(entry[wrong] for entry in self.kept))

    def reset(self) -> None:
        self.kept = None

    def to(self, device: torch.device | str) -> Self:
        if self.kept is not None:
            self.kept = Mistakes(*(entry.to(device) for entry in self.kept))
        return self


class Classification(Task):
    r"""Cross-entropy between the predicted classes and the true one.

    .. math:: L = -\frac{1}{n} \sum_i \sum_k q_{ik} \log p_{ik}, \qquad
        q_{ik} = (1 - \varepsilon) [k = y_i] + \frac{\varepsilon}{K}

    with :math:`p = \mathrm{softmax}` of the model's logits and :math:`\varepsilon` the label
    smoothing (Szegedy et al., 2016, section 7).

    A batch is ``(inputs, targets)``. The metrics are ``loss`` and ``accuracy``; after an evaluation
    there are pictures of the confusion matrix and, of picture inputs, of the most confident
    mistakes.

    Args:
        model: inputs to logits.
        num_classes: number of logits.
        label_smoothing: share of the target that is spread over all classes.
        class_names: for the pictures; the class numbers if None.

    Shape:
        - inputs: ``(batch, *)``
        - targets: ``(batch,)``
    """

    monitor = "accuracy"
    mode: Literal["min", "max"] = "max"
    predicts = "classes"

    def __init__(
        self,
        model: nn.Module,
        *,
        num_classes: int,
        label_smoothing: float = 0.0,
        class_names: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(model)
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, not {num_classes}")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), not {label_smoothing}")
        if class_names is not None and len(class_names) != num_classes:
            raise ValueError(
                f"class_names must name {num_classes} classes (num_classes), not {len(class_names)}"
            )
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        self.class_names = class_names
        self.confusion_matrix = ConfusionMatrix(num_classes)
        self.mistakes = ConfidentMistakes()
        self.metrics = {
            "loss": Mean(),
            "accuracy": Accuracy(),
            "confusion_matrix": self.confusion_matrix,
            "mistakes": self.mistakes,
        }

    def loss(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
        inputs, targets = batch
        return self._loss(self._logits(inputs), targets), targets.size(0)

    def evaluate(self, batch: tuple[Tensor, Tensor]) -> None:
        inputs, targets = batch
        logits = self._logits(inputs)
        self.metrics["loss"].update(self._loss(logits, targets), targets.size(0))
        self.metrics["accuracy"].update(logits, targets)
        self.confusion_matrix.update(logits, targets)
        if are_pictures(inputs):
            self.mistakes.update(inputs, logits, targets)

    def predict(self, batch: Any) -> Tensor:
        """Probabilities of the classes: ``(batch, classes)``."""
        return self._logits(inputs_of(batch)).softmax(1, dtype=torch.float32)

    def input_pictures(self, batch: Any) -> dict[str, Tensor]:
        return input_pictures(batch)

    def pictures(self) -> dict[str, Tensor]:
        """``confusion_matrix``, and ``mistakes`` if the inputs are pictures and there are any."""
        matrix = self.confusion_matrix.compute()
        pictures = {"confusion_matrix": confusion_matrix_picture(matrix, self.class_names)}
        if (mistakes := self.mistakes.compute()) is not None:
            labels = [
                f"{self._name(target)} → {self._name(predicted)}, {confidence:.2f}"
                for predicted, target, confidence in zip(
                    *(entry.tolist() for entry in mistakes[1:]), strict=True
                )
            ]
            pictures["mistakes"] = labelled_picture_grid(rescale(mistakes.pictures), labels)
        return pictures

    def _logits(self, inputs: Tensor) -> Tensor:
        logits = self.model(inputs)
        if logits.ndim != 2 or logits.size(1) != self.num_classes:
            raise ValueError(
                f"num_classes is {self.num_classes}, so the model must return logits of shape "
                f"(batch, {self.num_classes}), not {tuple(logits.shape)}"
            )
        return logits

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)

    def _name(self, index: int) -> str:
        return str(index) if self.class_names is None else self.class_names[index]
