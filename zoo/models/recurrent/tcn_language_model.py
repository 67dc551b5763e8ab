r"""Temporal convolutional language model (Bai, Kolter and Koltun, 2018).

"An empirical evaluation of generic convolutional and recurrent networks for sequence modeling",
https://arxiv.org/abs/1803.01271, section 5; the authors' code, whose names the parts bear and whose
state dicts load as :mod:`~zoo.models.recurrent.tcn` says: https://github.com/locuslab/TCN

| builder | embedding, decoder's bias | convolutions | receptive field | parameters (65 tokens) |
|---|---|---|---|---|
| `char_tcn` | 6,500 + 65 | 2,217,050 | 29 | 2,223,615 |
"""

from typing import TypedDict, Unpack

import torch
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_probability
from zoo.layers.initialization import deferred_init, reset
from zoo.models.recurrent.tcn import TemporalConvNet


class TCNLanguageModel(nn.Module):
    r"""Embedding, temporal convolutional network, linear layer: logits of the next token.

    .. math:: p(w_{t+1} \mid w_{t-R+2} \dots w_t) = \mathrm{softmax}(V o_t + b)

    with the receptive field R. Windows of a text are read on their own: what stands before a window
    is not known in it. The decoder's matrix is the embedding's, as in the authors' code, if the
    last block is as wide as the embedding.

    Args:
        vocab_size: number of different tokens.
        sequence_length: tokens of a window. The network would take any number.
        embed_dim: width of a token's embedding.
        hidden_channels: width of each block.
        kernel_size: taps of the convolutions.
        dropout: probability of silencing a value during training in the blocks.
        embedding_dropout: the same after the embedding.
        tie_weights: the decoder's matrix is the embedding's; then the last of ``hidden_channels``
            must equal ``embed_dim``.

    Shape:
        - input: tokens ``(batch, time)`` of type int64
        - output: logits ``(batch, time, vocab_size)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    @deferred_init
    def __init__(
        self,
        vocab_size: int = 65,
        *,
        sequence_length: int = 64,
        embed_dim: int = 100,
        hidden_channels: tuple[int, ...] = (450, 450, 100),
        kernel_size: int = 3,
        dropout: float = 0.1,
        embedding_dropout: float = 0.1,
        tie_weights: bool = True,
    ) -> None:
        super().__init__()
        check_at_least_one(
            vocab_size=vocab_size, sequence_length=sequence_length, embed_dim=embed_dim
        )
        check_probability(embedding_dropout=embedding_dropout)
        self.sequence_length = sequence_length
        self.encoder = nn.Embedding(vocab_size, embed_dim)
        self.drop = nn.Dropout(embedding_dropout)
        self.tcn = TemporalConvNet(
            embed_dim, hidden_channels, kernel_size=kernel_size, dropout=dropout
        )
        self.decoder = nn.Linear(hidden_channels[-1], vocab_size)
        if tie_weights and hidden_channels[-1] != embed_dim:
            raise ValueError(
                f"tie_weights must be false where the last block is {hidden_channels[-1]} wide "
                f"and the embedding {embed_dim}, not {tie_weights}"
            )
        self.is_tied = tie_weights
        self._tie()

    def _tie(self) -> None:
        if self.is_tied:
            self.decoder.weight = self.encoder.weight

    def init_weights(self) -> None:
        # The decoder's own first matrix, which a tie discards, must not land in the embedding.
        self.decoder.weight = nn.Parameter(torch.empty_like(self.decoder.weight))
        reset(self)
        nn.init.uniform_(self.encoder.weight, -0.1, 0.1)
        nn.init.uniform_(self.decoder.weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)
        self._tie()

    def forward(self, tokens: Tensor) -> Tensor:
        embedded = self.drop(self.encoder(tokens)).transpose(1, 2)  # (batch, embed_dim, time)
        return self.decoder(self.tcn(embedded).transpose(1, 2))  # (batch, time, vocab_size)


class TCNLanguageModelOptions(TypedDict, total=False):
    """See :class:`TCNLanguageModel`."""

    sequence_length: int
    embed_dim: int
    hidden_channels: tuple[int, ...]
    kernel_size: int
    dropout: float
    embedding_dropout: float
    tie_weights: bool


def char_tcn(vocab_size: int = 65, **options: Unpack[TCNLanguageModelOptions]) -> TCNLanguageModel:
    """The authors' network over characters, three blocks of 450, 450 and 100."""
    return TCNLanguageModel(vocab_size, **options)
