r"""Two clouds of points, one of them rare: 99 to 1, say. Nothing to download.

.. math:: y \sim \mathrm{Bernoulli}(\pi), \qquad x \sim \mathcal{N}(y\, d\, e_1, I)

with the distance d of the clouds along the first feature. As both are known, so is the best that
can be said, :math:`p(y = 1 \mid x) = \sigma(d x_1 - d^2 / 2 + \log \frac{\pi}{1 - \pi})`, and the
area under its ROC curve, :math:`\Phi(d / \sqrt 2)`.
"""

import math
from typing import Any

import torch
from torch import Tensor

from zoo.data.loading.drawn import DrawnTensors
from zoo.data.loading.order import check_balance
from zoo.data.sampling import Balance


class RareClass(DrawnTensors):
    """Batches ``(points, classes)``, float32 ``(batch, features)`` and int64 ``(batch,)``.

    Of every split the share of the rare class, 1, is exact (rounded, but at least one point).

    Args:
        batch_size: points a batch.
        num_samples: points to train on.
        eval_samples: points of val, and of test.
        num_features: of which the first tells the classes and the others nothing.
        share: of the rare class.
        distance: between the centres of the clouds, in standard deviations.
        balance: let both classes come equally often in training: ``undersample``, ``oversample``
            or ``resample`` (`zoo.data.sampling.balanced_order`).
        data_seed: another seed, other points.
        drop_last: omit the last training batch of an epoch if it is smaller.

    Raises:
        ValueError: an argument is outside its range.
    """

    kind = "rare class"

    def __init__(
        self,
        *,
        batch_size: int = 100,
        num_samples: int = 10_000,
        eval_samples: int = 10_000,
        num_features: int = 2,
        share: float = 0.01,
        distance: float = 2.0,
        balance: Balance = "none",
        data_seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            num_samples=num_samples,
            eval_samples=eval_samples,
            data_seed=data_seed,
            drop_last=drop_last,
        )
        check_balance(balance)
        if num_features < 1:
            raise ValueError(f"num_features must be at least 1, not {num_features}")
        if not 0 < share < 1:
            raise ValueError(f"share must be between 0 and 1, not {share}")
        if not 0 <= distance < math.inf:
            raise ValueError(f"distance must be at least 0, not {distance}")
        self.num_features, self.share, self.distance = num_features, share, distance
        self.balance = balance

    def _draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        rare = min(max(1, round(self.share * count)), count - 1)
        classes = (torch.randperm(count, generator=generator) < rare).long()  # (count,)
        points = torch.randn(count, self.num_features, generator=generator)
        points[:, 0] += self.distance * classes
        return points, classes

    def facts(self) -> dict[str, Any]:
        return {"in_features": self.num_features, "num_classes": 2, "class_names": ["0", "1"]}
