"""Classification of images that are changed to mislead it: adversarial training."""

from typing import Any

from torch import Tensor, nn

from zoo.inference.attacks import Attack, Kind, Pixels
from zoo.metrics.sums import Mean
from zoo.tasks.classification import Classification
from zoo.tasks.task import Loss, evaluation_mode


class RobustClassification(Classification):
    r"""Cross-entropy at the worst images near the given ones (Madry et al., 2018).

    "Towards deep learning models resistant to adversarial attacks",
    https://arxiv.org/abs/1706.06083, equation 2.1:

    .. math:: \min_\theta \mathrm E_{x,y} \max_{\lVert \delta \rVert_\infty \le \varepsilon}
        L(\theta, x + \delta, y)

    where an attack of ``zoo/inference/attacks.py`` stands for the maximum. It works on the network
    in evaluation mode, so that running statistics are those of one pass and dropout does not hide
    where the loss rises; the step is then taken in training mode, on the changed images alone.

    Evaluation is that of :class:`~zoo.tasks.classification.Classification`, on the images as they
    are, and ``robust_accuracy``, on images changed by the same attack, selects the checkpoint. A
    run with ``eps`` 0 takes the steps of that task, bit for bit.

    Args:
        model: normalised images to logits.
        num_classes: number of logits.
        pixel_mean: what was subtracted from pixel values between 0 and 1, for each channel.
        pixel_std: by what they were then divided.
        attack: ``fgsm``, ``bim`` or ``pgd``.
        eps: largest change of a pixel value.
        steps: of ``bim`` and ``pgd``.
        step_size: theirs, in pixel values; None for 2.5 ``eps`` / ``steps``.
        top_k: for each k, a metric counts the samples whose class is among the k best guesses.
        class_names: for the tables and images; the class numbers if None.

    Shape:
        - inputs: ``(batch, channels, height, width)``
        - targets: ``(batch,)``, or shares ``(batch, classes)``, of which the attack takes the
          largest
    """

    monitor = "robust_accuracy"

    def __init__(
        self,
        model: nn.Module,
        *,
        num_classes: int,
        pixel_mean: tuple[float, ...],
        pixel_std: tuple[float, ...],
        attack: Kind = "pgd",
        eps: float = 8 / 255,
        steps: int = 10,
        step_size: float | None = None,
        top_k: tuple[int, ...] = (),
        class_names: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(model, num_classes=num_classes, top_k=top_k, class_names=class_names)
        self.attack = Attack(attack, eps, steps=steps, step_size=step_size)
        self.pixels = Pixels(pixel_mean, pixel_std)
        # No Accuracy, all of which are updated with the images as they are.
        self.metrics["robust_accuracy"] = Mean(higher_is_better=True)

    def loss(self, batch: Any) -> Loss:
        return super().loss(self._attacked(batch))

    def evaluate(self, batch: Any) -> None:
        super().evaluate(batch)
        images, targets, *_ = self._attacked(batch)
        targets = targets.argmax(1) if targets.is_floating_point() else targets  # (batch,)
        guesses = self._outputs((images, targets))[0].argmax(1)  # (batch,)
        hits = (guesses == targets).float().mean()
        self.metrics["robust_accuracy"].update(hits, len(targets))

    def _attacked(self, batch: Any) -> tuple[Tensor, ...]:
        """The batch with images changed to mislead the network as it is."""
        images, targets, *rest = batch
        classes = targets.argmax(1) if targets.is_floating_point() else targets  # (batch,)
        with evaluation_mode(self.model):
            return (self.attack(self.model, images, classes, self.pixels), targets, *rest)
