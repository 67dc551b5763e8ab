r"""What recurrent networks predict from a sequence: one thing for all of it, or one for each step.

The patterns many to one and many to many of Karpathy 2015, "The unreasonable effectiveness of
recurrent neural networks", https://karpathy.github.io/2015/05/21/rnn-effectiveness/, and of
Goodfellow, Bengio and Courville 2016, "Deep learning", section 10.2,
https://www.deeplearningbook.org/contents/rnn.html

Recurrent layers read the steps of a sequence, tokens or vectors; a linear layer makes the
prediction. Sequences of unequal length stand in one batch, padded on the right; what the
padding holds changes nothing.

One to many is in :mod:`~zoo.models.recurrent.vector_to_sequence`; many to many of another length,
that is translation, takes two networks: an encoder and a decoder.

| builder | reads | gives | parameters as built |
|---|---|---|---|
| `rnn_classifier` | 1,000 kinds of token | one of 2 classes for a sequence | 163,586 |
| `rnn_regressor` | vectors of 2 numbers | 1 number for a sequence | 67,713 |
| `rnn_tagger` | 1,000 kinds of token | one of 2 classes for each step | 163,586 |
"""

from typing import Literal, TypedDict, Unpack

import torch
from torch import Tensor, nn

from zoo.layers.attention import padding_mask
from zoo.layers.checks import (
    check_at_least_one,
    check_lengths,
    check_probability,
    needs_plain_operations,
)
from zoo.layers.initialization import deferred_init, reset
from zoo.models.recurrent.chrono import remember_
from zoo.models.recurrent.kinds import Backend, Kind, make_rnn
from zoo.models.recurrent.step_embedding import StepEmbedding

Pooling = Literal["last", "mean", "max"]


class SequenceReader(nn.Module):
    r"""Recurrent layers over the steps of sequences, after an embedding if the steps are tokens.

    .. math:: h_t = f(x_t, h_{t-1})

    Args:
        vocab_size: number of different tokens; None if the steps are vectors.
        in_features: width of a step; None if the steps are tokens.
        embed_dim: width of a token's embedding; has no effect on vectors.
        kind: of the recurrent layers, see :data:`~zoo.models.recurrent.kinds.Kind`.
        hidden_size: width of a layer in each direction.
        num_layers: layers, one upon the other.
        bidirectional: read the sequence from both ends; the two outputs stand side by side.
        dropout: probability of silencing a value during training after the embedding, between
            layers and in the output.
        recurrent_dropout: on the connections in time, see the kind's own layer.
        memory_length: gates start so that the units remember for 2 to so many steps, see
            :mod:`~zoo.models.recurrent.chrono`; None for torch's start, which remembers for two.
            Has no effect on kinds without gates.
        backend: ``"fused"`` for speed or ``"written"`` for reading, see the kind's own layer.

    Shape:
        - input: tokens ``(batch, time)`` of type int64, or vectors ``(batch, time, in_features)``;
          lengths ``(batch,)`` of type int64, None if all sequences fill their row
        - output: ``(batch, time, out_features)`` with zeros where a sequence has ended, and the
          output of the last layer where it ended reading, ``(batch, out_features)``; there
          ``out_features`` is ``hidden_size``, twice that if bidirectional

    Raises:
        ValueError: if an argument is outside its range, the inputs are of the other sort, or the
            lengths are not those of the inputs.
    """

    @deferred_init
    def __init__(
        self,
        vocab_size: int | None = None,
        in_features: int | None = None,
        *,
        embed_dim: int = 64,
        kind: Kind = "lstm",
        hidden_size: int = 128,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        memory_length: int | None = None,
        backend: Backend = "fused",
    ) -> None:
        super().__init__()
        check_at_least_one(hidden_size=hidden_size, num_layers=num_layers)
        check_probability(dropout=dropout)
        self.steps = StepEmbedding(vocab_size, in_features, embed_dim=embed_dim)
        self.out_features = 2 * hidden_size if bidirectional else hidden_size
        self.bidirectional = bidirectional
        self.dropout = nn.Dropout(dropout)
        self.rnn = make_rnn(
            kind,
            self.steps.out_features,
            hidden_size,
            num_layers=num_layers,
            bidirectional=bidirectional,
            dropout=dropout if num_layers > 1 else 0.0,
            recurrent_dropout=recurrent_dropout,
            backend=backend,
        )
        if memory_length is not None and memory_length < 3:
            raise ValueError(f"memory_length must be at least 3 or None, not {memory_length}")
        self.kind, self.memory_length = kind, memory_length

    def init_weights(self) -> None:
        reset(self)
        if self.memory_length is not None:
            remember_(self.rnn, self.kind, self.memory_length)

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        steps = self.steps(inputs)  # (batch, time, features)
        if lengths is not None:
            check_lengths(lengths, batch=steps.size(0), time=steps.size(1))
        if self.steps.embedding is not None:
            steps = self.dropout(steps)
        if lengths is not None and not needs_plain_operations():
            lengths = None if bool((lengths == steps.size(1)).all()) else lengths
        if lengths is None:
            output, state = self.rnn(steps)
        else:
            output, state = self.rnn.read_padded(steps, lengths)
        h = state[0] if isinstance(state, tuple) else state  # (layers * directions, batch, hidden)
        last = torch.cat([h[-2], h[-1]], dim=1) if self.bidirectional else h[-1]
        return self.dropout(output), self.dropout(last)


class SequenceReaderOptions(TypedDict, total=False):
    """See :class:`SequenceReader`."""

    embed_dim: int
    kind: Kind
    hidden_size: int
    num_layers: int
    bidirectional: bool
    dropout: float
    recurrent_dropout: float
    memory_length: int | None
    backend: Backend


class SequenceToVector(nn.Module):
    r"""Many to one: a whole sequence is read, then the prediction is made.

    .. math:: y = V \operatorname{pool}(h_1, \dots, h_T) + b

    Args:
        out_features: classes, or numbers to be predicted.
        vocab_size: see :class:`SequenceReader`.
        in_features: see :class:`SequenceReader`.
        pooling: ``"last"``: the state that each direction ends with; ``"mean"`` or ``"max"`` over
            the steps, by feature.
        **options: of the recurrent layers, see :class:`SequenceReader`.

    Shape:
        - input: see :class:`SequenceReader`
        - output: logits or predictions ``(batch, out_features)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    @deferred_init
    def __init__(
        self,
        out_features: int,
        vocab_size: int | None = None,
        in_features: int | None = None,
        *,
        pooling: Pooling = "last",
        **options: Unpack[SequenceReaderOptions],
    ) -> None:
        super().__init__()
        check_at_least_one(out_features=out_features)
        if pooling not in ("last", "mean", "max"):
            raise ValueError(f"pooling must be last, mean or max, not {pooling!r}")
        self.pooling = pooling
        self.reader = SequenceReader(vocab_size, in_features, **options)
        self.head = nn.Linear(self.reader.out_features, out_features)

    def init_weights(self) -> None:
        reset(self)

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        output, last = self.reader(inputs, lengths)
        if self.pooling == "last":
            return self.head(last)  # (batch, out_features)
        if lengths is None:
            lengths = torch.full((output.size(0),), output.size(1))
        lengths = lengths.to(output.device)
        if self.pooling == "mean":
            return self.head(output.sum(1) / lengths.unsqueeze(1))  # ended steps are zero
        visible = padding_mask(lengths, output.size(1)).unsqueeze(2)  # (batch, time, 1)
        return self.head(output.masked_fill(~visible, -torch.inf).amax(1))


class SequenceTagger(nn.Module):
    r"""Many to many, aligned: one prediction for every step.

    .. math:: y_t = V h_t + b

    Unless bidirectional, the answer to a step is given before the next one has been seen.

    Args:
        out_features: classes, or numbers to be predicted.
        vocab_size: see :class:`SequenceReader`.
        in_features: see :class:`SequenceReader`.
        **options: of the recurrent layers, see :class:`SequenceReader`.

    Shape:
        - input: see :class:`SequenceReader`
        - output: logits or predictions ``(batch, time, out_features)``, without meaning where a
          sequence has ended

    Raises:
        ValueError: if an argument is outside its range.
    """

    @deferred_init
    def __init__(
        self,
        out_features: int,
        vocab_size: int | None = None,
        in_features: int | None = None,
        **options: Unpack[SequenceReaderOptions],
    ) -> None:
        super().__init__()
        check_at_least_one(out_features=out_features)
        self.reader = SequenceReader(vocab_size, in_features, **options)
        self.head = nn.Linear(self.reader.out_features, out_features)

    def init_weights(self) -> None:
        reset(self)

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        output, _ = self.reader(inputs, lengths)
        return self.head(output)  # (batch, time, out_features)


def rnn_classifier(
    num_classes: int = 2,
    *,
    vocab_size: int | None = None,
    in_features: int | None = None,
    pooling: Pooling = "last",
    **options: Unpack[SequenceReaderOptions],
) -> SequenceToVector:
    """One class for each sequence of tokens (``vocab_size``) or vectors (``in_features``)."""
    return SequenceToVector(num_classes, vocab_size, in_features, pooling=pooling, **options)


def rnn_regressor(
    in_features: int | None = None,
    out_features: int = 1,
    *,
    vocab_size: int | None = None,
    pooling: Pooling = "last",
    **options: Unpack[SequenceReaderOptions],
) -> SequenceToVector:
    """Numbers for each sequence of vectors (``in_features``) or tokens (``vocab_size``)."""
    return SequenceToVector(out_features, vocab_size, in_features, pooling=pooling, **options)


def rnn_tagger(
    num_classes: int = 2,
    *,
    vocab_size: int | None = None,
    in_features: int | None = None,
    **options: Unpack[SequenceReaderOptions],
) -> SequenceTagger:
    """One class for each step of a sequence of tokens (``vocab_size``) or vectors."""
    return SequenceTagger(num_classes, vocab_size, in_features, **options)
