"""How far generated samples are from real ones, judged without a trained network.

The Fréchet distance between two normal distributions, as in the Fréchet inception distance (Heusel
et al., 2017, https://arxiv.org/abs/1706.08500), with principal components of the training samples
in the place of a network's features: exact, and at home on any data.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.metrics.sums import SumMetric, float64_on, zero

MAX_SIDE = 32  # larger images are averaged down: the covariance grows with the fourth power
_KINDS = ("real", "generated")


class PrincipalComponents:
    """Coordinates of samples along the directions in which the training samples vary most.

    Args:
        num_components: how many directions, or all if the samples have fewer elements.

    Shape:
        - samples: ``(batch, *)``, images as ``(batch, channels, height, width)``
        - output: ``(batch, num_components)``, in double precision where the device has it
    """

    def __init__(self, num_components: int) -> None:
        if num_components < 1:
            raise ValueError(f"num_components must be at least 1, not {num_components}")
        self.num_components = num_components
        self.mean: Tensor | None = None  # (elements,)
        self.directions: Tensor | None = None  # (elements, num_components)

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Finds the components in one pass over the samples."""
        sums = SumMetric(count=zero(), first=zero(), second=zero())
        for batch in batches:
            x = _elements(batch)
            sums.to(x.device).add(count=len(x), first=x.sum(0), second=x.T @ x)
        count, first, second = sums.to("cpu").sums.values()
        if count == 0:
            raise ValueError("batches must hold samples to find principal components in, not none")
        self.mean = first / count
        covariance = second / count - self.mean.outer(self.mean)
        # In ascending order of the variance along each.
        self.directions = torch.linalg.eigh(covariance).eigenvectors[:, -self.num_components :]

    def __call__(self, samples: Tensor) -> Tensor:
        if self.mean is None or self.directions is None:
            raise RuntimeError(
                "the principal components of the training samples are not known yet: call prepare "
                "with the training batches, or load the task's state"
            )
        x = _elements(samples)
        self.mean, self.directions = self.mean.to(x), self.directions.to(x)
        return (x - self.mean) @ self.directions  # (batch, num_components)

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean, "directions": self.directions}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.mean, self.directions = state["mean"], state["directions"]


def _elements(samples: Tensor) -> Tensor:
    if samples.ndim == 4:
        side = (min(samples.shape[2], MAX_SIDE), min(samples.shape[3], MAX_SIDE))
        samples = F.adaptive_avg_pool2d(samples.float(), side)
    return samples.detach().flatten(1).to(float64_on(samples.device))  # (batch, elements)


class FrechetDistance(SumMetric):
    """Fréchet distance between real and generated features: 0 for equal mean and covariance.

    Shape:
        - real, generated: ``(batch, features)``
    """

    higher_is_better = False

    def __init__(self) -> None:
        names = ("count", "first", "second")
        super().__init__(**{f"{kind}_{name}": zero() for kind in _KINDS for name in names})

    def update(self, real: Tensor, generated: Tensor) -> None:
        for kind, x in zip(_KINDS, (real, generated), strict=True):
            x = x.to(self.sums["real_first"])
            terms: dict[str, Tensor | float] = {
                f"{kind}_count": len(x),
                f"{kind}_first": x.sum(0),  # (features,)
                f"{kind}_second": x.T @ x,  # (features, features)
            }
            self.add(**terms)

    def compute(self) -> Tensor:
        if min(self.sums[f"{kind}_count"] for kind in _KINDS) < 2:  # One sample has no spread.
            return torch.tensor(math.nan)
        return frechet_distance(*self._moments("real"), *self._moments("generated"))

    def _moments(self, kind: str) -> tuple[Tensor, Tensor]:
        count, first, second = (
            self.sums[f"{kind}_{name}"].cpu().double() for name in ("count", "first", "second")
        )
        mean = first / count
        return mean, (second - count * mean.outer(mean)) / (count - 1)


def frechet_distance(
    mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor
) -> Tensor:
    r"""Squared Fréchet (2-Wasserstein) distance between two normal distributions.

    .. math:: \lVert \mu_a - \mu_b \rVert^2
        + \mathrm{tr}\bigl(\Sigma_a + \Sigma_b - 2 (\Sigma_a \Sigma_b)^{1/2}\bigr)

    The product is not symmetric, but its root has the trace of
    :math:`(\Sigma_a^{1/2} \Sigma_b \Sigma_a^{1/2})^{1/2}`, the sum of the singular values of
    :math:`\Sigma_a^{1/2} \Sigma_b^{1/2}`: only symmetric matrices need a root, and a singular
    covariance does no harm.
    """
    product = _square_root(covariance_a) @ _square_root(covariance_b)
    spread = covariance_a.trace() + covariance_b.trace() - 2 * torch.linalg.svdvals(product).sum()
    return (mean_a - mean_b).square().sum() + spread.clamp_min(0)


def _square_root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T
