r"""Maxout units (Goodfellow et al. 2013), "Maxout networks", https://arxiv.org/abs/1302.4389."""

from torch import Tensor, nn


class Maxout(nn.Module):
    r"""Units that each return the largest of several linear maps.

    .. math:: h_i(x) = \max_j (w_{ij}^\top x + b_{ij})

    Args:
        in_features: width of the input.
        out_features: number of units.
        pieces: linear maps of each unit.

    Shape:
        - input: ``(..., in_features)``
        - output: ``(..., out_features)``
    """

    def __init__(self, in_features: int, out_features: int, *, pieces: int = 2) -> None:
        super().__init__()
        self.pieces = pieces
        self.linear = nn.Linear(in_features, out_features * pieces)

    def forward(self, x: Tensor) -> Tensor:
        values = self.linear(x).unflatten(-1, (-1, self.pieces))  # (..., out_features, pieces)
        return values.amax(-1)  # (..., out_features)


class LargestPiece(nn.Module):
    """The largest of every few neighbouring features or maps: a maxout unit without its weights.

    Args:
        pieces: how many belong to one unit.

    Shape:
        - input: ``(batch, units * pieces, *)``
        - output: ``(batch, units, *)``
    """

    def __init__(self, pieces: int = 2) -> None:
        super().__init__()
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, self.pieces)).amax(2)  # (batch, units, *)
