"""Binary classification: does a sample belong to the second of two classes?"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from zoo.tasks.multi_label_classification import MultiLabelClassification
from zoo.tasks.prediction import Classes
from zoo.tasks.starting import start_with_bias


class BinaryClassification(MultiLabelClassification):
    r"""Logistic regression's loss, and what the second class, the positive one, is judged by.

    .. math:: L = -\frac{1}{n} \sum_i y_i \log p_i + (1 - y_i) \log(1 - p_i), \qquad
        p_i = \sigma(z_i)

    The model returns one logit z a sample, or two, whose difference :math:`z_1 - z_0` it then is:
    the softmax of two is the same probability.

    The metrics are ``loss``, ``accuracy``, ``precision``, ``recall`` and ``f1`` of the positive
    class, which is predicted from a probability of ``threshold`` on; ``auc`` (area under the ROC
    curve) and ``average_precision``, which depend on no threshold. After an evaluation there are
    a table of both classes and an image of the precision-recall and ROC curves.

    Args:
        model: inputs to one or two logits.
        threshold: the probability from which on a sample is positive; `evaluate.py threshold=best`
            finds one.
        pos_weight: how much a positive weighs; or ``"balanced"``: as much as there are negatives
            for each positive among the training samples.
        beta: how many times as much a recall counts in F as a precision.
        class_names: of both classes, the positive one last; 0 and 1 if None.
        balanced_start: set the bias of the output layer to what the positive class's share in
            training says (weighed, where it has a weight).

    Shape:
        - inputs: ``(batch, *)``
        - targets: ``(batch,)``, 0 or 1
        - logits: ``(batch, 1)``, ``(batch, 2)`` or ``(batch,)``
    """

    predicts = Classes
    unit = "samples"

    def __init__(
        self,
        model: nn.Module,
        *,
        threshold: float = 0.5,
        pos_weight: Literal["balanced"] | float | None = None,
        beta: float = 1.0,
        class_names: tuple[str, ...] | None = None,
        balanced_start: bool = False,
    ) -> None:
        if class_names is not None and len(class_names) != 2:
            raise ValueError(
                f"class_names must be two, not {len(class_names)}: of more classes the task is "
                "task=classification"
            )
        super().__init__(
            model,
            num_classes=1,
            threshold=threshold,
            pos_weight=pos_weight,
            beta=beta,
            balanced_start=balanced_start,
        )
        self.class_names = class_names

    def predict(self, batch: Any) -> Classes:
        """Probabilities of both classes, ``(batch, 2)``, and the one that is predicted."""
        positive = self._logits(batch).float().sigmoid()  # (batch, 1)
        probabilities = torch.cat([1 - positive, positive], dim=1)
        return Classes(probabilities, self.class_names, self._decide(positive)[:, 0].long())

    def _start(self, logits: Tensor) -> None:
        try:
            start_with_bias(self.model, logits)
        except ValueError:  # two logits, or none
            start_with_bias(self.model, torch.cat([torch.zeros_like(logits), logits]))

    @property
    def names(self) -> list[str]:
        return [self.class_names[1] if self.class_names else "1"]

    def _targets(self, batch: Any) -> Tensor:
        targets: Tensor = self.targets_of(batch)
        if targets.ndim != 1:
            raise ValueError(
                f"the targets must be 0 or 1, (batch,), not of shape {tuple(targets.shape)}: "
                "several labels a sample go with task=multi_label_classification"
            )
        return targets.unsqueeze(1)  # (batch, 1)

    def _logits(self, batch: Any) -> Tensor:
        logits: Tensor = self.model(*self.example_inputs(batch))
        if logits.ndim == 1:
            logits = logits.unsqueeze(1)
        if logits.ndim != 2 or logits.size(1) not in (1, 2):
            raise ValueError(
                "the model must return one or two logits a sample, (batch, 1) or (batch, 2), not "
                f"{tuple(logits.shape)}: set model.num_classes=1, or for more classes "
                "task=classification"
            )
        return logits if logits.size(1) == 1 else logits[:, 1:] - logits[:, :1]  # (batch, 1)
