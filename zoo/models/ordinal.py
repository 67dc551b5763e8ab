r"""Ordinal regression: classes that have an order (McCullagh, 1980).

P. McCullagh, "Regression models for ordinal data", 1980,
https://doi.org/10.1111/j.2517-6161.1980.tb01109.x, section 2: the proportional odds model.

One weighted sum of the inputs stands for how far up the scale a sample lies, and rising thresholds
cut the scale into classes. Whatever the threshold, an input changes the odds of lying above it by
the same factor.

Differences from the paper: fitted by gradient descent here instead of by iterated weighted least
squares.

| model | inputs | classes | parameters |
|---|---|---|---|
| `OrdinalRegression` | 10 | 5 | 14 |
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.layers.checks import check_at_least_one
from zoo.layers.initialization import deferred_init, reset


class OrdinalRegression(nn.Module):
    r"""The proportional odds model, equation 2.3.

    .. math:: p(y \le k \mid x) = \sigma(\theta_k - w^\top x), \qquad
        \theta_1 < \theta_2 < \dots < \theta_{K-1}

    The logarithms of the classes' probabilities are returned, which a softmax leaves as they are:
    cross-entropy (task=classification) is the model's likelihood. Of two classes it is logistic
    regression.

    Args:
        in_features: elements of one sample once flattened.
        num_classes: K, in their order.

    Shape:
        - input: ``(batch, *)`` with ``in_features`` elements per sample
        - output: log-probabilities ``(batch, num_classes)``

    Raises:
        ValueError: if ``in_features`` is smaller than 1 or ``num_classes`` smaller than 2.
    """

    @deferred_init
    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        check_at_least_one(in_features=in_features)
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, not {num_classes}")
        self.num_classes = num_classes
        self.linear = nn.Linear(in_features, 1, bias=False)
        self.first = nn.Parameter(torch.empty(1))
        self.log_steps = nn.Parameter(torch.empty(num_classes - 2))

    def init_weights(self) -> None:
        """Equal shares of all classes whatever the input."""
        reset(self)
        nn.init.zeros_(self.linear.weight)
        shares = torch.arange(1, self.num_classes, dtype=torch.float64) / self.num_classes
        thresholds = shares.logit()
        with torch.no_grad():
            self.first.copy_(thresholds[:1])
            self.log_steps.copy_(thresholds.diff().log())

    @property
    def thresholds(self) -> Tensor:
        """Where the scale is cut, ``(num_classes - 1,)``."""
        return torch.cat([self.first, self.first + self.log_steps.exp().cumsum(0)])

    def forward(self, x: Tensor) -> Tensor:
        away = self.thresholds - self.linear(x.flatten(1))  # (batch, classes - 1)
        below, above = F.logsigmoid(away), F.logsigmoid(-away)
        # sigma(a) - sigma(b) = sigma(a) sigma(-b) (1 - exp(b - a))
        between = torch.log(-torch.expm1(-self.log_steps.exp()))  # (classes - 2,)
        middle = below[:, 1:] + above[:, :-1] + between
        return torch.cat([below[:, :1], middle, above[:, -1:]], dim=1)  # (batch, num_classes)
