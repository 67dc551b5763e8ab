"""Hidden layers put together by name: weighted sums, a non-linearity, batch norm, dropout."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from zoo.layers.activations import (
    Activation,
    check_activation,
    make_activation,
    negative_slope,
    pieces,
    suitable_start,
)
from zoo.layers.checks import check_probability
from zoo.layers.initialization import Start, check_start, start_

Placement = Literal["none", "before", "after"]


@dataclass(frozen=True, kw_only=True)
class Hidden:
    """What the hidden layers of a network have in common.

    Args:
        activation: the non-linearity, see `make_activation`.
        slope: of ``leaky_relu`` and ``prelu``, likewise.
        batch_norm: whether there is batch normalisation, ``before`` or ``after`` it.
        dropout: probability with which a unit is silenced during training.
        init: how all weights start, see `start_`; None: as suits the non-linearity, and the output
            layer as after Glorot.
        init_std: of ``normal`` and ``uniform``.

    Raises:
        ValueError: a name is unknown, or a number outside its range.
    """

    activation: Activation
    slope: float | None
    batch_norm: Placement
    dropout: float
    init: Start | None
    init_std: float

    def __post_init__(self) -> None:
        check_activation(self.activation)
        if self.batch_norm not in ("none", "before", "after"):
            raise ValueError(f"batch_norm must be none, before or after, not {self.batch_norm!r}")
        check_probability(dropout=self.dropout)
        check_start(self.init, self.init_std)

    def linear(self, in_features: int, out_features: int) -> list[nn.Module]:
        """A fully connected layer: ``(batch, in_features)`` to ``(batch, out_features)``."""
        sums = nn.Linear(in_features, out_features * pieces(self.activation))
        layers = self._behind(sums, out_features, nn.BatchNorm1d)
        return [*layers, nn.Dropout(self.dropout)] if self.dropout > 0 else layers

    def convolution(self, in_channels: int, out_channels: int, size: int) -> list[nn.Module]:
        """A convolution that keeps height and width, with a kernel of odd size; no dropout."""
        channels = out_channels * pieces(self.activation)
        sums = nn.Conv2d(in_channels, channels, size, padding=size // 2)
        return self._behind(sums, out_channels, nn.BatchNorm2d)

    def _behind(
        self, sums: nn.Module, units: int, norm: type[nn.BatchNorm1d | nn.BatchNorm2d]
    ) -> list[nn.Module]:
        activation = make_activation(self.activation, slope=self.slope)
        if self.batch_norm == "before":
            return [sums, norm(units * pieces(self.activation)), activation]
        return [sums, activation, *([norm(units)] if self.batch_norm == "after" else [])]

    def start(self, layer: nn.Linear | nn.Conv2d, *, is_output: bool = False) -> None:
        """Gives weights in front of the non-linearity, or of the output, their first values."""
        suitable: Start = "glorot" if is_output else suitable_start(self.activation)
        slope = 0.0 if is_output else negative_slope(self.activation, self.slope)
        start_(layer.weight, self.init or suitable, std=self.init_std, slope=slope)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)


def unused_options(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Options of `Hidden` that the others leave without effect, and why."""
    unused = {}  # A builder may not have them.
    if "slope" in arguments and arguments["activation"] not in ("leaky_relu", "prelu"):
        unused["slope"] = f"{arguments['activation']} has none"
    if "init_std" in arguments and arguments["init"] not in ("normal", "uniform"):
        unused["init_std"] = "model.init is neither normal nor uniform"
    return unused
