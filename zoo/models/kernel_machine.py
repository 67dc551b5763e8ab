r"""A kernel machine by random Fourier features (Rahimi and Recht, 2007).

"Random features for large-scale kernel machines",
https://papers.nips.cc/paper/2007/hash/013a006f03dbc5392effeb8f18fda755-Abstract.html

Inner products of random cosines approximate a kernel, so that a linear model on them is a kernel
machine, whose cost does not grow with the square of the number of samples: with hinge loss and
weight decay a support vector machine with a Gaussian kernel, with squared error kernel ridge
regression.

Differences from the paper: none; of its two maps this is the first (algorithm 1), for the Gaussian
kernel.

| model | inputs | features | classes | parameters |
|---|---|---|---|---|
| `KernelMachine` | 64 | 1,000 | 10 | 10,010 |
"""

import math

import torch
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one
from zoo.layers.initialization import deferred_init, reset


class KernelMachine(nn.Module):
    r"""Random cosines that are not learned, and a linear layer that is.

    .. math:: \phi(x) = \sqrt{\frac{2}{D}} \cos(\Omega x + b), \qquad
        \phi(x)^\top \phi(x') \approx k(x, x') = \exp(-\gamma \lVert x - x' \rVert^2)

    with frequencies :math:`\Omega` from :math:`\mathcal N(0, 2 \gamma)` and phases b from
    :math:`\mathcal U(0, 2 \pi)`. They are buffers: the run's seed draws them, and checkpoints hold
    them.

    Args:
        in_features: elements of one sample once flattened.
        num_classes: width of the output.
        num_features: D. The error of a kernel value falls as :math:`1 / \sqrt D`.
        gamma: of the kernel; None: 1 / ``in_features``, which suits features of variance 1.

    Shape:
        - input: ``(batch, *)`` with ``in_features`` elements per sample
        - output: ``(batch, num_classes)``

    Raises:
        ValueError: if a size is smaller than 1 or ``gamma`` not greater than 0.
    """

    frequencies: Tensor
    phases: Tensor

    @deferred_init
    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        num_features: int = 1_000,
        gamma: float | None = None,
    ) -> None:
        super().__init__()
        check_at_least_one(
            in_features=in_features, num_classes=num_classes, num_features=num_features
        )
        if gamma is not None and not 0 < gamma < math.inf:
            raise ValueError(f"gamma must be greater than 0, not {gamma}")
        self.gamma = 1 / in_features if gamma is None else gamma
        self.register_buffer("frequencies", torch.empty(num_features, in_features))
        self.register_buffer("phases", torch.empty(num_features))
        self.linear = nn.Linear(num_features, num_classes)

    def init_weights(self) -> None:
        reset(self.linear)
        nn.init.normal_(self.frequencies, std=math.sqrt(2 * self.gamma))
        nn.init.uniform_(self.phases, 0, 2 * math.pi)
        nn.init.zeros_(self.linear.weight)  # The loss is convex, so any start will do.
        nn.init.zeros_(self.linear.bias)

    def forward_features(self, x: Tensor) -> Tensor:
        """The random cosines, ``(batch, num_features)``."""
        waves = nn.functional.linear(x.flatten(1), self.frequencies, self.phases)
        return math.sqrt(2 / len(self.phases)) * waves.cos()

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.forward_features(x))  # (batch, num_classes)
