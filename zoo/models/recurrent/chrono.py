r"""Chrono initialisation: gates that remember from the start (Tallec and Ollivier, 2018).

"Can recurrent neural networks warp time?", https://arxiv.org/abs/1804.11188

A gate that keeps the share :math:`\sigma(b)` of a memory at each step has forgotten it after about
:math:`1 + e^b` steps. With torch's start that is two steps, and what happened a hundred steps ago
has no gradient to speak of. Here the time of each unit is drawn between 2 and the length T of the
dependencies to be learned:

.. math:: b_{keep} = \log u, \quad u \sim U(1, T - 1), \qquad b_{input} = -b_{keep}

The second is for the LSTM and its relatives, whose input gate is one of its own.
"""

import torch
from torch import nn

from zoo.models.recurrent.kinds import Kind

_GATES: dict[Kind, tuple[int, int, int]] = {
    "lstm": (4, 1, 1),
    "peephole_lstm": (4, 1, 1),
    "layer_norm_lstm": (4, 1, 1),
    "gru": (3, 1, 1),
    "gru_paper": (3, 1, 1),
    "minimal_gru": (2, 0, -1),
}
"""Of each kind the blocks of its biases, which of them the gate of memory has, and -1 where that
gate says how much to forget, not how much to keep."""


def remember_(layers: nn.Module, kind: Kind, num_steps: int) -> None:
    """Sets the biases of the gates so that the units remember for 2 to ``num_steps`` steps.

    Plain recurrent layers have no gates and stay as they are.

    Args:
        layers: recurrent layers, see :func:`~zoo.models.recurrent.kinds.make_rnn`.
        kind: their kind.
        num_steps: length T of the dependencies.

    Raises:
        ValueError: there are fewer than 3 steps.
    """
    if num_steps < 3:
        raise ValueError(f"num_steps must be at least 3, not {num_steps}")
    if kind not in _GATES:
        return
    assert isinstance(layers, nn.RNNBase)
    blocks, gate, sign = _GATES[kind]
    for _, _, bias_ih, bias_hh, *_ in layers.all_weights:
        memory = torch.empty(layers.hidden_size).uniform_(1, num_steps - 1).log_()
        with torch.no_grad():
            bias_ih.chunk(blocks)[gate].copy_(sign * memory)
            bias_hh.chunk(blocks)[gate].zero_()
            if blocks == 4:
                bias_ih.chunk(blocks)[0].copy_(-memory)
                bias_hh.chunk(blocks)[0].zero_()
