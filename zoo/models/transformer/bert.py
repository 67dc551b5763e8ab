r"""BERT (Devlin et al., 2018): an encoder that reads a text from both sides.

"BERT: Pre-training of deep bidirectional transformers for language understanding",
https://arxiv.org/abs/1810.04805. Words of a text are hidden, and the encoder of a Transformer has
to say what they were from all that stands around them, left and right. What it learns on the way
serves other tasks: one small layer on top, and all of it trained a little further.

Names are those of Hugging Face's ``BertModel``, ``BertForMaskedLM`` and
``BertForSequenceClassification``, whose state dicts load as they are. Differences from the paper:
no next-sentence prediction, which later work found to be of no use (Liu et al. 2019, "RoBERTa",
https://arxiv.org/abs/1907.11692). Matrices and embeddings start as normal numbers of standard
deviation 0.02 cut at two of them, biases at zero, as in the authors' code.

| builder | layers | embed_dim | heads | MLP | vocabulary | encoder with pooler | for masked words |
|---|---|---|---|---|---|---|---|
| `bert_base` | 12 | 768 | 12 | 3072 | 30,522 | 109,482,240 | 109,514,298 |
| `bert_large` | 24 | 1024 | 16 | 4096 | 30,522 | 335,141,888 | 335,174,458 |
| `char_bert` | 4 | 128 | 4 | 512 | 70 | 827,136 | 827,462 |

The builders give the network for masked words, which has no pooler but a head of its own.
`char_bert` is ours; `bert_classifier` puts a classifier of texts on the same.
"""

from collections import OrderedDict
from typing import ClassVar, NamedTuple, TypedDict, Unpack

import torch
from torch import Tensor, nn

from zoo.layers.attention import (
    AttentionRecorder,
    merge_heads,
    padding_mask,
    recorded_attention,
    split_heads,
)
from zoo.layers.checks import check_at_least_one, check_lengths, check_probability
from zoo.layers.initialization import deferred_init, reset

_LAYER_NORM_EPS = 1e-12
_FOREIGN_NAMES = (
    # Files of a BERT without its head do not say which part their names are of.
    (r"^(embeddings|encoder|pooler)\.", r"bert.\1."),
    # The first files, from TensorFlow.
    (r"\.LayerNorm\.gamma$", ".LayerNorm.weight"),
    (r"\.LayerNorm\.beta$", ".LayerNorm.bias"),
)


class SelfAttention(AttentionRecorder):
    r"""Every token attends to all tokens, in several heads side by side.

    .. math::
        \mathrm{head}_i &= \mathrm{softmax}(Q_i K_i^\top / \sqrt{d_k})\, V_i \\
        y &= [\mathrm{head}_1; \dots; \mathrm{head}_h]

    with :math:`Q = x W^Q + b^Q` and so on. The projection of the heads follows in
    :class:`AddAndNorm`.

    Args:
        embed_dim: width of a token.
        num_heads: heads h, a divisor of ``embed_dim``.
        dropout: probability of silencing an attention weight during training.

    Shape:
        - input and output: ``(batch, time, embed_dim)``
        - mask: broadcasts to ``(batch, heads, time, time)``, True where a token may look

    Raises:
        ValueError: if ``num_heads`` does not divide ``embed_dim``.
    """

    def __init__(self, embed_dim: int, num_heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        if num_heads < 1 or embed_dim % num_heads:
            raise ValueError(f"num_heads must divide embed_dim {embed_dim}, not be {num_heads}")
        self.num_heads, self.dropout = num_heads, dropout
        self.query = nn.Linear(embed_dim, embed_dim)
        self.key = nn.Linear(embed_dim, embed_dim)
        self.value = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = (  # each (batch, heads, time, head_dim)
            split_heads(project(x), self.num_heads)
            for project in (self.query, self.key, self.value)
        )
        dropout = self.dropout if self.training else 0.0
        return merge_heads(self.attend(q, k, v, mask, dropout=dropout))  # (batch, time, embed_dim)


class AddAndNorm(nn.Module):
    r"""The end of either half of a layer: :math:`\mathrm{LN}(x + \mathrm{dropout}(W h + b))`.

    Args:
        in_features: width of h, what the half has computed.
        embed_dim: width of x, what it has read.
        dropout: probability of silencing an output of the linear map during training.

    Shape:
        - h: ``(batch, time, in_features)``
        - x and output: ``(batch, time, embed_dim)``
    """

    def __init__(self, in_features: int, embed_dim: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.dense = nn.Linear(in_features, embed_dim)
        self.LayerNorm = nn.LayerNorm(embed_dim, eps=_LAYER_NORM_EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        return self.LayerNorm(x + self.dropout(self.dense(h)))


class Layer(nn.Module):
    r"""One layer of the encoder: attention, then two dense layers with a GELU between them.

    .. math::
        x' &= \mathrm{LN}(x + W_o\, \mathrm{SelfAttention}(x) + b_o) \\
        y &= \mathrm{LN}(x' + W_2\, \mathrm{GELU}(W_1 x' + b_1) + b_2)

    Args:
        embed_dim: width of a token.
        num_heads: attention heads.
        mlp_dim: width between the two dense layers.
        dropout: probability of silencing an output of a half during training.
        attention_dropout: the same of an attention weight.

    Shape:
        - input and output: ``(batch, time, embed_dim)``
        - mask: broadcasts to ``(batch, heads, time, time)``, True where a token may look
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        mlp_dim: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention = nn.ModuleDict(
            {
                "self": SelfAttention(embed_dim, num_heads, dropout=attention_dropout),
                "output": AddAndNorm(embed_dim, embed_dim, dropout=dropout),
            }
        )
        self.intermediate = nn.Sequential(
            OrderedDict(dense=nn.Linear(embed_dim, mlp_dim), activation=nn.GELU())
        )
        self.output = AddAndNorm(mlp_dim, embed_dim, dropout=dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.attention["output"](self.attention["self"](x, mask), x)
        return self.output(self.intermediate(x), x)


class Encoder(nn.Module):
    """Layers one after another.

    Args:
        layers: of the encoder.
    """

    def __init__(self, layers: list[Layer]) -> None:
        super().__init__()
        self.layer = nn.ModuleList(layers)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for layer in self.layer:
            x = layer(x, mask)
        return x


class Embeddings(nn.Module):
    """A token is the normalised sum of what it is, where it stands, and which text it belongs to.

    Args:
        vocab_size: number of different tokens.
        embed_dim: width of a token.
        sequence_length: number of positions.
        num_token_types: texts that may follow one another in a sequence.
        dropout: probability of silencing an output during training.

    Shape:
        - tokens, token_types: int64 ``(batch, time)``
        - output: ``(batch, time, embed_dim)``
    """

    def __init__(
        self,
        vocab_size: int,
        embed_dim: int,
        *,
        sequence_length: int,
        num_token_types: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocab_size, embed_dim)
        self.position_embeddings = nn.Embedding(sequence_length, embed_dim)
        self.token_type_embeddings = nn.Embedding(num_token_types, embed_dim)
        self.LayerNorm = nn.LayerNorm(embed_dim, eps=_LAYER_NORM_EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, token_types: Tensor | None = None) -> Tensor:
        positions = self.position_embeddings.weight
        if tokens.size(1) > len(positions):
            raise ValueError(
                f"tokens must be at most {len(positions)} a sequence, the positions of this "
                f"network (sequence_length), not {tokens.size(1)}"
            )
        types = self.token_type_embeddings
        x = self.word_embeddings(tokens) + positions[: tokens.size(1)]  # (batch, time, embed_dim)
        x = x + (types.weight[0] if token_types is None else types(token_types))
        return self.dropout(self.LayerNorm(x))


class Encoded(NamedTuple):
    """What :class:`BertModel` makes of a batch.

    Attributes:
        tokens: each token in its context, ``(batch, time, embed_dim)``.
        pooled: the whole sequence, ``(batch, embed_dim)``; None without a pooler.
    """

    tokens: Tensor
    pooled: Tensor | None


class BertOptions(TypedDict, total=False):
    """What the builders leave as :class:`BertModel` has it."""

    sequence_length: int
    dropout: float
    attention_dropout: float


class BertSizes(BertOptions, total=False):
    """All that the two networks on top hand on to their :class:`BertModel`."""

    num_token_types: int
    num_layers: int
    embed_dim: int
    num_heads: int
    mlp_dim: int


class BertModel(nn.Module):
    r"""Embeddings and encoder, and a pooler: :math:`\tanh(W h_1 + b)` of the first token.

    Args:
        vocab_size: number of different tokens.
        sequence_length: number of positions, the most tokens of a sequence.
        num_layers: layers of the encoder.
        embed_dim: width of a token.
        num_heads: attention heads, a divisor of ``embed_dim``.
        mlp_dim: width between the two dense layers of a layer.
        num_token_types: texts that may follow one another in a sequence.
        dropout: probability of silencing an output of embeddings or of half a layer during
            training.
        attention_dropout: the same of an attention weight.
        pooler: whether there is one.

    Shape:
        - tokens: int64 ``(batch, time)``, padded on the right
        - lengths: int64 ``(batch,)``; None where nothing is padded
        - token_types: int64 ``(batch, time)``; None where all are 0
        - output: :class:`Encoded`

    Attributes:
        sequence_length: the most tokens of a sequence.

    Raises:
        ValueError: if an argument is outside its range.
    """

    @deferred_init
    def __init__(
        self,
        vocab_size: int = 30522,
        *,
        sequence_length: int = 512,
        num_layers: int = 12,
        embed_dim: int = 768,
        num_heads: int = 12,
        mlp_dim: int = 3072,
        num_token_types: int = 2,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        pooler: bool = True,
    ) -> None:
        super().__init__()
        check_at_least_one(
            vocab_size=vocab_size,
            sequence_length=sequence_length,
            num_layers=num_layers,
            embed_dim=embed_dim,
            mlp_dim=mlp_dim,
            num_token_types=num_token_types,
        )
        check_probability(dropout=dropout, attention_dropout=attention_dropout)
        self.embeddings = Embeddings(
            vocab_size,
            embed_dim,
            sequence_length=sequence_length,
            num_token_types=num_token_types,
            dropout=dropout,
        )
        layers = [
            Layer(
                embed_dim,
                num_heads,
                mlp_dim=mlp_dim,
                dropout=dropout,
                attention_dropout=attention_dropout,
            )
            for _ in range(num_layers)
        ]
        self.encoder = Encoder(layers)
        self.sequence_length = sequence_length
        self.pooler = (
            nn.Sequential(OrderedDict(dense=nn.Linear(embed_dim, embed_dim), activation=nn.Tanh()))
            if pooler
            else None
        )

    def init_weights(self) -> None:
        reset(self)
        self.apply(_initialise)

    def forward(
        self, tokens: Tensor, lengths: Tensor | None = None, token_types: Tensor | None = None
    ) -> Encoded:
        mask = None
        if lengths is not None:
            check_lengths(lengths, batch=tokens.size(0), time=tokens.size(1), least=0)
            mask = padding_mask(lengths.to(tokens.device), tokens.size(1))[:, None, None]
        x = self.encoder(self.embeddings(tokens, token_types), mask)  # (batch, time, embed_dim)
        return Encoded(x, None if self.pooler is None else self.pooler(x[:, 0]))

    @torch.no_grad()
    def attention_maps(self, tokens: Tensor, lengths: Tensor | None = None) -> dict[str, Tensor]:
        """Where tokens look: ``(batch, heads, time, time)`` by layer, ``layer.0`` and so on."""
        with recorded_attention(self.encoder) as weights:
            self(tokens, lengths)
        return {name.removesuffix(".attention.self"): calls[0] for name, calls in weights.items()}


class MaskedWordHead(nn.Module):
    r"""What stands in each place, with the embedding's matrix E.

    .. math:: \mathrm{logits} = E\, \mathrm{LN}(\mathrm{GELU}(W h + b)) + c

    Args:
        vocab_size: number of different tokens.
        embed_dim: width of a token.

    Shape:
        - input: ``(batch, time, embed_dim)``
        - output: ``(batch, time, vocab_size)``
    """

    @deferred_init
    def __init__(self, vocab_size: int, embed_dim: int) -> None:
        super().__init__()
        self.transform = nn.Sequential(
            OrderedDict(
                dense=nn.Linear(embed_dim, embed_dim),
                activation=nn.GELU(),
                LayerNorm=nn.LayerNorm(embed_dim, eps=_LAYER_NORM_EPS),
            )
        )
        self.decoder = nn.Linear(embed_dim, vocab_size)
        self.bias = self.decoder.bias

    def init_weights(self) -> None:
        # Its own first matrix, which the tie discards, must not land in the embedding.
        self.decoder.weight = nn.Parameter(torch.empty_like(self.decoder.weight))
        self.bias = self.decoder.bias  # Checkpoints have it under both names.
        reset(self)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.transform(x))


class BertForMaskedLM(nn.Module):
    """Tokens, some of them hidden behind a mask token, to logits of what stands in every place.

    Args:
        vocab_size: number of different tokens.
        **options: as in :class:`BertModel`; there is no pooler, which nothing here would train.

    Shape:
        - tokens: int64 ``(batch, time)``, padded on the right
        - lengths: int64 ``(batch,)``; None where nothing is padded
        - token_types: int64 ``(batch, time)``; None where all are 0
        - output: logits ``(batch, time, vocab_size)``

    Attributes:
        sequence_length: the most tokens of a sequence.
    """

    foreign_names: ClassVar[tuple[tuple[str, str], ...]] = _FOREIGN_NAMES

    @deferred_init
    def __init__(self, vocab_size: int = 30522, **options: Unpack[BertSizes]) -> None:
        super().__init__()
        self.bert = BertModel(vocab_size, pooler=False, **options)
        embed_dim = self.bert.embeddings.word_embeddings.embedding_dim
        self.cls = nn.ModuleDict({"predictions": MaskedWordHead(vocab_size, embed_dim)})
        self.sequence_length = self.bert.sequence_length
        self._tie()

    def _tie(self) -> None:
        head = self.cls["predictions"]
        assert isinstance(head, MaskedWordHead)
        head.decoder.weight = self.bert.embeddings.word_embeddings.weight

    def init_weights(self) -> None:
        reset(self)
        self._tie()

    def forward(
        self, tokens: Tensor, lengths: Tensor | None = None, token_types: Tensor | None = None
    ) -> Tensor:
        return self.cls["predictions"](self.bert(tokens, lengths, token_types).tokens)

    def attention_maps(self, tokens: Tensor, lengths: Tensor | None = None) -> dict[str, Tensor]:
        """See :meth:`BertModel.attention_maps`."""
        return self.bert.attention_maps(tokens, lengths)


class BertForSequenceClassification(nn.Module):
    """Tokens of a text to logits of its class: a linear layer on the pooled first token.

    Args:
        vocab_size: number of different tokens.
        num_classes: width of the output.
        dropout: as in :class:`BertModel`, and of a pooled feature.
        **options: as in :class:`BertModel`.

    Shape:
        - tokens: int64 ``(batch, time)``, padded on the right
        - lengths: int64 ``(batch,)``; None where nothing is padded
        - token_types: int64 ``(batch, time)``; None where all are 0
        - output: logits ``(batch, num_classes)``

    Attributes:
        sequence_length: the most tokens of a sequence.
    """

    optional_weights: ClassVar[tuple[str, ...]] = ("classifier.*",)
    """What files of BERT do not have, and what a classifier trains from the start."""

    foreign_names: ClassVar[tuple[tuple[str, str], ...]] = _FOREIGN_NAMES

    @deferred_init
    def __init__(
        self, vocab_size: int = 30522, num_classes: int = 2, **options: Unpack[BertSizes]
    ) -> None:
        super().__init__()
        check_at_least_one(num_classes=num_classes)
        self.bert = BertModel(vocab_size, **options)
        self.dropout = nn.Dropout(options.get("dropout", 0.1))
        embed_dim = self.bert.embeddings.word_embeddings.embedding_dim
        self.classifier = nn.Linear(embed_dim, num_classes)
        self.sequence_length = self.bert.sequence_length

    def init_weights(self) -> None:
        reset(self)
        _initialise(self.classifier)

    def forward(
        self, tokens: Tensor, lengths: Tensor | None = None, token_types: Tensor | None = None
    ) -> Tensor:
        return self.classifier(self.dropout(self.bert(tokens, lengths, token_types).pooled))

    def attention_maps(self, tokens: Tensor, lengths: Tensor | None = None) -> dict[str, Tensor]:
        """See :meth:`BertModel.attention_maps`."""
        return self.bert.attention_maps(tokens, lengths)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


def bert_base(
    vocab_size: int = 30522, *, num_token_types: int = 2, **options: Unpack[BertOptions]
) -> BertForMaskedLM:
    """The base size (section 3), for masked words."""
    return BertForMaskedLM(
        vocab_size,
        num_layers=12,
        embed_dim=768,
        num_heads=12,
        mlp_dim=3072,
        num_token_types=num_token_types,
        **options,
    )


def bert_large(
    vocab_size: int = 30522, *, num_token_types: int = 2, **options: Unpack[BertOptions]
) -> BertForMaskedLM:
    """The large size (section 3), for masked words."""
    return BertForMaskedLM(
        vocab_size,
        num_layers=24,
        embed_dim=1024,
        num_heads=16,
        mlp_dim=4096,
        num_token_types=num_token_types,
        **options,
    )


def char_bert(
    vocab_size: int = 70,
    *,
    sequence_length: int = 64,
    num_layers: int = 4,
    embed_dim: int = 128,
    num_heads: int = 4,
    mlp_dim: int = 512,
    num_token_types: int = 1,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
) -> BertForMaskedLM:
    """A small one for masked characters: the 65 of tiny Shakespeare and 5 special ones."""
    return BertForMaskedLM(
        vocab_size,
        sequence_length=sequence_length,
        num_layers=num_layers,
        embed_dim=embed_dim,
        num_heads=num_heads,
        mlp_dim=mlp_dim,
        num_token_types=num_token_types,
        dropout=dropout,
        attention_dropout=attention_dropout,
    )


def bert_classifier(
    vocab_size: int = 30522,
    num_classes: int = 2,
    *,
    num_layers: int = 4,
    embed_dim: int = 128,
    num_heads: int = 4,
    mlp_dim: int = 512,
    num_token_types: int = 1,
    **options: Unpack[BertOptions],
) -> BertForSequenceClassification:
    """A small classifier of texts, to be trained from scratch."""
    return BertForSequenceClassification(
        vocab_size,
        num_classes,
        num_layers=num_layers,
        embed_dim=embed_dim,
        num_heads=num_heads,
        mlp_dim=mlp_dim,
        num_token_types=num_token_types,
        **options,
    )
