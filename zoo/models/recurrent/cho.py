r"""The RNN encoder-decoder: one vector, shown to every step (Cho et al., 2014).

Cho, van Merriënboer, Gulcehre, Bahdanau, Bougares, Schwenk and Bengio, "Learning phrase
representations using RNN encoder-decoder for statistical machine translation",
https://arxiv.org/abs/1406.1078

One gated recurrent network reads the source into a vector, the context; another writes the target
and sees the context at every step and again at its output, so that its state need not carry it. The
gated recurrent unit was introduced here.

Differences from the paper: the encoder's last state is the context and the decoder's first state,
where the paper has a layer and a tanh before each; the decoder's candidate has the context next to
the input, where the paper resets it with the state, after the product, :math:`r (U h + C c)`; the
output matrix is not factored. Built by
`seq2seq_gru`, gates are torch's (``kind="gru_paper"`` for the paper's) and the output layer is
linear (``maxout_size=500`` for the paper's maxout units).

The defaults of :class:`ContextSeq2Seq` are the paper's sizes. The builder's are those of the public
recipe for Multi30k (Trevett's `pytorch-seq2seq`, lesson 2), whose names the modules bear; with
7,853 German and 5,893 English words:

| builder | embeddings | encoder | decoder | output | parameters |
|---|---|---|---|---|---|
| `seq2seq_gru` | 3,518,976 | 1,182,720 | 1,969,152 | 7,548,933 | 14,219,781 |
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_probability
from zoo.layers.initialization import deferred_init, reset
from zoo.layers.maxout import Maxout
from zoo.models.recurrent.encoder_decoder import (
    Encoder,
    EncoderDecoder,
    HiddenKind,
    check_hidden_kind,
    start_orthogonally,
)
from zoo.models.recurrent.kinds import Backend, make_rnn


class ContextState(NamedTuple):
    """Where Cho's decoder stands: its state, and what it knows of the source."""

    hidden: Tensor  # (1, batch, hidden_size)
    context: Tensor  # (batch, hidden_size)


class ContextDecoder(nn.Module):
    r"""Writes the target with the context next to every token that it reads and writes.

    .. math::
        s_t &= \mathrm{GRU}([E y_{t-1}; c], s_{t-1}) \\
        p(y_t) &= \mathrm{softmax}(W [E y_{t-1}; s_t; c] + b)

    Args:
        vocab_size: number of different tokens.
        embed_dim: width of a token's embedding.
        hidden_size: width of the recurrent layer and of the context.
        kind: which recurrent layer.
        maxout_size: maxout units before the output layer, None for none.
        dropout: probability of silencing a value of the embedding during training.
        backend: of the recurrent layer.

    Shape:
        - input: tokens ``(batch, T)``, and the state before them
        - output: logits ``(batch, T, vocab_size)``, and the state after them
    """

    def __init__(
        self,
        vocab_size: int,
        embed_dim: int,
        *,
        hidden_size: int,
        kind: HiddenKind,
        maxout_size: int | None,
        dropout: float,
        backend: Backend,
    ) -> None:
        super().__init__()
        width = embed_dim + 2 * hidden_size
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.rnn = make_rnn(kind, embed_dim + hidden_size, hidden_size, backend=backend)
        self.maxout = nn.Identity() if maxout_size is None else Maxout(width, maxout_size)
        self.fc_out = nn.Linear(width if maxout_size is None else maxout_size, vocab_size)

    def forward(self, tokens: Tensor, state: ContextState) -> tuple[Tensor, ContextState]:
        embedded = self.dropout(self.embedding(tokens))  # (batch, T, embed_dim)
        context = state.context.unsqueeze(1).expand(-1, tokens.size(1), -1)
        output, hidden = self.rnn(
            torch.cat([embedded, context], dim=2), state.hidden
        )  # (batch, T, hidden_size)
        features = self.maxout(torch.cat([embedded, output, context], dim=2))
        return self.fc_out(features), state._replace(hidden=hidden)  # (batch, T, vocab_size)


class ContextSeq2Seq(EncoderDecoder):
    r"""GRU encoder and decoder, whose every step sees the encoder's last state.

    The defaults are the paper's sizes.

    Args:
        source_vocab_size: number of different tokens of the source.
        target_vocab_size: number of different tokens of the target.
        embed_dim: width of a token's embedding.
        hidden_size: width of the encoder's layer, of the decoder's, and of the context.
        kind: which recurrent layer.
        maxout_size: maxout units before the output layer, None for none.
        dropout: probability of silencing a value of the embeddings during training.
        backend: of the recurrent layers.

    Shape: as in :class:`~zoo.models.recurrent.encoder_decoder.EncoderDecoder`.

    Raises:
        ValueError: if an argument is outside its range, or the lengths do not fit the source.
    """

    @deferred_init
    def __init__(
        self,
        source_vocab_size: int,
        target_vocab_size: int,
        *,
        embed_dim: int = 100,
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
        self.encoder = Encoder(
            source_vocab_size,
            embed_dim,
            hidden_size=hidden_size,
            kind=kind,
            dropout=dropout,
            backend=backend,
        )
        self.decoder = ContextDecoder(
            target_vocab_size,
            embed_dim,
            hidden_size=hidden_size,
            kind=kind,
            maxout_size=maxout_size,
            dropout=dropout,
            backend=backend,
        )

    def init_weights(self) -> None:
        reset(self)
        start_orthogonally(self)

    def encode(self, source: Tensor, source_lengths: Tensor | None = None) -> ContextState:
        """The state that :meth:`decode` starts from."""
        _, hidden = self.encoder(source, source_lengths)
        return ContextState(hidden, hidden[-1])


def seq2seq_gru(
    source_vocab_size: int,
    target_vocab_size: int,
    *,
    embed_dim: int = 256,
    hidden_size: int = 512,
    kind: HiddenKind = "gru",
    maxout_size: int | None = None,
    dropout: float = 0.5,
    backend: Backend = "fused",
) -> ContextSeq2Seq:
    """Cho's network in the sizes of the public recipe for Multi30k: one layer of 512."""
    return ContextSeq2Seq(
        source_vocab_size,
        target_vocab_size,
        embed_dim=embed_dim,
        hidden_size=hidden_size,
        kind=kind,
        maxout_size=maxout_size,
        dropout=dropout,
        backend=backend,
    )
