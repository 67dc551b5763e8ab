r"""GPT-2 (Radford et al., 2019).

"Language models are unsupervised multitask learners",
https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf,
a change of Radford et al. 2018, "Improving language understanding by generative pre-training",
https://cdn.openai.com/research-covers/language-unsupervised/language_understanding_paper.pdf

The decoder of a Transformer alone, trained on nothing but the next token of a text: each position
looks at itself and at those before it. Larger, on more text, it does tasks it was never trained on.

Names and shapes are those of the checkpoints that OpenAI published, as Hugging Face keeps them
(`GPT2LMHeadModel`), so that their state dicts load as they are.

Differences: ``dropout`` is 0 unless asked for, where OpenAI's is 0.1 everywhere. Positions start
with a standard deviation of 0.02 as tokens do, and as they do at Hugging Face and in nanoGPT; in
OpenAI's code it is 0.01. `gpt_char` is the
setting for a CPU of Karpathy's nanoGPT, 2022, https://github.com/karpathy/nanoGPT: without the
biases of layers and of normalisations (``bias=False``), and with the exact GELU, where OpenAI's
code has an approximation by tanh, which costs a CPU more than twice the time.

| builder | layers | embed_dim | heads | positions | vocabulary | parameters (head tied) |
|---|---|---|---|---|---|---|
| `gpt2` | 12 | 768 | 12 | 1024 | 50257 | 124,439,808 |
| `gpt2_medium` | 24 | 1024 | 16 | 1024 | 50257 | 354,823,168 |
| `gpt2_large` | 36 | 1280 | 20 | 1024 | 50257 | 774,030,080 |
| `gpt2_xl` | 48 | 1600 | 25 | 1024 | 50257 | 1,557,611,200 |
| `gpt_char` | 4 | 128 | 4 | 64 | 65 | 804,096 |
"""

import math
from typing import ClassVar, Literal, TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.attention import (
    AttentionRecorder,
    KeyValueCache,
    merge_heads,
    recorded_attention,
    split_heads,
)
from zoo.layers.checks import check_at_least_one, check_probability
from zoo.layers.initialization import deferred_init, reset

Cache = list[KeyValueCache]
GELU = Literal["exact", "tanh"]


class Conv1D(nn.Module):
    r"""A linear layer whose matrix is kept as ``(inputs, outputs)``: :math:`y = x W + b`.

    OpenAI's code has it as a convolution with a kernel of one position, hence the name.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        bias: whether b is there.

    Shape:
        - input: ``(..., in_features)``
        - output: ``(..., out_features)``
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_features, out_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for parameter in self.parameters():  # how wide the weights start is for the network to say
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        if self.bias is None:
            return x @ self.weight
        y = torch.addmm(self.bias, x.flatten(0, -2), self.weight)
        return y.unflatten(0, x.shape[:-1])  # (..., out_features)


class SelfAttention(AttentionRecorder):
    r"""Every position attends to itself and to those before it, in several heads side by side.

    .. math::
        [q, k, v] &= x W_{attn} + b_{attn} \\
        y &= [\mathrm{head}_1; \dots; \mathrm{head}_h]\, W_{proj} + b_{proj},
        \quad \mathrm{head} = \mathrm{softmax}(q k^\top / \sqrt{d})\, v

    Args:
        embed_dim: width of a position.
        num_heads: heads, a divisor of ``embed_dim``.
        dropout: probability of silencing an attention weight, or an output, during training.
        bias: whether the biases are there.

    Shape:
        - input and output: ``(batch, time, embed_dim)``; with a cache, the positions that follow
          those that it holds
    """

    def __init__(self, embed_dim: int, num_heads: int, *, dropout: float, bias: bool) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.c_attn = Conv1D(embed_dim, 3 * embed_dim, bias=bias)
        self.c_proj = Conv1D(embed_dim, embed_dim, bias=bias)
        self.resid_dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        q, k, v = (
            split_heads(part, self.num_heads) for part in self.c_attn(x).chunk(3, dim=-1)
        )  # each (batch, heads, time, head_dim)
        if cache is not None:
            k, v = cache.append(k, v)  # each (batch, heads, all so far, head_dim)
        dropout = self.dropout if self.training else 0.0
        heads = self.attend(q, k, v, is_causal=True, dropout=dropout)
        return self.resid_dropout(self.c_proj(merge_heads(heads)))  # (batch, time, embed_dim)


class MLP(nn.Module):
    r"""Each position for itself: :math:`y = \mathrm{GELU}(x W_{fc} + b_{fc}) W_{proj} + b_{proj}`.

    Args:
        embed_dim: width of a position; the hidden layer is four times as wide.
        dropout: probability of silencing an output during training.
        bias: whether the biases are there.
        gelu: ``"exact"`` or ``"tanh"``, see :class:`GPT`.

    Shape:
        - input and output: ``(batch, time, embed_dim)``
    """

    def __init__(self, embed_dim: int, *, dropout: float, bias: bool, gelu: GELU) -> None:
        super().__init__()
        self.approximate = "tanh" if gelu == "tanh" else "none"
        self.c_fc = Conv1D(embed_dim, 4 * embed_dim, bias=bias)
        self.c_proj = Conv1D(4 * embed_dim, embed_dim, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.c_proj(F.gelu(self.c_fc(x), approximate=self.approximate)))


class Block(nn.Module):
    r"""One layer: attention, then MLP, both on normalised positions, both added.

    .. math::
        x' &= x + \mathrm{attention}(\mathrm{LN}(x)) \\
        y &= x' + \mathrm{MLP}(\mathrm{LN}(x'))

    Args:
        embed_dim: width of a position.
        num_heads: attention heads.
        dropout: of attention weights and of what is added.
        bias: whether layers and normalisations have biases.
        gelu: of the MLP.

    Shape:
        - input and output: ``(batch, time, embed_dim)``
    """

    def __init__(
        self, embed_dim: int, num_heads: int, *, dropout: float, bias: bool, gelu: GELU
    ) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(embed_dim, bias=bias)
        self.attn = SelfAttention(embed_dim, num_heads, dropout=dropout, bias=bias)
        self.ln_2 = nn.LayerNorm(embed_dim, bias=bias)
        self.mlp = MLP(embed_dim, dropout=dropout, bias=bias, gelu=gelu)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        x = x + self.attn(self.ln_1(x), cache)
        return x + self.mlp(self.ln_2(x))


class Decoder(nn.Module):
    """Embeddings of token and position, the layers, a last normalisation.

    Args:
        vocab_size: number of different tokens.
        sequence_length: most positions.
        embed_dim: width of a position.
        num_layers: blocks.
        num_heads: attention heads of each.
        dropout: as in :class:`Block`, and of the embeddings' sum.
        bias: as in :class:`Block`.
        gelu: as in :class:`Block`.

    Shape:
        - input: tokens ``(batch, time)``, and a cache of what precedes them or None
        - output: ``(batch, time, embed_dim)``
    """

    def __init__(
        self,
        vocab_size: int,
        sequence_length: int,
        *,
        embed_dim: int,
        num_layers: int,
        num_heads: int,
        dropout: float,
        bias: bool,
        gelu: GELU,
    ) -> None:
        super().__init__()
        self.wte = nn.Embedding(vocab_size, embed_dim)
        self.wpe = nn.Embedding(sequence_length, embed_dim)
        self.drop = nn.Dropout(dropout)
        self.h = nn.ModuleList(
            Block(embed_dim, num_heads, dropout=dropout, bias=bias, gelu=gelu)
            for _ in range(num_layers)
        )
        self.ln_f = nn.LayerNorm(embed_dim, bias=bias)

    def forward(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        start = cache[0].length if cache else 0
        end = start + tokens.size(1)
        if end > len(self.wpe.weight):
            raise ValueError(
                f"tokens must not reach beyond the sequence_length {len(self.wpe.weight)} of this "
                f"model, not to position {end}"
            )
        x = self.drop(self.wte(tokens) + self.wpe.weight[start:end])  # (batch, time, embed_dim)
        for i, block in enumerate(self.h):
            x = block(x, cache[i] if cache else None)
        return self.ln_f(x)


class GPT(nn.Module):
    r"""Decoder and head: logits of the token that follows each position.

    .. math:: p(w_{t+1} \mid w_1 \dots w_t) = \mathrm{softmax}(x_t W_e^\top)

    where :math:`W_e` is the embedding of the tokens (Press and Wolf 2017,
    https://arxiv.org/abs/1608.05859). Weights start as normal numbers of standard deviation
    0.02; those of the layers whose output is added (``c_proj``) are divided by the root of the
    number of additions, two a layer (section 2.3). Biases start at zero.

    Args:
        vocab_size: number of different tokens.
        sequence_length: most positions; each has a learned embedding.
        embed_dim: width of a position.
        num_layers: blocks.
        num_heads: attention heads, a divisor of ``embed_dim``.
        dropout: probability of silencing, during training, a value of the embeddings' sum, an
            attention weight, or a value that is added.
        bias: whether layers and normalisations have biases.
        gelu: ``"exact"``, :math:`x\,\Phi(x)` (Hendrycks and Gimpel 2016,
            https://arxiv.org/abs/1606.08415), or their approximation ``"tanh"``, with which the
            published weights were trained.

    Shape:
        - input: tokens ``(batch, time)`` of type int64; with a cache of :meth:`new_cache`, the
          tokens that follow those of the calls before with the same cache
        - output: logits ``(batch, time, vocab_size)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    # Files of a GPT-2 without its head do not say which part their names are of.
    foreign_names: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"^(wte|wpe|h|ln_f)\.", r"transformer.\1."),
    )

    @deferred_init
    def __init__(
        self,
        vocab_size: int = 50257,
        *,
        sequence_length: int = 1024,
        embed_dim: int = 768,
        num_layers: int = 12,
        num_heads: int = 12,
        dropout: float = 0.0,
        bias: bool = True,
        gelu: GELU = "tanh",
    ) -> None:
        super().__init__()
        check_at_least_one(
            vocab_size=vocab_size,
            sequence_length=sequence_length,
            embed_dim=embed_dim,
            num_layers=num_layers,
            num_heads=num_heads,
        )
        check_probability(dropout=dropout)
        if gelu not in ("exact", "tanh"):
            raise ValueError(f"gelu must be exact or tanh, not {gelu!r}")
        if embed_dim % num_heads:
            raise ValueError(f"num_heads must divide embed_dim {embed_dim}, not be {num_heads}")
        self.sequence_length = sequence_length
        self.num_heads, self.head_dim = num_heads, embed_dim // num_heads
        self.transformer = Decoder(
            vocab_size,
            sequence_length,
            embed_dim=embed_dim,
            num_layers=num_layers,
            num_heads=num_heads,
            dropout=dropout,
            bias=bias,
            gelu=gelu,
        )
        self.lm_head = nn.Linear(embed_dim, vocab_size, bias=False)
        self._tie()

    def _tie(self) -> None:
        self.lm_head.weight = self.transformer.wte.weight

    def init_weights(self) -> None:
        reset(self)
        self._tie()
        for name, parameter in self.transformer.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2:
                added = name.endswith("c_proj.weight")
                std = 0.02 / math.sqrt(2 * len(self.transformer.h)) if added else 0.02
                nn.init.normal_(parameter, std=std)

    def forward(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        return self.lm_head(self.transformer(tokens, cache))  # (batch, time, vocab_size)

    def flops_per_item(self) -> int:
        """Operations of training on one token: 6 N + 12 L H Q T.

        Chowdhery et al., 2022, appendix B, https://arxiv.org/abs/2204.02311: N parameters, those
        of the positions left out since nothing is multiplied by them; L layers of H heads of Q
        values, and T positions that each looks at, those that the mask hides included.
        """
        matrices = sum(p.numel() for p in self.parameters()) - self.transformer.wpe.weight.numel()
        attention = len(self.transformer.h) * self.num_heads * self.head_dim * self.sequence_length
        return 6 * matrices + 12 * attention

    def new_cache(self) -> Cache:
        """Room for keys and values of every layer: ``forward`` then computes each only once."""
        return [KeyValueCache(self.sequence_length) for _ in self.transformer.h]

    @torch.no_grad()
    def attention_maps(self, tokens: Tensor) -> dict[str, Tensor]:
        """What each position looks at: layer to weights ``(batch, heads, time, time)``."""
        with recorded_attention(self) as recorded:
            self(tokens)
        return {name: weights for name, (weights,) in recorded.items()}


class GPTOptions(TypedDict, total=False):
    """What the published sizes leave open, see :class:`GPT`."""

    sequence_length: int
    dropout: float
    bias: bool


def gpt2(vocab_size: int = 50257, **options: Unpack[GPTOptions]) -> GPT:
    """GPT-2 of 12 layers, the smallest that was published."""
    return GPT(vocab_size, embed_dim=768, num_layers=12, num_heads=12, gelu="tanh", **options)


def gpt2_medium(vocab_size: int = 50257, **options: Unpack[GPTOptions]) -> GPT:
    """GPT-2 of 24 layers."""
    return GPT(vocab_size, embed_dim=1024, num_layers=24, num_heads=16, gelu="tanh", **options)


def gpt2_large(vocab_size: int = 50257, **options: Unpack[GPTOptions]) -> GPT:
    """GPT-2 of 36 layers."""
    return GPT(vocab_size, embed_dim=1280, num_layers=36, num_heads=20, gelu="tanh", **options)


def gpt2_xl(vocab_size: int = 50257, **options: Unpack[GPTOptions]) -> GPT:
    """GPT-2 of 48 layers, the paper's GPT-2."""
    return GPT(vocab_size, embed_dim=1600, num_layers=48, num_heads=25, gelu="tanh", **options)


def gpt_char(
    vocab_size: int = 65,
    *,
    sequence_length: int = 64,
    embed_dim: int = 128,
    num_layers: int = 4,
    num_heads: int = 4,
    dropout: float = 0.0,
    bias: bool = False,
    gelu: GELU = "exact",
) -> GPT:
    """A small GPT over characters, nanoGPT's for a CPU; every size can be changed."""
    return GPT(
        vocab_size,
        sequence_length=sequence_length,
        embed_dim=embed_dim,
        num_layers=num_layers,
        num_heads=num_heads,
        dropout=dropout,
        bias=bias,
        gelu=gelu,
    )
