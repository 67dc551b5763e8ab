"""Points in the plane from mixtures of normal distributions: which modes does a generator find?

A ring of eight and a grid of 25, which most papers on the mode collapse of GANs measure with.
"""

import math
from abc import abstractmethod
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor

from zoo.data.loading.drawn import DrawnTensors


class MixtureOptions(TypedDict, total=False):
    """Arguments of :class:`Mixture` whose defaults are the same for all mixtures."""

    batch_size: int
    num_samples: int
    eval_samples: int
    data_seed: int
    drop_last: bool


class Mixture(DrawnTensors):
    """Batches ``(points, modes)``: float32 ``(batch, 2)``, and the number of each point's mode.

    Every mode has the same share. The points are drawn once, from a seed of their own.

    Args:
        std: standard deviation of a mode in each direction.
        batch_size: points a batch.
        num_samples: points to train on.
        eval_samples: points of val, and of test.
        data_seed: another seed, other points.
        drop_last: omit the last training batch of an epoch if it is smaller.
    """

    kind = "mixture"

    def __init__(
        self,
        *,
        std: float,
        batch_size: int = 100,
        num_samples: int = 100_000,
        eval_samples: int = 2_500,
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
        if not 0 < std < math.inf:
            raise ValueError(f"std must be greater than 0, not {std}")
        self.std = std

    @property
    @abstractmethod
    def centres(self) -> list[list[float]]:
        """Of the modes."""

    def _draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        centres = torch.tensor(self.centres)
        modes = torch.randint(len(centres), (count,), generator=generator)
        noise = torch.randn(count, 2, generator=generator)
        return centres[modes] + self.std * noise, modes  # (count, 2), (count,)

    def facts(self) -> dict[str, Any]:
        return {
            "in_features": 2,
            "num_classes": len(self.centres),
            "modes": self.centres,
            "mode_std": self.std,
        }


class GaussianRing(Mixture):
    """Modes on a circle.

    Those of Lin et al., 2018, https://arxiv.org/abs/1712.04086: eight, radius 1, standard deviation
    0.01. Those of Gulrajani et al., 2017, https://arxiv.org/abs/1704.00028: radius 1.414, 0.01414.

    Args:
        num_modes: on the circle, the first at angle 0.
        radius: of the circle.
        std: standard deviation of a mode in each direction.
        options: see :class:`Mixture`.
    """

    def __init__(
        self,
        *,
        num_modes: int = 8,
        radius: float = 1.0,
        std: float = 0.01,
        **options: Unpack[MixtureOptions],
    ) -> None:
        if num_modes < 1:
            raise ValueError(f"num_modes must be at least 1, not {num_modes}")
        if not 0 < radius < math.inf:
            raise ValueError(f"radius must be greater than 0, not {radius}")
        self.num_modes, self.radius = num_modes, radius
        super().__init__(std=std, **options)

    @property
    def centres(self) -> list[list[float]]:
        angles = [2 * math.pi * i / self.num_modes for i in range(self.num_modes)]
        return [[self.radius * math.cos(angle), self.radius * math.sin(angle)] for angle in angles]


class GaussianGrid(Mixture):
    """Modes on a square grid around the origin.

    Those of Lin et al., 2018, https://arxiv.org/abs/1712.04086: 5 times 5, two apart, standard
    deviation 0.05.

    Args:
        side: modes in a row, and in a column.
        spacing: from one to the next.
        std: standard deviation of a mode in each direction.
        options: see :class:`Mixture`.
    """

    def __init__(
        self,
        *,
        side: int = 5,
        spacing: float = 2.0,
        std: float = 0.05,
        **options: Unpack[MixtureOptions],
    ) -> None:
        if side < 1:
            raise ValueError(f"side must be at least 1, not {side}")
        if not 0 < spacing < math.inf:
            raise ValueError(f"spacing must be greater than 0, not {spacing}")
        self.side, self.spacing = side, spacing
        super().__init__(std=std, **options)

    @property
    def centres(self) -> list[list[float]]:
        places = [self.spacing * (i - (self.side - 1) / 2) for i in range(self.side)]
        return [[x, y] for x in places for y in places]
