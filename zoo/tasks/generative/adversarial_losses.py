"""What a discriminator and a generator minimise, as functions of the discriminator's output."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

LossName = Literal["non_saturating", "minimax", "least_squares", "hinge", "wasserstein"]


class AdversarialLoss(NamedTuple):
    """Both sides of a game.

    Attributes:
        discriminator: of its output for real and for generated samples.
        generator: of the discriminator's output for generated samples.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


def _says_real(logits: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))


def _says_generated(logits: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))


def _tells(real: Tensor, fake: Tensor) -> Tensor:
    return _says_real(real) + _says_generated(fake)


LOSSES: dict[str, AdversarialLoss] = {
    "non_saturating": AdversarialLoss(_tells, _says_real),
    "minimax": AdversarialLoss(_tells, lambda fake: -_says_generated(fake)),
    "least_squares": AdversarialLoss(
        lambda real, fake: ((real - 1).square().mean() + fake.square().mean()) / 2,
        lambda fake: (fake - 1).square().mean() / 2,
    ),
    "hinge": AdversarialLoss(
        lambda real, fake: F.relu(1 - real).mean() + F.relu(1 + fake).mean(),
        lambda fake: -fake.mean(),
    ),
    "wasserstein": AdversarialLoss(
        lambda real, fake: fake.mean() - real.mean(), lambda fake: -fake.mean()
    ),
}


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    r"""How far the critic's slope is from 1 between real and generated samples.

    .. math:: \mathbb E_{\hat x} (\lVert \nabla_{\hat x} D(\hat x) \rVert_2 - 1)^2, \qquad
        \hat x = \alpha x + (1 - \alpha) \tilde x, \quad \alpha \sim U(0, 1)

    Gulrajani et al., 2017, algorithm 1. Each sample has an :math:`\alpha` of its own, and the norm
    is that of the whole sample.

    Shape:
        - real, fake: ``(batch, *)``
        - output: a scalar
    """
    alpha = torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device, dtype=real.dtype)
    between = (alpha * real + (1 - alpha) * fake).requires_grad_()
    # In the samples' precision: squares of half-precision slopes vanish or overflow.
    with torch.autocast(real.device.type, enabled=False):
        (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    norm = torch.linalg.vector_norm(slope.flatten(1), dim=1)  # (batch,)
    return (norm - 1).square().mean()


def pack(samples: Tensor, size: int) -> Tensor:
    """Joins every ``size`` samples into one along their channels or features (Lin et al., 2018).

    Shape:
        - samples: ``(batch, channels, *)``; a remainder of fewer than ``size`` samples is left out
        - output: ``(batch // size, size * channels, *)``
    """
    if size == 1:
        return samples
    whole = samples[: len(samples) // size * size]
    return whole.unflatten(0, (-1, size)).flatten(1, 2)  # (batch // size, size * channels, *)
