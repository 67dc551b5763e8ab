"""Perplexity: the exponential of a cross-entropy in nats."""

from types import MappingProxyType

import torch

from zoo.metrics.sums import Mean


class Perplexity(Mean):
    r"""The mean cross-entropy of tokens, as ``loss``, and its exponential, as ``perplexity``.

    .. math:: \mathrm{perplexity} = \exp\Bigl(-\frac{1}{T} \sum_t \log p(x_t)\Bigr)
    """

    higher_is_better = MappingProxyType({"loss": False, "perplexity": False})

    def compute(self) -> dict[str, float]:  # type: ignore[override]
        loss = float(super().compute())
        # Not math.exp, which raises where a diverged model's perplexity is infinite.
        return {"loss": loss, "perplexity": torch.tensor(loss, dtype=torch.float64).exp().item()}
