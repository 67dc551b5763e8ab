"""Recurrent layers by name, all with the same interface, for networks that can be built of any."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from zoo.layers.recurrence import Backend, Recurrence, State
from zoo.models.recurrent.gru import GRU, PaperGRU
from zoo.models.recurrent.layer_norm_lstm import LayerNormLSTM
from zoo.models.recurrent.lstm import LSTM
from zoo.models.recurrent.minimal_gru import MinimalGRU
from zoo.models.recurrent.peephole_lstm import PeepholeLSTM
from zoo.models.recurrent.rnn import RNN

__all__ = ["Backend", "Kind", "State", "make_rnn"]

Kind = Literal[
    "rnn",
    "rnn_relu",
    "lstm",
    "gru",
    "gru_paper",
    "minimal_gru",
    "peephole_lstm",
    "layer_norm_lstm",
]
_LAYERS: dict[Kind, Callable[..., Recurrence]] = {
    "rnn": RNN,
    "rnn_relu": partial(RNN, nonlinearity="relu"),
    "lstm": LSTM,
    "gru": GRU,
    "gru_paper": PaperGRU,
    "minimal_gru": MinimalGRU,
    "peephole_lstm": PeepholeLSTM,
    "layer_norm_lstm": LayerNormLSTM,
}


def make_rnn(kind: Kind, input_size: int, hidden_size: int, **options: Any) -> Recurrence:
    """Recurrent layers of a kind.

    Args:
        kind: which cell.
        input_size: features of one step.
        hidden_size: width of the state.
        **options: as in :class:`~zoo.layers.recurrence.Recurrence`.

    Raises:
        ValueError: if an argument is outside its range.
    """
    if kind not in _LAYERS:
        raise ValueError(f"kind must be one of {', '.join(_LAYERS)}, not {kind!r}")
    return _LAYERS[kind](input_size, hidden_size, **options)
