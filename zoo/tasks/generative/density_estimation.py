"""Density estimation: models that say how likely every sample is, trained by just that."""

import math
from collections.abc import Iterable
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from zoo.metrics.sums import Mean, float64_on
from zoo.tasks.generative.base import Generative
from zoo.tasks.generative.bernoulli import bernoulli_means
from zoo.tasks.task import Loss, inputs_of, require_parts


class Density(Protocol):
    """What the task asks of its model."""

    def log_prob(self, x: Tensor) -> Tensor: ...

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor: ...


class DensityEstimation(Generative):
    r"""Minus the mean log-likelihood, in nats.

    .. math:: L = -\frac{1}{n} \sum_i \log p(x_i)

    The metrics are ``nll``, the exact negative log-likelihood of a sample in nats, and
    ``bits_per_dim``, which is ``nll`` divided by log 2 and by the number of a sample's elements.
    Of a model of binary pixels (``is_binary``) they are a likelihood if the pixels are 0 and 1;
    other values are warned of, and refused below 0 and above 1. Of a model of real numbers they
    are those of a density, which may be negative.

    A batch is ``(inputs, ...)`` or the inputs alone.

    Args:
        model: has ``log_prob(inputs)`` and ``sample(count, generator)``.

    Shape:
        - inputs: ``(batch, *)``
    """

    monitor = "nll"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        require_parts(model, "log_prob", "sample")
        self.density = cast(Density, model)
        self.metrics = {
            self.monitor: Mean(higher_is_better=False),
            "bits_per_dim": Mean(higher_is_better=False),
        }

    def prepare(self, batches: Iterable[Any]) -> None:
        """Makes sure that the values are such as the model gives probabilities to.

        A model of binary pixels that has ``start_at`` starts at their means.
        """
        if getattr(self.model, "is_binary", False):
            means = bernoulli_means(inputs_of(batch) for batch in batches)
            if (start_at := getattr(self.model, "start_at", None)) is not None:
                start_at(means)

    def loss(self, batch: Any) -> Loss:
        inputs = inputs_of(batch)
        return self.nll(inputs).mean(), len(inputs)

    def nll(self, inputs: Tensor) -> Tensor:
        """What each sample costs in nats: ``(batch,)``."""
        return -self.density.log_prob(inputs)

    def evaluate(self, batch: Any) -> None:
        inputs = inputs_of(batch)
        nll = self.nll(inputs).to(float64_on(inputs.device)).mean()
        elements = math.prod(inputs.shape[1:])
        self.metrics[self.monitor].update(nll, len(inputs))
        self.metrics["bits_per_dim"].update(nll / (elements * math.log(2)), len(inputs))
        self.judge(inputs)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return self.density.sample(count, generator)
