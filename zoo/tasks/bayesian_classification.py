"""Classification by a network of uncertain weights."""

from typing import Any, ClassVar

from torch import Tensor, nn

from zoo.inference.draws import draw_outputs, mean_log_probability
from zoo.layers.bayesian import BayesianLayer, total_kl
from zoo.tasks.classification import Classification


class BayesianClassification(Classification):
    r"""Bayes by Backprop (Blundell et al., 2015): expected cross-entropy and a divergence.

    .. math:: L = -\frac1n \sum_i \mathrm E_{q(w)} \log p(y_i | x_i, w)
        + \frac{1}{N} \mathrm{KL}\bigl(q(w) \Vert p(w)\bigr)

    with :math:`n` samples in a batch and :math:`N` to train on, so that an epoch holds the
    divergence once, whatever the batches are (the paper's equation 8 with equal parts). The
    expectation is one draw of all weights in each step, which the samples of a batch share. The
    training curve shows both parts, ``nll`` and ``kl``.

    An evaluation, and whoever predicts, takes the mean probabilities of ``samples`` draws; ``loss``
    is then the cross-entropy of that mean, without the divergence. The draws are the same whenever
    that is done.

    Args:
        model: inputs to logits, with layers of ``zoo/layers/bayesian.py``.
        num_classes: number of logits.
        train_samples: :math:`N`.
        samples: draws in evaluation; a stored run may change it.
        top_k: for each k, a metric counts the samples whose class is among the k best guesses.
        class_names: for the tables and images; the class numbers if None.

    Shape:
        - inputs: ``(batch, *)``
        - targets: ``(batch,)``, or shares ``(batch, classes)``
    """

    changeable: ClassVar[tuple[str, ...]] = ("samples",)

    def __init__(
        self,
        model: nn.Module,
        *,
        num_classes: int,
        train_samples: int,
        samples: int = 20,
        top_k: tuple[int, ...] = (),
        class_names: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(model, num_classes=num_classes, top_k=top_k, class_names=class_names)
        check_samples(model, train_samples, samples)
        self.train_samples, self.samples = train_samples, samples
        self.output_kind = None  # An ensemble would join the means of the weights alone.

    def loss(self, batch: Any) -> tuple[Tensor, Tensor | int, dict[str, Tensor]]:
        nll, count, *_ = super().loss(batch)
        kl = total_kl(self.model) / self.train_samples
        return nll + kl, count, {"nll": nll.detach(), "kl": kl.detach()}

    def _outputs(self, batch: Any) -> list[Tensor]:
        if self.model.training:
            return super()._outputs(batch)
        inputs = self.example_inputs(batch)
        outputs = draw_outputs(self.model, inputs, BayesianLayer, draws=self.samples)
        return [mean_log_probability(outputs)]


def check_samples(model: nn.Module, train_samples: int, samples: int) -> None:
    """Refuses numbers of samples below 1, and a model without uncertain weights.

    Raises:
        ValueError: a number is too small.
        TypeError: the model has no such weights.
    """
    for name, value in (("train_samples", train_samples), ("samples", samples)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    total_kl(model)
