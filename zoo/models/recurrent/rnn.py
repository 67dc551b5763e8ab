r"""The plain recurrent network (Elman, 1990).

"Finding structure in time", https://doi.org/10.1207/s15516709cog1402_1

The hidden layer reads, besides the input, its own values of the step before: a memory of everything
read so far, learned by backpropagation through time. The gradient to a state k steps back is a
product of k Jacobians :math:`\mathrm{diag}(\phi') W_{hh}`, and so fades or explodes with k
(Bengio, Simard and Frasconi 1994, https://doi.org/10.1109/72.279181).

With ReLU in place of tanh it is the network of Le, Jaitly and Hinton 2015, "A simple way to
initialize recurrent networks of rectified linear units", https://arxiv.org/abs/1504.00941, but for
their identity matrix to start with.

Differences from the paper: tanh for its logistic function; gradients through all steps, where it
takes the state before as a constant; the output layer is the user's; two bias vectors where one
would do, since torch's checkpoints have two.

| layer | parameters | 10 to 7 |
|---|---|---|
| `RNN` | h (i + h + 2) | 133 |
"""

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.hidden_product import HiddenProduct
from zoo.layers.recurrence import Backend, Cell, Recurrence, States, Step, Weights

Nonlinearity = Literal["tanh", "relu"]
_NONLINEARITIES: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "relu": torch.relu}


def _rnn_steps(
    x: Tensor,
    weights: Weights,
    mask: Tensor | None,
    nonlinearity: Callable[[Tensor], Tensor],
) -> Step:
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    summed = HiddenProduct(F.linear(x, weight_ih, bias_ih + bias_hh), weight_hh, mask)

    def step(t: int, state: States) -> States:
        (h,) = state
        return (nonlinearity(summed(t, h)),)  # (batch, hidden_size)

    return step


class RNNCell(Cell):
    r"""One step of the plain recurrent network; a checkpoint of `torch.nn.RNNCell` loads.

    .. math:: h_t = \phi(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh})

    Args:
        input_size: features of the input.
        hidden_size: width of the state.
        nonlinearity: :math:`\phi`, ``"tanh"`` or ``"relu"``.

    Shape:
        - input: ``(batch, input_size)``, and a state or None for zeros
        - output and state: ``(batch, hidden_size)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    num_blocks: ClassVar[int] = 1

    def __init__(
        self, input_size: int, hidden_size: int, *, nonlinearity: Nonlinearity = "tanh"
    ) -> None:
        _check(nonlinearity)
        super().__init__(input_size, hidden_size)
        self.nonlinearity = nonlinearity

    def steps(self, x: Tensor, weights: Weights, mask: Tensor | None) -> Step:
        return _rnn_steps(x, weights, mask, _NONLINEARITIES[self.nonlinearity])


class RNN(Recurrence, nn.RNN):  # type: ignore[misc]
    r"""Layers of :class:`RNNCell`; a checkpoint of `torch.nn.RNN` loads as it is.

    .. math:: h_t = \phi(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh})

    Args:
        input_size: features of one step.
        hidden_size: width of the state.
        nonlinearity: :math:`\phi`, ``"tanh"`` or ``"relu"``.
        num_layers, bidirectional, dropout, recurrent_dropout, backend: as in
            :class:`~zoo.layers.recurrence.Recurrence`, and so are the shapes.

    Raises:
        ValueError: if an argument is outside its range.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        nonlinearity: Nonlinearity = "tanh",
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        backend: Backend = "fused",
    ) -> None:
        _check(nonlinearity)
        super().__init__(
            input_size,
            hidden_size,
            num_layers=num_layers,
            bidirectional=bidirectional,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            backend=backend,
            nonlinearity=nonlinearity,
        )

    def steps(self, x: Tensor, weights: Weights, mask: Tensor | None) -> Step:
        return _rnn_steps(x, weights, mask, _NONLINEARITIES[self.nonlinearity])


def _check(nonlinearity: str) -> None:
    if nonlinearity not in _NONLINEARITIES:
        raise ValueError(f"nonlinearity must be tanh or relu, not {nonlinearity!r}")
