"""Several passes of a network that draws: dropout at test time, weights that are distributions."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd


@contextmanager
def training_mode_of(layers: list[nn.Module]) -> Iterator[None]:
    """These layers alone in training mode; afterwards each has the mode it had."""
    modes = [layer.training for layer in layers]
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer, training in zip(layers, modes, strict=True):
            layer.training = training


def draw_outputs(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    kind: type[nn.Module],
    *,
    draws: int,
    seed: int = 0,
) -> Tensor:
    """What a network returns in several passes in which its layers of one kind draw.

    The random numbers follow from the seed alone, so every batch meets the same draws, and the
    random state outside stays what it is. All else in the network keeps its mode.

    Args:
        model: called with the inputs.
        inputs: of a batch.
        kind: layers that draw in training mode.
        draws: how many passes.
        seed: of the random numbers.

    Shape:
        - output: ``(draws, batch, *)``
    """
    layers = [module for module in model.modules() if isinstance(module, kind)]
    device = inputs[0].device
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), training_mode_of(layers):
        torch.manual_seed(seed)
        return torch.stack([model(*inputs) for _ in range(draws)])


class DropoutDraws(nn.Module):
    r"""Monte Carlo dropout: the mean of a classifier's probabilities with dropout at work.

    Y. Gal and Z. Ghahramani, "Dropout as a Bayesian approximation: representing model uncertainty
    in deep learning", 2016, https://arxiv.org/abs/1506.02142

    .. math:: p(x) = \frac{1}{T} \sum_t \mathrm{softmax}(f_t(x))

    with units dropped anew in each :math:`f_t`; all other layers stay in evaluation mode. It
    returns :math:`\log p`, whose softmax is :math:`p`, so it stands in for the model in a task.

    Args:
        model: inputs to logits.
        draws: how many passes.
        seed: of the random numbers.

    Shape:
        - output: ``(batch, classes)``

    Raises:
        ValueError: the model has no dropout layer, or there is no pass.
    """

    def __init__(self, model: nn.Module, draws: int, *, seed: int = 0) -> None:
        super().__init__()
        if draws < 1:
            raise ValueError(f"mc_dropout must be at least 1, not {draws}")
        if not any(isinstance(module, _DropoutNd) for module in model.modules()):
            raise ValueError(f"mc_dropout={draws}: {type(model).__name__} has no dropout layers")
        self.model, self.draws, self.seed = model, draws, seed

    def forward(self, *inputs: Tensor) -> Tensor:
        outputs = draw_outputs(self.model, inputs, _DropoutNd, draws=self.draws, seed=self.seed)
        return mean_log_probability(outputs)


def mean_log_probability(logits: Tensor) -> Tensor:
    """The logarithm of the probabilities' mean over draws.

    Shape:
        - logits: ``(draws, batch, classes)``
        - output: ``(batch, classes)``
    """
    return logits.log_softmax(-1, dtype=torch.float32).logsumexp(0) - math.log(len(logits))
