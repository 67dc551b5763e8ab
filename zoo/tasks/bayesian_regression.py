"""Regression by a network of uncertain weights."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zoo.inference.draws import draw_outputs
from zoo.layers.bayesian import BayesianLayer, total_kl
from zoo.tasks.bayesian_classification import check_samples
from zoo.tasks.prediction import Values
from zoo.tasks.regression import Regression, matched, unfolded


class BayesianRegression(Regression):
    r"""Bayes by Backprop (Blundell et al., 2015): expected likelihood and a divergence.

    .. math:: L = -\frac{1}{np} \sum_{i,j} \mathrm E_{q(w)} \log \mathcal N\bigl(y_{ij} |
        f_j(x_i, w), \tau^2\bigr) + \frac{1}{Np} \mathrm{KL}\bigl(q(w) \Vert p(w)\bigr)

    with :math:`n` samples in a batch, :math:`N` to train on and :math:`p` targets of each, so that
    an epoch holds the divergence once. The expectation is one draw of all weights in each step,
    which the samples of a batch share. The training curve shows both parts, ``nll`` and ``kl``.

    An evaluation, and whoever predicts, takes the normal distribution whose mean and variance are
    those of the mixture of ``samples`` draws (Lakshminarayanan et al., 2017,
    https://arxiv.org/abs/1612.01474, section 2.4): the variance is the mean of the noise's plus
    that of the means. ``loss`` is then its negative log-likelihood, without the divergence. The
    draws are the same whenever that is done.

    Args:
        model: inputs to predictions, with layers of ``zoo/layers/bayesian.py``.
        train_samples: :math:`N`.
        noise: the standard deviation :math:`\tau` of the targets, where it is known; None: the
            model returns a mean and the logarithm of a deviation for each target.
        samples: draws in evaluation; a stored run may change it.
        coverage: share of the targets that an interval should hold.

    Shape:
        - inputs, targets: ``(batch, *)``
        - predictions: see :class:`~zoo.tasks.regression.Regression`
    """

    changeable: ClassVar[tuple[str, ...]] = ("samples",)

    def __init__(
        self,
        model: nn.Module,
        *,
        train_samples: int,
        noise: float | None = None,
        samples: int = 20,
        coverage: float = 0.9,
    ) -> None:
        super().__init__(model, loss="gaussian_nll", coverage=coverage)
        check_samples(model, train_samples, samples)
        if noise is not None and not 0 < noise < math.inf:
            raise ValueError(f"noise must be greater than 0, not {noise}")
        self.train_samples, self.noise, self.samples = train_samples, noise, samples
        self.output_kind = None  # An ensemble would join the means of the weights alone.

    def loss(  # type: ignore[override]  # which says nothing of terms
        self, batch: Any
    ) -> tuple[Tensor, int, dict[str, Tensor]]:
        targets = self.targets_of(batch)
        output = self._normal(self.model(*self.example_inputs(batch)), targets)
        nll = self.criterion.each(output, targets).mean()
        kl = total_kl(self.model) * (len(targets) / (self.train_samples * targets.numel()))
        return nll + kl, targets.numel(), {"nll": nll.detach(), "kl": kl.detach()}

    def predict(self, batch: Any) -> Values:
        """The mixture's mean, ``(batch, *)``, and its interval."""
        output = self._mixture(batch)
        return Values(self.criterion.value(output), *(self.criterion.interval(output) or ()))

    def outputs(self, batch: Any) -> tuple[Tensor, Tensor]:
        targets = self.targets_of(batch)
        return self._mixture(batch, targets), targets

    def _mixture(self, batch: Any, targets: Tensor | None = None) -> Tensor:
        """Mean and logarithm of the deviation over the draws, ``(*targets, 2)``."""
        drawn = draw_outputs(
            self.model, self.example_inputs(batch), BayesianLayer, draws=self.samples
        )
        normals = torch.stack([self._normal(output, targets) for output in drawn])
        means, log_scales = normals.unbind(-1)  # (samples, *targets)
        variance = log_scales.mul(2).exp().mean(0) + means.var(0, correction=0)
        return torch.stack([means.mean(0), variance.log() / 2], -1)

    def _normal(self, output: Tensor, targets: Tensor | None) -> Tensor:
        """Mean and logarithm of the deviation of one draw, ``(*targets, 2)``."""
        numbers = 2 if self.noise is None else 1
        if targets is not None:
            output = matched(output, targets, numbers)
        elif numbers == 2:
            output = unfolded(output, numbers)
        if self.noise is None:
            return output
        return torch.stack([output, torch.full_like(output, math.log(self.noise))], -1)
