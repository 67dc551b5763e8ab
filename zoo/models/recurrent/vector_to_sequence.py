r"""One to many: a sequence made from a single vector.

The pattern of Karpathy 2015, "The unreasonable effectiveness of recurrent neural networks",
https://karpathy.github.io/2015/05/21/rnn-effectiveness/, and of Goodfellow, Bengio and Courville
2016, "Deep learning", sections 10.2.1 and 10.2.4,
https://www.deeplearningbook.org/contents/rnn.html (figures 10.4 and 10.9).

| builder | recurrent layer | head | parameters (4 features to 1, LSTM) |
|---|---|---|---|
| `vector_to_sequence` | 68,608 | 129 | 68,737 |
"""

from typing import Literal, TypedDict, Unpack

import torch
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_probability
from zoo.layers.initialization import deferred_init, reset
from zoo.models.recurrent.kinds import Backend, Kind, State, make_rnn

Feeding = Literal["input", "state"]


class VectorToSequence(nn.Module):
    r"""One to many: a sequence is made from one vector.

    .. math::
        h_t &= f([x;\; y_{t-1}],\, h_{t-1}) \\
        y_t &= V h_t + b

    The vector x is fed in at every step, or gives the first state :math:`h_0 = \tanh(W x + c)`, an
    LSTM's cell too by a map of its own. With ``feedback`` the output goes back into the network
    (:math:`y_0 = 0`), the recurrence from output to hidden state; without it the network gets at
    each step the same, x or nothing. Feedback can be trained with teacher forcing: the targets are
    fed back in place of the outputs (Williams and Zipser 1989,
    https://doi.org/10.1162/neco.1989.1.2.270), and all steps are computed at once.

    Args:
        in_features: width of the vector.
        out_features: width of a step of the output.
        sequence_length: steps.
        feeding: ``"input"``: the vector is fed in at every step; ``"state"``: it is the beginning.
        feedback: feed each output back in.
        kind: of the recurrent layers, see :data:`~zoo.models.recurrent.kinds.Kind`.
        hidden_size: width of the layers.
        num_layers: layers, one upon the other.
        dropout: probability of silencing a value during training between layers and before the
            linear layer.
        recurrent_dropout: on the connections in time, see the kind's own layer.
        backend: ``"fused"`` for speed or ``"written"`` for reading, see the kind's own layer.

    Shape:
        - input: ``(batch, in_features)``, lengths ``(batch,)`` or None, which change nothing but
          are part of the interface, and targets ``(batch, sequence_length, out_features)`` for
          teacher forcing, or None
        - output: ``(batch, sequence_length, out_features)``

    Raises:
        ValueError: if an argument is outside its range, or there are targets without feedback.
    """

    @deferred_init
    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        sequence_length: int,
        feeding: Feeding = "input",
        feedback: bool = False,
        kind: Kind = "lstm",
        hidden_size: int = 128,
        num_layers: int = 1,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        backend: Backend = "fused",
    ) -> None:
        super().__init__()
        check_at_least_one(
            in_features=in_features,
            out_features=out_features,
            sequence_length=sequence_length,
            hidden_size=hidden_size,
            num_layers=num_layers,
        )
        check_probability(dropout=dropout)
        if feeding not in ("input", "state"):
            raise ValueError(f"feeding must be input or state, not {feeding!r}")
        self.in_features, self.out_features = in_features, out_features
        self.sequence_length = sequence_length
        self.feeding, self.feedback = feeding, feedback
        # With nothing else to feed in, the layers get a constant zero.
        fed = (in_features if feeding == "input" else 0) + (out_features if feedback else 0)
        self.step_features = max(fed, 1)
        self.rnn = make_rnn(
            kind,
            self.step_features,
            hidden_size,
            num_layers=num_layers,
            dropout=dropout if num_layers > 1 else 0.0,
            recurrent_dropout=recurrent_dropout,
            backend=backend,
        )
        self.parts = 2 if "lstm" in kind else 1  # tensors of a state
        if feeding == "state":
            self.start = nn.Linear(in_features, self.parts * num_layers * hidden_size)
        self.num_layers = num_layers
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden_size, out_features)

    def init_weights(self) -> None:
        reset(self)

    def forward(
        self, inputs: Tensor, lengths: Tensor | None = None, targets: Tensor | None = None
    ) -> Tensor:
        del lengths
        if inputs.ndim != 2 or inputs.size(1) != self.in_features:
            raise ValueError(
                f"inputs must be vectors (batch, {self.in_features}), not {tuple(inputs.shape)}"
            )
        state = self._state(inputs)
        if not self.feedback:
            if targets is not None:
                raise ValueError("targets must be None for a network without feedback")
            steps = self._steps(inputs, None).expand(-1, self.sequence_length, -1)
            return self._outputs(steps, state)[0]
        first = inputs.new_zeros(inputs.size(0), 1, self.out_features)
        if targets is not None:
            shape = (inputs.size(0), self.sequence_length, self.out_features)
            if targets.shape != shape:
                raise ValueError(f"targets must be {shape}, not {tuple(targets.shape)}")
            return self._outputs(
                self._steps(inputs, torch.cat([first, targets[:, :-1]], dim=1)), state
            )[0]
        output, outputs = first, []
        for _ in range(self.sequence_length):
            output, state = self._outputs(self._steps(inputs, output), state)
            outputs.append(output)
        return torch.cat(outputs, dim=1)  # (batch, sequence_length, out_features)

    def _state(self, inputs: Tensor) -> State | None:
        if self.feeding == "input":
            return None
        start = torch.tanh(self.start(inputs))  # (batch, parts * layers * hidden_size)
        start = start.unflatten(1, (self.parts, self.num_layers, -1)).permute(1, 2, 0, 3)
        parts = start.contiguous().unbind()  # each (layers, batch, hidden_size)
        return parts[0] if self.parts == 1 else (parts[0], parts[1])

    def _steps(self, inputs: Tensor, previous: Tensor | None) -> Tensor:
        """What the layers get, for as many steps as there are previous outputs, or for one."""
        time = 1 if previous is None else previous.size(1)
        fed = [inputs.unsqueeze(1).expand(-1, time, -1)] if self.feeding == "input" else []
        fed += [] if previous is None else [previous]
        if not fed:
            return inputs.new_zeros(inputs.size(0), time, 1)
        return torch.cat(fed, dim=2)  # (batch, time, step_features)

    def _outputs(self, steps: Tensor, state: State | None) -> tuple[Tensor, State]:
        hidden, state = self.rnn(steps, state)  # (batch, time, hidden_size)
        return self.head(self.dropout(hidden)), state


class VectorToSequenceOptions(TypedDict, total=False):
    """See :class:`VectorToSequence`."""

    feeding: Feeding
    feedback: bool
    kind: Kind
    hidden_size: int
    num_layers: int
    dropout: float
    recurrent_dropout: float
    backend: Backend


def vector_to_sequence(
    in_features: int,
    out_features: int = 1,
    *,
    sequence_length: int = 50,
    **options: Unpack[VectorToSequenceOptions],
) -> VectorToSequence:
    """A sequence of numbers from a vector that is fed in at every step."""
    return VectorToSequence(in_features, out_features, sequence_length=sequence_length, **options)
