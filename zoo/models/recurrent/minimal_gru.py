r"""Minimal gated unit (Zhou, Wu, Zhang and Zhou, 2016).

"Minimal gated unit for recurrent neural networks", https://arxiv.org/abs/1603.09420

A GRU whose reset and update gates are one, the forget gate: where the state is replaced, the
candidate sees it; where it is kept, it does not. Twice the parameters of a plain recurrent network.
(Heck and Salem 2017, https://arxiv.org/abs/1701.03452, take still more out of the gate; this is the
unit that they begin with.)

Differences from the paper: two bias vectors where one would do, so that a layer's parameters have
the names and shapes of its relatives' in torch.

| layer | parameters | 10 to 7 |
|---|---|---|
| `MinimalGRU` | 2 h (i + h + 2) | 266 |
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.hidden_product import HiddenProduct
from zoo.layers.recurrence import Backend, Cell, Recurrence, States, Step, Weights


def _minimal_gru_steps(x: Tensor, weights: Weights, mask: Tensor | None) -> Step:
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    size = weight_hh.size(1)
    inputs = F.linear(x, weight_ih, bias_ih + bias_hh)  # (time, batch, 2 * hidden_size)
    gate = HiddenProduct(inputs[..., :size], weight_hh[:size], mask)
    candidate = HiddenProduct(inputs[..., size:], weight_hh[size:], mask)

    def step(t: int, state: States) -> States:
        (h,) = state
        f = torch.sigmoid(gate(t, h))  # (batch, hidden_size)
        n = torch.tanh(candidate(t, f * h))
        return ((1 - f) * h + f * n,)

    return step


class MinimalGRUCell(Cell):
    r"""One step of the minimal gated unit.

    The equations are those of :class:`MinimalGRU`.

    Args:
        input_size: features of the input.
        hidden_size: width of the state.

    Shape:
        - input: ``(batch, input_size)``, and a state or None for zeros
        - output and state: ``(batch, hidden_size)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    num_blocks: ClassVar[int] = 2

    def steps(self, x: Tensor, weights: Weights, mask: Tensor | None) -> Step:
        return _minimal_gru_steps(x, weights, mask)


class MinimalGRU(Recurrence, nn.RNN):  # type: ignore[misc]
    r"""Layers of :class:`MinimalGRUCell`.

    .. math::
        f_t &= \sigma(W_f x_t + U_f h_{t-1} + b_f) \\
        \tilde h_t &= \tanh(W_h x_t + U_h (f_t \odot h_{t-1}) + b_h) \\
        h_t &= (1 - f_t) \odot h_{t-1} + f_t \odot \tilde h_t

    W is ``weight_ih``, U is ``weight_hh``, both stacked in the order f, h, and b the sum of both
    biases. There is no kernel, so both backends are the loop. Arguments, shapes and errors are
    those of :class:`~zoo.layers.recurrence.Recurrence`.
    """

    has_kernel: ClassVar[bool] = False

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        backend: Backend = "fused",
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers=num_layers,
            bidirectional=bidirectional,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            backend=backend,
        )
        for names in self._all_weights:  # torch's base knows one block, three and four
            for name in names:
                height, *width = getattr(self, name).shape
                setattr(self, name, nn.Parameter(torch.empty(2 * height, *width)))
        self.reset_parameters()

    def flatten_parameters(self) -> None:
        """Does nothing: no kernel wants the parameters side by side."""

    def steps(self, x: Tensor, weights: Weights, mask: Tensor | None) -> Step:
        return _minimal_gru_steps(x, weights, mask)
