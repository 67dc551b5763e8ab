r"""What all recurrent networks have in common: cells, layers of them, directions, and state.

A cell takes one step; a layer applies the same cell to every step of a sequence. The products with
the input need no state, so a layer computes them for all steps at once before the loop begins.
What a kind of cell computes stands in its own file, as a function that both its cell and its layer
use: given the inputs and weights, it returns the function of one step (:data:`Step`).

Schuster and Paliwal 1997, "Bidirectional recurrent neural networks",
https://doi.org/10.1109/78.650093: a second network reads the sequence from its end, and the
outputs of both are put side by side. Graves 2013, https://arxiv.org/abs/1308.0850: layers stacked,
each reading the outputs of the one below.

Dropout between layers is torch's: a fresh mask for every step (Zaremba, Sutskever and Vinyals 2014,
https://arxiv.org/abs/1409.2329). Recurrent dropout is Gal and Ghahramani's (2016, "A theoretically
grounded application of dropout in recurrent neural networks", https://arxiv.org/abs/1512.05287):
one mask m for every sequence, layer and direction, the same at all steps and for all gates, each
entry 0 with probability p, else 1 / (1 - p). It is multiplied into the hidden state where that
enters a matrix, :math:`W_h (m \odot h_{t-1})`, and nowhere else: what a GRU or an LSTM's cell
carries on unchanged stays whole. Differences from the paper: the inputs have no such mask of their
own, and the masks of a text that is read in pieces with carried state are drawn anew every time.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from zoo.layers.checks import check_at_least_one, check_probability, needs_plain_operations

Backend = Literal["fused", "written"]
State = Tensor | tuple[Tensor, Tensor]
"""What one call hands to the next: h, or h and c of an LSTM."""
States = tuple[Tensor, ...]
Weights = Sequence[Tensor]
Alive = Sequence[int] | Sequence[Tensor]
"""Who reaches each step: so many of sequences of falling length, or a mask ``(batch, 1)``."""
Step = Callable[[int, States], States]
"""The step at time t: from the state before it to the state after it, h first."""


class Cell(nn.RNNCellBase):
    """One step of a recurrent network; base of the cells of each kind.

    A subclass says how many blocks its matrices have (``num_blocks``), how many tensors its state
    has, and which further parameters, and :meth:`steps`.

    Args:
        input_size: features of the input.
        hidden_size: width of the state.

    Shape:
        - input: ``(batch, input_size)``, and a state or None for zeros
        - output: the state after the step
        - state: ``(batch, hidden_size)``; of an LSTM two such tensors, h and c

    Raises:
        ValueError: if an argument is outside its range.
    """

    num_blocks: ClassVar[int]
    num_states: ClassVar[int] = 1
    extra_parameters: ClassVar[dict[str, int]] = {}
    """Further parameters: their width in multiples of ``hidden_size``, by name."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        check_at_least_one(input_size=input_size, hidden_size=hidden_size)
        super().__init__(input_size, hidden_size, bias=True, num_chunks=self.num_blocks)
        for name, width in self.extra_parameters.items():
            setattr(self, name, nn.Parameter(torch.empty(width * hidden_size)))
        self.reset_parameters()

    def steps(self, x: Tensor, weights: Weights, mask: Tensor | None) -> Step:
        """As :meth:`Recurrence.steps`."""
        raise NotImplementedError

    def forward(self, x: Tensor, state: State | None = None) -> State:
        if x.ndim != 2 or x.size(1) != self.input_size:
            raise ValueError(f"x must be (batch, {self.input_size}), not {tuple(x.shape)}")
        shape = (x.size(0), self.hidden_size)
        states = _as_tuple(state, x, self.num_states, shape)
        names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh", *self.extra_parameters]
        step = self.steps(x.unsqueeze(0), [getattr(self, name) for name in names], None)
        return _as_state(step(0, states))


class Recurrence(nn.RNNBase):
    r"""Layers of cells; base of the layers of each kind.

    A subclass of this class and of one of torch's three (`torch.nn.RNN`, `LSTM`, `GRU`) has that
    one's parameters under their names, so that its checkpoints load as they are, and its kernel.
    Layer k has ``weight_ih_l{k}``, ``weight_hh_l{k}``, ``bias_ih_l{k}``, ``bias_hh_l{k}`` and what
    ``extra_parameters`` names; in the other direction the names end in ``_reverse``. All start
    uniform in :math:`\pm 1/\sqrt{\mathrm{hidden\_size}}`.

    Args:
        input_size: features of one step.
        hidden_size: width of the state, and of the output in one direction.
        num_layers: layers, each reading the output of the one below.
        bidirectional: each layer also reads the sequence from its end, with weights of its own.
        dropout: probability of silencing an output between layers (not after the last) during
            training.
        recurrent_dropout: probability of silencing an entry of the hidden state, for a whole
            sequence, during training; see the head of this file.
        backend: ``"fused"`` runs a kernel (oneDNN, cuDNN) where there is one for this kind of cell,
            it is the quicker way, and there is no recurrent dropout, else the equations;
            ``"written"`` always runs the equations, step by step. Equal results, dropout's draws
            aside.
        **kernel: what torch's class takes beyond this.

    Shape:
        - input: ``(batch, time, input_size)``, or a `PackedSequence` of such; and a state or None
          for zeros
        - output: ``(batch, time, directions * hidden_size)``, packed if the input is, and the state
          after the last step of each sequence (before the first one, in the other direction)
        - state: ``(num_layers * directions, batch, hidden_size)``; of an LSTM two such, h and c

    Raises:
        ValueError: if an argument is outside its range.
    """

    num_states: ClassVar[int] = 1
    has_kernel: ClassVar[bool] = True
    extra_parameters: ClassVar[dict[str, int]] = {}
    """Further parameters: their width in multiples of ``hidden_size``, by name."""

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
        **kernel: Any,
    ) -> None:
        check_at_least_one(input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        check_probability(dropout=dropout, recurrent_dropout=recurrent_dropout)
        if dropout > 0 and num_layers == 1:
            raise ValueError(f"dropout acts between layers and there is one: not {dropout}")
        if backend not in ("fused", "written"):
            raise ValueError(f"backend must be fused or written, not {backend!r}")
        super().__init__(
            input_size=input_size,
            hidden_size=hidden_size,
            num_layers=num_layers,
            batch_first=True,
            dropout=dropout,
            bidirectional=bidirectional,
            **kernel,
        )
        self.recurrent_dropout, self.backend = recurrent_dropout, backend
        for names in self._all_weights:
            suffix = names[0].removeprefix("weight_ih")  # as in _l0_reverse
            for name, width in self.extra_parameters.items():
                setattr(self, name + suffix, nn.Parameter(torch.empty(width * hidden_size)))
                names.append(name + suffix)
        if self.extra_parameters:
            self.reset_parameters()

    def steps(self, x: Tensor, weights: Weights, mask: Tensor | None) -> Step:
        """Prepares the function of one step.

        Args:
            x: inputs of all steps, ``(time, batch, features)``.
            weights: parameters of one layer in one direction.
            mask: recurrent dropout's, ``(batch, hidden_size)``, or None.
        """
        raise NotImplementedError

    # torch's classes have overloads, each with its own state: those of both differ from this one
    # (hence `type: ignore[misc]` at the subclasses).
    def forward(self, x: Any, state: State | None = None) -> tuple[Any, State]:
        # Like torch's own layers: compiled, the loop would be unrolled, for minutes. That something
        # compiles is not asked of torch.compiler.is_compiling(), false in a frame that the compiler
        # has given up, while it still traces the frames below. Where the compiler has not been
        # imported, which takes seconds, nothing is traced. Exported, it is unrolled.
        run = self._run
        if "torch._dynamo" in sys.modules and not torch.compiler.is_exporting():
            run = torch.compiler.disable(run)
        return run(x, state)

    def _run(self, x: Any, state: State | None) -> tuple[Any, State]:
        packed = isinstance(x, PackedSequence)
        data = x.data if packed else x
        if data.ndim != (2 if packed else 3) or data.size(-1) != self.input_size:
            raise ValueError(f"x must be (batch, time, {self.input_size}), not {tuple(data.shape)}")
        if not packed and x.size(1) == 0:
            raise ValueError(f"x must have at least one step, not {tuple(x.shape)}")
        batch = int(x.batch_sizes[0]) if packed else x.size(0)
        shape = (self.num_layers * (2 if self.bidirectional else 1), batch, self.hidden_size)
        states = _as_tuple(state, data, self.num_states, shape)
        if self._uses_torch(data):
            return super().forward(x, _as_state(states))
        if not packed:
            x, states = self._layers(x.transpose(0, 1), states, None)
            return x.transpose(0, 1), _as_state(states)  # (batch, time, directions * hidden_size)
        # Within, sequences stand in order of falling length, as a packed sequence has them.
        order, back = x.sorted_indices, x.unsorted_indices
        padded, lengths = pad_packed_sequence(PackedSequence(x.data, x.batch_sizes))
        if order is not None:
            states = tuple(s.index_select(1, order) for s in states)
        padded, states = self._layers(padded, states, x.batch_sizes.tolist())
        if back is not None:
            states = tuple(s.index_select(1, back) for s in states)
        again = pack_padded_sequence(padded, lengths)
        return PackedSequence(again.data, x.batch_sizes, order, back), _as_state(states)

    def read_padded(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, State]:
        """Reads sequences of unequal length, padded on the right.

        Args:
            x: the sequences, ``(batch, time, input_size)``.
            lengths: of each, int64 ``(batch,)``.

        Returns:
            The outputs, zero at the padding, and the state after the last step of each sequence.
        """
        if not needs_plain_operations():
            # torch packs by lengths on the CPU, wherever the sequences are.
            packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
            output, state = self(packed)
            return pad_packed_sequence(output, batch_first=True, total_length=x.size(1))[0], state
        # Then the lengths are not known, and nor is their order: every step asks who is there.
        there = torch.arange(x.size(1), device=x.device).unsqueeze(1) < lengths.to(x.device)
        there = there.unsqueeze(2)  # (time, batch, 1)
        shape = (self.num_layers * (2 if self.bidirectional else 1), x.size(0), self.hidden_size)
        states = _as_tuple(None, x, self.num_states, shape)
        output, states = self._layers(x.transpose(0, 1), states, there.unbind(0))
        return (output * there).transpose(0, 1), _as_state(states)

    def _uses_torch(self, x: Tensor) -> bool:
        """Whether to run torch's kernel."""
        dropping = self.recurrent_dropout > 0 and self.training
        return self.backend == "fused" and self.has_kernel and not dropping

    def _layers(self, x: Tensor, states: States, alive: Alive | None) -> tuple[Tensor, States]:
        """All layers, of ``(time, batch, features)``."""
        directions = 2 if self.bidirectional else 1
        last: list[States] = []
        for layer in range(self.num_layers):
            if layer > 0:
                x = F.dropout(x, self.dropout, self.training)
            outputs = []
            for direction in range(directions):
                index = layer * directions + direction
                output, state = self._direction(
                    x,
                    tuple(s[index] for s in states),
                    self.all_weights[index],
                    alive,
                    is_reverse=direction == 1,
                )
                outputs.append(output)
                last.append(state)
            x = torch.cat(outputs, dim=2) if directions == 2 else outputs[0]
        return x, tuple(torch.stack(parts) for parts in zip(*last, strict=True))

    def _direction(
        self,
        x: Tensor,
        state: States,
        weights: Weights,
        alive: Alive | None,
        *,
        is_reverse: bool,
    ) -> tuple[Tensor, States]:
        """One layer in one direction: the loop over time."""
        mask = None
        if self.recurrent_dropout > 0 and self.training:
            mask = F.dropout(torch.ones_like(state[0]), self.recurrent_dropout)
        step = self.steps(x, weights, mask)
        outputs = [state[0]] * len(x)
        for t in reversed(range(len(x))) if is_reverse else range(len(x)):
            after = step(t, state)
            there = None if alive is None else alive[t]
            state = tuple(_held(new, old, there) for new, old in zip(after, state, strict=True))
            outputs[t] = state[0]
        return torch.stack(outputs), state  # (time, batch, hidden_size)


def _held(new: Tensor, old: Tensor, there: int | Tensor | None) -> Tensor:
    """The state after a step, in the type it had; sequences that do not reach here keep theirs."""
    new = new.to(old.dtype)
    if isinstance(there, Tensor):
        return torch.where(there, new, old)
    if there is None or there == new.size(0):
        return new
    return torch.cat([new[:there], old[there:]])


def _as_tuple(
    state: State | None, x: Tensor, num_states: int, shape: tuple[int, ...]
) -> tuple[Tensor, ...]:
    if state is None:
        return (x.new_zeros(shape),) * num_states
    states = (state,) if isinstance(state, Tensor) else tuple(state)
    if [tuple(s.shape) for s in states] != [shape] * num_states:
        kind = "h" if num_states == 1 else "h and c, each"
        raise ValueError(
            f"state must be {kind} {shape}, not {' and '.join(str(tuple(s.shape)) for s in states)}"
        )
    return states


def _as_state(states: Iterable[Tensor]) -> State:
    first, *rest = states
    return (first, rest[0]) if rest else first
