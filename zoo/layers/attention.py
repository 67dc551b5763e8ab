r"""Scaled dot-product attention in one head and in several, and the cache of generation.

Vaswani et al. 2017, "Attention is all you need", https://arxiv.org/abs/1706.03762, section 3.2.
"""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KeysValues = tuple[Tensor, Tensor]


def attention_weights(
    query: Tensor, key: Tensor, mask: Tensor | None = None, *, is_causal: bool = False
) -> Tensor:
    r"""How much each query attends to each key: the weights of :func:`attention`, written out.

    .. math:: A = \mathrm{softmax}(Q K^\top / \sqrt{d})

    Where every key is hidden from a query, its weights are zero.

    Args:
        query: of the positions that look.
        key: of those that they look at.
        mask: boolean, True where a query may see a key (broadcast); None for everywhere.
        is_causal: a query sees no later key; the last query is aligned with the last key.

    Shape:
        - query: ``(batch, heads, queries, head_dim)``
        - key: ``(batch, heads, keys, head_dim)``
        - output: ``(batch, heads, queries, keys)``, rows that add up to 1
    """
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.size(-1))
    visible = _visible(query, key, mask, is_causal)
    if visible is None:
        return scores.softmax(-1)
    weights = scores.masked_fill(~visible, -math.inf).softmax(-1)
    return weights.masked_fill(~visible, 0.0)  # softmax of nothing but -inf is NaN


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    is_causal: bool = False,
    dropout: float = 0.0,
) -> Tensor:
    r"""Scaled dot-product attention by torch's fused kernels.

    .. math:: \mathrm{softmax}(Q K^\top / \sqrt{d})\, V

    Args:
        query: of the positions that look.
        key: of those that they look at.
        value: what is averaged.
        mask: boolean, True where a query may see a key (broadcast); None for everywhere.
        is_causal: a query sees no later key; the last query is aligned with the last key.
        dropout: probability of silencing a weight, already 0 outside training.

    Shape:
        - query: ``(batch, heads, queries, head_dim)``
        - key, value: ``(batch, heads, keys, head_dim)``
        - output: ``(batch, heads, queries, head_dim)``
    """
    square = query.size(-2) == key.size(-2)
    if mask is None and (not is_causal or square or query.size(-2) == 1):
        # torch's own causal mask aligns the first query with the first key. A single query is the
        # last one: it sees everything.
        causal = bool(is_causal and square)  # a tensor where the graph is being traced
        return F.scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=causal
        )
    visible = _visible(query, key, mask, is_causal)
    return F.scaled_dot_product_attention(query, key, value, visible, dropout)


def _visible(query: Tensor, key: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor | None:
    """Which keys each query sees, None for all: broadcasts to ``(batch, heads, queries, keys)``."""
    if not is_causal:
        return mask
    queries, keys = query.size(-2), key.size(-2)
    causal = torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril(keys - queries)
    return causal if mask is None else mask & causal


def padding_mask(lengths: Tensor, time: int) -> Tensor:
    """True where a sequence has not ended: lengths ``(batch,)`` to ``(batch, time)``."""
    return torch.arange(time, device=lengths.device) < lengths.unsqueeze(1)


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """``(batch, time, heads * head_dim)`` to ``(batch, heads, time, head_dim)``."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """``(batch, heads, time, head_dim)`` to ``(batch, time, heads * head_dim)``."""
    return x.transpose(1, 2).flatten(2)


class KeyValueCache:
    """Keys and values of the positions so far, so that generation computes each only once.

    For use without gradients: the buffers are written in place. They are made with the first
    positions, for the batch, the type and the device of these.

    Args:
        longest: positions for which there is room.
        can_grow: makes room, at least twice as much as before, where there is none left.

    Attributes:
        length: positions that are filled.
        keys: those so far and the room behind them, ``(batch, heads, longest, head_dim)``.
        values: as ``keys``.
    """

    def __init__(self, longest: int, *, can_grow: bool = False) -> None:
        self.longest, self.can_grow, self.length = longest, can_grow, 0
        self.keys = self.values = torch.empty(0)

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Adds new positions, ``(batch, heads, new, head_dim)``; returns all there are so far.

        Raises:
            ValueError: if they are of another batch, or there is no room for them and the cache may
                not grow.
        """
        batch, heads, new, width = keys.shape
        if not self.length:
            self.keys, self.values = keys.new_empty(2, batch, heads, self.longest, width).unbind()
        if (batch, heads) != self.keys.shape[:2]:
            raise ValueError(
                f"cache is for (batch, heads) {tuple(self.keys.shape[:2])}, not {(batch, heads)}"
            )
        end = self.length + new
        if end > self.longest:
            if not self.can_grow:
                raise ValueError(f"cache has room for {self.longest} positions, not for {end}")
            self._take(slice(None), max(end, 2 * self.longest))
        self.keys[:, :, self.length : end] = keys
        self.values[:, :, self.length : end] = values
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def reorder(self, rows: Tensor) -> "KeyValueCache":
        """The cache of other rows of the batch, for beam search; this one stays as it is."""
        other = copy.copy(self)
        if self.length:
            other._take(rows, self.longest)
        return other

    def _take(self, rows: Tensor | slice, longest: int) -> None:
        """Takes what is filled of some rows into buffers of its own, with other room."""
        self.longest, before = longest, (self.keys, self.values)
        filled = torch.stack([buffer[:, :, : self.length][rows] for buffer in before])
        kinds, batch, heads, _, width = filled.shape
        buffers = filled.new_empty(kinds, batch, heads, longest, width)
        buffers[..., : self.length, :] = filled
        self.keys, self.values = buffers.unbind()


class AttentionRecorder(nn.Module):
    """Base of attention modules whose weights can be looked at, see :func:`recorded_attention`.

    A module calls :meth:`attend` where it would call :func:`attention`.
    """

    recorded: list[Tensor] | None = None

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None = None,
        *,
        is_causal: bool = False,
        dropout: float = 0.0,
    ) -> Tensor:
        """Computes :func:`attention` and keeps its weights if they are being recorded."""
        if self.recorded is not None:
            weights = attention_weights(query, key, mask, is_causal=is_causal)
            self.recorded.append(weights.detach())
            return F.dropout(weights, dropout) @ value
        return attention(query, key, value, mask, is_causal=is_causal, dropout=dropout)


class MultiheadAttention(AttentionRecorder):
    r"""Attention in several heads side by side (section 3.2.2).

    .. math::
        \mathrm{head}_i &= \mathrm{softmax}(Q_i K_i^\top / \sqrt{d_k})\, V_i \\
        \mathrm{MultiHead}(x, m) &= [\mathrm{head}_1; \dots; \mathrm{head}_h]\, W^O

    with :math:`Q = x W^Q`, :math:`K = m W^K`, :math:`V = m W^V` and biases, where the memory m is x
    itself in self-attention. Names and shapes are those of `torch.nn.MultiheadAttention`:
    ``in_proj_weight`` is :math:`[W^Q; W^K; W^V]`, one below the other, so that self-attention needs
    one product for the three. Each of the four matrices starts Xavier-uniform, biases at zero.

    Args:
        embed_dim: width of a token.
        num_heads: heads h, a divisor of ``embed_dim``.
        dropout: probability of silencing an attention weight during training.

    Shape:
        - input and output: ``(batch, time, embed_dim)``

    Raises:
        ValueError: if ``num_heads`` does not divide ``embed_dim``.
    """

    def __init__(self, embed_dim: int, num_heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        if num_heads < 1 or embed_dim % num_heads:
            raise ValueError(f"num_heads must divide embed_dim {embed_dim}, not be {num_heads}")
        self.num_heads, self.dropout = num_heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * embed_dim, embed_dim))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * embed_dim))
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for weight in (*self.in_proj_weight.detach().chunk(3), self.out_proj.weight):
            nn.init.xavier_uniform_(weight)
        nn.init.zeros_(self.in_proj_bias)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | KeysValues | None = None,
        mask: Tensor | None = None,
        *,
        is_causal: bool = False,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Attends to ``memory`` (tokens, or their keys and values), or to x and what is cached."""
        if memory is None:
            q, k, v = self._project(x, 0, 3)
            if cache is not None:
                k, v = cache.append(k, v)
        else:
            (q,) = self._project(x, 0, 1)
            k, v = self.keys_values(memory) if isinstance(memory, Tensor) else memory
        dropout = self.dropout if self.training else 0.0
        heads = self.attend(q, k, v, mask, is_causal=is_causal, dropout=dropout)
        return self.out_proj(merge_heads(heads))  # (batch, time, embed_dim)

    def keys_values(self, memory: Tensor) -> KeysValues:
        """What :meth:`forward` needs of a memory, each ``(batch, heads, time, head_dim)``."""
        k, v = self._project(memory, 1, 3)
        return k, v

    def _project(self, x: Tensor, first: int, last: int) -> list[Tensor]:
        """Queries (0), keys (1) and values (2), from one to another, in a single product."""
        width = self.out_proj.in_features
        rows = slice(first * width, last * width)
        x = F.linear(x, self.in_proj_weight[rows], self.in_proj_bias[rows])
        parts = x.unflatten(-1, (last - first, self.num_heads, -1))
        # each (batch, heads, time, head_dim)
        return [parts[:, :, i].transpose(1, 2) for i in range(last - first)]


@contextmanager
def recorded_attention(model: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """Attention is written out within, and the weights of every call are kept.

    Yields:
        Weights ``(batch, heads, queries, keys)`` of each call, by the module's name.
    """
    modules = {n: m for n, m in model.named_modules() if isinstance(m, AttentionRecorder)}
    try:
        for module in modules.values():
            module.recorded = []
        yield {n: m.recorded for n, m in modules.items() if m.recorded is not None}
    finally:
        for module in modules.values():
            module.recorded = None
