"""Which modes of a known mixture generated samples fall into, and how many of them do."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Self

import torch
from torch import Tensor

from zoo.metrics.sums import SumMetric

NAMES = ("modes_covered", "high_quality", "reverse_kl", "mode_divergence")
NEAR = 3.0
"""Standard deviations around a mode within which a sample counts as one of it."""


class ModeCoverage(SumMetric):
    r"""How samples spread over the modes of a mixture of round normal distributions.

    A sample is of high quality if it lies within three standard deviations of the nearest mode
    (Srivastava et al., 2017, https://arxiv.org/abs/1705.07761; Lin et al., 2018,
    https://arxiv.org/abs/1712.04086). By name:

    - ``modes_covered``: modes that have at least one such sample;
    - ``high_quality``: the share of such samples;
    - ``reverse_kl``: :math:`\sum_k p_k \log (K p_k)`, the divergence of the shares :math:`p` of the
      modes among all samples, each given to its nearest mode, from equal shares: 0 if they are
      equal, :math:`\log K` if one mode has all;
    - ``mode_divergence``: the same with one more class for samples that are near no mode, from the
      shares that real samples have: the one number that both a lost mode and bad samples raise.

    Args:
        modes: centres, ``(modes, features)``.
        std: standard deviation of each mode in each direction.

    Shape:
        - samples: ``(batch, features)``
    """

    higher_is_better: Mapping[str, bool] | None = MappingProxyType(
        dict(zip(NAMES, (True, True, False, False), strict=True))
    )

    def __init__(self, modes: Tensor, std: float) -> None:
        count, features = modes.shape
        super().__init__(
            near=torch.zeros(count, dtype=torch.int64),
            nearest=torch.zeros(count, dtype=torch.int64),
        )
        self.modes, self.std = modes, std
        # A squared distance in standard deviations is chi-squared with so many degrees of freedom.
        half = torch.tensor(features / 2, dtype=torch.float64)
        self.share = torch.special.gammainc(half, torch.tensor(NEAR**2 / 2).double())

    def update(self, samples: Tensor) -> None:
        self.modes = self.modes.to(samples)
        distances = torch.cdist(samples, self.modes, compute_mode="donot_use_mm_for_euclid_dist")
        distance, mode = distances.min(1)  # (batch,)
        size = len(self.modes)
        is_near = distance <= NEAR * self.std
        self.add(
            near=torch.zeros_like(self.sums["near"]).index_add_(0, mode, is_near.long()),
            nearest=torch.bincount(mode, minlength=size),
        )

    def compute(self) -> dict[str, Tensor]:
        near, nearest = (self.sums[name].cpu().double() for name in ("near", "nearest"))
        total, size = nearest.sum(), len(near)
        if total == 0:
            return dict.fromkeys(NAMES, torch.tensor(math.nan))
        shares = torch.cat([near, (total - near.sum())[None]]) / total  # (modes + 1,)
        real = torch.cat([(self.share / size).expand(size), (1 - self.share)[None]])
        equal = torch.full((size,), 1 / size, dtype=torch.float64)
        return {
            "modes_covered": (near > 0).sum(),
            "high_quality": near.sum() / total,
            "reverse_kl": _divergence(nearest / total, equal),
            "mode_divergence": _divergence(shares, real),
        }


class ModeScores:
    """What :class:`ModeCoverage` says of generated samples, and as ``real_...`` of real ones.

    The latter are what a perfect model would get.

    Args:
        modes: centres, ``(modes, features)``.
        std: standard deviation of each mode in each direction.

    Attributes:
        updates: batches since the last reset.

    Shape:
        - real, generated: ``(batch, features)``
    """

    higher_is_better = ModeCoverage.higher_is_better  # Those of real samples are nobody's aim.

    def __init__(self, modes: Tensor, std: float) -> None:
        self.modes = modes
        self.generated, self.real = ModeCoverage(modes, std), ModeCoverage(modes, std)
        self.updates = 0

    def update(self, real: Tensor, generated: Tensor, asked: Tensor | None = None) -> None:
        """Compares samples; the classes ``asked`` for are not looked at."""
        self.updates += 1
        self.generated.update(generated)
        self.real.update(real)

    def compute(self) -> dict[str, Tensor]:
        real = {f"real_{name}": value for name, value in self.real.compute().items()}
        return self.generated.compute() | real

    def merge(self, other: "ModeScores") -> None:
        """Adds what another metric of the same kind has seen."""
        self.generated.merge(other.generated)
        self.real.merge(other.real)

    def reset(self) -> None:
        self.updates = 0
        self.generated.reset()
        self.real.reset()

    def to(self, device: torch.device | str) -> Self:
        self.generated.to(device)
        self.real.to(device)
        return self


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    return torch.xlogy(p, p / q).sum()
