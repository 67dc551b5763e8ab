r"""Sequence to sequence through one vector, by LSTMs (Sutskever, Vinyals and Le, 2014).

"Sequence to sequence learning with neural networks", https://arxiv.org/abs/1409.3215

One deep LSTM reads the source and is left with a state; another starts from it and writes the
target, each token given those before. The source is read backwards, which brings its first words
close to the target's first and makes the network far easier to train.

Differences from the paper: the end symbol is reversed with the source, so that it is read first;
one output layer where the paper spread layers over eight GPUs; only matrices start in
U(-0.08, 0.08), biases as torch's layers do.

The defaults of :class:`Seq2Seq` are the paper's sizes: 384 million weights with its vocabularies of
160,000 and 80,000 words. The builder's are those of the public recipe for Multi30k (Trevett's
`pytorch-seq2seq`, lesson 1), whose names the modules bear; with 7,853 German and 5,893 English
words:

| builder | embeddings | encoder | decoder | output | parameters |
|---|---|---|---|---|---|
| `seq2seq_lstm` | 3,518,976 | 3,678,208 | 3,678,208 | 3,023,109 | 13,898,501 |
"""

from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_probability
from zoo.layers.initialization import deferred_init, reset
from zoo.models.recurrent.encoder_decoder import (
    Encoder,
    EncoderDecoder,
    start_uniformly,
    take_rows,
)
from zoo.models.recurrent.kinds import Backend, Kind, State, make_rnn


class Decoder(nn.Module):
    r"""Writes the target from the encoder's last state, and nothing else.

    .. math::
        s_t &= \mathrm{LSTM}(E y_{t-1}, s_{t-1}) \\
        p(y_t) &= \mathrm{softmax}(W s_t + b)

    Args:
        vocab_size: number of different tokens.
        embed_dim: width of a token's embedding.
        hidden_size: width of the recurrent layers.
        kind: which recurrent layers.
        num_layers: how many of them.
        dropout: probability of silencing a value during training: of the embedding, and between
            layers.
        backend: of the recurrent layers.

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
        kind: Kind,
        num_layers: int,
        dropout: float,
        backend: Backend,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.rnn = make_rnn(
            kind,
            embed_dim,
            hidden_size,
            num_layers=num_layers,
            dropout=dropout if num_layers > 1 else 0.0,
            backend=backend,
        )
        self.fc_out = nn.Linear(hidden_size, vocab_size)

    def forward(self, tokens: Tensor, hidden: State) -> tuple[Tensor, State]:
        embedded = self.dropout(self.embedding(tokens))  # (batch, T, embed_dim)
        output, hidden = self.rnn(embedded, hidden)  # (batch, T, hidden_size)
        return self.fc_out(output), hidden  # (batch, T, vocab_size)


class Seq2Seq(EncoderDecoder):
    r"""Two stacks of LSTM layers, the second started with the state of the first (Sutskever).

    .. math:: p(y_1 \dots y_T \mid x) = \prod_t p(y_t \mid v(x), y_1 \dots y_{t-1})

    The defaults are the paper's sizes.

    Args:
        source_vocab_size: number of different tokens of the source.
        target_vocab_size: number of different tokens of the target.
        embed_dim: width of a token's embedding.
        hidden_size: width of every recurrent layer.
        num_layers: layers of the encoder, and of the decoder.
        kind: which recurrent layers.
        reverse_source: whether the encoder reads the source from its end.
        dropout: probability of silencing a value during training: of the embeddings, and between
            layers.
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
        embed_dim: int = 1000,
        hidden_size: int = 1000,
        num_layers: int = 4,
        kind: Kind = "lstm",
        reverse_source: bool = True,
        dropout: float = 0.0,
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
        self.decoder = Decoder(
            target_vocab_size,
            embed_dim,
            hidden_size=hidden_size,
            kind=kind,
            num_layers=num_layers,
            dropout=dropout,
            backend=backend,
        )

    def init_weights(self) -> None:
        reset(self)
        start_uniformly(self, 0.08)

    def encode(self, source: Tensor, source_lengths: Tensor | None = None) -> State:
        """The state that :meth:`decode` starts from."""
        return self.encoder(source, source_lengths)[1]

    def reorder(self, state: State, rows: Tensor) -> State:
        """The state whose row i is row ``rows[i]`` of this one."""
        return take_rows(state, rows)


def seq2seq_lstm(
    source_vocab_size: int,
    target_vocab_size: int,
    *,
    embed_dim: int = 256,
    hidden_size: int = 512,
    num_layers: int = 2,
    kind: Kind = "lstm",
    reverse_source: bool = True,
    dropout: float = 0.5,
    backend: Backend = "fused",
) -> Seq2Seq:
    """Sutskever's network in the sizes of the public recipe for Multi30k: two layers of 512."""
    return Seq2Seq(
        source_vocab_size,
        target_vocab_size,
        embed_dim=embed_dim,
        hidden_size=hidden_size,
        num_layers=num_layers,
        kind=kind,
        reverse_source=reverse_source,
        dropout=dropout,
        backend=backend,
    )
