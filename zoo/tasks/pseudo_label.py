"""Pseudo-labels: what a network says of samples without labels becomes their label."""

import math
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from zoo.tasks.classification import Classification
from zoo.tasks.task import Loss


class FewLabels(Classification):
    """A classification that learns from samples without labels too.

    Training batches are ``(inputs, labels, unlabelled inputs)``, see :func:`unlabelled`. The
    training curve has ``label_loss`` and the loss of the others, not yet weighted.
    """

    term: str
    """What the training curve calls the loss of the others."""
    weight: float
    """How much it counts, in the end."""

    def present_weight(self) -> float:
        """How much the loss of the others counts in the next update."""
        return self.weight

    def loss(self, batch: Any) -> Loss:
        inputs, plain = unlabelled(batch)
        labels, count, *_ = self._loss_of(self._outputs(batch), self.targets_of(batch))
        weight = self.present_weight()
        terms = {"label_loss": labels.detach()}
        if not weight:
            return labels, count, terms
        others = self._loss_of_others(inputs, plain)
        terms[self.term] = others.detach()
        return labels + weight * others, count, terms

    def _loss_of_others(self, inputs: Tensor, plain: Tensor) -> Tensor:
        """The loss of samples without a label: see :func:`unlabelled`."""
        raise NotImplementedError(f"{type(self).__name__} does not define _loss_of_others")


def check_weight(weight: float) -> float:
    """The weight of the others.

    Raises:
        ValueError: it is negative, or not a number.
    """
    if not 0 <= weight < math.inf:
        raise ValueError(f"weight must be at least 0, not {weight}")
    return weight


class PseudoLabel(FewLabels):
    r"""Cross-entropy with labels and, of other samples, with the most probable class (Lee, 2013).

    .. math:: L = \frac{1}{n} \sum_{i=1}^n -\log p_i(y_i)
        + \alpha(t)\, \frac{1}{n'} \sum_{j=1}^{n'} -\log p_j(\hat y_j), \qquad
        \hat y_j = \arg\max_k p_j(k)

    with :math:`\alpha(t)` 0 for ``begin`` updates, rising to ``weight`` in a straight line until
    ``full``. The pseudo-labels are those of the present network, in each step anew. The second term
    is small where the network is sure, so that the border between the classes leaves the places
    where samples lie (Grandvalet and Bengio, 2004, make the entropy small to the same end).

    This is :class:`~zoo.tasks.classification.Classification` otherwise, for training batches
    ``(inputs, labels, unlabelled inputs)``; with a weight of 0 it is the same, on the labelled
    ones alone. The training curve has ``label_loss`` and ``pseudo_label_loss``, not yet weighted.

    D.-H. Lee, "Pseudo-label: the simple and efficient semi-supervised learning method for deep
    neural networks", 2013, http://deeplearning.net/wp-content/uploads/2013/03/pseudo_label_final.pdf.

    Args:
        model: inputs to logits.
        num_classes: number of logits.
        weight: :math:`\alpha` in the end (3 in the paper).
        begin: updates before the pseudo-labels count.
        full: updates after which their weight is that of the end.
        label_smoothing: share of a label that is spread over all classes; not of a pseudo-label.
        top_k: for each k, a metric counts the samples whose class is among the k best guesses.
        class_names: for the tables and images; the class numbers if None.
    """

    term = "pseudo_label_loss"

    def __init__(
        self,
        model: nn.Module,
        *,
        num_classes: int,
        weight: float = 3.0,
        begin: int = 100,
        full: int = 600,
        label_smoothing: float = 0.0,
        top_k: tuple[int, ...] = (),
        class_names: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(
            model,
            num_classes=num_classes,
            label_smoothing=label_smoothing,
            top_k=top_k,
            class_names=class_names,
        )
        if not 0 <= begin <= full:
            raise ValueError(f"begin must be from 0 to full ({full}), not {begin}")
        self.weight, self.begin, self.full = check_weight(weight), begin, full
        self.updates = 0

    def present_weight(self) -> float:
        """The weight of the pseudo-labels in the next update."""
        if self.updates < self.begin:
            return 0.0
        if self.updates >= self.full:
            return self.weight
        return self.weight * (self.updates - self.begin) / (self.full - self.begin)

    def _loss_of_others(self, inputs: Tensor, plain: Tensor) -> Tensor:
        logits = self._outputs((inputs, None))[0]
        return F.cross_entropy(logits, logits.detach().argmax(1))

    def after_update(self, network: str) -> None:
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]


def unlabelled(batch: Any) -> tuple[Tensor, Tensor]:
    """Those samples of a training batch that have no label: as they are trained on, and plain.

    Raises:
        ValueError: there are none.
    """
    if len(batch) < 3:
        raise ValueError(
            "the task needs samples without labels: name how many have one, as in data=digits "
            "data.labelled=100"
        )
    return batch[2], batch[-1]
