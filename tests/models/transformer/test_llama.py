import pytest
import torch

from zoo.models.transformer.llama import (
    Llama,
    llama2_7b,
    llama3_8b,
    llama_char,
    rotated,
    rotations,
    tinyllama_1_1b,
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def tiny(**changes):
    """Weights that are large enough for every position to matter; two heads share their keys."""
    sizes = {
        "sequence_length": 12,
        "embed_dim": 32,
        "num_layers": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "mlp_dim": 40,
    }
    model = Llama(17, **(sizes | changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model


def tokens(batch=3, time=12):
    return torch.randint(17, (batch, time))


@pytest.mark.parametrize(
    ("build", "parameters"),
    [
        (llama2_7b, 6_738_415_616),
        (llama3_8b, 8_030_261_248),
        (tinyllama_1_1b, 1_100_048_384),
        (llama_char, 808_320),
    ],
)
def test_published_parameter_counts(build, parameters):
    with torch.device("meta"):
        assert sum(p.numel() for p in build().parameters()) == parameters


def test_builders_hand_their_arguments_on():
    with torch.device("meta"):
        for build in (llama2_7b, llama3_8b, tinyllama_1_1b, llama_char):
            model = build(7, sequence_length=9, tie_weights=True)
            assert model.lm_head.weight is model.model.embed_tokens.weight
            assert model.sequence_length == len(model.model.cos) == 9
    model = llama_char(
        5, embed_dim=24, num_layers=3, num_heads=6, num_kv_heads=2, mlp_dim=11, norm_eps=0.5
    )
    layer = model.model.layers[2]
    assert layer.self_attn.k_proj.weight.shape == (8, 24)
    assert layer.mlp.up_proj.weight.shape == (11, 24)
    assert layer.input_layernorm.eps == layer.post_attention_layernorm.eps == 0.5
    slow, fast = (llama_char(rope_theta=theta).model.cos[1, 1] for theta in (1e6, 1e1))
    assert slow > fast


@pytest.mark.parametrize("training", [True, False])
def test_no_position_sees_a_later_one_bit_for_bit(training):
    model, x = tiny().train(training), tokens()
    before = model(x)
    for place in range(x.shape[1]):
        changed = x.clone()
        changed[:, place:] = (changed[:, place:] + 1) % 17
        after = model(changed)
        assert torch.equal(after[:, :place], before[:, :place])
        assert (after[:, place] != before[:, place]).any()


@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("chunks", [(12,), (1,) * 12, (5, 1, 1, 3, 2), (1, 11), (11, 1)], ids=str)
def test_cache_gives_the_logits_of_the_whole(chunks, num_kv_heads):
    model, x = tiny(num_kv_heads=num_kv_heads).eval().double(), tokens()
    cache = model.new_cache()
    with torch.no_grad():
        parts = [model(part, cache) for part in x.split(chunks, dim=1)]
        torch.testing.assert_close(torch.cat(parts, 1), model(x))
    assert cache[0].keys.shape == (3, num_kv_heads, 12, 8)


def test_grouped_queries_equal_a_model_whose_keys_and_values_are_repeated():
    grouped, full, x = tiny(), tiny(num_kv_heads=4), tokens()
    state = grouped.state_dict()
    for name in state:
        if "k_proj" in name or "v_proj" in name:
            heads = state[name].unflatten(0, (2, 8))
            state[name] = heads.repeat_interleave(2, dim=0).flatten(0, 1)
    full.load_state_dict(state)
    torch.testing.assert_close(grouped(x), full(x))


def test_product_of_rotated_vectors_depends_on_their_distance_alone():
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.double)
    cos, sin = (table.double() for table in rotations(30, 8, theta=100.0))
    q, k = (rotated(x.expand(1, 1, 30, 8), cos, sin)[0, 0] for x in (q, k))
    products = q @ k.T  # (time, time)
    for distance in range(-29, 30):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-5, atol=1e-5)
    assert products[0].std() > 0.1
    torch.testing.assert_close(q.norm(dim=-1), q.norm(dim=-1)[:1].expand(30))


def test_rotation_is_multiplication_of_complex_numbers():
    x = torch.randn(2, 3, 5, 8, dtype=torch.double)
    cos, sin = (table.double() for table in rotations(5, 8, theta=50.0))
    angles = torch.arange(5.0)[:, None] * 50.0 ** (-torch.arange(4.0) / 4)
    turned = torch.complex(x[..., :4], x[..., 4:]) * torch.exp(1j * angles.double())
    expected = torch.cat([turned.real, turned.imag], dim=-1)
    torch.testing.assert_close(rotated(x, cos, sin), expected, rtol=1e-5, atol=1e-6)


def test_more_positions_than_sequence_length_are_refused():
    model = tiny()
    message = "tokens must not reach beyond the sequence_length 12 of this model, not to position "
    with pytest.raises(ValueError, match=message + "13"):
        model(tokens(time=13))
    cache = model.new_cache()
    with torch.no_grad():
        model(tokens(time=10), cache)
        with pytest.raises(ValueError, match=message + "14"):
            model(tokens(time=4), cache)
        assert model(tokens(time=2), cache).shape == (3, 2, 17)


def test_weights_fit_models_of_other_lengths():
    short, long = tiny(), tiny(sequence_length=40)
    long.load_state_dict(short.state_dict(), strict=True)
    x = tokens()
    torch.testing.assert_close(long(x), short(x))


def test_attention_maps_are_causal_averages_by_layer():
    model, x = tiny().eval(), tokens(time=7)
    before = model(x)
    maps = model.attention_maps(x)
    assert list(maps) == ["model.layers.0.self_attn", "model.layers.1.self_attn"]
    for weights in maps.values():
        assert weights.shape == (3, 4, 7, 7)
        assert torch.equal(weights, weights.tril())
        torch.testing.assert_close(weights.sum(-1), torch.ones(3, 4, 7))
    assert torch.equal(model(x), before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 0}, "vocab_size must be at least 1, not 0"),
        ({"mlp_dim": 0}, "mlp_dim must be at least 1, not 0"),
        ({"num_heads": 0}, "num_heads must be at least 1, not 0"),
        ({"num_heads": 5}, "num_heads must divide embed_dim 24 into heads of an even width.*5"),
        ({"num_heads": 8}, "num_heads must divide embed_dim 24 into heads of an even width.*8"),
        ({"num_kv_heads": 3}, "num_kv_heads must divide num_heads 4, not be 3"),
        ({"rope_theta": 0.0}, "rope_theta must be above 0, not 0.0"),
        ({"norm_eps": -1.0}, "norm_eps must be above 0, not -1.0"),
    ],
)
def test_arguments_outside_their_range_are_refused(change, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Llama(**({"embed_dim": 24, "num_heads": 4, "num_kv_heads": 2, "mlp_dim": 9} | change))
