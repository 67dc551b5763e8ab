r"""Gated recurrent unit (Cho et al., 2014), as in the paper and as in torch.

Cho, van Merriënboer, Gulcehre, Bahdanau, Bougares, Schwenk and Bengio, "Learning phrase
representations using RNN encoder-decoder for statistical machine translation",
https://arxiv.org/abs/1406.1078

The state is a weighted mean of itself and a candidate, so what the update gate keeps is carried on
unchanged, as in an LSTM's cell, but with three quarters of its parameters; the reset gate lets the
candidate forget.

Two forms are in use, and they are *different functions* of the same parameters:

- :class:`PaperGRU` resets the state *before* the product, :math:`U(r_t \odot h_{t-1})`, as the
  paper does (in its encoder; its decoder resets after the product);
- :class:`GRU` resets the product *after* it, :math:`r_t \odot (U h_{t-1} + b)`, as cuDNN and
  `torch.nn.GRU` do: one product a step for all three blocks, and so faster.

Where r is one they agree. Differences from the paper: biases, which it has none of; two vectors of
them, as torch's checkpoints have (for `PaperGRU` one would do). The update gate is the paper's:
z = 1 keeps the state. (Chung et al. 2014 have it the other way round.)

| layer | parameters | 10 to 7 |
|---|---|---|
| `GRU` | 3 h (i + h + 2) | 399 |
| `PaperGRU` | 3 h (i + h + 2) | 399 |
"""

from collections.abc import Sequence
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.checks import needs_plain_operations
from zoo.layers.gru_scan import gru_scan
from zoo.layers.hidden_product import HiddenProduct
from zoo.layers.recurrence import Alive, Cell, Recurrence, States, Step, Weights


def _gru_steps(x: Tensor, weights: Weights, mask: Tensor | None) -> Step:
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    inputs = F.linear(x, weight_ih, bias_ih)  # (time, batch, 3 * hidden_size)
    hidden = HiddenProduct(bias_hh.to(inputs.dtype).expand_as(inputs), weight_hh, mask)
    x_r_, x_z_, x_n_ = (gate.unbind(0) for gate in inputs.chunk(3, dim=2))

    def step(t: int, state: States) -> States:
        (h,) = state
        h_r, h_z, h_n = hidden(t, h).chunk(3, dim=1)  # (batch, hidden_size) each
        r = torch.sigmoid(x_r_[t] + h_r)
        z = torch.sigmoid(x_z_[t] + h_z)
        n = torch.tanh(x_n_[t] + r * h_n)
        return ((1 - z) * n + z * h,)

    return step


def _paper_gru_steps(x: Tensor, weights: Weights, mask: Tensor | None) -> Step:
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    size = weight_hh.size(1)
    inputs = F.linear(x, weight_ih, bias_ih + bias_hh)  # (time, batch, 3 * hidden_size)
    gates = HiddenProduct(inputs[..., : 2 * size], weight_hh[: 2 * size], mask)
    candidate = HiddenProduct(inputs[..., 2 * size :], weight_hh[2 * size :], mask)

    def step(t: int, state: States) -> States:
        (h,) = state
        r, z = torch.sigmoid(gates(t, h)).chunk(2, dim=1)  # (batch, hidden_size) each
        n = torch.tanh(candidate(t, r * h))
        return ((1 - z) * n + z * h,)

    return step


class GRUCell(Cell):
    r"""One step of the GRU; a checkpoint of `torch.nn.GRUCell` loads.

    The equations are those of :class:`GRU`.

    Args:
        input_size: features of the input.
        hidden_size: width of the state.

    Shape:
        - input: ``(batch, input_size)``, and a state or None for zeros
        - output and state: ``(batch, hidden_size)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    num_blocks: ClassVar[int] = 3

    def steps(self, x: Tensor, weights: Weights, mask: Tensor | None) -> Step:
        return _gru_steps(x, weights, mask)


class PaperGRUCell(GRUCell):
    """One step of the paper's GRU.

    The equations are those of :class:`PaperGRU`, arguments and shapes those of :class:`GRUCell`.
    """

    def steps(self, x: Tensor, weights: Weights, mask: Tensor | None) -> Step:
        return _paper_gru_steps(x, weights, mask)


class GRU(Recurrence, nn.GRU):  # type: ignore[misc]
    r"""Layers of :class:`GRUCell`; a checkpoint of `torch.nn.GRU` loads as it is.

    .. math::
        r_t &= \sigma(W_{ir} x_t + b_{ir} + W_{hr} h_{t-1} + b_{hr}) \\
        z_t &= \sigma(W_{iz} x_t + b_{iz} + W_{hz} h_{t-1} + b_{hz}) \\
        n_t &= \tanh(W_{in} x_t + b_{in} + r_t \odot (W_{hn} h_{t-1} + b_{hn})) \\
        h_t &= (1 - z_t) \odot n_t + z_t \odot h_{t-1}

    The three matrices are stacked in the order r, z, n. On a CPU, where torch has no kernel,
    ``"fused"`` is :func:`~zoo.layers.gru_scan.gru_scan`, whose gradient cannot be
    differentiated once more; under `torch.func` the equations run instead.

    Arguments, shapes and errors are those of
    :class:`~zoo.layers.recurrence.Recurrence`.
    """

    def steps(self, x: Tensor, weights: Weights, mask: Tensor | None) -> Step:
        return _gru_steps(x, weights, mask)

    def _uses_torch(self, x: Tensor) -> bool:
        return super()._uses_torch(x) and x.device.type != "cpu"

    def _direction(
        self,
        x: Tensor,
        state: States,
        weights: Weights,
        alive: Alive | None,
        *,
        is_reverse: bool,
    ) -> tuple[Tensor, States]:
        by_mask = alive is not None and isinstance(alive[0], Tensor)
        if not super()._uses_torch(x) or by_mask or needs_plain_operations():
            return super()._direction(x, state, weights, alive, is_reverse=is_reverse)
        counts = cast(Sequence[int] | None, alive)
        outputs, last = gru_scan(x, state[0], weights, counts, is_reverse=is_reverse)
        return outputs, (last,)


class PaperGRU(GRU):
    r"""Layers of :class:`PaperGRUCell`.

    .. math::
        r_t &= \sigma(W_r x_t + U_r h_{t-1} + b_r) \\
        z_t &= \sigma(W_z x_t + U_z h_{t-1} + b_z) \\
        \tilde h_t &= \tanh(W x_t + U (r_t \odot h_{t-1}) + b) \\
        h_t &= (1 - z_t) \odot \tilde h_t + z_t \odot h_{t-1}

    W is ``weight_ih``, U is ``weight_hh``, both stacked in the order r, z, candidate, and b the sum
    of both biases. There is no kernel, so both backends are the loop. Arguments, shapes and errors
    are those of :class:`~zoo.layers.recurrence.Recurrence`.
    """

    has_kernel: ClassVar[bool] = False

    def steps(self, x: Tensor, weights: Weights, mask: Tensor | None) -> Step:
        return _paper_gru_steps(x, weights, mask)
