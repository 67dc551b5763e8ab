r"""Translation with global multiplicative attention (Luong, Pham and Manning, 2015).

"Effective approaches to attention-based neural machine translation",
https://arxiv.org/abs/1508.04025

Stacked LSTMs as in Sutskever's network, and an attention that is simpler than Bahdanau's: the
decoder's state *after* the step is compared with the encoder's vectors, by a product, and joins
what it finds for the output. Feeding that back with the next token (input feeding) lets the decoder
know where it has looked already.

Differences from the paper: global attention only, no local one, and none of the location-based
score; input feeding concerns the vector before dropout; the end symbol is reversed with the source,
so that it is read first. Only matrices start in U(-0.1, 0.1), biases as torch's layers do.

The defaults of :class:`LuongSeq2Seq` are the paper's sizes; the builder's are about those of the
public recipe for Multi30k, for comparison with `seq2seq_lstm`. With 7,853 German and 5,893 English
words:

| builder | score | embeddings | encoder | attention | decoder | output | parameters |
|---|---|---|---|---|---|---|---|
| `seq2seq_luong` | general | 3,518,976 | 3,678,208 | 262,144 | 5,251,072 | 3,023,109 | 15,733,509 |
| | dot | 3,518,976 | 3,678,208 | 0 | 5,251,072 | 3,023,109 | 15,471,365 |
| | concat | 3,518,976 | 3,678,208 | 524,800 | 5,251,072 | 3,023,109 | 15,996,165 |
"""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_probability
from zoo.layers.initialization import deferred_init, reset
from zoo.models.recurrent.encoder_decoder import (
    AttentiveEncoderDecoder,
    Encoder,
    masked_softmax,
    source_mask,
    start_uniformly,
)
from zoo.models.recurrent.kinds import Backend, Kind, State, make_rnn

Score = Literal["dot", "general", "concat"]


class AttentionState(NamedTuple):
    """Where the decoder stands, and what it looks at."""

    hidden: State  # (num_layers, batch, hidden_size) each
    feed: Tensor  # (batch, 1, hidden_size): the attentional vector of the step before
    memory: Tensor  # (batch, S, hidden_size): the source's vectors
    keys: Tensor  # (batch, S, hidden_size): their part in the attention's scores
    mask: Tensor | None  # (batch, S): True at tokens, False at padding


class GlobalAttention(nn.Module):
    r"""Scores every source token for every state, by one of three functions.

    .. math::
        \mathrm{score}(h_t, \bar h_s) &= h_t^\top \bar h_s & \text{(dot)} \\
        &= h_t^\top W_a \bar h_s & \text{(general)} \\
        &= v_a^\top \tanh(W_a [h_t; \bar h_s]) & \text{(concat)} \\
        a_t &= \mathrm{softmax}(\mathrm{score}(h_t, \bar h))

    What concerns the source alone is the same at every step: :meth:`keys` computes it once.

    Args:
        hidden_size: width of a state and of a source token's vector.
        score: how the two are compared.

    Shape:
        - input: states ``(batch, T, hidden_size)``, keys ``(batch, S, hidden_size)``, mask
          ``(batch, S)``, True where there is a token, or None
        - output: weights ``(batch, T, S)``

    Raises:
        ValueError: if there is no such score.
    """

    def __init__(self, hidden_size: int, *, score: Score = "general") -> None:
        super().__init__()
        if score not in get_args(Score):
            raise ValueError(f"score must be one of {', '.join(get_args(Score))}, not {score!r}")
        self.score = score
        if score != "dot":
            self.key = nn.Linear(hidden_size, hidden_size, bias=False)
        if score == "concat":
            self.query = nn.Linear(hidden_size, hidden_size, bias=False)
            self.v = nn.Linear(hidden_size, 1, bias=False)

    def keys(self, memory: Tensor) -> Tensor:
        """The memory's part in every score: ``(batch, S, hidden_size)``."""
        return memory if self.score == "dot" else self.key(memory)

    def forward(self, states: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        if self.score == "concat":
            query = self.query(states).unsqueeze(2)  # (batch, T, 1, hidden_size)
            energy = torch.tanh(query + keys.unsqueeze(1))  # (batch, T, S, hidden_size)
            scores = self.v(energy).squeeze(3)
        else:
            scores = states @ keys.transpose(1, 2)  # (batch, T, S)
        return masked_softmax(scores, None if mask is None else mask.unsqueeze(1))


class AttentionDecoder(nn.Module):
    r"""Takes a step, looks at the source, then writes a token.

    .. math::
        h_t &= \mathrm{LSTM}([E y_{t-1}; \tilde h_{t-1}], h_{t-1}) \\
        c_t &= \sum_s a_{ts} \bar h_s \\
        \tilde h_t &= \tanh(W_c [c_t; h_t]) \\
        p(y_t) &= \mathrm{softmax}(W_s \tilde h_t + b)

    Without input feeding the LSTM does not see :math:`\tilde h_{t-1}`, and all steps whose tokens
    are known run at once.

    Args:
        vocab_size: number of different tokens.
        embed_dim: width of a token's embedding.
        hidden_size: width of the recurrent layers, and of a source token's vector.
        kind: which recurrent layers.
        num_layers: how many of them.
        score: how a state is compared with a source token's vector.
        input_feeding: whether a step sees the attentional vector of the one before.
        dropout: probability of silencing a value during training: of the embedding, between layers
            and before the output layer.
        backend: of the recurrent layers.

    Shape:
        - input: tokens ``(batch, T)``, and the state before them
        - output: logits ``(batch, T, vocab_size)``, the state after them, and the attention's
          weights ``(batch, T, S)``
    """

    def __init__(
        self,
        vocab_size: int,
        embed_dim: int,
        *,
        hidden_size: int,
        kind: Kind,
        num_layers: int,
        score: Score,
        input_feeding: bool,
        dropout: float,
        backend: Backend,
    ) -> None:
        super().__init__()
        self.input_feeding = input_feeding
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.rnn = make_rnn(
            kind,
            embed_dim + (hidden_size if input_feeding else 0),
            hidden_size,
            num_layers=num_layers,
            dropout=dropout if num_layers > 1 else 0.0,
            backend=backend,
        )
        self.attention = GlobalAttention(hidden_size, score=score)
        self.attentional = nn.Linear(2 * hidden_size, hidden_size, bias=False)
        self.fc_out = nn.Linear(hidden_size, vocab_size)

    def forward(
        self, tokens: Tensor, state: AttentionState
    ) -> tuple[Tensor, AttentionState, Tensor]:
        hidden, feed, memory, keys, mask = state
        embedded = self.dropout(self.embedding(tokens))  # (batch, T, embed_dim)
        vectors, maps = [], []
        for steps in embedded.split(1 if self.input_feeding else tokens.size(1), dim=1):
            x = torch.cat([steps, feed], dim=2) if self.input_feeding else steps
            output, hidden = self.rnn(x, hidden)  # (batch, steps, hidden_size)
            weights = self.attention(output, keys, mask)  # (batch, steps, S)
            both = torch.cat([weights @ memory, output], dim=2)  # (batch, steps, 2 * hidden_size)
            feed = torch.tanh(self.attentional(both))  # (batch, steps, hidden_size)
            vectors.append(feed)
            maps.append(weights)
        logits = self.fc_out(self.dropout(torch.cat(vectors, dim=1)))  # (batch, T, vocab_size)
        return logits, state._replace(hidden=hidden, feed=feed[:, -1:]), torch.cat(maps, dim=1)


class LuongSeq2Seq(AttentiveEncoderDecoder):
    r"""Two stacks of LSTM layers, and global attention from the second to the first.

    The defaults are the paper's sizes.

    Args:
        source_vocab_size: number of different tokens of the source.
        target_vocab_size: number of different tokens of the target.
        embed_dim: width of a token's embedding.
        hidden_size: width of every recurrent layer.
        num_layers: layers of the encoder, and of the decoder.
        kind: which recurrent layers.
        score: how a state is compared with a source token's vector: ``"dot"``, ``"general"`` (by a
            matrix between them) or ``"concat"`` (by a small network).
        input_feeding: whether a step of the decoder sees the attentional vector of the one before.
        reverse_source: whether the encoder reads the source from its end.
        dropout: probability of silencing a value during training: of the embeddings, between layers
            and before the output layer.
        backend: of the recurrent layers.

    Shape: as in :class:`~zoo.models.recurrent.encoder_decoder.EncoderDecoder`.

    Raises:
        ValueError: if an argument is outside its range, or the lengths do not fit the source.
    """

    decoder: AttentionDecoder

    @deferred_init
    def __init__(
        self,
        source_vocab_size: int,
        target_vocab_size: int,
        *,
        embed_dim: int = 1000,
        hidden_size: int = 1000,
        num_layers: int = 4,
        kind: Kind = "lstm",
        score: Score = "general",
        input_feeding: bool = True,
        reverse_source: bool = True,
        dropout: float = 0.2,
        backend: Backend = "fused",
    ) -> None:
        super().__init__()
        check_at_least_one(
            source_vocab_size=source_vocab_size,
            target_vocab_size=target_vocab_size,
            embed_dim=embed_dim,
            hidden_size=hidden_size,
            num_layers=num_layers,
        )
        check_probability(dropout=dropout)
        self.encoder = Encoder(
            source_vocab_size,
            embed_dim,
            hidden_size=hidden_size,
            kind=kind,
            num_layers=num_layers,
            reverse_source=reverse_source,
            dropout=dropout,
            backend=backend,
        )
        self.decoder = AttentionDecoder(
            target_vocab_size,
            embed_dim,
            hidden_size=hidden_size,
            kind=kind,
            num_layers=num_layers,
            score=score,
            input_feeding=input_feeding,
            dropout=dropout,
            backend=backend,
        )

    def init_weights(self) -> None:
        reset(self)
        start_uniformly(self, 0.1)

    def encode(self, source: Tensor, source_lengths: Tensor | None = None) -> AttentionState:
        """The state that :meth:`decode` starts from."""
        memory, hidden = self.encoder(source, source_lengths)
        nothing = memory.new_zeros(memory.size(0), 1, memory.size(2))
        keys = self.decoder.attention.keys(memory)
        return AttentionState(hidden, nothing, memory, keys, source_mask(source, source_lengths))


def seq2seq_luong(
    source_vocab_size: int,
    target_vocab_size: int,
    *,
    embed_dim: int = 256,
    hidden_size: int = 512,
    num_layers: int = 2,
    kind: Kind = "lstm",
    score: Score = "general",
    input_feeding: bool = True,
    reverse_source: bool = True,
    dropout: float = 0.2,
    backend: Backend = "fused",
) -> LuongSeq2Seq:
    """The network in the sizes of the public recipe for Multi30k: two layers of 512."""
    return LuongSeq2Seq(
        source_vocab_size,
        target_vocab_size,
        embed_dim=embed_dim,
        hidden_size=hidden_size,
        num_layers=num_layers,
        kind=kind,
        score=score,
        input_feeding=input_feeding,
        reverse_source=reverse_source,
        dropout=dropout,
        backend=backend,
    )
