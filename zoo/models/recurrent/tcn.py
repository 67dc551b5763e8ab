r"""Temporal convolutional network (Bai, Kolter and Koltun, 2018).

"An empirical evaluation of generic convolutional and recurrent networks for sequence modeling",
https://arxiv.org/abs/1803.01271; the authors' code: https://github.com/locuslab/TCN

A sequence is convolved in time, each output seeing its own step and those before it, never a later
one. The steps between the taps double from block to block, so that what an output sees grows
exponentially with depth. It is the counterpart that recurrent networks are compared with: all steps
are computed at once, and the past has a fixed length.

Where the paper and the authors' code differ:

- Dropout: the paper silences whole channels ("spatial dropout"), the code single values. The code's
  is built here.
- Start: the code draws the convolutions' weights with standard deviation 0.01, but after weight
  normalisation has taken them over, so that the next forward pass computes them anew from torch's
  own start. Only the 1x1 convolutions keep the 0.01. Here as there in effect.

F ends in a ReLU and a dropout, in both of them, so that a block only ever adds to its input.

Modules bear the names of the code (``tcn.network.0.conv1``, ``linear``). Its state dicts load as
they are once the entries ``*.net.*``, which store the same convolutions a second time, are left
out; torch itself brings weight normalisation's ``weight_g`` and ``weight_v`` to their present
names.

| builder | reads | blocks | kernel | receptive field | parameters |
|---|---|---|---|---|---|
| `tcn_regressor` | vectors of 2 numbers | 7 of width 27 | 6 | 1,271 | 58,051 |
| `tcn_classifier`, `tcn_tagger` | 1,000 kinds of token | 6 of width 64 | 7 | 757 | 409,730 |
"""

import math
from typing import TypedDict, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from zoo.layers.checks import check_at_least_one, check_lengths, check_probability
from zoo.layers.initialization import deferred_init, reset
from zoo.models.recurrent.step_embedding import StepEmbedding


class CausalConv1d(nn.Conv1d):
    r"""A convolution in time with the weights normalised, that sees no later step.

    .. math:: y_t = b + \sum_{i=0}^{k-1} W_i\, x_{t - d i}

    with zeros before the first step.

    Args:
        in_channels: width of a step.
        out_channels: width of a step of the output.
        kernel_size: taps k.
        dilation: steps d between two taps.

    Shape:
        - input: ``(batch, in_channels, time)``
        - output: ``(batch, out_channels, time)``
    """

    @deferred_init
    def __init__(
        self, in_channels: int, out_channels: int, *, kernel_size: int, dilation: int = 1
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, dilation=dilation)
        self.reach = (kernel_size - 1) * dilation
        weight_norm(self)

    def init_weights(self) -> None:
        # torch's own start, once more as torch has it: into the weight, not what it is made of.
        weight = torch.empty_like(self.weight)
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        self.weight = weight
        limit = 1 / math.sqrt(weight[0].numel())
        assert self.bias is not None
        nn.init.uniform_(self.bias, -limit, limit)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input, (self.reach, 0)))


class TemporalBlock(nn.Module):
    r"""Two dilated causal convolutions and a way around them (figure 1b).

    .. math:: o = \mathrm{ReLU}(x + F(x))

    with a 1x1 convolution on x where the widths differ. F is convolution, ReLU, dropout, twice.

    Args:
        in_channels: width of a step.
        out_channels: width of a step of the output.
        kernel_size: taps of both convolutions.
        dilation: steps between two taps.
        dropout: probability of silencing a value during training.

    Shape:
        - input: ``(batch, in_channels, time)``
        - output: ``(batch, out_channels, time)``
    """

    @deferred_init
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int,
        dilation: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        options = {"kernel_size": kernel_size, "dilation": dilation}
        self.conv1 = CausalConv1d(in_channels, out_channels, **options)
        self.conv2 = CausalConv1d(out_channels, out_channels, **options)
        self.dropout = nn.Dropout(dropout)
        self.downsample: nn.Conv1d | None = None
        if in_channels != out_channels:
            self.downsample = nn.Conv1d(in_channels, out_channels, 1)

    def init_weights(self) -> None:
        reset(self)
        if self.downsample is not None:
            nn.init.normal_(self.downsample.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        out = self.dropout(F.relu(self.conv1(x)))  # (batch, out_channels, time)
        out = self.dropout(F.relu(self.conv2(out)))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class TemporalConvNet(nn.Module):
    r"""Blocks one upon the other, each with twice the dilation of the one below.

    The last of the steps that an output sees lies R - 1 steps back,

    .. math:: R = 1 + 2 (k - 1) (2^L - 1)

    with kernel size k and L blocks.

    Args:
        in_channels: width of a step.
        hidden_channels: width of each block.
        kernel_size: taps of the convolutions.
        dropout: probability of silencing a value during training.

    Shape:
        - input: ``(batch, in_channels, time)``
        - output: ``(batch, hidden_channels[-1], time)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: tuple[int, ...],
        *,
        kernel_size: int = 2,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if not hidden_channels:
            raise ValueError("hidden_channels must name a width for at least one block, not ()")
        check_at_least_one(
            in_channels=in_channels, hidden_channels=hidden_channels, kernel_size=kernel_size
        )
        check_probability(dropout=dropout)
        widths = (in_channels, *hidden_channels)
        self.network = nn.Sequential(
            *(
                TemporalBlock(
                    widths[level],
                    widths[level + 1],
                    kernel_size=kernel_size,
                    dilation=2**level,
                    dropout=dropout,
                )
                for level in range(len(hidden_channels))
            )
        )
        self.receptive_field = 1 + 2 * (kernel_size - 1) * (2 ** len(hidden_channels) - 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


class SequenceTCN(nn.Module):
    r"""An answer for a sequence after its last step, or for each of its steps.

    Sequences of unequal length are padded on the right, where no step of the sequence looks.

    Args:
        vocab_size: number of different tokens; None if the steps are vectors.
        in_features: width of a step; None if the steps are tokens.
        out_features: classes, or numbers to be predicted.
        every_step: say it about each step rather than once.
        embed_dim: width of a token's embedding; has no effect on vectors.
        hidden_channels: width of each block.
        kernel_size: taps of the convolutions.
        dropout: probability of silencing a value during training.

    Shape:
        - input: tokens ``(batch, time)`` of type int64, or vectors ``(batch, time, in_features)``;
          lengths ``(batch,)``, None if all sequences fill their row
        - output: ``(batch, out_features)``, or ``(batch, time, out_features)``

    Raises:
        ValueError: if an argument is outside its range, or the inputs are of the other sort.
    """

    @deferred_init
    def __init__(
        self,
        vocab_size: int | None = None,
        in_features: int | None = None,
        *,
        out_features: int,
        every_step: bool,
        embed_dim: int = 64,
        hidden_channels: tuple[int, ...] = (64,) * 6,
        kernel_size: int = 7,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_at_least_one(out_features=out_features)
        self.every_step = every_step
        self.steps = StepEmbedding(vocab_size, in_features, embed_dim=embed_dim)
        self.tcn = TemporalConvNet(
            self.steps.out_features, hidden_channels, kernel_size=kernel_size, dropout=dropout
        )
        self.linear = nn.Linear(hidden_channels[-1], out_features)

    def init_weights(self) -> None:
        reset(self)
        nn.init.normal_(self.linear.weight, std=0.01)

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        steps = self.steps(inputs).transpose(1, 2)  # (batch, features, time)
        if lengths is not None:
            check_lengths(lengths, batch=steps.size(0), time=steps.size(2))
        hidden = self.tcn(steps).transpose(1, 2)  # (batch, time, channels)
        if self.every_step:
            return self.linear(hidden)  # (batch, time, out_features)
        if lengths is None:
            return self.linear(hidden[:, -1])  # (batch, out_features)
        last = lengths.to(hidden.device) - 1
        return self.linear(hidden[torch.arange(hidden.size(0), device=hidden.device), last])


class SequenceTCNOptions(TypedDict, total=False):
    """See :class:`SequenceTCN`."""

    embed_dim: int
    hidden_channels: tuple[int, ...]
    kernel_size: int
    dropout: float


def tcn_classifier(
    num_classes: int = 2,
    *,
    vocab_size: int | None = None,
    in_features: int | None = None,
    **options: Unpack[SequenceTCNOptions],
) -> SequenceTCN:
    """One class for each sequence of tokens (``vocab_size``) or vectors (``in_features``)."""
    return SequenceTCN(
        vocab_size, in_features, out_features=num_classes, every_step=False, **options
    )


def tcn_regressor(
    in_features: int | None = None,
    out_features: int = 1,
    *,
    vocab_size: int | None = None,
    embed_dim: int = 64,
    hidden_channels: tuple[int, ...] = (27,) * 7,
    kernel_size: int = 6,
    dropout: float = 0.0,
) -> SequenceTCN:
    """Numbers for each sequence of vectors (``in_features``) or tokens (``vocab_size``)."""
    return SequenceTCN(
        vocab_size,
        in_features,
        out_features=out_features,
        every_step=False,
        embed_dim=embed_dim,
        hidden_channels=hidden_channels,
        kernel_size=kernel_size,
        dropout=dropout,
    )


def tcn_tagger(
    num_classes: int = 2,
    *,
    vocab_size: int | None = None,
    in_features: int | None = None,
    **options: Unpack[SequenceTCNOptions],
) -> SequenceTCN:
    """One class for each step of a sequence of tokens (``vocab_size``) or vectors."""
    return SequenceTCN(
        vocab_size, in_features, out_features=num_classes, every_step=True, **options
    )
