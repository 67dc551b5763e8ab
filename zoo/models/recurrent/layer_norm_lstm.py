r"""LSTM with layer normalisation (Ba, Kiros and Hinton, 2016).

"Layer normalization", https://arxiv.org/abs/1607.06450, equations 20 to 22.

What enters the gates from the input and from the state, and what leaves the cell, is normalised
over the units of the layer, at each step for itself: the scale of the state can neither grow nor
fade along a sequence, and nothing depends on the batch or on how long the sequence is.

As in the paper, all four gates are normalised together, as one vector of 4 h numbers. Its two
normalisations before the gates have a bias each and the gates a third; the three are added, and
here they are two, ``bias_ih`` and ``bias_hh``.

| layer | parameters | 10 to 7 |
|---|---|---|
| `LayerNormLSTM` | 4 h (i + h + 2) + 10 h | 602 |
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.hidden_product import HiddenProduct
from zoo.layers.recurrence import States, Step, Weights
from zoo.models.recurrent.lstm import LSTM, LSTMCell

_NORMS = {"weight_ln_ih": 4, "weight_ln_hh": 4, "weight_ln_c": 1, "bias_ln_c": 1}


def _layer_norm_steps(x: Tensor, weights: Weights, mask: Tensor | None) -> Step:
    weight_ih, weight_hh, bias_ih, bias_hh, gain_ih, gain_hh, gain_c, bias_c = weights
    products = F.linear(x, weight_ih)  # (time, batch, 4 * hidden_size)
    inputs = F.layer_norm(products, gain_ih.shape, gain_ih, bias_ih).unbind(0)
    # Of the products' type: autocast normalises in float32 on CUDA.
    hidden = HiddenProduct(products.new_zeros(()).expand_as(products), weight_hh, mask)

    def step(t: int, state: States) -> States:
        h, c = state
        gates = inputs[t] + F.layer_norm(hidden(t, h), gain_hh.shape, gain_hh, bias_hh)
        i, f, g, o = gates.chunk(4, dim=1)  # (batch, hidden_size) each
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(F.layer_norm(c, gain_c.shape, gain_c, bias_c))
        return h, c

    return step


def _start(module: nn.Module) -> None:
    """Gains at one, the bias of the cell's normalisation at zero."""
    for name, parameter in module.named_parameters():
        if name.startswith("weight_ln"):
            nn.init.ones_(parameter)
        elif name.startswith("bias_ln"):
            nn.init.zeros_(parameter)


class LayerNormLSTMCell(LSTMCell):
    """One step of the layer-normalised LSTM.

    The equations are those of :class:`LayerNormLSTM`, arguments and shapes those of
    :class:`~zoo.models.recurrent.lstm.LSTMCell`.
    """

    extra_parameters: ClassVar[dict[str, int]] = _NORMS

    def reset_parameters(self) -> None:
        super().reset_parameters()
        _start(self)

    def steps(self, x: Tensor, weights: Weights, mask: Tensor | None) -> Step:
        return _layer_norm_steps(x, weights, mask)


class LayerNormLSTM(LSTM):
    r"""Layers of :class:`LayerNormLSTMCell`.

    .. math::
        (i_t, f_t, g_t, o_t) &= \mathrm{LN}(W_{ih} x_t;\, \alpha_{ih}, b_{ih})
            + \mathrm{LN}(W_{hh} h_{t-1};\, \alpha_{hh}, b_{hh}) \\
        c_t &= \sigma(f_t) \odot c_{t-1} + \sigma(i_t) \odot \tanh(g_t) \\
        h_t &= \sigma(o_t) \odot \tanh(\mathrm{LN}(c_t;\, \alpha_c, \beta_c))

    with :math:`\mathrm{LN}(a; \alpha, \beta) = \alpha \odot (a - \bar a) / \sigma_a + \beta`. The
    gains are ``weight_ln_ih_l{k}``, ``weight_ln_hh_l{k}`` (both ``4 * hidden_size``) and
    ``weight_ln_c_l{k}`` with ``bias_ln_c_l{k}``; gains start at one, the last bias at zero.
    Arguments and shapes are those of :class:`~zoo.models.recurrent.lstm.LSTM`; there is no kernel,
    so both backends are the loop.
    """

    has_kernel: ClassVar[bool] = False
    extra_parameters: ClassVar[dict[str, int]] = _NORMS

    def reset_parameters(self) -> None:
        super().reset_parameters()
        _start(self)

    def steps(self, x: Tensor, weights: Weights, mask: Tensor | None) -> Step:
        return _layer_norm_steps(x, weights, mask)
