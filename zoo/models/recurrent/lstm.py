r"""Long short-term memory (Hochreiter and Schmidhuber, 1997), and a language model built on it.

"Long short-term memory", https://doi.org/10.1162/neco.1997.9.8.1735, with the forget gate of Gers,
Schmidhuber and Cummins 2000, "Learning to forget", https://doi.org/10.1162/089976600300015015

A memory cell is added to, not overwritten, so an error signal can flow back through it for many
steps without fading; gates learn when to write to it, when to empty it and when to show it.
The language model predicts each token of a text from those before it (Mikolov et al. 2010,
"Recurrent neural network based language model",
https://www.isca-archive.org/interspeech_2010/mikolov10_interspeech.html, with Graves' LSTM, 2013,
"Generating sequences with recurrent neural networks", https://arxiv.org/abs/1308.0850; over
characters as in Karpathy's char-rnn, 2015, https://github.com/karpathy/char-rnn).

Differences from the papers: no peephole connections and one cell a block, as has become usual; two
bias vectors a layer where one would do, since `torch.nn.LSTM`'s checkpoints have two; the language
model embeds its tokens, where char-rnn feeds them one-hot.

| builder | embedding | LSTM | head | parameters (65 tokens) |
|---|---|---|---|---|
| `char_lstm` | 16,640 | 526,336 | 16,705 | 559,681 |
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_probability

State = tuple[Tensor, Tensor]
Backend = Literal["fused", "written"]


class LSTM(nn.LSTM):
    r"""Layers of LSTM cells, read from left to right.

    .. math::
        i_t &= \sigma(W_{ii} x_t + b_{ii} + W_{hi} h_{t-1} + b_{hi}) \\
        f_t &= \sigma(W_{if} x_t + b_{if} + W_{hf} h_{t-1} + b_{hf}) \\
        g_t &= \tanh(W_{ig} x_t + b_{ig} + W_{hg} h_{t-1} + b_{hg}) \\
        o_t &= \sigma(W_{io} x_t + b_{io} + W_{ho} h_{t-1} + b_{ho}) \\
        c_t &= f_t \odot c_{t-1} + i_t \odot g_t \\
        h_t &= o_t \odot \tanh(c_t)

    The four matrices are stacked in the order i, f, g, o: layer k has ``weight_ih_l{k}`` of shape
    ``(4 * hidden_size, inputs)``, ``weight_hh_l{k}`` of shape ``(4 * hidden_size, hidden_size)``,
    ``bias_ih_l{k}`` and ``bias_hh_l{k}``, all starting uniform in
    :math:`\pm 1/\sqrt{\mathrm{hidden\_size}}`: a checkpoint of `torch.nn.LSTM` loads as it is.

    Args:
        input_size: features of one step.
        hidden_size: width of the cell and of the output.
        num_layers: layers, each reading the output of the one below.
        dropout: probability of silencing an output between layers (not after the last) during
            training.
        backend: ``"fused"`` runs torch's kernel (oneDNN, cuDNN); ``"written"`` the equations above,
            step by step. Equal results, dropout's draws aside; the second is for reading.

    Shape:
        - input: ``(batch, time, input_size)``, and a state or None for zeros
        - output: ``(batch, time, hidden_size)``, and the state after the last step
        - state: h and c, each ``(num_layers, batch, hidden_size)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        num_layers: int = 1,
        dropout: float = 0.0,
        backend: Backend = "fused",
    ) -> None:
        check_at_least_one(input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        check_probability(dropout=dropout)
        if dropout > 0 and num_layers == 1:
            raise ValueError(f"dropout acts between layers and there is one: not {dropout}")
        if backend not in ("fused", "written"):
            raise ValueError(f"backend must be fused or written, not {backend!r}")
        super().__init__(input_size, hidden_size, num_layers, batch_first=True, dropout=dropout)
        self.backend = backend

    # torch's signature also admits packed sequences, which nothing here produces.
    def forward(  # type: ignore[override]
        self, x: Tensor, state: State | None = None
    ) -> tuple[Tensor, State]:
        if self.backend == "fused":
            return super().forward(x, state)
        if state is None:
            zeros = x.new_zeros(self.num_layers, x.size(0), self.hidden_size)
            state = (zeros, zeros)
        last_h, last_c = [], []
        for layer in range(self.num_layers):
            if layer > 0:
                x = F.dropout(x, self.dropout, self.training)
            x, h, c = self._layer(x, layer, state[0][layer], state[1][layer])
            last_h.append(h)
            last_c.append(c)
        return x, (torch.stack(last_h), torch.stack(last_c))

    def _layer(self, x: Tensor, layer: int, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weight_ih, weight_hh, bias_ih, bias_hh = self.all_weights[layer]
        outputs = []
        for x_t in x.unbind(1):
            gates = F.linear(x_t, weight_ih, bias_ih) + F.linear(h, weight_hh, bias_hh)
            i, f, g, o = gates.chunk(4, dim=1)  # (batch, hidden_size) each
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs.append(h)
        return torch.stack(outputs, dim=1), h, c  # (batch, time, hidden_size)


class LSTMLanguageModel(nn.Module):
    r"""Embedding, LSTM, linear layer: logits of the next token at every step.

    .. math:: p(w_{t+1} \mid w_1 \dots w_t) = \mathrm{softmax}(V h_t + b)

    The state that one call returns may be given to the next, which then goes on in the same text.

    Args:
        vocab_size: number of different tokens.
        embed_dim: width of a token's embedding.
        hidden_size: width of the LSTM.
        num_layers: its layers.
        dropout: probability of silencing a value during training on every connection that does
            not run in time: after the embedding, between layers, before the linear layer (Zaremba,
            Sutskever and Vinyals 2014, https://arxiv.org/abs/1409.2329).
        tie_weights: the linear layer's matrix is the embedding's (Press and Wolf 2017,
            https://arxiv.org/abs/1608.05859); then ``embed_dim`` must equal ``hidden_size``.
        backend: see :class:`LSTM`.

    Shape:
        - input: tokens ``(batch, time)`` of type int64, and a state or None for zeros
        - output: logits ``(batch, time, vocab_size)``, and the state after the last step
        - state: h and c, each ``(num_layers, batch, hidden_size)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        embed_dim: int = 256,
        hidden_size: int = 256,
        num_layers: int = 1,
        dropout: float = 0.0,
        tie_weights: bool = False,
        backend: Backend = "fused",
    ) -> None:
        super().__init__()
        check_at_least_one(vocab_size=vocab_size, embed_dim=embed_dim)
        check_probability(dropout=dropout)
        if tie_weights and embed_dim != hidden_size:
            raise ValueError(
                f"embed_dim must equal hidden_size={hidden_size} to tie weights, not {embed_dim}"
            )
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.lstm = LSTM(
            embed_dim,
            hidden_size,
            num_layers=num_layers,
            dropout=dropout if num_layers > 1 else 0.0,
            backend=backend,
        )
        self.head = nn.Linear(hidden_size, vocab_size)
        self.dropout = nn.Dropout(dropout)
        if tie_weights:
            # The embedding's unit variance would make the first logits far too large.
            nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
            self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        embedded = self.dropout(self.embedding(tokens))  # (batch, time, embed_dim)
        hidden, state = self.lstm(embedded, state)  # (batch, time, hidden_size)
        return self.head(self.dropout(hidden)), state  # (batch, time, vocab_size)


def char_lstm(
    vocab_size: int = 65,
    *,
    embed_dim: int = 256,
    hidden_size: int = 256,
    num_layers: int = 1,
    dropout: float = 0.0,
    tie_weights: bool = False,
    backend: Backend = "fused",
) -> LSTMLanguageModel:
    """One layer of 256 cells over characters; 65 of them occur in the tiny Shakespeare text."""
    return LSTMLanguageModel(
        vocab_size,
        embed_dim=embed_dim,
        hidden_size=hidden_size,
        num_layers=num_layers,
        dropout=dropout,
        tie_weights=tie_weights,
        backend=backend,
    )
