import math

import pytest
import torch

from zoo.models.transformer.gpt import GPT, gpt2, gpt2_large, gpt2_medium, gpt2_xl, gpt_char


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def tiny(**changes):
    """Weights that are large enough for every position to matter."""
    sizes = {"sequence_length": 12, "embed_dim": 24, "num_layers": 2, "num_heads": 3}
    model = GPT(17, **(sizes | changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def tokens(batch=3, time=12):
    return torch.randint(17, (batch, time))


@pytest.mark.parametrize(
    ("build", "parameters"),
    [
        (gpt2, 124_439_808),
        (gpt2_medium, 354_823_168),
        (gpt2_large, 774_030_080),
        (gpt2_xl, 1_557_611_200),
        (gpt_char, 804_096),
    ],
)
def test_published_parameter_counts(build, parameters):
    with torch.device("meta"):
        assert sum(p.numel() for p in build().parameters()) == parameters


def test_builders_hand_their_arguments_on():
    with torch.device("meta"):
        for build in (gpt2, gpt2_medium, gpt2_large, gpt2_xl, gpt_char):
            model = build(7, sequence_length=9, dropout=0.3, bias=False)
            assert model.lm_head.weight.shape[0] == 7
            assert model.sequence_length == len(model.transformer.wpe.weight) == 9
            assert model.transformer.h[-1].attn.dropout == model.transformer.drop.p == 0.3
            assert not any(name.endswith("bias") for name in model.state_dict())
    model = gpt_char(5, embed_dim=12, num_layers=3, num_heads=2, gelu="tanh")
    assert len(model.transformer.h) == 3
    assert {block.mlp.approximate for block in model.transformer.h} == {"tanh"}
    assert model.attention_maps(torch.zeros(1, 4, dtype=torch.int64))[
        "transformer.h.2.attn"
    ].shape == (1, 2, 4, 4)


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


def test_every_position_sees_all_earlier_ones():
    model, x = tiny().eval(), tokens(batch=1)
    before = model(x)
    for place in range(x.shape[1]):
        changed = x.clone()
        changed[:, place] = (changed[:, place] + 1) % 17
        assert (model(changed) - before).abs().amax(-1)[0, place:].min() > 1e-4


@pytest.mark.parametrize("chunks", [(12,), (1,) * 12, (5, 1, 1, 3, 2), (1, 11), (11, 1)], ids=str)
def test_cache_gives_the_logits_of_the_whole(chunks):
    model, x = tiny().eval().double(), tokens()
    cache = model.new_cache()
    with torch.no_grad():
        parts = [model(part, cache) for part in x.split(chunks, dim=1)]
        torch.testing.assert_close(torch.cat(parts, 1), model(x))


def test_cache_has_the_models_type_and_one_entry_a_layer():
    model = tiny(num_layers=3).bfloat16()
    cache = model.new_cache()
    with torch.no_grad():
        model(tokens()[:2], cache)
    assert [entry.keys.shape for entry in cache] == 3 * [(2, 3, 12, 8)]
    assert {entry.values.dtype for entry in cache} == {torch.bfloat16}


def test_more_positions_than_there_are_embeddings_are_refused():
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


def test_dropout_acts_in_training_alone():
    model, x = tiny(dropout=0.5), tokens()
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_attention_maps_are_causal_averages_by_layer():
    model, x = tiny().eval(), tokens(time=7)
    before = model(x)
    maps = model.attention_maps(x)
    assert list(maps) == ["transformer.h.0.attn", "transformer.h.1.attn"]
    for weights in maps.values():
        assert weights.shape == (3, 3, 7, 7)
        assert torch.equal(weights, weights.tril())
        torch.testing.assert_close(weights.sum(-1), torch.ones(3, 3, 7))
    assert torch.equal(model(x), before)


def test_weights_start_as_the_paper_says():
    model = GPT(50, sequence_length=40, embed_dim=96, num_layers=8, num_heads=4)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            assert parameter.unique().tolist() == [0.0 if name.endswith("bias") else 1.0], name
        else:
            expected = 0.02 / math.sqrt(16) if "c_proj" in name else 0.02
            assert parameter.std().item() == pytest.approx(expected, rel=0.05), name
            assert abs(parameter.mean().item()) < 0.1 * expected, name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 0}, "vocab_size must be at least 1, not 0"),
        ({"sequence_length": 0}, "sequence_length must be at least 1, not 0"),
        ({"num_heads": 0}, "num_heads must be at least 1, not 0"),
        ({"num_heads": 5}, "num_heads must divide embed_dim 24, not be 5"),
        ({"num_layers": 0}, "num_layers must be at least 1, not 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
        ({"gelu": "erf"}, "gelu must be exact or tanh, not 'erf'"),
    ],
)
def test_arguments_outside_their_range_are_refused(change, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        GPT(**({"embed_dim": 24, "num_heads": 4} | change))
