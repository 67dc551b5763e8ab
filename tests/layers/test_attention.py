import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zoo.layers.attention import (
    AttentionRecorder,
    KeyValueCache,
    attention,
    attention_weights,
    merge_heads,
    padding_mask,
    recorded_attention,
    split_heads,
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def inputs(queries, keys, device="cpu", dtype=torch.double):
    return [
        torch.randn(2, 3, time, 8, dtype=dtype, device=device, requires_grad=True)
        for time in (queries, keys, keys)
    ]


def masks(queries, keys):
    scattered = torch.rand(2, 1, queries, keys) < 0.5
    scattered[0, :, -1] = False  # a query that sees nothing
    empty = torch.tensor([[True] * (keys - 2) + [False] * 2, [False] * keys])
    return {
        "none": None,
        "scattered": scattered,
        "a_head_each": torch.rand(2, 3, queries, keys) < 0.5,
        "padding": padding_mask(torch.tensor([keys, 2]), keys)[:, None, None],
        "a_row_without_keys": empty[:, None, None],
    }


def both_ways(kind, queries, keys, is_causal, **options):
    """Output and gradients of fused and of written attention."""
    mask, given = masks(queries, keys)[kind], inputs(queries, keys, **options)
    q, k, v = given
    mask = None if mask is None else mask.to(q.device)
    fused = attention(q, k, v, mask, is_causal=is_causal)
    written = attention_weights(q, k, mask, is_causal=is_causal) @ v
    return [(out, *torch.autograd.grad(out.sin().sum(), given)) for out in (fused, written)]


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(("queries", "keys"), [(5, 5), (3, 5), (5, 3), (1, 5)])
@pytest.mark.parametrize("kind", masks(2, 2))
def test_fused_equals_written_in_value_and_gradient(kind, queries, keys, is_causal):
    fused, written = both_ways(kind, queries, keys, is_causal)
    torch.testing.assert_close(fused, written)
    assert all(tensor.isfinite().all() for tensor in fused)


@pytest.mark.gpu
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("kind", masks(2, 2))
def test_fused_kernels_of_a_gpu_equal_written(kind, is_causal):
    for queries, keys in ((64, 64), (16, 40), (1, 40)):
        options = {"device": "cuda", "dtype": torch.float32}
        fused, written = both_ways(kind, queries, keys, is_causal, **options)
        torch.testing.assert_close(fused, written, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("is_causal", [False, True])
def test_weights_are_shares_of_what_a_query_may_see(is_causal):
    q, k, _ = inputs(4, 6)
    mask = torch.rand(2, 1, 4, 6) < 0.6
    mask[1, :, 2] = False
    weights = attention_weights(q, k, mask, is_causal=is_causal)
    visible = mask.expand(2, 3, 4, 6)
    if is_causal:  # the last query stands beside the last key
        offsets = torch.arange(6) - torch.arange(4)[:, None]
        visible = visible & (offsets <= 2)
    assert torch.equal(weights > 0, visible)
    torch.testing.assert_close(weights.sum(-1), visible.any(-1).double())


@pytest.mark.parametrize("causal", [False, True])
def test_equals_torchs_multihead_attention(causal):
    theirs = nn.MultiheadAttention(12, 3, batch_first=True).double()
    x, memory = torch.randn(2, 4, 12).double(), torch.randn(2, 4, 12).double()
    lengths = torch.tensor([4, 2])
    hidden = ~torch.ones(4, 4, dtype=torch.bool).tril() if causal else None
    expected, expected_weights = theirs(
        x,
        memory,
        memory,
        key_padding_mask=~padding_mask(lengths, 4),
        attn_mask=hidden,
        average_attn_weights=False,
    )
    weights, biases = theirs.in_proj_weight.chunk(3), theirs.in_proj_bias.chunk(3)
    q, k, v = (
        split_heads(F.linear(source, weight, bias), 3)
        for source, weight, bias in zip((x, memory, memory), weights, biases, strict=True)
    )
    mask = padding_mask(lengths, 4)[:, None, None]
    output = theirs.out_proj(merge_heads(attention(q, k, v, mask, is_causal=causal)))
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(attention_weights(q, k, mask, is_causal=causal), expected_weights)


class Recorder(AttentionRecorder):
    def forward(self, *arguments, **options):
        return self.attend(*arguments, **options)


@pytest.mark.parametrize("recording", [False, True])
def test_dropout_silences_weights_and_scales_the_others_up(recording):
    q, k = torch.randn(2, 2, 3, 100, 8)
    module, identity = Recorder(), torch.eye(100).expand(2, 3, 100, 100)
    with recorded_attention(module if recording else nn.Identity()):
        dropped = module(q, k, identity, dropout=0.25)  # (2, 3, 100, 100)
    weights = attention_weights(q, k)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], weights[kept] / 0.75)
    deviation = math.sqrt(0.25 * 0.75 / kept.numel())
    assert kept.double().mean().item() == pytest.approx(0.75, abs=5 * deviation)


def test_recorded_weights_are_those_used_and_recording_ends():
    model = nn.ModuleDict({"a": Recorder(), "b": Recorder(), "c": nn.Linear(2, 2)})
    q, k, v = inputs(3, 5)
    with recorded_attention(model) as weights:
        first = model["a"](q, k, v, is_causal=True)
        model["a"](q, k, v)
    assert {name: len(calls) for name, calls in weights.items()} == {"a": 2, "b": 0}
    torch.testing.assert_close(weights["a"][0] @ v, first)
    assert not weights["a"][0].requires_grad
    model["a"](q, k, v)
    assert len(weights["a"]) == 2


def test_recording_ends_after_an_error_too():
    module = Recorder()
    with pytest.raises(RuntimeError), recorded_attention(module):
        module(torch.ones(1, 1, 2, 3), torch.ones(1, 1, 2, 4), torch.ones(1, 1, 2, 4))
    assert module.recorded is None


def test_padding_mask_shows_the_first_positions():
    mask = padding_mask(torch.tensor([3, 0, 1]), 3)
    assert mask.tolist() == [[True] * 3, [False] * 3, [True, False, False]]


def test_heads_are_split_in_the_order_of_the_features_and_merged_again():
    x = torch.randn(2, 5, 6)
    heads = split_heads(x, 3)
    assert torch.equal(heads[:, 1], x[:, :, 2:4])
    assert torch.equal(merge_heads(heads), x)


@pytest.mark.parametrize("can_grow", [False, True])
def test_cached_steps_equal_one_causal_pass(can_grow):
    q, k, v = (tensor.detach() for tensor in inputs(7, 7))
    room = 2 if can_grow else 7
    cache = KeyValueCache(room, can_grow=can_grow)
    outputs = []
    for steps in (slice(0, 3), slice(3, 4), slice(4, 7)):
        keys, values = cache.append(k[:, :, steps], v[:, :, steps])
        outputs.append(attention(q[:, :, steps], keys, values, is_causal=True))
    assert cache.length == 7
    torch.testing.assert_close(torch.cat(outputs, 2), attention(q, k, v, is_causal=True))


def test_growing_cache_at_least_doubles_its_room():
    cache = KeyValueCache(4, can_grow=True)
    rooms = []
    for _ in range(9):
        cache.append(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2))
        rooms.append(cache.keys.size(2))
    assert rooms == [4] * 4 + [8] * 4 + [16]
    keys, _ = cache.append(torch.ones(1, 1, 9, 2), torch.ones(1, 1, 9, 2))
    assert torch.equal(keys, torch.ones(1, 1, 18, 2))


def test_full_cache_says_so():
    cache = KeyValueCache(4)
    cache.append(torch.ones(1, 1, 3, 2), torch.ones(1, 1, 3, 2))
    with pytest.raises(ValueError, match="room for 4 positions, not for 5"):
        cache.append(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2))


def test_a_cache_is_of_one_batch():
    cache = KeyValueCache(8)
    cache.append(torch.zeros(4, 2, 1, 3), torch.zeros(4, 2, 1, 3))
    with pytest.raises(ValueError, match=r"cache is for \(batch, heads\) \(4, 2\), not \(1, 2\)"):
        cache.append(torch.zeros(1, 2, 5, 3), torch.zeros(1, 2, 5, 3))


@pytest.mark.parametrize("can_grow", [False, True])
def test_reordered_cache_goes_on_from_other_rows_and_apart(can_grow):
    cache = KeyValueCache(4, can_grow=can_grow)
    keys = torch.randn(3, 1, 2, 2)
    cache.append(keys, -keys)
    rows = torch.tensor([2, 0, 0, 1])
    other = cache.reorder(rows)
    new = torch.randn(4, 1, 1, 2)
    all_keys, all_values = other.append(new, -new)
    assert torch.equal(all_keys, torch.cat([keys[rows], new], 2))
    assert torch.equal(all_values, -all_keys)
    assert (cache.length, other.length) == (2, 3)
    old_keys, _ = cache.append(keys[:, :, :1], keys[:, :, :1])
    assert torch.equal(old_keys, torch.cat([keys, keys[:, :, :1]], 2))
    if can_grow:
        assert other.append(torch.zeros(4, 1, 9, 2), torch.zeros(4, 1, 9, 2))[0].size(2) == 12
