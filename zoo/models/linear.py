r"""Linear and softmax regression (Legendre, 1805; Cox, 1958 and 1966).

A. M. Legendre, "Nouvelles méthodes pour la détermination des orbites des comètes", 1805;
D. R. Cox, "The regression analysis of binary sequences", 1958, https://www.jstor.org/stable/2983890;
D. R. Cox, "Some procedures connected with the logistic qualitative response curve", 1966.

A weighted sum of the inputs predicts a number; one weighted sum a class, put through a softmax,
predicts a class. Both losses are convex, so every start leads to the same fit, and least squares
even has a closed form: what a trainer must arrive at is known beforehand.

Differences from the papers: fitted by gradient descent here instead of by solving equations.

| model | inputs | outputs | parameters |
|---|---|---|---|
| `LinearRegression` | 10 | 1 | 11 |
| `SoftmaxRegression` | 784 | 10 | 7,850 |
"""

from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one
from zoo.layers.initialization import deferred_init, reset


def _start_at_zero(linear: nn.Linear) -> None:
    """A convex loss does not care where the weights start."""
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)


class LinearRegression(nn.Module):
    r"""Least squares.

    .. math:: \hat y = W x + b

    With one row :math:`(x, 1)` a sample in :math:`X`, the mean squared error is smallest at
    :math:`(X^\top X)^{-1} X^\top Y`, where :math:`X` has full column rank, and at
    :math:`X^+ Y` (the pseudo-inverse, the smallest of the solutions) in any case.

    Args:
        in_features: elements of one sample once flattened.
        out_features: numbers predicted from each sample.

    Shape:
        - input: ``(batch, *)`` with ``in_features`` elements per sample
        - output: ``(batch, out_features)``

    Raises:
        ValueError: if a size is smaller than 1.
    """

    @deferred_init
    def __init__(self, in_features: int, out_features: int = 1) -> None:
        super().__init__()
        check_at_least_one(in_features=in_features, out_features=out_features)
        self.linear = nn.Linear(in_features, out_features)

    def init_weights(self) -> None:
        reset(self)
        _start_at_zero(self.linear)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))  # (batch, out_features)


class SoftmaxRegression(nn.Module):
    r"""Multinomial logistic regression.

    .. math:: p(k \mid x) = \frac{\exp(w_k^\top x + b_k)}{\sum_j \exp(w_j^\top x + b_j)}

    The logits :math:`w_k^\top x + b_k` are returned: the softmax belongs to the loss, where it
    is computed without overflow.

    Args:
        in_features: elements of one sample once flattened.
        num_classes: width of the output.

    Shape:
        - input: ``(batch, *)`` with ``in_features`` elements per sample
        - output: logits ``(batch, num_classes)``

    Raises:
        ValueError: if a size is smaller than 1.
    """

    @deferred_init
    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        check_at_least_one(in_features=in_features, num_classes=num_classes)
        self.linear = nn.Linear(in_features, num_classes)

    def init_weights(self) -> None:
        reset(self)
        _start_at_zero(self.linear)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))  # (batch, num_classes)
