r"""Ensembles: several trained models that answer as one.

Of classifiers the probabilities are averaged, of regressions the values:

.. math:: p(x) = \sum_m w_m\, \mathrm{softmax}(f_m(x)), \qquad \hat y(x) = \sum_m w_m f_m(x)

Normal distributions, each a mean and the logarithm of a deviation, are joined to that with the mean
and the variance of their mixture: what the members say of the noise, and how far they are apart
(Lakshminarayanan, Pritzel and Blundell, 2017, https://arxiv.org/abs/1612.01474, section 2.4),

.. math:: \mu = \sum_m w_m \mu_m, \qquad
    \sigma^2 = \sum_m w_m (\sigma_m^2 + \mu_m^2) - \mu^2

Where the errors of M members have one variance and the correlation :math:`\rho`, the squared error
of their mean is :math:`1/M + \rho\,(M - 1)/M` of a member's (Krogh and Vedelsby, 1995, "Neural
network ensembles, cross validation, and active learning").
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Rule = Literal["mean", "vote", "weighted", "stacking"]
OutputKind = Literal["logits", "values", "normals"]


class Ensemble(nn.Module):
    r"""Stands in for a model in a task: its output is what the members together say.

    - ``mean`` and ``weighted``: :math:`\log p` of classifiers, whose softmax is :math:`p`; of
      others the mean of the outputs.
    - ``vote``: the class that most members choose; of equally many votes the one with the larger
      mean probability. The output is the logarithm of
      :math:`(\mathrm{votes}_k + \bar p_k) / (M + 1)`, which has that order.
    - ``stacking``: what a model of their outputs says, which ``stack`` must first be set to
      (:class:`zoo.inference.stacking.Stacking`).

    Args:
        members: models of the same inputs and outputs.
        rule: how they are joined.
        kind: whether the outputs are ``logits``, classes in the last dimension, ``values``, or
            ``normals``: pairs of a mean and the logarithm of a deviation, side by side in it.
        weights: of ``weighted``, positive or 0 with sum 1; None: all alike.

    Shape:
        - input: the members'
        - output: ``(batch, *)``, as of one member

    Attributes:
        outputs: what the members returned at last, ``(members, batch, *)``.
        stack: makes one output of the members'; of ``stacking`` alone.
    """

    def __init__(
        self,
        members: Sequence[nn.Module],
        *,
        rule: Rule = "mean",
        kind: OutputKind = "logits",
        weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        if not members:
            raise ValueError("members must be at least one model")
        if rule not in get_args(Rule):
            raise ValueError(f"rule must be one of {', '.join(get_args(Rule))}, not {rule!r}")
        if weights is None:
            weights = torch.full((len(members),), 1 / len(members))
        if weights.shape != (len(members),) or not _on_simplex(weights):
            raise ValueError(
                f"weights must be {len(members)} numbers from 0 on with sum 1, one for each "
                f"member, not {weights.tolist()}"
            )
        self.members = nn.ModuleList(members)
        self.rule, self.kind = rule, kind
        self.weights = weights
        self.outputs: Tensor | None = None
        self.stack: nn.Module | None = None

    def forward(self, *inputs: object) -> Tensor:
        return self.joined(self.answers(*inputs), self.weights)

    def answers(self, *inputs: object) -> Tensor:
        """What each member says, ``(members, batch, *)``."""
        found = [member(*inputs) for member in self.members]
        if len({output.shape for output in found}) > 1:
            shapes = ", ".join(str(tuple(output.shape)) for output in found)
            raise ValueError(f"the members' outputs must have one shape, not {shapes}")
        self.outputs = torch.stack(found)
        return self.outputs

    def joined(self, outputs: Tensor, weights: Tensor) -> Tensor:
        """What members together say.

        Args:
            outputs: of each, ``(members, batch, *)``.
            weights: ``(members,)``.
        """
        if self.rule == "stacking":
            if self.stack is None:
                raise RuntimeError("stacking: set stack first")
            stacked: Tensor = self.stack(outputs)
            return stacked
        dtype = torch.promote_types(outputs.dtype, weights.dtype)
        outputs = outputs.to(dtype)
        weights = weights.to(outputs).view(-1, *[1] * (outputs.ndim - 1))  # (members, 1, ...)
        if self.rule == "vote":
            return _votes(outputs)
        if self.kind == "values":
            return (outputs * weights).sum(0)
        if self.kind == "normals":
            return _mixture(outputs, weights)
        return torch.logsumexp(outputs.log_softmax(-1) + weights.log(), 0)


def _on_simplex(weights: Tensor) -> bool:
    return bool((weights >= 0).all()) and math.isclose(weights.sum().item(), 1, abs_tol=1e-5)


def _mixture(outputs: Tensor, weights: Tensor) -> Tensor:
    means, log_scales = outputs.unflatten(-1, (-1, 2)).unbind(-1)  # (members, batch, *)
    weights = weights.view(-1, *[1] * (means.ndim - 1))
    mean = (weights * means).sum(0)
    # Not a difference of squares, which of large means would be one of rounding errors.
    variance = (weights * ((2 * log_scales).exp() + (means - mean).square())).sum(0)
    return torch.stack([mean, variance.log() / 2], -1).flatten(-2)  # as of one member


def _votes(outputs: Tensor) -> Tensor:
    ballots = F.one_hot(outputs.argmax(-1), outputs.size(-1)).sum(0)  # (batch, classes)
    mean = outputs.softmax(-1).mean(0)
    share = (ballots + mean) / (len(outputs) + 1)
    return share.clamp_min(torch.finfo(share.dtype).tiny).log()


def best_weights(loss: Callable[[Tensor], Tensor], members: int) -> Tensor:
    """The weights with the smallest loss among those from 0 on with sum 1, in double precision.

    They are the softmax of what L-BFGS moves. The negative log-likelihood and the squared error of
    a weighted mean are convex in the weights, so that where it ends there is nothing better.

    Args:
        loss: a differentiable function of the weights ``(members,)``.
        members: how many weights there are.
    """
    scores = torch.zeros(members, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [scores],
        max_iter=200,
        tolerance_grad=1e-9,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(scores.softmax(0))
        value.backward()
        return value

    optimizer.step(closure)
    return scores.detach().softmax(0)
