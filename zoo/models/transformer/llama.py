r"""Llama (Touvron et al., 2023).

"LLaMA: Open and efficient foundation language models", https://arxiv.org/abs/2302.13971, and
"Llama 2: Open foundation and fine-tuned chat models", https://arxiv.org/abs/2307.09288, with the
grouped queries of Ainslie et al. 2023, "GQA: Training generalized multi-query transformer models
from multi-head checkpoints", https://arxiv.org/abs/2305.13245

GPT's decoder with what later work found better: normalisation by the root mean square alone,
positions as rotations of queries and keys, so that attention depends on distances, a gated MLP, and
no biases. Several queries may share one head of keys and values, which makes the cache of
generation smaller.

Names and shapes are those of Hugging Face's `LlamaForCausalLM`, whose state dicts load as they are.
That includes the order within a head: a rotation turns value i and value i + head_dim / 2 together,
where Su et al. and Meta's own files turn the neighbours 2i and 2i + 1; the rows of ``q_proj`` and
``k_proj`` are permuted between the two, and nothing else differs.

`llama_char` is ours, of the width and depth of `gpt_char`. The later scaling of the rotations of
Llama 3.1 is not here.

| builder | layers | embed_dim | MLP | heads | key heads | vocabulary | parameters |
|---|---|---|---|---|---|---|---|
| `llama2_7b` | 32 | 4096 | 11008 | 32 | 32 | 32000 | 6,738,415,616 |
| `llama3_8b` | 32 | 4096 | 14336 | 32 | 8 | 128256 | 8,030,261,248 |
| `tinyllama_1_1b` | 22 | 2048 | 5632 | 32 | 4 | 32000 | 1,100,048,384 |
| `llama_char` | 4 | 128 | 344 | 4 | 4 | 65 | 808,320 |
"""

from typing import TypedDict, Unpack

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
from zoo.layers.checks import check_at_least_one
from zoo.layers.initialization import deferred_init, reset

Cache = list[KeyValueCache]


def rotations(sequence_length: int, head_dim: int, *, theta: float) -> tuple[Tensor, Tensor]:
    r"""Cosine and sine of the angles of :func:`rotated`, each ``(sequence_length, head_dim)``.

    .. math:: \alpha_{t,i} = t\, \theta^{-2i/d}, \quad i = 0 \dots d/2 - 1

    written twice, side by side.
    """
    frequencies = 1 / theta ** (torch.arange(0, head_dim, 2).float() / head_dim)
    angles = torch.outer(torch.arange(sequence_length).float(), frequencies)
    angles = torch.cat([angles, angles], dim=1)  # (sequence_length, head_dim)
    return angles.cos(), angles.sin()


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    r"""Rotary position embedding (Su et al. 2021, https://arxiv.org/abs/2104.09864).

    .. math::
        x'_i &= x_i \cos\alpha_{t,i} - x_{i+d/2} \sin\alpha_{t,i} \\
        x'_{i+d/2} &= x_{i+d/2} \cos\alpha_{t,i} + x_i \sin\alpha_{t,i}

    The product of a rotated query and a rotated key depends on their distance alone.

    Shape:
        - x and output: ``(batch, heads, time, head_dim)``
        - cos, sin: ``(time, head_dim)``
    """
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class SelfAttention(AttentionRecorder):
    r"""Causal attention between rotated queries and keys.

    .. math::
        q_j &= R\, x W_q^{(j)}, \quad k_g = R\, x W_k^{(g)}, \quad v_g = x W_v^{(g)} \\
        y &= [\mathrm{head}_1; \dots; \mathrm{head}_h]\, W_o,
        \quad \mathrm{head}_j = \mathrm{softmax}(q_j k_g^\top / \sqrt{d})\, v_g

    where g is the group of head j: each head of keys and values serves ``num_heads /
    num_kv_heads`` neighbouring heads of queries.

    Args:
        embed_dim: width of a position.
        num_heads: heads of queries.
        num_kv_heads: heads of keys and values.

    Shape:
        - input and output: ``(batch, time, embed_dim)``; with a cache, the positions that follow
          those that it holds
        - cos, sin: of these positions, see :func:`rotations`
    """

    def __init__(self, embed_dim: int, num_heads: int, *, num_kv_heads: int) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads = num_heads, num_kv_heads
        kv_dim = embed_dim // num_heads * num_kv_heads
        self.q_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.k_proj = nn.Linear(embed_dim, kv_dim, bias=False)
        self.v_proj = nn.Linear(embed_dim, kv_dim, bias=False)
        self.o_proj = nn.Linear(embed_dim, embed_dim, bias=False)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, cache: KeyValueCache | None = None
    ) -> Tensor:
        q = split_heads(self.q_proj(x), self.num_heads)  # (batch, heads, time, head_dim)
        k = split_heads(self.k_proj(x), self.num_kv_heads)  # (batch, key heads, time, head_dim)
        v = split_heads(self.v_proj(x), self.num_kv_heads)  # (batch, key heads, time, head_dim)
        q, k = rotated(q, cos, sin), rotated(k, cos, sin)
        if cache is not None:
            k, v = cache.append(k, v)  # each (batch, key heads, all so far, head_dim)
        if self.num_kv_heads < self.num_heads:
            group = self.num_heads // self.num_kv_heads
            k, v = (part.repeat_interleave(group, dim=1) for part in (k, v))  # (batch, heads, ...)
        return self.o_proj(merge_heads(self.attend(q, k, v, is_causal=True)))


class MLP(nn.Module):
    r"""SwiGLU (Shazeer 2020, https://arxiv.org/abs/2002.05202).

    .. math:: y = (\mathrm{SiLU}(x W_{gate}) \odot x W_{up})\, W_{down}

    Args:
        embed_dim: width of a position.
        mlp_dim: width of the hidden layer.

    Shape:
        - input and output: ``(batch, time, embed_dim)``
    """

    def __init__(self, embed_dim: int, mlp_dim: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(embed_dim, mlp_dim, bias=False)
        self.up_proj = nn.Linear(embed_dim, mlp_dim, bias=False)
        self.down_proj = nn.Linear(mlp_dim, embed_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    r"""One layer: attention, then MLP, both on normalised positions, both added.

    .. math::
        x' &= x + \mathrm{attention}(\mathrm{RMSNorm}(x)) \\
        y &= x' + \mathrm{MLP}(\mathrm{RMSNorm}(x'))

    with :math:`\mathrm{RMSNorm}(x) = g \odot x / \sqrt{\mathrm{mean}(x^2) + \epsilon}` (Zhang and
    Sennrich 2019, https://arxiv.org/abs/1910.07467).

    Args:
        embed_dim: width of a position.
        num_heads: heads of queries.
        num_kv_heads: heads of keys and values.
        mlp_dim: width of the MLP's hidden layer.
        norm_eps: the normalisations' epsilon.

    Shape:
        - input and output: ``(batch, time, embed_dim)``
        - cos, sin: see :class:`SelfAttention`
    """

    def __init__(
        self, embed_dim: int, num_heads: int, *, num_kv_heads: int, mlp_dim: int, norm_eps: float
    ) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(embed_dim, norm_eps)
        self.self_attn = SelfAttention(embed_dim, num_heads, num_kv_heads=num_kv_heads)
        self.post_attention_layernorm = nn.RMSNorm(embed_dim, norm_eps)
        self.mlp = MLP(embed_dim, mlp_dim)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, cache: KeyValueCache | None = None
    ) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Embedding of the tokens, the layers, a last normalisation.

    Args:
        vocab_size: number of different tokens.
        sequence_length: most positions.
        embed_dim: width of a position.
        num_layers: blocks.
        num_heads: heads of queries.
        num_kv_heads: heads of keys and values.
        mlp_dim: width of the MLPs' hidden layer.
        rope_theta: base of the rotations' frequencies.
        norm_eps: the normalisations' epsilon.

    Shape:
        - input: tokens ``(batch, time)``, and a cache of what precedes them or None
        - output: ``(batch, time, embed_dim)``
    """

    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        vocab_size: int,
        sequence_length: int,
        *,
        embed_dim: int,
        num_layers: int,
        num_heads: int,
        num_kv_heads: int,
        mlp_dim: int,
        rope_theta: float,
        norm_eps: float,
    ) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab_size, embed_dim)
        self.layers = nn.ModuleList(
            Block(
                embed_dim,
                num_heads,
                num_kv_heads=num_kv_heads,
                mlp_dim=mlp_dim,
                norm_eps=norm_eps,
            )
            for _ in range(num_layers)
        )
        self.norm = nn.RMSNorm(embed_dim, norm_eps)
        self.rope_theta = rope_theta
        for name in ("cos", "sin"):
            table = torch.empty(sequence_length, embed_dim // num_heads)
            self.register_buffer(name, table, persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        cos, sin = rotations(*self.cos.shape, theta=self.rope_theta)
        self.cos.copy_(cos)
        self.sin.copy_(sin)

    def forward(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        start = cache[0].length if cache else 0
        end = start + tokens.size(1)
        if end > len(self.cos):
            raise ValueError(
                f"tokens must not reach beyond the sequence_length {len(self.cos)} of this model, "
                f"not to position {end}"
            )
        x = self.embed_tokens(tokens)  # (batch, time, embed_dim)
        cos, sin = self.cos[start:end], self.sin[start:end]  # (time, head_dim)
        for i, block in enumerate(self.layers):
            x = block(x, cos, sin, cache[i] if cache else None)
        return self.norm(x)


class Llama(nn.Module):
    r"""Decoder and head: logits of the token that follows each position.

    .. math:: p(w_{t+1} \mid w_1 \dots w_t) = \mathrm{softmax}(x_t W^\top)

    Weights start as normal numbers of standard deviation 0.02, as Hugging Face's do; the papers do
    not say.

    Args:
        vocab_size: number of different tokens.
        sequence_length: most positions. No weight depends on it.
        embed_dim: width of a position.
        num_layers: blocks.
        num_heads: heads of queries; they divide ``embed_dim`` into heads of an even width.
        num_kv_heads: heads of keys and values, a divisor of ``num_heads``.
        mlp_dim: width of the MLPs' hidden layer.
        rope_theta: base of the rotations' frequencies: the larger, the slower the slowest.
        norm_eps: the normalisations' epsilon.
        tie_weights: the head's matrix is the embedding's.

    Shape:
        - input: tokens ``(batch, time)`` of type int64; with a cache of :meth:`new_cache`, the
          tokens that follow those of the calls before with the same cache
        - output: logits ``(batch, time, vocab_size)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    @deferred_init
    def __init__(
        self,
        vocab_size: int = 32000,
        *,
        sequence_length: int = 4096,
        embed_dim: int = 4096,
        num_layers: int = 32,
        num_heads: int = 32,
        num_kv_heads: int = 32,
        mlp_dim: int = 11008,
        rope_theta: float = 10000.0,
        norm_eps: float = 1e-5,
        tie_weights: bool = False,
    ) -> None:
        super().__init__()
        check_at_least_one(
            vocab_size=vocab_size,
            sequence_length=sequence_length,
            embed_dim=embed_dim,
            num_layers=num_layers,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            mlp_dim=mlp_dim,
        )
        if embed_dim % (2 * num_heads):
            raise ValueError(
                f"num_heads must divide embed_dim {embed_dim} into heads of an even width, "
                f"not be {num_heads}"
            )
        if num_heads % num_kv_heads:
            raise ValueError(
                f"num_kv_heads must divide num_heads {num_heads}, not be {num_kv_heads}"
            )
        for name, value in (("rope_theta", rope_theta), ("norm_eps", norm_eps)):
            if not value > 0:
                raise ValueError(f"{name} must be above 0, not {value}")
        self.sequence_length = sequence_length
        self.model = Decoder(
            vocab_size,
            sequence_length,
            embed_dim=embed_dim,
            num_layers=num_layers,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            mlp_dim=mlp_dim,
            rope_theta=rope_theta,
            norm_eps=norm_eps,
        )
        self.lm_head = nn.Linear(embed_dim, vocab_size, bias=False)
        self.is_tied = tie_weights
        self._tie()

    def _tie(self) -> None:
        if self.is_tied:
            self.lm_head.weight = self.model.embed_tokens.weight

    def init_weights(self) -> None:
        reset(self)
        self._tie()
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        return self.lm_head(self.model(tokens, cache))  # (batch, time, vocab_size)

    def new_cache(self) -> Cache:
        """Room for keys and values of every layer: ``forward`` then computes each only once."""
        return [KeyValueCache(self.sequence_length) for _ in self.model.layers]

    @torch.no_grad()
    def attention_maps(self, tokens: Tensor) -> dict[str, Tensor]:
        """What each position looks at: layer to weights ``(batch, heads, time, time)``."""
        with recorded_attention(self) as recorded:
            self(tokens)
        return {name: weights for name, (weights,) in recorded.items()}


class LlamaOptions(TypedDict, total=False):
    """What the published sizes leave open, see :class:`Llama`."""

    tie_weights: bool


def llama2_7b(
    vocab_size: int = 32000, *, sequence_length: int = 4096, **options: Unpack[LlamaOptions]
) -> Llama:
    """The smallest of Llama 2; Llama 1 of the same size has 2048 positions."""
    return Llama(
        vocab_size,
        sequence_length=sequence_length,
        embed_dim=4096,
        num_layers=32,
        num_heads=32,
        num_kv_heads=32,
        mlp_dim=11008,
        rope_theta=10000.0,
        norm_eps=1e-5,
        **options,
    )


def llama3_8b(
    vocab_size: int = 128256, *, sequence_length: int = 8192, **options: Unpack[LlamaOptions]
) -> Llama:
    """The smallest of Llama 3 (Grattafiori et al. 2024, https://arxiv.org/abs/2407.21783)."""
    return Llama(
        vocab_size,
        sequence_length=sequence_length,
        embed_dim=4096,
        num_layers=32,
        num_heads=32,
        num_kv_heads=8,
        mlp_dim=14336,
        rope_theta=500000.0,
        norm_eps=1e-5,
        **options,
    )


def tinyllama_1_1b(
    vocab_size: int = 32000, *, sequence_length: int = 2048, **options: Unpack[LlamaOptions]
) -> Llama:
    """TinyLlama (Zhang et al. 2024, https://arxiv.org/abs/2401.02385)."""
    return Llama(
        vocab_size,
        sequence_length=sequence_length,
        embed_dim=2048,
        num_layers=22,
        num_heads=32,
        num_kv_heads=4,
        mlp_dim=5632,
        rope_theta=10000.0,
        norm_eps=1e-5,
        **options,
    )


def llama_char(
    vocab_size: int = 65,
    *,
    sequence_length: int = 64,
    embed_dim: int = 128,
    num_layers: int = 4,
    num_heads: int = 4,
    num_kv_heads: int = 4,
    mlp_dim: int = 344,
    rope_theta: float = 10000.0,
    norm_eps: float = 1e-5,
    tie_weights: bool = False,
) -> Llama:
    """A small Llama over characters; every size can be changed."""
    return Llama(
        vocab_size,
        sequence_length=sequence_length,
        embed_dim=embed_dim,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        mlp_dim=mlp_dim,
        rope_theta=rope_theta,
        norm_eps=norm_eps,
        tie_weights=tie_weights,
    )
