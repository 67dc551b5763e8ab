"""Distillation: a student learns what a trained teacher answers, and not the labels alone."""

import math
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.tasks.classification import Classification
from zoo.tasks.task import Loss, inputs_of


class Taught(Classification):
    """A classification that learns from a trained network too.

    The teacher is in evaluation mode, has no gradient and no place in checkpoints.
    """

    _teacher: nn.Module | None = None
    _convert: Callable[[Tensor], Tensor] | None = None

    def learn_from(
        self, teacher: nn.Module, convert: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        """Takes a teacher.

        Args:
            teacher: its inputs to logits of the same classes.
            convert: makes of the student's inputs the teacher's; None: they are the same.
        """
        self._teacher, self._convert = teacher.eval().requires_grad_(False), convert

    def _answers(self, inputs: Tensor) -> Tensor:
        """The teacher's logits for the student's inputs."""
        if self._teacher is None:
            raise ValueError(f"{type(self).__name__} needs a teacher: call learn_from first")
        with torch.no_grad():
            logits: Tensor = self._teacher(self._convert(inputs) if self._convert else inputs)
        if logits.shape[1:] != (self.num_classes,):
            raise ValueError(
                f"the teacher must return {self.num_classes} logits, as many as the student, not "
                f"{tuple(logits.shape[1:])}"
            )
        return logits

    def to(self, device: torch.device | str) -> Self:
        if self._teacher is not None:
            self._teacher.to(device)
        return super().to(device)


class Distillation(Taught):
    r"""Cross-entropy with the labels, mixed with a teacher's probabilities (Hinton et al., 2015).

    .. math:: L = (1 - \alpha)\, L_{\text{labels}}
        + \alpha\, T^2\, \mathrm{KL}(q \,\|\, p), \qquad
        p = \mathrm{softmax}(z / T), \quad q = \mathrm{softmax}(v / T)

    with the student's logits z, the teacher's v and the temperature T, which shows what the teacher
    holds of the classes that it does not choose. The factor :math:`T^2` keeps the two gradients of
    one size, whatever T is; of a large T the second is :math:`(z - v) / K` of K classes, where the
    logits of both have mean 0. The divergence differs from the paper's cross-entropy by the
    teacher's entropy, which has no gradient, and is 0 where the student answers as the teacher.

    This is :class:`~zoo.tasks.classification.Classification` otherwise, and its metrics are the
    same: ``loss`` is the cross-entropy with the labels. The training curve has both parts of the
    loss, ``label_loss`` and ``teacher_loss`` (with :math:`T^2`, before they are weighted).

    G. Hinton, O. Vinyals, J. Dean, "Distilling the knowledge in a neural network", 2015,
    https://arxiv.org/abs/1503.02531.

    Args:
        model: the student, inputs to logits.
        num_classes: number of logits.
        temperature: :math:`T`.
        alpha: :math:`\alpha`, the share of the teacher; 0 is a classification.
        label_smoothing: share of a label that is spread over all classes.
        top_k: for each k, a metric counts the samples whose class is among the k best guesses.
        class_names: for the tables and images; the class numbers if None.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        num_classes: int,
        temperature: float = 4.0,
        alpha: float = 0.9,
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
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be greater than 0, not {temperature}")
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be in [0, 1], not {alpha}")
        self.temperature, self.alpha = temperature, alpha

    def loss(self, batch: Any) -> Loss:
        outputs = self._outputs(batch)
        labels, count, *_ = self._loss_of(outputs, self.targets_of(batch))
        taught = distillation_loss(outputs[0], self._answers(inputs_of(batch)), self.temperature)
        loss = (1 - self.alpha) * labels + self.alpha * taught
        return loss, count, {"label_loss": labels.detach(), "teacher_loss": taught.detach()}


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    r"""The mean of :math:`T^2\, \mathrm{KL}` of the teacher's softened answers and the student's.

    Shape:
        - student, teacher: logits ``(batch, classes)``
        - output: scalar
    """
    dtype = torch.promote_types(student.dtype, torch.float32)
    log_p = (student.to(dtype) / temperature).log_softmax(1)
    log_q = (teacher.to(dtype) / temperature).log_softmax(1)
    return temperature**2 * F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)
