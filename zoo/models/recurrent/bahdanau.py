r"""Translation with additive attention (Bahdanau, Cho and Bengio, 2015).

"Neural machine translation by jointly learning to align and translate",
https://arxiv.org/abs/1409.0473

A single vector cannot hold a long sentence. So the encoder, which reads in both directions, keeps
a vector for every source token, and before each target token the decoder weighs them anew: what it
is about to write decides where it looks. The weights align the two sentences, unsupervised.

Differences from the paper:

- the decoder's first state is made from the last states of both directions, where the paper takes
  only the backward one's;
- the output layer sees the state after the step, :math:`s_t`, where the paper's equation has the
  one before; the layer on the source's vectors in the attention has a bias;
- the attention's vector v starts like other weights, not at zero, through which no gradient passes;
- built by `seq2seq_attention`, gates are torch's (``kind="gru_paper"`` for the paper's) and the
  output layer is linear (``maxout_size=500`` for the paper's maxout units).

The first two, and the linear output, are those of the public recipe for Multi30k (Trevett's
`pytorch-seq2seq`, lessons 3 and 4), whose sizes are the builder's defaults and whose names the
modules bear, except that the attention's one matrix is two here. :class:`BahdanauSeq2Seq` defaults
to the paper's sizes (RNNsearch). With 7,853 German and 5,893 English words:

| builder | embeddings | encoder | attention | decoder | output | parameters |
|---|---|---|---|---|---|---|
| `seq2seq_attention` | 3,518,976 | 2,890,240 | 787,456 | 2,755,584 | 10,566,149 | 20,518,405 |
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_probability
from zoo.layers.initialization import deferred_init, reset
from zoo.layers.maxout import Maxout
from zoo.models.recurrent.encoder_decoder import (
    AttentiveEncoderDecoder,
    Encoder,
    HiddenKind,
    check_hidden_kind,
    masked_softmax,
    source_mask,
    start_orthogonally,
)
from zoo.models.recurrent.kinds import Backend, make_rnn


class AttentionState(NamedTuple):
    """Where the decoder stands, and what it looks at."""

    hidden: Tensor  # (1, batch, hidden_size)
    memory: Tensor  # (batch, S, 2 * hidden_size): the source's vectors
    keys: Tensor  # (batch, S, hidden_size): their part in the attention's scores
    mask: Tensor | None  # (batch, S): True at tokens, False at padding


class BidirectionalEncoder(Encoder):
    r"""Reads the source in both directions, and makes the decoder's first state.

    .. math:: s_0 = \tanh(W_s [\overrightarrow{h}_S; \overleftarrow{h}_1] + b_s)

    Args:
        vocab_size: number of different tokens.
        embed_dim: width of a token's embedding.
        hidden_size: width of each direction, and of the decoder's state.
        kind: which recurrent layer.
        dropout: probability of silencing a value of the embedding during training.
        backend: of the recurrent layer.

    Shape:
        - input: tokens ``(batch, S)``, and their numbers ``(batch,)`` on the CPU, None for all
        - output: the tokens' vectors ``(batch, S, 2 * hidden_size)``, and the first state
          ``(1, batch, hidden_size)``
    """

    def __init__(
        self,
        vocab_size: int,
        embed_dim: int,
        *,
        hidden_size: int,
        kind: HiddenKind,
        dropout: float,
        backend: Backend,
    ) -> None:
        super().__init__(
            vocab_size,
            embed_dim,
            hidden_size=hidden_size,
            kind=kind,
            bidirectional=True,
            dropout=dropout,
            backend=backend,
        )
        self.fc = nn.Linear(2 * hidden_size, hidden_size)

    def forward(self, source: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        memory, (forward, backward) = super().forward(source, lengths)
        first = torch.tanh(self.fc(torch.cat([forward, backward], dim=1)))
        return memory, first.unsqueeze(0)  # (1, batch, hidden_size)


class AdditiveAttention(nn.Module):
    r"""A small network scores every source token for the state that asks.

    .. math::
        e_{tj} &= v^\top \tanh(W_a s_{t-1} + U_a h_j + b_a) \\
        \alpha_t &= \mathrm{softmax}(e_t) \\
        c_t &= \sum_j \alpha_{tj} h_j

    The product :math:`U_a h_j + b_a` is the same at every step: :meth:`keys` computes it once.

    Args:
        query_size: width of the state.
        memory_size: width of a source token's vector.
        hidden_size: width of the network's hidden layer.

    Shape:
        - input: state ``(batch, query_size)``, keys ``(batch, S, hidden_size)``, mask ``(batch,
          S)``, True where there is a token, or None
        - output: weights ``(batch, S)``
    """

    def __init__(self, query_size: int, memory_size: int, hidden_size: int) -> None:
        super().__init__()
        self.query = nn.Linear(query_size, hidden_size, bias=False)
        self.key = nn.Linear(memory_size, hidden_size)
        self.v = nn.Linear(hidden_size, 1, bias=False)

    def keys(self, memory: Tensor) -> Tensor:
        """The memory's part in every score: ``(batch, S, hidden_size)``."""
        return self.key(memory)

    def forward(self, query: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        energy = torch.tanh(self.query(query).unsqueeze(1) + keys)  # (batch, S, hidden_size)
        return masked_softmax(self.v(energy).squeeze(2), mask)  # (batch, S)


class AttentionDecoder(nn.Module):
    r"""Looks at the source, then writes a token.

    .. math::
        s_t &= \mathrm{GRU}([E y_{t-1}; c_t], s_{t-1}) \\
        p(y_t) &= \mathrm{softmax}(W [s_t; c_t; E y_{t-1}] + b)

    or, with maxout units m, :math:`\mathrm{softmax}(W m([s_t; c_t; E y_{t-1}]) + b)`.

    Args:
        vocab_size: number of different tokens.
        embed_dim: width of a token's embedding.
        hidden_size: width of the recurrent layer.
        memory_size: width of a source token's vector.
        kind: which recurrent layer.
        maxout_size: maxout units before the output layer, None for none.
        dropout: probability of silencing a value of the embedding during training.
        backend: of the recurrent layer.

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
        memory_size: int,
        kind: HiddenKind,
        maxout_size: int | None,
        dropout: float,
        backend: Backend,
    ) -> None:
        super().__init__()
        width = hidden_size + memory_size + embed_dim
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.attention = AdditiveAttention(hidden_size, memory_size, hidden_size)
        self.rnn = make_rnn(kind, embed_dim + memory_size, hidden_size, backend=backend)
        self.maxout = nn.Identity() if maxout_size is None else Maxout(width, maxout_size)
        self.fc_out = nn.Linear(width if maxout_size is None else maxout_size, vocab_size)

    def forward(
        self, tokens: Tensor, state: AttentionState
    ) -> tuple[Tensor, AttentionState, Tensor]:
        hidden, memory, keys, mask = state
        embedded = self.dropout(self.embedding(tokens))  # (batch, T, embed_dim)
        outputs, contexts, maps = [], [], []
        for step in embedded.split(1, dim=1):
            weights = self.attention(hidden[-1], keys, mask).unsqueeze(1)  # (batch, 1, S)
            context = weights @ memory  # (batch, 1, memory_size)
            output, hidden = self.rnn(torch.cat([step, context], dim=2), hidden)
            outputs.append(output)
            contexts.append(context)
            maps.append(weights)
        features = torch.cat(
            [torch.cat(outputs, dim=1), torch.cat(contexts, dim=1), embedded], dim=2
        )  # (batch, T, hidden_size + memory_size + embed_dim)
        logits = self.fc_out(self.maxout(features))  # (batch, T, vocab_size)
        return logits, state._replace(hidden=hidden), torch.cat(maps, dim=1)


class BahdanauSeq2Seq(AttentiveEncoderDecoder):
    r"""Bidirectional GRU encoder, additive attention, GRU decoder.

    The defaults are the paper's sizes.

    Args:
        source_vocab_size: number of different tokens of the source.
        target_vocab_size: number of different tokens of the target.
        embed_dim: width of a token's embedding.
        hidden_size: width of the decoder, of each direction of the encoder, and of the attention.
        kind: which recurrent layers.
        maxout_size: maxout units before the output layer, None for none.
        dropout: probability of silencing a value of the embeddings during training.
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
        embed_dim: int = 620,
        hidden_size: int = 1000,
        kind: HiddenKind = "gru_paper",
        maxout_size: int | None = 500,
        dropout: float = 0.0,
        backend: Backend = "fused",
    ) -> None:
        super().__init__()
        check_at_least_one(
            source_vocab_size=source_vocab_size,
            target_vocab_size=target_vocab_size,
            embed_dim=embed_dim,
            hidden_size=hidden_size,
            maxout_size=1 if maxout_size is None else maxout_size,
        )
        check_probability(dropout=dropout)
        check_hidden_kind(kind)
        self.encoder = BidirectionalEncoder(
            source_vocab_size,
            embed_dim,
            hidden_size=hidden_size,
            kind=kind,
            dropout=dropout,
            backend=backend,
        )
        self.decoder = AttentionDecoder(
            target_vocab_size,
            embed_dim,
            hidden_size=hidden_size,
            memory_size=2 * hidden_size,
            kind=kind,
            maxout_size=maxout_size,
            dropout=dropout,
            backend=backend,
        )

    def init_weights(self) -> None:
        reset(self)
        start_orthogonally(self)
        for matrix in (self.decoder.attention.query.weight, self.decoder.attention.key.weight):
            nn.init.normal_(matrix, std=0.001)

    def encode(self, source: Tensor, source_lengths: Tensor | None = None) -> AttentionState:
        """The state that :meth:`decode` starts from."""
        memory, hidden = self.encoder(source, source_lengths)
        keys = self.decoder.attention.keys(memory)
        return AttentionState(hidden, memory, keys, source_mask(source, source_lengths))


def seq2seq_attention(
    source_vocab_size: int,
    target_vocab_size: int,
    *,
    embed_dim: int = 256,
    hidden_size: int = 512,
    kind: HiddenKind = "gru",
    maxout_size: int | None = None,
    dropout: float = 0.5,
    backend: Backend = "fused",
) -> BahdanauSeq2Seq:
    """The network in the sizes and form of the public recipe for Multi30k."""
    return BahdanauSeq2Seq(
        source_vocab_size,
        target_vocab_size,
        embed_dim=embed_dim,
        hidden_size=hidden_size,
        kind=kind,
        maxout_size=maxout_size,
        dropout=dropout,
        backend=backend,
    )
