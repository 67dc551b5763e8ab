r"""Long short-term memory (Hochreiter and Schmidhuber, 1997).

"Long short-term memory", https://doi.org/10.1162/neco.1997.9.8.1735, with the forget gate of Gers,
Schmidhuber and Cummins 2000, "Learning to forget", https://doi.org/10.1162/089976600300015015

A memory cell is added to, not overwritten, so an error signal can flow back through it for many
steps without fading; gates learn when to write to it, when to empty it and when to show it.

Differences from the papers: no peephole connections (for which see `peephole_lstm.py`) and one cell
a block, as has become usual; tanh for what goes into a cell and what comes out of it, where the
papers squash by logistic functions stretched to [-2, 2] and to [-1, 1], which are 2 tanh(x / 2) and
tanh(x / 2); two bias vectors a layer where one would do, since `torch.nn.LSTM`'s checkpoints have
two.

| layer | parameters | 10 to 7 |
|---|---|---|
| `LSTM` | 4 h (i + h + 2) | 532 |
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.hidden_product import HiddenProduct
from zoo.layers.recurrence import Backend, Cell, Recurrence, States, Step, Weights


def _lstm_steps(x: Tensor, weights: Weights, mask: Tensor | None) -> Step:
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    gates = HiddenProduct(F.linear(x, weight_ih, bias_ih + bias_hh), weight_hh, mask)

    def step(t: int, state: States) -> States:
        h, c = state
        i, f, g, o = gates(t, h).chunk(4, dim=1)  # (batch, hidden_size) each
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return h, c

    return step


class LSTMCell(Cell):
    r"""One step of the LSTM; a checkpoint of `torch.nn.LSTMCell` loads.

    The equations are those of :class:`LSTM`.

    Args:
        input_size: features of the input.
        hidden_size: width of the cell and of the output.

    Shape:
        - input: ``(batch, input_size)``, and a state or None for zeros
        - output and state: h and c, each ``(batch, hidden_size)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    num_blocks: ClassVar[int] = 4
    num_states: ClassVar[int] = 2

    def steps(self, x: Tensor, weights: Weights, mask: Tensor | None) -> Step:
        return _lstm_steps(x, weights, mask)


class LSTM(Recurrence, nn.LSTM):  # type: ignore[misc]
    r"""Layers of :class:`LSTMCell`; a checkpoint of `torch.nn.LSTM` loads as it is.

    .. math::
        i_t &= \sigma(W_{ii} x_t + b_{ii} + W_{hi} h_{t-1} + b_{hi}) \\
        f_t &= \sigma(W_{if} x_t + b_{if} + W_{hf} h_{t-1} + b_{hf}) \\
        g_t &= \tanh(W_{ig} x_t + b_{ig} + W_{hg} h_{t-1} + b_{hg}) \\
        o_t &= \sigma(W_{io} x_t + b_{io} + W_{ho} h_{t-1} + b_{ho}) \\
        c_t &= f_t \odot c_{t-1} + i_t \odot g_t \\
        h_t &= o_t \odot \tanh(c_t)

    The four matrices are stacked in the order i, f, g, o: ``weight_ih_l0`` has shape
    ``(4 * hidden_size, input_size)``.

    Args:
        input_size: features of one step.
        hidden_size: width of the cell and of the output.
        forget_bias: what the two biases of the forget gate add up to at the start, or None for
            torch's uniform start. One (Jozefowicz, Zaremba and Sutskever 2015,
            https://proceedings.mlr.press/v37/jozefowicz15.html) lets the cell keep what it has
            before it has learned to.
        num_layers, bidirectional, dropout, recurrent_dropout, backend: as in
            :class:`~zoo.layers.recurrence.Recurrence`, and so are the shapes.

    Raises:
        ValueError: if an argument is outside its range.
    """

    num_states: ClassVar[int] = 2

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        forget_bias: float | None = None,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        backend: Backend = "fused",
    ) -> None:
        self.forget_bias = forget_bias  # known before the base's constructor starts the weights
        super().__init__(
            input_size,
            hidden_size,
            num_layers=num_layers,
            bidirectional=bidirectional,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            backend=backend,
        )

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.forget_bias is not None:
            for _, _, bias_ih, bias_hh, *_ in self.all_weights:
                nn.init.constant_(bias_ih.chunk(4)[1], self.forget_bias)
                nn.init.zeros_(bias_hh.chunk(4)[1])

    def steps(self, x: Tensor, weights: Weights, mask: Tensor | None) -> Step:
        return _lstm_steps(x, weights, mask)

    def _uses_torch(self, x: Tensor) -> bool:
        # A CPU's kernel packs the matrices at every call: for a single step, at 512 wide, that
        # takes three to five times as long as the equations.
        is_step = x.is_cpu and x.ndim == 3 and x.size(1) == 1
        return super()._uses_torch(x) and not is_step
