"""Noisy student: what a trained teacher says of samples without labels, learned under noise."""

from torch import Tensor, nn
from torch.nn import functional as F

from zoo.tasks.distillation import Taught
from zoo.tasks.pseudo_label import FewLabels, check_weight


class NoisyStudent(FewLabels, Taught):
    r"""Cross-entropy with labels and, of the others, a teacher's answers (Xie et al., 2020).

    .. math:: L = \frac{1}{n} \sum_{i=1}^n -\log p_i(y_i)
        - \frac{\alpha}{n'} \sum_{j=1}^{n'} \sum_k q_{jk} \log p_{jk}

    with the teacher's probabilities q of a sample as it is, without augmentation and without
    dropout, and the student's p of the same sample augmented and under dropout: the student has to
    find with less what the teacher finds with all. The teacher is a run on the same few labels; the
    student may be the teacher of the next one.

    This is :class:`~zoo.tasks.classification.Classification` otherwise, for training batches
    ``(inputs, labels, unlabelled inputs)`` and, where these are augmented, the last once more as
    they are. The training curve has ``label_loss`` and ``teacher_loss``, not yet weighted.

    Q. Xie et al., "Self-training with noisy student improves ImageNet classification", 2020,
    https://arxiv.org/abs/1911.04252. Differences from the paper: samples of which the teacher is
    unsure are kept, and classes are not balanced; noise is what the data and the model have.

    Args:
        model: the student, inputs to logits.
        num_classes: number of logits.
        weight: :math:`\alpha` (1 in the paper).
        soft: learn the teacher's probabilities, not its most probable class alone.
        label_smoothing: share of a label that is spread over all classes; not of the teacher's.
        top_k: for each k, a metric counts the samples whose class is among the k best guesses.
        class_names: for the tables and images; the class numbers if None.
    """

    term = "teacher_loss"

    def __init__(
        self,
        model: nn.Module,
        *,
        num_classes: int,
        weight: float = 1.0,
        soft: bool = True,
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
        self.weight, self.soft = check_weight(weight), soft

    def _loss_of_others(self, inputs: Tensor, plain: Tensor) -> Tensor:
        answers = self._answers(plain)
        logits = self._outputs((inputs, None))[0]
        return F.cross_entropy(logits, answers.softmax(1) if self.soft else answers.argmax(1))
