r"""Polynomial regression (Gergonne, 1815).

J. D. Gergonne, "Application de la méthode des moindres quarrés à l'interpolation des suites", 1815;
in English in Historia Mathematica, 1974, https://doi.org/10.1016/0315-0860(74)90034-2.

A linear model of powers and products of the inputs: still one closed form, yet as curved as one
likes, and the classical example of a fit that is too good.

Differences from the paper: several inputs, whose products count as powers do; fitted by gradient
descent.

| model | inputs | degree | outputs | parameters |
|---|---|---|---|---|
| `PolynomialRegression` | 1 | 9 | 1 | 10 |
| `PolynomialRegression` | 10 | 2 | 1 | 66 |
"""

import math
from itertools import combinations_with_replacement

import torch
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one
from zoo.layers.initialization import deferred_init, reset

MOST_TERMS = 100_000


class PolynomialRegression(nn.Module):
    r"""A weighted sum of all monomials up to a degree.

    .. math:: \hat y = b + \sum_{1 \le |\alpha| \le d} w_\alpha \prod_j x_j^{\alpha_j}

    The inputs should have a scale of about 1, or the highest powers decide alone.

    Args:
        in_features: elements of one sample once flattened.
        out_features: numbers predicted from each sample.
        degree: d; 1 is linear regression.

    Shape:
        - input: ``(batch, *)`` with ``in_features`` elements per sample
        - output: ``(batch, out_features)``

    Raises:
        ValueError: if a size is smaller than 1, or there are more than 100,000 monomials.
    """

    @deferred_init
    def __init__(self, in_features: int, out_features: int = 1, *, degree: int = 2) -> None:
        super().__init__()
        check_at_least_one(in_features=in_features, out_features=out_features, degree=degree)
        terms = math.comb(in_features + degree, degree) - 1
        if terms > MOST_TERMS:
            raise ValueError(
                f"degree={degree} of {in_features} features has {terms:,} monomials, more than "
                f"{MOST_TERMS:,}: lower degree"
            )
        self.in_features, self.degree = in_features, degree
        self.linear = nn.Linear(terms, out_features)

    def init_weights(self) -> None:
        reset(self)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward_features(self, x: Tensor) -> Tensor:
        """The monomials, by degree and then in the order of their features."""
        x = x.flatten(1)
        found = []
        for degree in range(1, self.degree + 1):
            factors = list(combinations_with_replacement(range(self.in_features), degree))
            index = torch.tensor(factors, device=x.device)  # (monomials, degree)
            found.append(x[:, index].prod(-1))  # (batch, monomials)
        return torch.cat(found, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.forward_features(x))  # (batch, out_features)
