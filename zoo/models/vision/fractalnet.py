r"""FractalNet (Larsson, Maire and Shakhnarovich, 2017).

"FractalNet: ultra-deep neural networks without residuals", https://arxiv.org/abs/1605.07648

One rule, applied again and again, makes a very deep network that contains short paths, without
any shortcut: put two copies of the block after each other and a single convolution next to them,
and average. Dropping paths at random in training keeps each of them useful by itself, so that one
column can be cut out and used alone.

.. math:: f_1(z) = \mathrm{conv}(z), \qquad f_{C+1}(z) = (f_C \circ f_C)(z) \oplus \mathrm{conv}(z)

where conv is a 3x3 convolution, batch norm and ReLU, and :math:`\oplus`, the join, is the mean of
all columns that end in the same place. Five blocks follow each other, each ending in 2x2
max-pooling, which takes 32x32 pixels to 1x1: :math:`5 \cdot 2^{C-1}` layers deep.

Drop-path, a new choice each batch: in half of them *local*, each join leaves out each of its inputs
with probability 0.15, but never all of them; in the other half *global*, one column, the same in
all blocks, is the whole network. A join is the mean of what is left.

Differences from the paper:

- As in the authors' experiments, columns are pooled right before a block's last join, and dropout
  stands between a convolution and its norm, as in their published code.
- Columns that drop-path leaves out are computed and multiplied by zero: their weights have
  gradients of zero, and their batch norms still see the batch.
- `fractalnet20` has 33.7 M parameters by the paper's rule and widths; the paper says 38.6 M and
  others who built it found 33.7 M too. The counts of the paper's table of depths agree
  with `fractalnet40_narrow` (4.8 M) and its relatives of 1 to 6 columns (0.3 to 21.1 M).

| block | size (32x32 input) | `fractalnet20` | `fractalnet40_narrow` |
|---|---|---|---|
| 1 | 32 x 32 | 7 convolutions of 64 | 15 of 16 |
| 2 | 16 x 16 | 7 of 128 | 15 of 32 |
| 3 | 8 x 8 | 7 of 256 | 15 of 64 |
| 4 | 4 x 4 | 7 of 512 | 15 of 128 |
| 5 | 2 x 2 | 7 of 512 | 15 of 128 |
| parameters | | 33,724,618 | 4,767,210 |
"""

from typing import NamedTuple, TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_images, check_probability
from zoo.layers.classifier import fresh_linear
from zoo.layers.initialization import deferred_init, reset

_GLOBAL_SHARE = 0.5


class Paths(NamedTuple):
    """Which paths a batch takes.

    Attributes:
        is_global: whether one column is the whole network, a scalar.
        column: that column, 0 being the shallowest, a scalar.
        local_drop: probability that a join leaves an input out, where the choice is local.
    """

    is_global: Tensor
    column: Tensor
    local_drop: float


class ConvLayer(nn.Module):
    """A 3x3 convolution, dropout, batch norm and ReLU.

    Shape:
        - input: ``(batch, in_channels, height, width)``
        - output: ``(batch, out_channels, height, width)``
    """

    def __init__(self, in_channels: int, out_channels: int, *, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.dropout(self.conv(x))), inplace=True)


def join(columns: list[Tensor], paths: Paths | None, *, num_columns: int) -> Tensor:
    """The mean of the columns that end here, or of those that drop-path leaves.

    Args:
        columns: outputs of one shape, the deepest first. They are the network's deepest ones.
        paths: the batch's choice, None for all.
        num_columns: columns of the whole block.

    Shape:
        - each input and the output: ``(batch, channels, height, width)``
    """
    if paths is None:
        return sum(columns[1:], columns[0]) / len(columns)
    place = num_columns - 1 - torch.arange(len(columns), device=paths.column.device)
    draws = torch.rand(len(columns), device=paths.column.device)
    # The largest draw always survives, so that one input does.
    local = (draws >= paths.local_drop) | (draws == draws.max())
    # A column that does not come through this join is not used after it either.
    alone = place == paths.column
    kept = torch.where(paths.is_global & alone.any(), alone, local).to(columns[0].dtype)
    weights = kept / kept.sum()
    total = weights[0] * columns[0]
    for weight, column in zip(weights[1:], columns[1:], strict=True):
        total = torch.addcmul(total, weight, column)
    return total


class Fractal(nn.Module):
    r"""The fractal :math:`f_C` without its last join: a list of columns that end together.

    Args:
        in_channels: channels of the input.
        out_channels: channels of every convolution in it.
        order: C, the number of columns.
        num_columns: columns of the block of which this is a part.
        dropout: probability of dropout in every convolution.

    Shape:
        - input: ``(batch, in_channels, height, width)``
        - output: a list of C times ``(batch, out_channels, height, width)``, the deepest first
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, order: int, num_columns: int, dropout: float
    ) -> None:
        super().__init__()
        self.num_columns = num_columns
        self.first: Fractal | None = None
        self.second: Fractal | None = None
        if order > 1:
            inner = {"order": order - 1, "num_columns": num_columns}
            self.first = Fractal(in_channels, out_channels, dropout=dropout, **inner)
            self.second = Fractal(out_channels, out_channels, dropout=dropout, **inner)
        self.conv = ConvLayer(in_channels, out_channels, dropout=dropout)

    def forward(self, x: Tensor, paths: Paths | None) -> list[Tensor]:
        if self.first is None or self.second is None:
            return [self.conv(x)]
        middle = join(self.first(x, paths), paths, num_columns=self.num_columns)
        return [*self.second(middle, paths), self.conv(x)]


class FractalNet(nn.Module):
    """Fractal blocks with max-pooling between, and a linear layer.

    Args:
        channels: channels of each block.
        num_columns: C, the columns of each block.
        num_classes: width of the output.
        in_channels: channels of the image.
        dropout: probability of dropout in each block's convolutions; the paper has 0 to 0.4.
        local_drop: probability that a join leaves an input out in batches of local drop-path.
        drop_path: whether paths are dropped in training.

    Shape:
        - input: ``(batch, in_channels, height, width)``, at least 32x32 for five blocks
        - output: logits ``(batch, num_classes)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    @deferred_init
    def __init__(
        self,
        channels: tuple[int, ...],
        *,
        num_columns: int,
        num_classes: int = 10,
        in_channels: int = 3,
        dropout: tuple[float, ...] | None = None,
        local_drop: float = 0.15,
        drop_path: bool = True,
    ) -> None:
        super().__init__()
        dropout = (0.0,) * len(channels) if dropout is None else dropout
        check_at_least_one(
            num_columns=num_columns, num_classes=num_classes, in_channels=in_channels
        )
        if len(dropout) != len(channels) or not all(0 <= p < 1 for p in dropout):
            raise ValueError(
                f"dropout must be {len(channels)} numbers in [0, 1), one a block, not {dropout}"
            )
        check_probability(local_drop=local_drop)
        self.in_channels, self.num_columns = in_channels, num_columns
        self.local_drop, self.drop_path = local_drop, drop_path
        self.smallest = 2 ** len(channels)
        self.blocks = nn.ModuleList(
            Fractal(before, after, order=num_columns, num_columns=num_columns, dropout=p)
            for before, after, p in zip(
                (in_channels, *channels[:-1]), channels, dropout, strict=True
            )
        )
        self.linear = nn.Linear(channels[-1], num_classes)

    def init_weights(self) -> None:
        reset(self)
        self.apply(_initialise)

    def reset_classifier(self, num_classes: int) -> None:
        """Makes the last layer anew, for other classes."""
        self.linear = fresh_linear(self.linear, num_classes).apply(_initialise)

    def paths(self, device: torch.device) -> Paths:
        """Draws a batch's paths."""
        return Paths(
            is_global=torch.rand((), device=device) < _GLOBAL_SHARE,
            column=torch.randint(self.num_columns, (), device=device),
            local_drop=self.local_drop,
        )

    def column(self, index: int, *, device: torch.device | str = "cpu") -> Paths:
        """Paths with which one column alone is the network, 0 being the shallowest."""
        if not 0 <= index < self.num_columns:
            raise ValueError(f"index must be 0 to {self.num_columns - 1}, not {index}")
        yes, chosen = torch.tensor(True, device=device), torch.tensor(index, device=device)
        return Paths(is_global=yes, column=chosen, local_drop=0.0)

    def forward_features(self, x: Tensor, paths: Paths | None = None) -> Tensor:
        check_images(x, in_channels=self.in_channels, smallest=self.smallest)
        for block in self.blocks:
            columns = [F.max_pool2d(column, 2) for column in block(x, paths)]
            x = join(
                columns, paths, num_columns=self.num_columns
            )  # (batch, channels, h / 2, w / 2)
        return x

    def along(self, x: Tensor, paths: Paths | None) -> Tensor:
        """The logits by way of these paths, or of all for None."""
        x = self.forward_features(x, paths)  # (batch, channels, h', w')
        # One pixel is left of 32x32; of more, the mean.
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)  # (batch, channels)
        return self.linear(x)  # (batch, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.along(x, self.paths(x.device) if self.training and self.drop_path else None)


def _initialise(layer: nn.Module) -> None:
    """Xavier-uniform weights, biases 0."""
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


class FractalNetOptions(TypedDict, total=False):
    """What the builders hand on to :class:`FractalNet`."""

    in_channels: int
    local_drop: float


def fractalnet20(
    num_classes: int = 10,
    *,
    dropout: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4),
    drop_path: bool = True,
    **options: Unpack[FractalNetOptions],
) -> FractalNet:
    """Three columns and 20 layers, the network of the paper's results on CIFAR."""
    return FractalNet(
        (64, 128, 256, 512, 512),
        num_columns=3,
        num_classes=num_classes,
        dropout=dropout,
        drop_path=drop_path,
        **options,
    )


def fractalnet40_narrow(
    num_classes: int = 10,
    *,
    dropout: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0),
    drop_path: bool = False,
    **options: Unpack[FractalNetOptions],
) -> FractalNet:
    """Four columns and 40 layers of a quarter of the width, from the paper's table of depths."""
    return FractalNet(
        (16, 32, 64, 128, 128),
        num_columns=4,
        num_classes=num_classes,
        dropout=dropout,
        drop_path=drop_path,
        **options,
    )
