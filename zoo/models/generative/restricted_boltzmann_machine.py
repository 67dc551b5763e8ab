r"""Restricted Boltzmann machine (Smolensky, 1986), of binary units.

- P. Smolensky, "Information processing in dynamical systems: foundations of harmony theory", in
  Rumelhart and McClelland (eds.), "Parallel distributed processing", volume 1, 1986
- G. Hinton, "Training products of experts by minimizing contrastive divergence", 2002,
  https://www.cs.toronto.edu/~hinton/absps/tr00-004.pdf
- T. Tieleman, "Training restricted Boltzmann machines using approximations to the likelihood
  gradient", 2008, https://www.cs.toronto.edu/~tijmen/pcd/pcd.pdf
- R. Salakhutdinov and I. Murray, "On the quantitative analysis of deep belief networks", 2008,
  https://www.cs.toronto.edu/~rsalakhu/papers/dbn_ais.pdf

Visible and hidden units are linked, but no two units of a kind are: given one layer, the units of
the other are independent, so a whole layer is drawn at once. How it is trained stands in
`zoo/tasks/generative/contrastive_divergence.py`; weights start in N(0, 0.01) and biases at zero, as
Hinton's "A practical guide to training restricted Boltzmann machines" (2010) has it.

| visible units | hidden units | parameters |
|---|---|---|
| 784 | 20 | 16,484 |
| 784 | 500 | 393,284 |
| 64 | 256 | 16,704 |
"""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.layers.checks import check_at_least_one
from zoo.layers.initialization import deferred_init

MOST_ENUMERATED = 24
"""Units of the smaller layer beyond which nobody would wait for all of its states."""
_AT_ONCE = 10  # units whose states are a table in memory; the states of the others are a loop
_SAFE = 300.0  # exponents of which the product of two exponentials fits float64


class AnnealedEstimate(NamedTuple):
    """What annealed importance sampling finds of a log-partition function.

    Attributes:
        log_partition: logarithm of the mean of the importance weights, ``()``.
        standard_error: that of the mean, relative to it, hence about that of the logarithm, ``()``.
    """

    log_partition: Tensor
    standard_error: Tensor


class RestrictedBoltzmannMachine(nn.Module):
    r"""Binary visible units v and hidden units h; each pair of states has an energy.

    .. math:: E(v, h) = -b^\top v - c^\top h - h^\top W v, \qquad
        p(v, h) = e^{-E(v, h)} / Z, \qquad Z = \sum_{v, h} e^{-E(v, h)}

    Summed over the hidden states, :math:`p(v) = e^{-F(v)} / Z` with the free energy

    .. math:: F(v) = -b^\top v - \sum_j \log\bigl(1 + e^{c_j + W_j v}\bigr)

    which ``forward`` returns. The log-likelihood of an image is :math:`-F(v) - \log Z`. Z is a sum
    over all states of the smaller layer (:meth:`log_partition`) or, where these are too many,
    estimated (:meth:`annealed_log_partition`).

    Names follow scikit-learn's ``BernoulliRBM``: ``weight`` is ``components_``, ``visible_bias``
    ``intercept_visible_`` and ``hidden_bias`` ``intercept_hidden_``.

    Args:
        image_size: height and width of an image, whose pixels are the visible units.
        in_channels: its channels.
        hidden_size: number of hidden units.

    Shape:
        - input: ``(batch, *)`` with ``in_channels * image_size**2`` elements a sample
        - output: free energies ``(batch,)``

    Raises:
        ValueError: if an argument is smaller than 1.
    """

    @deferred_init
    def __init__(
        self, image_size: int = 28, in_channels: int = 1, *, hidden_size: int = 500
    ) -> None:
        super().__init__()
        check_at_least_one(image_size=image_size, in_channels=in_channels, hidden_size=hidden_size)
        self.sample_shape = (in_channels, image_size, image_size)
        self.visible_size, self.hidden_size = in_channels * image_size**2, hidden_size
        self.weight = nn.Parameter(torch.empty(hidden_size, self.visible_size))
        self.visible_bias = nn.Parameter(torch.empty(self.visible_size))
        self.hidden_bias = nn.Parameter(torch.empty(hidden_size))

    def init_weights(self) -> None:
        nn.init.normal_(self.weight, std=0.01)
        nn.init.zeros_(self.visible_bias)
        nn.init.zeros_(self.hidden_bias)

    def forward(self, visible: Tensor) -> Tensor:
        flat = visible.flatten(1)  # (batch, visible)
        return -flat @ self.visible_bias - F.softplus(self._hidden_logits(flat)).sum(1)

    def hidden_means(self, visible: Tensor) -> Tensor:
        """Probability of each hidden unit's being on, given visible states.

        Shape:
            - input: ``(batch, *)``
            - output: ``(batch, hidden_size)``
        """
        return self._hidden_logits(visible.flatten(1)).sigmoid()

    def visible_means(self, hidden: Tensor) -> Tensor:
        """Probability of each visible unit's being on, given hidden states.

        Shape:
            - input: ``(batch, hidden_size)``
            - output: ``(batch, visible_size)``
        """
        return F.linear(hidden, self.weight.T, self.visible_bias).sigmoid()

    def gibbs(
        self, visible: Tensor, *, steps: int = 1, generator: torch.Generator | None = None
    ) -> Tensor:
        """Visible states after drawing all hidden and then all visible units, ``steps`` times.

        Args:
            visible: where the chains begin.
            steps: how often.
            generator: of random numbers; torch's own if None.

        Shape:
            - input: ``(batch, *)``
            - output: ``(batch, visible_size)``
        """
        visible = visible.flatten(1)  # (batch, visible)
        for _ in range(steps):
            hidden = draw_binary(self.hidden_means(visible), generator)
            visible = draw_binary(self.visible_means(hidden), generator)
        return visible

    @torch.no_grad()
    def log_partition(self) -> Tensor:
        r"""The exact :math:`\log Z`, in double precision, by a sum over the smaller layer's states.

        .. math:: Z = \sum_h e^{c^\top h} \prod_i \bigl(1 + e^{b_i + h^\top W_{\cdot i}}\bigr)

        Twenty hidden units have a million states: seconds on one core.

        Returns:
            ``()``, float64.

        Raises:
            ValueError: if the smaller layer has more than 24 units.
        """
        weight: Tensor = self.weight
        summed: Tensor = self.hidden_bias
        other: Tensor = self.visible_bias
        if len(weight) > weight.size(1):  # The energy is the same whichever layer comes first.
            weight, summed, other = weight.T, other, summed
        if len(weight) > MOST_ENUMERATED:
            raise ValueError(
                f"the smaller layer must have at most {MOST_ENUMERATED} units for its states to be "
                f"enumerated, not {len(weight)}"
            )
        weight, summed, other = weight.double(), summed.double(), other.double()
        states = _all_states(min(len(weight), _AT_ONCE), weight)  # (states, units)
        rest = _all_states(len(weight) - states.size(1), weight)
        near, far = weight[: states.size(1)], weight[states.size(1) :]
        # What the units of the table and those of the loop add to the other layer's logits.
        logits, shifts = states @ near, rest @ far + other  # (states, other), (rest, other)
        energies = states @ summed[: len(near)], rest @ summed[len(near) :]
        is_small = max(logits.abs().max().item(), shifts.abs().max().item()) < _SAFE
        # exp(a + b) = exp(a) exp(b): one exponential for each entry of the tables, not of the sums.
        odds, factors = logits.exp(), shifts.exp()
        totals = [
            torch.logsumexp(
                ((odds * factors[i]).log1p_() if is_small else F.softplus(logits + shifts[i])).sum(
                    1
                )
                + energies[0]
                + energies[1][i],
                dim=0,
            )
            for i in range(len(rest))
        ]
        return torch.logsumexp(torch.stack(totals), dim=0)

    @torch.no_grad()
    def annealed_log_partition(
        self,
        *,
        base_bias: Tensor | None = None,
        chains: int = 100,
        steps: int = 1000,
        generator: torch.Generator | None = None,
    ) -> AnnealedEstimate:
        r"""An estimate of :math:`\log Z` by annealed importance sampling.

        From a machine without weights, whose Z is known, to this one, by way of ``steps``
        distributions (Salakhutdinov and Murray, 2008, section 4)

        .. math:: p_k(v) \propto e^{(1 - \beta_k)\, a^\top v + \beta_k\, b^\top v}
            \prod_j \bigl(1 + e^{\beta_k (c_j + W_j v)}\bigr)

        The estimate of Z is unbiased, that of its logarithm too low in the mean.

        Args:
            base_bias: :math:`a`, ``(visible_size,)``: the fewer steps, the more it should be like
                the data's logits; the machine's own visible biases if None.
            chains: independent runs, each of which gives an importance weight.
            steps: intermediate distributions, of evenly spaced :math:`\beta`.
            generator: of random numbers; torch's own if None.
        """
        check_at_least_one(chains=chains, steps=steps)
        bias = self.visible_bias
        base = bias if base_bias is None else base_bias.to(bias)

        def log_unnormalised(visible: Tensor, logits: Tensor, beta: float) -> Tensor:
            linear = visible @ torch.lerp(base, bias, beta)  # (chains,)
            return (linear + F.softplus(beta * logits).sum(1)).double()

        visible = draw_binary(base.sigmoid().expand(chains, -1), generator)
        weights = torch.zeros(chains, dtype=torch.float64, device=bias.device)
        betas = [k / steps for k in range(steps + 1)]
        for before, beta in pairwise(betas):
            logits = self._hidden_logits(visible)  # (chains, hidden)
            weights += log_unnormalised(visible, logits, beta)
            weights -= log_unnormalised(visible, logits, before)
            hidden = draw_binary((beta * logits).sigmoid(), generator)
            visible_logits = torch.lerp(base, bias, beta) + beta * (hidden @ self.weight)
            visible = draw_binary(visible_logits.sigmoid(), generator)
        log_base = F.softplus(base.double()).sum() + self.hidden_size * math.log(2)
        log_mean = torch.logsumexp(weights, dim=0) - math.log(chains)
        error = (weights - log_mean).exp().std() / math.sqrt(chains)
        return AnnealedEstimate(log_base + log_mean, error)

    def _hidden_logits(self, flat: Tensor) -> Tensor:
        return F.linear(flat, self.weight, self.hidden_bias)  # (batch, hidden)


def draw_binary(means: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Zeros and ones, which are ones with the given probabilities.

    Args:
        means: the probabilities.
        generator: of random numbers, wherever it is; torch's own if None.
    """
    device = means.device if generator is None else generator.device
    noise = torch.rand(means.shape, generator=generator, device=device)
    return (noise.to(means.device) < means).to(means.dtype)


def _all_states(units: int, like: Tensor) -> Tensor:
    """Every state of some binary units: ``(2**units, units)``."""
    numbers = torch.arange(2**units, device=like.device).unsqueeze(1)  # (states, 1)
    return (numbers >> torch.arange(units, device=like.device) & 1).to(like)
