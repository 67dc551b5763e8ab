r"""Transformer (Vaswani et al., 2017): an encoder and a decoder made of attention alone.

"Attention is all you need", https://arxiv.org/abs/1706.03762. Every word of a sentence attends to
all the others, so that two words are one step apart wherever they stand, and all positions are
computed at once: no state is carried along the sentence.

Layers bear the names of `torch.nn.Transformer`, whose state dicts load into
:class:`EncoderDecoder` as they are. Differences from the paper, all of them optional but the last:
``norm_first`` normalises before each part instead of behind it and then needs ``final_norm`` (Wang
et al. 2019, "Learning deep Transformer models for machine translation",
https://arxiv.org/abs/1906.01787); ``attention_dropout`` and ``activation_dropout`` are those of the
authors' later code; linear maps have biases, but for the one to the vocabulary. All matrices start
Xavier-uniform and all biases at zero, embeddings as normal numbers of variance 1 / embed_dim.

| builder | layers | embed_dim | heads | MLP | vocabulary | parameters | in the paper |
|---|---|---|---|---|---|---|---|
| `transformer_base` | 6 + 6 | 512 | 8 | 2048 | 37,000, shared | 63,082,496 | 65 M |
| `transformer_big` | 6 + 6 | 1024 | 16 | 4096 | 37,000, shared | 214,245,376 | 213 M |
| `transformer_multi30k` | 3 + 3 | 256 | 8 | 512 | 7,853 and 5,893 | 8,981,248 | |

`torch.nn.Transformer`, which normalises once more at the end of both stacks, has 44,140,544
parameters at base size, and so has :class:`EncoderDecoder` with ``final_norm``. The last row is the
size of a public recipe for Multi30k (https://github.com/bentrevett/pytorch-seq2seq, 9,038,341
parameters), which learns 2 x 100 positions of 256 numbers and a bias of 5,893 numbers more.
"""

import math
from typing import Any, NamedTuple, TypedDict, Unpack

import torch
from torch import Tensor, nn

from zoo.layers import attention
from zoo.layers.attention import KeysValues, KeyValueCache, padding_mask, recorded_attention
from zoo.layers.checks import check_at_least_one, check_lengths, check_probability
from zoo.layers.initialization import deferred_init, reset

_FIRST_ROOM = 32  # positions that a decoder's cache begins with; it grows as needed


class MultiheadAttention(attention.MultiheadAttention):
    """As the class that it is made of (section 3.2.2)."""

    def reset_parameters(self) -> None:  # the output's matrix first, not last: a seed's meaning
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)
        for weight in self.in_proj_weight.detach().chunk(3):
            nn.init.xavier_uniform_(weight)
        nn.init.zeros_(self.in_proj_bias)


class XavierLinear(nn.Linear):
    """A linear layer whose matrix starts Xavier-uniform and whose bias starts at zero."""

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class TokenEmbedding(nn.Embedding):
    """Tokens as vectors, which start as normal numbers of variance 1 / embed_dim."""

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.normal_(self.weight, std=self.embedding_dim**-0.5)


class Layer(nn.Module):
    r"""What the layers of both stacks have: a feed-forward network, and how parts are joined.

    .. math::
        \mathrm{post\ (paper):}\quad & x \leftarrow \mathrm{LN}(x + \mathrm{part}(x)) \\
        \mathrm{pre:}\quad & x \leftarrow x + \mathrm{part}(\mathrm{LN}(x)) \\
        \mathrm{FFN}(x) &= \max(0, x W_1 + b_1)\, W_2 + b_2

    (sections 3.1 and 3.3).

    Args:
        embed_dim: width of a token.
        num_heads: attention heads.
        mlp_dim: width of the feed-forward network's hidden layer.
        dropout: probability of silencing an output of a part during training.
        attention_dropout: the same of an attention weight.
        activation_dropout: the same of a hidden unit of the feed-forward network.
        norm_first: normalise before each part.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        mlp_dim: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        activation_dropout: float = 0.0,
        norm_first: bool = False,
    ) -> None:
        super().__init__()
        self.self_attn = MultiheadAttention(embed_dim, num_heads, dropout=attention_dropout)
        self.linear1 = XavierLinear(embed_dim, mlp_dim)
        self.linear2 = XavierLinear(mlp_dim, embed_dim)
        self.norm1, self.norm2 = nn.LayerNorm(embed_dim), nn.LayerNorm(embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.activation_dropout = nn.Dropout(activation_dropout)
        self.norm_first = norm_first

    def before(self, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        """What a part reads."""
        return norm(x) if self.norm_first else x

    def after(self, x: Tensor, part: Tensor, norm: nn.LayerNorm) -> Tensor:
        """Adds what a part wrote."""
        x = x + self.dropout(part)
        return x if self.norm_first else norm(x)

    def feed_forward(self, x: Tensor) -> Tensor:
        """Each token for itself."""
        return self.linear2(self.activation_dropout(self.linear1(x).relu()))


class EncoderLayer(Layer):
    """Self-attention, feed-forward network. Arguments: see :class:`Layer`.

    Shape:
        - input and output: ``(batch, time, embed_dim)``
        - mask: broadcasts to ``(batch, heads, time, time)``, True where a token may look
    """

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.after(x, self.self_attn(self.before(x, self.norm1), mask=mask), self.norm1)
        return self.after(x, self.feed_forward(self.before(x, self.norm2)), self.norm2)


class DecoderLayer(Layer):
    """Self-attention to what is to the left, attention to the source, feed-forward network.

    Arguments: see :class:`Layer`.

    Shape:
        - input and output: ``(batch, time, embed_dim)``
        - memory: ``(batch, source, embed_dim)``, or its keys and values for ``multihead_attn``
        - mask: broadcasts to ``(batch, heads, time, source)``, True where a token may look
    """

    def __init__(
        self, embed_dim: int, num_heads: int, *, attention_dropout: float = 0.0, **options: Any
    ) -> None:
        super().__init__(embed_dim, num_heads, attention_dropout=attention_dropout, **options)
        self.multihead_attn = MultiheadAttention(embed_dim, num_heads, dropout=attention_dropout)
        self.norm3 = nn.LayerNorm(embed_dim)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | KeysValues,
        mask: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        part = self.self_attn(self.before(x, self.norm1), is_causal=True, cache=cache)
        x = self.after(x, part, self.norm1)
        x = self.after(x, self.multihead_attn(self.before(x, self.norm2), memory, mask), self.norm2)
        return self.after(x, self.feed_forward(self.before(x, self.norm3)), self.norm3)


class Stack(nn.Module):
    """Layers one after another, and a last normalisation if wanted.

    Args:
        layers: of one kind, called with the tokens and whatever else :meth:`forward` is given.
        norm: the last normalisation; None for none.
    """

    def __init__(
        self,
        layers: list[nn.Module],
        norm: nn.LayerNorm | None = None,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = norm

    def forward(self, x: Tensor, *context: Tensor | None) -> Tensor:
        for layer in self.layers:
            x = layer(x, *context)
        return x if self.norm is None else self.norm(x)


class EncoderDecoder(nn.Module):
    """Both stacks, on embedded tokens: equal to `torch.nn.Transformer` with a causal target mask.

    Args:
        embed_dim: width of a token.
        num_heads: attention heads, a divisor of ``embed_dim``.
        num_encoder_layers: layers of the encoder.
        num_decoder_layers: layers of the decoder.
        mlp_dim: width of the feed-forward networks' hidden layer.
        dropout: see :class:`Layer`, as the next two.
        attention_dropout: of an attention weight.
        activation_dropout: of a hidden unit.
        norm_first: normalise before each part, not behind it.
        final_norm: normalise what leaves either stack; ``norm_first`` does so in any case.

    Shape:
        - source: ``(batch, source, embed_dim)``
        - target and output: ``(batch, target, embed_dim)``
        - mask: broadcasts to ``(batch, heads, time, source)``, True where a token may look
    """

    @deferred_init
    def __init__(
        self,
        embed_dim: int = 512,
        num_heads: int = 8,
        *,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        mlp_dim: int = 2048,
        dropout: float = 0.1,
        attention_dropout: float = 0.0,
        activation_dropout: float = 0.0,
        norm_first: bool = False,
        final_norm: bool = False,
    ) -> None:
        super().__init__()
        check_at_least_one(
            embed_dim=embed_dim,
            num_encoder_layers=num_encoder_layers,
            num_decoder_layers=num_decoder_layers,
            mlp_dim=mlp_dim,
        )
        check_probability(
            dropout=dropout,
            attention_dropout=attention_dropout,
            activation_dropout=activation_dropout,
        )

        def stack(kind: type[Layer], num_layers: int) -> Stack:
            layers: list[nn.Module] = [
                kind(
                    embed_dim,
                    num_heads,
                    mlp_dim=mlp_dim,
                    dropout=dropout,
                    attention_dropout=attention_dropout,
                    activation_dropout=activation_dropout,
                    norm_first=norm_first,
                )
                for _ in range(num_layers)
            ]
            norm = nn.LayerNorm(embed_dim) if final_norm or norm_first else None
            return Stack(layers, norm)

        self.encoder = stack(EncoderLayer, num_encoder_layers)
        self.decoder = stack(DecoderLayer, num_decoder_layers)

    def init_weights(self) -> None:
        reset(self)

    def forward(self, source: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.decoder(target, self.encoder(source, mask), mask)


class DecodingState(NamedTuple):
    """What decoding goes on from.

    Attributes:
        memory: keys and values of the source for each layer of the decoder.
        mask: where the source may be looked at, ``(batch, 1, 1, source)``; None for everywhere.
        caches: keys and values of the target so far for each layer; written in place.
    """

    memory: tuple[KeysValues, ...]
    mask: Tensor | None
    caches: tuple[KeyValueCache, ...]


class Transformer(nn.Module):
    r"""Tokens of a source and of a target so far to logits of the target's next tokens.

    .. math::
        x_t &= \sqrt{d}\, E_{w_t} + p_t \\
        p_{t, 2i} &= \sin(t / 10000^{2i/d}), \quad p_{t, 2i+1} = \cos(t / 10000^{2i/d}) \\
        p(y_{t+1} \mid y_1 \dots y_t, \mathrm{source}) &= \mathrm{softmax}(U h_t)

    (sections 3.4 and 3.5), with h from :class:`EncoderDecoder`. Sequences may be of any length.

    Args:
        source_vocab_size: number of different tokens of the source.
        target_vocab_size: number of different tokens of the target.
        embed_dim: width d of a token, even.
        num_heads: attention heads, a divisor of ``embed_dim``.
        num_encoder_layers: layers of the encoder.
        num_decoder_layers: layers of the decoder.
        mlp_dim: width of the feed-forward networks' hidden layer.
        dropout: probability of silencing during training an output of a part of a layer, or of the
            sum of embedding and position (section 5.4).
        attention_dropout: the same of an attention weight.
        activation_dropout: the same of a hidden unit of a feed-forward network.
        norm_first: normalise before each part of a layer, not behind it.
        final_norm: normalise what leaves either stack; ``norm_first`` does so in any case.
        share_embeddings: source, target and output have one matrix, and one vocabulary.
        tie_output: target and output have one matrix, :math:`U = E`; with ``share_embeddings`` they
            have in any case.

    Shape:
        - source: int64 ``(batch, source)``, padded on the right
        - target: int64 ``(batch, target)``
        - source_lengths: int64 ``(batch,)``; None where nothing is padded
        - output: logits ``(batch, target, target_vocab_size)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    positions: Tensor

    @deferred_init
    def __init__(
        self,
        source_vocab_size: int,
        target_vocab_size: int,
        *,
        embed_dim: int = 512,
        num_heads: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        mlp_dim: int = 2048,
        dropout: float = 0.1,
        attention_dropout: float = 0.0,
        activation_dropout: float = 0.0,
        norm_first: bool = False,
        final_norm: bool = False,
        share_embeddings: bool = False,
        tie_output: bool = False,
    ) -> None:
        super().__init__()
        check_at_least_one(source_vocab_size=source_vocab_size, target_vocab_size=target_vocab_size)
        if embed_dim % 2:
            raise ValueError(f"embed_dim must be even, for sines and cosines, not {embed_dim}")
        if share_embeddings and source_vocab_size != target_vocab_size:
            raise ValueError(
                "share_embeddings needs one vocabulary for source and target, not one of "
                f"{source_vocab_size} and one of {target_vocab_size} tokens"
            )
        self.stacks = EncoderDecoder(
            embed_dim,
            num_heads,
            num_encoder_layers=num_encoder_layers,
            num_decoder_layers=num_decoder_layers,
            mlp_dim=mlp_dim,
            dropout=dropout,
            attention_dropout=attention_dropout,
            activation_dropout=activation_dropout,
            norm_first=norm_first,
            final_norm=final_norm,
        )
        self.target_embedding = TokenEmbedding(target_vocab_size, embed_dim)
        self.source_embedding = (
            self.target_embedding
            if share_embeddings
            else TokenEmbedding(source_vocab_size, embed_dim)
        )
        self.output = XavierLinear(embed_dim, target_vocab_size, bias=False)
        self.is_tied = share_embeddings or tie_output
        self._tie()
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("positions", torch.empty(512, embed_dim), persistent=False)

    def _tie(self) -> None:
        if self.is_tied:
            self.output.weight = self.target_embedding.weight

    def init_weights(self) -> None:
        # The output's own first weights, which a tie discards, must not land in the embedding.
        self.output.weight = nn.Parameter(torch.empty_like(self.output.weight))
        reset(self)
        self._tie()
        self.positions = sinusoids(512, self.output.in_features).to(self.positions)

    def forward(
        self, source: Tensor, target: Tensor, source_lengths: Tensor | None = None
    ) -> Tensor:
        mask = _source_mask(source, source_lengths)
        source = self._embed(source, self.source_embedding)  # (batch, source, embed_dim)
        target = self._embed(target, self.target_embedding)  # (batch, target, embed_dim)
        return self.output(self.stacks(source, target, mask))  # (batch, target, vocabulary)

    def encode(self, source: Tensor, source_lengths: Tensor | None = None) -> DecodingState:
        """Reads a source; :meth:`decode` goes on from what is returned."""
        mask = _source_mask(source, source_lengths)
        memory = self.stacks.encoder(self._embed(source, self.source_embedding), mask)
        layers = (part for part in self.stacks.decoder.layers if isinstance(part, DecoderLayer))
        keys_values = tuple(layer.multihead_attn.keys_values(memory) for layer in layers)
        caches = tuple(KeyValueCache(_FIRST_ROOM, can_grow=True) for _ in keys_values)
        return DecodingState(keys_values, mask, caches)

    def decode(self, tokens: Tensor, state: DecodingState) -> tuple[Tensor, DecodingState]:
        """Reads the next tokens of a target, ``(batch, new)``; without gradients.

        Returns:
            Logits ``(batch, new, target_vocab_size)`` of what follows each of them, and the state
            to go on from, which takes the place of the one given.
        """
        x = self._embed(tokens, self.target_embedding, start=state.caches[0].length)
        decoder = self.stacks.decoder
        for layer, memory, cache in zip(decoder.layers, state.memory, state.caches, strict=True):
            x = layer(x, memory, state.mask, cache)
        return self.output(x if decoder.norm is None else decoder.norm(x)), state

    def reorder(self, state: DecodingState, rows: Tensor) -> DecodingState:
        """The state of other rows of the batch, for beam search; the one given stays as it is."""
        memory = tuple((keys[rows], values[rows]) for keys, values in state.memory)
        mask = None if state.mask is None else state.mask[rows]
        return DecodingState(memory, mask, tuple(cache.reorder(rows) for cache in state.caches))

    @torch.no_grad()
    def attention_maps(
        self, source: Tensor, target: Tensor, source_lengths: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Where each target token looks in the source: ``(batch, heads, target, source)``.

        Returns:
            The weights of each layer of the decoder by its name, ``decoder.layers.0`` and so on.
        """
        with recorded_attention(self.stacks.decoder) as weights:
            self(source, target, source_lengths)
        end = ".multihead_attn"
        return {
            f"decoder.{name.removesuffix(end)}": calls[0]
            for name, calls in weights.items()
            if name.endswith(end)
        }

    def _embed(self, tokens: Tensor, embedding: nn.Embedding, start: int = 0) -> Tensor:
        """Embeddings with the positions from ``start`` on: ``(batch, time, embed_dim)``."""
        end = start + tokens.size(1)
        if end > len(self.positions):
            table = sinusoids(max(end, 2 * len(self.positions)), embedding.embedding_dim)
            self.positions = table.to(self.positions)
        x = embedding(tokens) * math.sqrt(embedding.embedding_dim)
        return self.dropout(x + self.positions[start:end])


def sinusoids(time: int, embed_dim: int) -> Tensor:
    """The positions of :class:`Transformer`: ``(time, embed_dim)``."""
    rates = 10000 ** (-torch.arange(0, embed_dim, 2, dtype=torch.float64) / embed_dim)
    angles = torch.outer(torch.arange(time, dtype=torch.float64), rates)  # (time, embed_dim / 2)
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1).to(torch.get_default_dtype())


def _source_mask(source: Tensor, lengths: Tensor | None) -> Tensor | None:
    """Broadcasts to the weights of every layer: ``(batch, 1, 1, source)``."""
    if lengths is None:
        return None
    batch, time = source.shape
    check_lengths(lengths, batch=batch, time=time, least=0, name="source_lengths")
    return padding_mask(lengths.to(source.device), source.size(1))[:, None, None]


class TransformerOptions(TypedDict, total=False):
    """What every builder leaves as :class:`Transformer` has it."""

    norm_first: bool
    final_norm: bool


def transformer_base(
    source_vocab_size: int = 37000,
    target_vocab_size: int = 37000,
    *,
    dropout: float = 0.1,
    attention_dropout: float = 0.0,
    activation_dropout: float = 0.0,
    share_embeddings: bool = True,
    tie_output: bool = True,
    **options: Unpack[TransformerOptions],
) -> Transformer:
    """The base model (table 3), with the one vocabulary of English and German."""
    return Transformer(
        source_vocab_size,
        target_vocab_size,
        embed_dim=512,
        num_heads=8,
        num_encoder_layers=6,
        num_decoder_layers=6,
        mlp_dim=2048,
        dropout=dropout,
        attention_dropout=attention_dropout,
        activation_dropout=activation_dropout,
        share_embeddings=share_embeddings,
        tie_output=tie_output,
        **options,
    )


def transformer_big(
    source_vocab_size: int = 37000,
    target_vocab_size: int = 37000,
    *,
    dropout: float = 0.3,
    attention_dropout: float = 0.0,
    activation_dropout: float = 0.0,
    share_embeddings: bool = True,
    tie_output: bool = True,
    **options: Unpack[TransformerOptions],
) -> Transformer:
    """The big model (table 3): twice as wide, with more dropout (0.1 for English to French)."""
    return Transformer(
        source_vocab_size,
        target_vocab_size,
        embed_dim=1024,
        num_heads=16,
        num_encoder_layers=6,
        num_decoder_layers=6,
        mlp_dim=4096,
        dropout=dropout,
        attention_dropout=attention_dropout,
        activation_dropout=activation_dropout,
        share_embeddings=share_embeddings,
        tie_output=tie_output,
        **options,
    )


def transformer_multi30k(
    source_vocab_size: int = 7853,
    target_vocab_size: int = 5893,
    *,
    embed_dim: int = 256,
    num_heads: int = 8,
    num_encoder_layers: int = 3,
    num_decoder_layers: int = 3,
    mlp_dim: int = 512,
    dropout: float = 0.1,
    attention_dropout: float = 0.1,
    activation_dropout: float = 0.1,
    share_embeddings: bool = False,
    tie_output: bool = False,
    **options: Unpack[TransformerOptions],
) -> Transformer:
    """A small one for Multi30k, German to English: words that occur twice or more."""
    return Transformer(
        source_vocab_size,
        target_vocab_size,
        embed_dim=embed_dim,
        num_heads=num_heads,
        num_encoder_layers=num_encoder_layers,
        num_decoder_layers=num_decoder_layers,
        mlp_dim=mlp_dim,
        dropout=dropout,
        attention_dropout=attention_dropout,
        activation_dropout=activation_dropout,
        share_embeddings=share_embeddings,
        tie_output=tie_output,
        **options,
    )
