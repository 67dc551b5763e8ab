"""How good and how varied generated samples are, judged by distances between features.

The kernel distance is that of Bińkowski et al. (2018, "Demystifying MMD GANs",
https://arxiv.org/abs/1801.01401), precision and recall those of Kynkäänniemi et al. (2019,
https://arxiv.org/abs/1904.06991), density and coverage those of Naeem et al. (2020,
https://arxiv.org/abs/2002.09797). All of them compare features of real samples with features of
generated ones; of which network is for the caller to say.
"""

import math
from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor

ROWS = 1024
"""Rows of a matrix of distances that are computed at once."""


def kernel_distance(real: Tensor, generated: Tensor) -> Tensor:
    r"""Unbiased squared maximum mean discrepancy with the kernel :math:`(x^\top y / d + 1)^3`.

    It is 0 on average for samples of one distribution, and may be slightly negative.

    Shape:
        - real, generated: ``(samples, features)``, at least two of each
        - output: a scalar
    """

    def total(a: Tensor, b: Tensor) -> Tensor:
        return torch.stack([(rows @ b.T / b.size(1) + 1).pow(3).sum() for rows in a.split(ROWS)])

    def within(x: Tensor) -> Tensor:
        diagonal = (x.square().sum(1) / x.size(1) + 1).pow(3).sum()
        return (total(x, x).sum() - diagonal) / (len(x) * (len(x) - 1))

    between = total(real, generated).sum() / (len(real) * len(generated))
    return within(real) + within(generated) - 2 * between


def precision_recall_density_coverage(
    real: Tensor, generated: Tensor, *, neighbours: int = 5
) -> dict[str, float]:
    """How far the neighbourhoods of real and generated samples overlap.

    The neighbourhood of a sample is the ball that reaches to its k-th nearest of its own kind.

    Args:
        real: features of real samples.
        generated: features of generated ones.
        neighbours: the k of the balls.

    Returns:
        ``precision``: share of generated samples within a ball of a real one; ``recall``: share of
        real samples within a ball of a generated one; ``density``: real balls around a generated
        sample, over k (1 for equal distributions, and possibly more); ``coverage``: share of real
        balls that hold a generated sample.

    Shape:
        - real, generated: ``(samples, features)``, more than ``neighbours`` of each
    """
    real_radii, generated_radii = (_radii(x, neighbours) for x in (real, generated))
    balls, precise, covered = 0, 0, torch.zeros(len(real), dtype=torch.bool, device=real.device)
    recalled = torch.zeros_like(covered)
    for rows in generated.split(ROWS):
        inside = _distances(rows, real) < real_radii  # (rows, real)
        balls += int(inside.sum())
        precise += int(inside.any(1).sum())
        covered |= inside.any(0)
    for first, rows in zip(range(0, len(real), ROWS), real.split(ROWS), strict=True):
        recalled[first : first + len(rows)] = (_distances(rows, generated) < generated_radii).any(1)
    return {
        "precision": precise / len(generated),
        "recall": recalled.float().mean().item(),
        "density": balls / (neighbours * len(generated)),
        "coverage": covered.float().mean().item(),
    }


def _radii(x: Tensor, neighbours: int) -> Tensor:
    """Distance of each row to its k-th nearest other row."""
    nearest = [_distances(rows, x).kthvalue(neighbours + 1, dim=1).values for rows in x.split(ROWS)]
    return torch.cat(nearest)  # (samples,); the nearest of all is the row itself


def _distances(a: Tensor, b: Tensor) -> Tensor:
    # Not through a matrix product, which would not give a row the distance 0 to itself.
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


class SampleQuality:
    """Kernel distance, precision, recall, density and coverage of generated samples.

    Args:
        neighbours: the k of the neighbourhoods.
        limit: how many samples of each kind are kept, the first ones; the time grows with its
            square.

    Shape:
        - real, generated: ``(batch, features)``
    """

    higher_is_better: ClassVar[Mapping[str, bool]] = {
        "kernel_distance": False,
        "precision": True,
        "recall": True,
        "density": True,
        "coverage": True,
    }

    def __init__(self, *, neighbours: int = 5, limit: int = 10_000) -> None:
        if not 1 <= neighbours < limit:
            raise ValueError(f"neighbours must be from 1 to below limit {limit}, not {neighbours}")
        self.neighbours = neighbours
        self.limit = limit
        self._kept: tuple[list[Tensor], list[Tensor]] = ([], [])

    def update(self, real: Tensor, generated: Tensor) -> None:
        for kept, features in zip(self._kept, (real, generated), strict=True):
            left = self.limit - sum(map(len, kept))
            if left > 0:
                kept.append(features[:left].detach())

    def compute(self) -> dict[str, float]:
        kinds = [torch.cat(kept).cpu().double() if kept else None for kept in self._kept]
        real, generated = kinds
        if real is None or generated is None or min(len(real), len(generated)) <= self.neighbours:
            return dict.fromkeys(self.higher_is_better, math.nan)
        return {
            "kernel_distance": kernel_distance(real, generated).item(),
            **precision_recall_density_coverage(real, generated, neighbours=self.neighbours),
        }

    def merge(self, other: "SampleQuality") -> None:
        """Adds what another metric of the same kind has seen."""
        for kept, features in zip(self._kept, other._kept, strict=True):
            for part in features:
                left = self.limit - sum(map(len, kept))
                if left > 0:
                    kept.append(part[:left])

    def reset(self) -> None:
        self._kept = ([], [])

    def to(self, device: torch.device | str) -> Self:
        self._kept = tuple([x.to(device) for x in kept] for kept in self._kept)  # type: ignore[assignment]
        return self
