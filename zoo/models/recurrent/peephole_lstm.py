r"""LSTM whose gates see the cell (Gers and Schmidhuber, 2000).

"Recurrent nets that time and count", https://doi.org/10.1109/IJCNN.2000.861302, in the form of
Graves 2013, "Generating sequences with recurrent neural networks",
https://arxiv.org/abs/1308.0850, equations 7 to 11.

A gate that sees only the output knows nothing of the cell while the output gate is shut. A weight
for every cell, from the cell to its own gates, lets the network count and keep time exactly.

Differences from the papers: gradients through all steps, where the first of them cuts them; two
bias vectors where one would do, as in `lstm.py`.

| layer | parameters | 10 to 7 |
|---|---|---|
| `PeepholeLSTM` | 4 h (i + h + 2) + 3 h | 553 |
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.layers.hidden_product import HiddenProduct
from zoo.layers.recurrence import States, Step, Weights
from zoo.models.recurrent.lstm import LSTM, LSTMCell

_PEEPHOLES = {"weight_ci": 1, "weight_cf": 1, "weight_co": 1}


def _peephole_steps(x: Tensor, weights: Weights, mask: Tensor | None) -> Step:
    weight_ih, weight_hh, bias_ih, bias_hh, weight_ci, weight_cf, weight_co = weights
    gates = HiddenProduct(F.linear(x, weight_ih, bias_ih + bias_hh), weight_hh, mask)

    def step(t: int, state: States) -> States:
        h, c = state
        i, f, g, o = gates(t, h).chunk(4, dim=1)  # (batch, hidden_size) each
        i = torch.sigmoid(i + weight_ci * c)
        f = torch.sigmoid(f + weight_cf * c)
        c = f * c + i * torch.tanh(g)
        o = torch.sigmoid(o + weight_co * c)
        return o * torch.tanh(c), c

    return step


class PeepholeLSTMCell(LSTMCell):
    """One step of the LSTM with peepholes; its gates see the cell.

    The equations are those of :class:`PeepholeLSTM`, arguments and shapes those of
    :class:`~zoo.models.recurrent.lstm.LSTMCell`.
    """

    extra_parameters: ClassVar[dict[str, int]] = _PEEPHOLES

    def steps(self, x: Tensor, weights: Weights, mask: Tensor | None) -> Step:
        return _peephole_steps(x, weights, mask)


class PeepholeLSTM(LSTM):
    r"""Layers of :class:`PeepholeLSTMCell`.

    .. math::
        i_t &= \sigma(W_{ii} x_t + W_{hi} h_{t-1} + w_{ci} \odot c_{t-1} + b_i) \\
        f_t &= \sigma(W_{if} x_t + W_{hf} h_{t-1} + w_{cf} \odot c_{t-1} + b_f) \\
        c_t &= f_t \odot c_{t-1} + i_t \odot \tanh(W_{ig} x_t + W_{hg} h_{t-1} + b_g) \\
        o_t &= \sigma(W_{io} x_t + W_{ho} h_{t-1} + w_{co} \odot c_t + b_o) \\
        h_t &= o_t \odot \tanh(c_t)

    The vectors :math:`w_{ci}, w_{cf}, w_{co}` are ``weight_ci_l{k}``, ``weight_cf_l{k}`` and
    ``weight_co_l{k}``; at zero they leave an LSTM. Arguments and shapes are those of
    :class:`~zoo.models.recurrent.lstm.LSTM`; there is no kernel, so both backends are the loop.
    """

    has_kernel: ClassVar[bool] = False
    extra_parameters: ClassVar[dict[str, int]] = _PEEPHOLES

    def steps(self, x: Tensor, weights: Weights, mask: Tensor | None) -> Step:
        return _peephole_steps(x, weights, mask)
