"""What the recurrent encoder-decoders share: reading the source, the interface, how they start.

Sutskever et al. 2014 (:mod:`zoo.models.recurrent.seq2seq`), Cho et al. 2014
(:mod:`zoo.models.recurrent.cho`), Bahdanau et al. 2015 (:mod:`zoo.models.recurrent.bahdanau`),
Luong et al. 2015 (:mod:`zoo.models.recurrent.luong`).
"""

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from zoo.layers.attention import padding_mask
from zoo.layers.checks import check_lengths
from zoo.models.recurrent.kinds import Backend, Kind, State, make_rnn

HiddenKind = Literal["rnn", "rnn_relu", "gru", "gru_paper", "minimal_gru"]
"""Kinds of recurrent layers whose state is h alone."""


def check_hidden_kind(kind: str) -> None:
    """Refuses kinds of recurrent layers whose state is more than h."""
    if kind not in get_args(HiddenKind):
        raise ValueError(f"kind must be one of {', '.join(get_args(HiddenKind))}, not {kind!r}")


def source_mask(source: Tensor, lengths: Tensor | None) -> Tensor | None:
    """True at the tokens of the source, False at its padding: ``(batch, S)``; None without any."""
    return None if lengths is None else padding_mask(lengths.to(source.device), source.size(1))


def masked_softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax over the last dimension, zero where the mask (it broadcasts) is False."""
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(-1)


def take_rows(hidden: State, rows: Tensor) -> State:
    """The state of recurrent layers for other rows of the batch."""
    if isinstance(hidden, tuple):
        h, c = hidden
        return h.index_select(1, rows), c.index_select(1, rows)
    return hidden.index_select(1, rows)


def reverse(x: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Each sequence read from its end, its padding left where it is: ``(batch, time, ...)``."""
    if lengths is None:
        return x.flip(1)
    steps = torch.arange(x.size(1), device=x.device)
    last = lengths.to(x.device).unsqueeze(1) - 1  # (batch, 1)
    order = torch.where(steps <= last, last - steps, steps)  # (batch, time)
    return x[torch.arange(x.size(0), device=x.device).unsqueeze(1), order]


def start_uniformly(model: nn.Module, limit: float) -> None:
    """Matrices start in U(-limit, limit); biases, and the gains of norms, stay as they are."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.uniform_(parameter, -limit, limit)


def start_orthogonally(model: nn.Module) -> None:
    """As Cho et al. and Bahdanau et al. start their networks.

    Recurrent matrices are orthogonal, gate by gate; all others are normal numbers of standard
    deviation 0.01; biases are zero.
    """
    for name, parameter in model.named_parameters():
        if "weight_hh" in name:
            for gate in parameter.detach().split(parameter.size(1)):
                nn.init.orthogonal_(gate)
        elif parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.01)
        else:
            nn.init.zeros_(parameter)


class Encoder(nn.Module):
    """Embeds the tokens of the source and reads them; padding is never read.

    Args:
        vocab_size: number of different tokens.
        embed_dim: width of a token's embedding.
        hidden_size: width of the recurrent layers, in each direction.
        kind: which recurrent layers.
        num_layers: how many of them.
        bidirectional: whether each reads in both directions.
        reverse_source: whether it reads from the last token to the first.
        dropout: probability of silencing a value during training: of the embedding, and between
            layers.
        backend: of the recurrent layers.

    Shape:
        - input: tokens ``(batch, S)``, and their numbers ``(batch,)`` on the CPU, None for all
        - output: a vector for each token in the order of the source, ``(batch, S, hidden_size *
          directions)``, zero at padding; the state after the last token that was read

    Raises:
        ValueError: if the lengths do not fit the tokens.
    """

    def __init__(
        self,
        vocab_size: int,
        embed_dim: int,
        *,
        hidden_size: int,
        kind: Kind,
        num_layers: int = 1,
        bidirectional: bool = False,
        reverse_source: bool = False,
        dropout: float = 0.0,
        backend: Backend = "fused",
    ) -> None:
        super().__init__()
        self.reverse_source = reverse_source
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.rnn = make_rnn(
            kind,
            embed_dim,
            hidden_size,
            num_layers=num_layers,
            bidirectional=bidirectional,
            dropout=dropout if num_layers > 1 else 0.0,
            backend=backend,
        )

    def forward(self, source: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        if lengths is not None:
            if lengths.device.type != "cpu":
                raise ValueError("source_lengths must be on the CPU, where sequences are packed")
            batch, time = source.shape
            check_lengths(lengths, batch=batch, time=time, name="source_lengths")
        if self.reverse_source:
            source = reverse(source, lengths)
        embedded = self.dropout(self.embedding(source))  # (batch, S, embed_dim)
        if lengths is None:
            memory, hidden = self.rnn(embedded)
        else:
            memory, hidden = self.rnn.read_padded(embedded, lengths)
        # memory: (batch, S, directions * hidden_size)
        return (reverse(memory, lengths) if self.reverse_source else memory), hidden


class EncoderDecoder(nn.Module):
    """Base of the networks: an encoder reads the source, a decoder writes the target.

    A subclass says what of the source its decoder starts from (:meth:`encode`). The state is a
    named tuple, first the state of the decoder's recurrent layers, then tensors ``(batch, ...)``.

    Shape:
        - input: source ``(batch, S)`` and target ``(batch, T)`` of type int64, padded on the right;
          the source's lengths ``(batch,)`` on the CPU, None if there is no padding
        - output: logits ``(batch, T, target_vocab_size)`` of the token after each of the target's
    """

    encoder: Encoder
    decoder: nn.Module

    def forward(
        self, source: Tensor, target: Tensor, source_lengths: Tensor | None = None
    ) -> Tensor:
        return self.decode(target, self.encode(source, source_lengths))[0]

    def encode(self, source: Tensor, source_lengths: Tensor | None = None) -> Any:
        """The state that :meth:`decode` starts from."""
        raise NotImplementedError

    def decode(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Logits after each of the next tokens ``(batch, new)``, and the state to go on from."""
        return self.decoder(tokens, state)[:2]

    def reorder(self, state: Any, rows: Tensor) -> Any:
        """The state whose row i is row ``rows[i]`` of this one."""
        hidden, *others = state
        others = [part if part is None else part.index_select(0, rows) for part in others]
        return type(state)(take_rows(hidden, rows), *others)


class AttentiveEncoderDecoder(EncoderDecoder):
    """Base of those whose decoder also returns where it looked, ``(batch, T, S)``."""

    @torch.no_grad()
    def attention_maps(
        self, source: Tensor, target: Tensor, source_lengths: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Where the decoder looks before it writes each token: ``(batch, 1, T, S)``."""
        _, _, maps = self.decoder(target, self.encode(source, source_lengths))
        return {"attention": maps.unsqueeze(1)}
