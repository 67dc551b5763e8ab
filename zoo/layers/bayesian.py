r"""Layers whose weights are distributions: Bayes by Backprop (Blundell et al., 2015).

C. Blundell, J. Cornebise, K. Kavukcuoglu and D. Wierstra, "Weight uncertainty in neural networks",
https://arxiv.org/abs/1505.05424

Every weight has a normal distribution of its own, :math:`q(w) = \mathcal N(\mu, \sigma^2)` with
:math:`\sigma = \log(1 + e^\rho)`, and before the data :math:`p(w) = \mathcal N(0, s^2)`. In
training each forward pass draws all weights once, :math:`w = \mu + \sigma \epsilon`: the samples
of a batch share them. In evaluation mode the weights are their means.

Differences from the paper: the prior is one normal distribution, not a mixture of two, so that the
divergence has a closed form and need not be drawn.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one


class BayesianLayer(nn.Module):
    r"""A weight and a bias, each element with a mean and a standard deviation.

    Args:
        shape: of the weight; the first is the number of outputs.
        prior_scale: the standard deviation :math:`s` before the data.
        initial_scale: :math:`\sigma` in the beginning; the means begin as PyTorch's weights do.

    Raises:
        ValueError: if a scale is not greater than 0.
    """

    def __init__(self, shape: tuple[int, ...], *, prior_scale: float, initial_scale: float) -> None:
        super().__init__()
        for name, scale in (("prior_scale", prior_scale), ("initial_scale", initial_scale)):
            if not 0 < scale < math.inf:
                raise ValueError(f"{name} must be greater than 0, not {scale}")
        self.prior_scale, self.initial_scale = prior_scale, initial_scale
        self.weight_mean = nn.Parameter(torch.empty(shape))
        self.weight_rho = nn.Parameter(torch.empty(shape))
        self.bias_mean = nn.Parameter(torch.empty(shape[0]))
        self.bias_rho = nn.Parameter(torch.empty(shape[0]))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        bound = math.prod(self.weight_mean.shape[1:]) ** -0.5
        for mean, rho in self._pairs():
            nn.init.uniform_(mean, -bound, bound)
            nn.init.constant_(rho, math.log(math.expm1(self.initial_scale)))

    def no_weight_decay(self) -> set[str]:
        """All of them: the prior pulls at the means already, and at scales decay makes no sense."""
        return {"weight_mean", "weight_rho", "bias_mean", "bias_rho"}

    def weights(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of a forward pass."""
        if not self.training:
            return self.weight_mean, self.bias_mean
        weight, bias = (
            mean + F.softplus(rho) * torch.randn_like(mean) for mean, rho in self._pairs()
        )
        return weight, bias

    def kl(self) -> Tensor:
        r"""The divergence of the weights' distribution from the prior, in nats: a scalar.

        .. math:: \sum_j \log\frac{s}{\sigma_j} + \frac{\sigma_j^2 + \mu_j^2}{2 s^2} - \frac12
        """
        terms = []
        for mean, rho in self._pairs():
            ratio = F.softplus(rho) / self.prior_scale
            away = mean / self.prior_scale
            terms.append((0.5 * (ratio.square() + away.square() - 1) - ratio.log()).sum())
        return terms[0] + terms[1]

    def _pairs(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        return (self.weight_mean, self.weight_rho), (self.bias_mean, self.bias_rho)


class BayesianLinear(BayesianLayer):
    """A weighted sum of the inputs, see :class:`BayesianLayer`.

    Args:
        in_features: elements of a sample.
        out_features: elements of an output.
        prior_scale: standard deviation of a weight before the data.
        initial_scale: that of its distribution in the beginning.

    Shape:
        - input: ``(*, in_features)``
        - output: ``(*, out_features)``
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        prior_scale: float = 1.0,
        initial_scale: float = 0.05,
    ) -> None:
        check_at_least_one(in_features=in_features, out_features=out_features)
        shape = (out_features, in_features)
        super().__init__(shape, prior_scale=prior_scale, initial_scale=initial_scale)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, *self.weights())  # (*, out_features)


class BayesianConv2d(BayesianLayer):
    """A convolution of stride 1, see :class:`BayesianLayer`.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: height and width of the kernel.
        padding: rows and columns of zeros on each side.
        prior_scale: standard deviation of a weight before the data.
        initial_scale: that of its distribution in the beginning.

    Shape:
        - input: ``(batch, in_channels, height, width)``
        - output: ``(batch, out_channels, height + 2 padding - kernel_size + 1, likewise)``
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        padding: int = 0,
        prior_scale: float = 1.0,
        initial_scale: float = 0.05,
    ) -> None:
        check_at_least_one(
            in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size
        )
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        super().__init__(shape, prior_scale=prior_scale, initial_scale=initial_scale)
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, *self.weights(), padding=self.padding)


def total_kl(model: nn.Module) -> Tensor:
    """The sum of :meth:`BayesianLayer.kl` over a network.

    Raises:
        TypeError: it has no such layer.
    """
    terms = [module.kl() for module in model.modules() if isinstance(module, BayesianLayer)]
    if not terms:
        raise TypeError(
            f"{type(model).__name__} has no layers of zoo/layers/bayesian.py, as bayesian_mlp and "
            "bayesian_cnn have"
        )
    return torch.stack(terms).sum()
