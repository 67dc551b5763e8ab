"""Classification of sequences, or of each of their steps, learned by cross-entropy."""

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.metrics.sums import IGNORED, Mean
from zoo.tasks.classification import Classification
from zoo.tasks.prediction import Classes
from zoo.tasks.task import Shown, inputs_of, mean_over
from zoo.tasks.vocabulary import Vocabulary, token_vectors


class SequenceClassification(Classification):
    r"""Cross-entropy between the predicted classes and the true ones, of sequences or of steps.

    .. math:: L = -\frac{1}{N} \sum_{i,t} [y_{it} \ne -100]\, \log p_{it}(y_{it})

    with N the number of targets that are not -100. This is
    :class:`~zoo.tasks.classification.Classification`, whose smoothing and class weights it has, for
    batches ``(inputs, targets, lengths)``; without lengths, every sequence fills its row. The
    metrics are the same, over all steps where each has a target; then there is also
    ``sequence_accuracy``, the share of sequences without a mistake.

    Args:
        model: inputs and lengths (or None) to logits.
        num_classes: number of logits.
        label_smoothing: share of the target that is spread over all classes.
        class_weights: a number for each class, of which only the ratios matter; or ``"balanced"``:
            inversely proportional to the class's share of the training targets.
        top_k: for each k, a metric counts the targets whose class is among the k best guesses.
        class_names: for the tables and images; the class numbers if None.
        vocabulary: names the tokens in the embedding projector; nothing else depends on it.

    Shape:
        - inputs: ``(batch, time)`` or ``(batch, time, features)``
        - targets: ``(batch,)``, or ``(batch, time)``
        - lengths: ``(batch,)``, on the CPU
        - logits: ``(batch, classes)``, or ``(batch, time, classes)``
    """

    given = ("vocabulary",)

    unit = "labels"

    def __init__(
        self,
        model: nn.Module,
        *,
        num_classes: int,
        label_smoothing: float = 0.0,
        class_weights: Literal["balanced"] | tuple[float, ...] | None = None,
        top_k: tuple[int, ...] = (),
        class_names: tuple[str, ...] | None = None,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        super().__init__(
            model,
            num_classes=num_classes,
            label_smoothing=label_smoothing,
            class_weights=class_weights,
            top_k=top_k,
            class_names=class_names,
        )
        self.vocabulary = vocabulary
        self.metrics["sequence_accuracy"] = SequenceAccuracy()
        del self.metrics["mistakes"]  # of images

    def prepare(self, batches: Iterable[Any]) -> None:
        """Counts the classes of the training targets, where the weights follow from them."""
        targets = (batch[1].flatten() for batch in batches)
        super().prepare((None, those[those != IGNORED]) for those in targets)

    def loss(self, batch: Any) -> tuple[Tensor, Tensor | int]:
        logits, targets = self.outputs(batch)
        return self._loss(logits.flatten(0, -2), targets.flatten())

    def evaluate(self, batch: Any) -> None:
        self.judge(*self.outputs(batch))

    def judge(self, logits: Tensor, targets: Tensor) -> None:
        """Adds sequences to the metrics."""
        self.metrics["sequence_accuracy"].update(logits, targets)
        super().judge(logits.flatten(0, -2), targets.flatten())  # (steps, classes), (steps,)

    def compute(self) -> dict[str, float]:
        values = super().compute()
        if math.isnan(values["sequence_accuracy"]):  # every sequence had a single target
            del values["sequence_accuracy"]
        return values

    def predict(self, batch: Any) -> Classes:
        """Probabilities of the classes: ``(batch, classes)`` or ``(batch, time, classes)``."""
        logits = self._logits(batch)
        return Classes(logits.softmax(-1, dtype=torch.float32), self.class_names)

    def show(self) -> dict[str, Shown]:
        """As for classification, and ``tokens``: the vectors of the vocabulary."""
        return super().show() | token_vectors(self.model, self.vocabulary)

    def next_steps(self, data: Any) -> list[str]:
        return ["evaluate.py run={run} predict=<texts.csv>"] if hasattr(data, "read_inputs") else []

    def _logits(self, batch: Any) -> Tensor:
        lengths = None if isinstance(batch, Tensor) or len(batch) < 3 else batch[2]
        logits: Tensor = self.model(inputs_of(batch), lengths)
        return logits

    def outputs(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Logits and targets, a row for each sequence: what :meth:`judge` takes."""
        logits, targets = self._logits(batch), batch[1]
        if logits.shape != (*targets.shape, self.num_classes):
            raise ValueError(
                f"num_classes is {self.num_classes} and the targets are {tuple(targets.shape)}, so "
                f"the model must return logits {(*targets.shape, self.num_classes)}, not "
                f"{tuple(logits.shape)}"
            )
        return logits, targets

    def _loss(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | int]:
        counted, weights = targets != IGNORED, self.class_weights
        count = counted.sum()
        if weights is not None:
            weights = weights.to(torch.promote_types(logits.dtype, torch.float32))
            logits, count = logits.to(weights), (weights[targets.clamp_min(0)] * counted).sum()
        total = F.cross_entropy(
            logits,
            targets,
            weights,
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
        return mean_over(total, count), count


class SequenceAccuracy(Mean):
    """Share of sequences of which every step is classified correctly; steps of -100 do not count.

    Sequences with a single target are not counted at all, since theirs is the plain accuracy.

    Shape:
        - logits: ``(batch, time, classes)``
        - targets: ``(batch, time)``
    """

    higher_is_better = True

    def update(self, logits: Tensor, targets: Tensor) -> None:  # type: ignore[override]
        if targets.ndim > 1:
            right = (logits.argmax(-1) == targets) | (targets == IGNORED)  # (batch, time)
            self.add(total=right.all(1).sum(), count=len(targets))
