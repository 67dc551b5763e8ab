import pytest
import torch

from zoo.inference.generation import Sampler, continuation
from zoo.models.transformer.llama import (
    Llama,
    llama2_7b,
    llama3_8b,
    rotations,
    tinyllama_1_1b,
)

pytestmark = pytest.mark.parity

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

TINY = {
    "vocab_size": 31,
    "max_position_embeddings": 16,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 40,
}


def theirs(*, theta=10000.0, **settings):
    config = transformers.LlamaConfig(
        bos_token_id=None,
        eos_token_id=None,
        rope_parameters={"rope_type": "default", "rope_theta": theta},
        **(TINY | settings),
    )
    return transformers.LlamaForCausalLM(config)


def pair(num_kv_heads=4, tie_weights=False, theta=10000.0, norm_eps=1e-6, **settings):
    """Two networks with the same weights, in single precision like parts of theirs in any case."""
    torch.manual_seed(0)
    other = theirs(
        num_key_value_heads=num_kv_heads,
        tie_word_embeddings=tie_weights,
        theta=theta,
        rms_norm_eps=norm_eps,
        **settings,
    ).eval()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    ours = Llama(
        31,
        sequence_length=16,
        embed_dim=32,
        num_layers=2,
        num_heads=4,
        num_kv_heads=num_kv_heads,
        mlp_dim=40,
        rope_theta=theta,
        norm_eps=norm_eps,
        tie_weights=tie_weights,
    ).eval()
    ours.load_state_dict(other.state_dict(), strict=True)
    return ours, other


def tokens(time):
    return torch.randint(31, (3, time), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("time", [1, 7, 16])
@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("tie_weights", [False, True])
@pytest.mark.parametrize(("theta", "norm_eps"), [(10000.0, 1e-6), (50.0, 0.1)])
def test_state_dict_loads_strictly_with_equal_logits_and_gradients(
    time, num_kv_heads, tie_weights, theta, norm_eps
):
    ours, other = pair(num_kv_heads, tie_weights, theta, norm_eps)
    x = tokens(time)
    outputs = ours(x), other(x).logits
    torch.testing.assert_close(*outputs)
    for output in outputs:
        weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
        (output * weights).sum().backward()
    expected = {name: p.grad for name, p in other.named_parameters()}
    assert expected.keys() == {name for name, _ in ours.named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tie_weights", [False, True])
def test_state_dict_of_ours_loads_strictly_into_theirs(tie_weights):
    ours, _ = pair(2, tie_weights)
    other = theirs(num_key_value_heads=2, tie_word_embeddings=tie_weights).eval()
    other.load_state_dict(ours.state_dict(), strict=True)
    torch.testing.assert_close(ours(tokens(16)), other(tokens(16)).logits)


@pytest.mark.parametrize(
    ("build", "settings", "theta"),
    [
        (
            llama2_7b,
            {
                "vocab_size": 32000,
                "hidden_size": 4096,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "num_key_value_heads": 32,
                "intermediate_size": 11008,
            },
            10000.0,
        ),
        (
            llama3_8b,
            {
                "vocab_size": 128256,
                "hidden_size": 4096,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "intermediate_size": 14336,
            },
            500000.0,
        ),
        (
            tinyllama_1_1b,
            {
                "vocab_size": 32000,
                "hidden_size": 2048,
                "num_hidden_layers": 22,
                "num_attention_heads": 32,
                "num_key_value_heads": 4,
                "intermediate_size": 5632,
            },
            10000.0,
        ),
    ],
)
def test_published_sizes_have_their_names_and_shapes(build, settings, theta, monkeypatch):
    turned = []

    def recorded(time, head_dim, *, theta):
        turned.append((head_dim, theta))
        return rotations(time, head_dim, theta=theta)

    monkeypatch.setattr("zoo.models.transformer.llama.rotations", recorded)
    with torch.device("meta"):
        ours, other = build(), theirs(theta=theta, **settings)
    # Of which no weight tells.
    assert turned == [(settings["hidden_size"] // settings["num_attention_heads"], theta)]
    assert {n: p.shape for n, p in ours.state_dict().items()} == {
        n: p.shape for n, p in other.state_dict().items()
    }


@pytest.mark.parametrize("num_kv_heads", [2, 4])
def test_attention_maps_are_theirs(num_kv_heads):
    ours, other = pair(num_kv_heads, attn_implementation="eager")
    expected = other(tokens(9), output_attentions=True).attentions
    maps = tuple(ours.attention_maps(tokens(9)).values())
    torch.testing.assert_close(maps, expected)


@pytest.mark.parametrize("num_kv_heads", [2, 4])
def test_greedy_continuation_is_theirs(num_kv_heads):
    ours, other = pair(num_kv_heads)
    start = tokens(4)
    drawn = continuation(ours, start, Sampler(0.0))
    text = torch.cat([start, *(next(drawn) for _ in range(12))], dim=1)
    expected = other.generate(
        start, attention_mask=torch.ones_like(start), max_new_tokens=12, do_sample=False
    )
    assert torch.equal(text, expected)
    assert len(text[:, 4:].unique()) > 3
