r"""Recurrent language models (Mikolov et al., 2010).

"Recurrent neural network based language model",
https://www.isca-archive.org/interspeech_2010/mikolov10_interspeech.html; with LSTM cells Graves
2013, "Generating sequences with recurrent neural networks", https://arxiv.org/abs/1308.0850; over
characters as in Karpathy's char-rnn, 2015, https://github.com/karpathy/char-rnn.

Each token of a text is predicted from those before it. All of the past that the network knows is
its state, which is as large after a million tokens as after one.

Differences from the papers: tokens are embedded, where Mikolov and char-rnn feed them one-hot; a
single softmax over the vocabulary, where Mikolov puts rare words together; gradients through all
steps of a window, where he takes the state before a step as a constant; no skip connections from
the input to every layer, which Graves has. The parts bear the names of `RNNModel` in PyTorch's
word_language_model (https://github.com/pytorch/examples), ``encoder`` (the embedding), ``rnn`` and
``decoder``, so its state dicts load as they are; it returns log-probabilities, time first.

| kind | embedding | recurrent layer | decoder | parameters (65 tokens) |
|---|---|---|---|---|
| `rnn` | 16,640 | 131,584 | 16,705 | 164,929 |
| `gru` | 16,640 | 394,752 | 16,705 | 428,097 |
| `lstm` | 16,640 | 526,336 | 16,705 | 559,681 |
"""

from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_probability
from zoo.layers.initialization import deferred_init, reset
from zoo.models.recurrent.kinds import Backend, Kind, State, make_rnn


class RecurrentLanguageModel(nn.Module):
    r"""Embedding, recurrent layers, linear layer: logits of the next token at every step.

    .. math::
        h_t &= f(E_{w_t}, h_{t-1}) \\
        p(w_{t+1} \mid w_1 \dots w_t) &= \mathrm{softmax}(V h_t + b)

    The state that one call returns may be given to the next, which then goes on in the same text.

    Args:
        vocab_size: number of different tokens.
        kind: of the recurrent layers, see :data:`~zoo.models.recurrent.kinds.Kind`.
        embed_dim: width of a token's embedding.
        hidden_size: width of the recurrent layers.
        num_layers: recurrent layers, one upon the other.
        dropout: probability of silencing a value during training on every connection that does
            not run in time: after the embedding, between layers, before the linear layer (Zaremba,
            Sutskever and Vinyals 2014, https://arxiv.org/abs/1409.2329).
        recurrent_dropout: on the connections in time, see the kind's own layer.
        tie_weights: the linear layer's matrix is the embedding's (Press and Wolf 2017,
            https://arxiv.org/abs/1608.05859); then ``embed_dim`` must equal ``hidden_size``.
        backend: ``"fused"`` for speed or ``"written"`` for reading, see the kind's own layer.

    Shape:
        - input: tokens ``(batch, time)`` of type int64, and a state or None for the start of a text
        - output: logits ``(batch, time, vocab_size)``, and the state after the last step
        - state: of the layers, a tensor or a pair, each ``(num_layers, batch, hidden_size)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    @deferred_init
    def __init__(
        self,
        vocab_size: int = 65,
        *,
        kind: Kind = "lstm",
        embed_dim: int = 256,
        hidden_size: int = 256,
        num_layers: int = 1,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        tie_weights: bool = False,
        backend: Backend = "fused",
    ) -> None:
        super().__init__()
        check_at_least_one(
            vocab_size=vocab_size,
            embed_dim=embed_dim,
            hidden_size=hidden_size,
            num_layers=num_layers,
        )
        check_probability(dropout=dropout)
        if tie_weights and embed_dim != hidden_size:
            raise ValueError(
                f"embed_dim must equal hidden_size={hidden_size} to tie weights, not {embed_dim}"
            )
        self.drop = nn.Dropout(dropout)
        self.encoder = nn.Embedding(vocab_size, embed_dim)
        self.rnn = make_rnn(
            kind,
            embed_dim,
            hidden_size,
            num_layers=num_layers,
            dropout=dropout if num_layers > 1 else 0.0,
            recurrent_dropout=recurrent_dropout,
            backend=backend,
        )
        self.decoder = nn.Linear(hidden_size, vocab_size)
        self.is_tied = tie_weights
        self._tie()

    def _tie(self) -> None:
        if self.is_tied:
            self.decoder.weight = self.encoder.weight

    def init_weights(self) -> None:
        reset(self)
        self._tie()
        if self.is_tied:
            # The embedding's unit variance would make the first logits far too large.
            nn.init.uniform_(self.encoder.weight, -0.1, 0.1)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        embedded = self.drop(self.encoder(tokens))  # (batch, time, embed_dim)
        hidden, state = self.rnn(embedded, state)  # (batch, time, hidden_size)
        return self.decoder(self.drop(hidden)), state  # (batch, time, vocab_size)
