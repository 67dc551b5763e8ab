"""Penalties on the codes of autoencoders: sparse ones and contractive ones."""

from typing import Any

import torch
from torch import Tensor, nn


def l1(codes: Tensor) -> Tensor:
    r"""The mean over images of :math:`\lVert z \rVert_1`."""
    return codes.abs().flatten(1).sum(1).mean()


def activity_kl(codes: Tensor, target: float) -> Tensor:
    r""":math:`\sum_j \mathrm{KL}(\rho \,\|\, \hat\rho_j)` of Bernoulli variables.

    Args:
        codes: in (0, 1), ``(batch, units)``; a unit's mean over the batch is its activity.
        target: :math:`\rho`.
    """
    eps = torch.finfo(torch.float32).eps  # A unit that is never active has a finite distance.
    activity = codes.float().mean(0).clamp(eps, 1 - eps)  # (units,)
    on = target * (target / activity).log()
    off = (1 - target) * ((1 - target) / (1 - activity)).log()
    return (on + off).sum()


def contraction(model: Any, images: Tensor, codes: Tensor) -> Tensor:
    r"""The squared Frobenius norm of the code's Jacobian at each image: ``(batch,)``.

    Args:
        model: whose ``encode``; if its ``encoder`` is a linear layer and a logistic function, the
            norm is computed by its formula.
        images: ``(batch, *)``.
        codes: of these images, ``(batch, latent_dim)``.
    """
    match list(getattr(model, "encoder", ())):
        case [nn.Linear() as layer, nn.Sigmoid()]:
            slopes = (codes * (1 - codes)).square()  # (batch, latent_dim)
            return slopes @ layer.weight.square().sum(1)
    # The encoder once more, and not as it may be compiled: that could not be differentiated twice.
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        codes = model.encode(images).flatten(1)
    total = torch.zeros(len(images), device=images.device)
    for unit in codes.unbind(1):
        # Samples do not depend on one another, so the gradient of a sum has theirs in its rows.
        (gradient,) = torch.autograd.grad(unit.sum(), images, create_graph=True)
        total = total + gradient.square().flatten(1).sum(1)
    return total
