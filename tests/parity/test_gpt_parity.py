import pytest
import torch

from zoo.inference.generation import Sampler, continuation
from zoo.models.transformer.gpt import GPT, gpt2, gpt2_large, gpt2_medium, gpt2_xl

pytestmark = pytest.mark.parity

transformers = pytest.importorskip("transformers", reason="transformers is not installed")


def theirs(vocab_size=31, positions=16, width=24, layers=2, heads=3, **settings):
    config = transformers.GPT2Config(
        vocab_size=vocab_size,
        n_positions=positions,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        bos_token_id=None,
        eos_token_id=None,
        **settings,
    )
    return transformers.GPT2LMHeadModel(config)


def pair(gelu="tanh", **settings):
    """Two networks in double precision with the same weights, none of them zero."""
    torch.manual_seed(0)
    other = theirs(**settings).eval()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    ours = GPT(31, sequence_length=16, embed_dim=24, num_layers=2, num_heads=3, gelu=gelu).eval()
    ours.load_state_dict(other.state_dict(), strict=True)
    return ours.double(), other.double()


def tokens(time):
    return torch.randint(31, (3, time), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("time", [1, 7, 16])
@pytest.mark.parametrize(("gelu", "theirs_gelu"), [("tanh", "gelu_new"), ("exact", "gelu")])
def test_state_dict_loads_strictly_with_equal_logits_and_gradients(time, gelu, theirs_gelu):
    ours, other = pair(gelu, activation_function=theirs_gelu)
    x = tokens(time)
    outputs = ours(x), other(x).logits
    torch.testing.assert_close(*outputs)
    for output in outputs:
        weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
        (output * weights).sum().backward()
    expected = {name: p.grad for name, p in other.named_parameters()}
    assert expected.keys() == {name for name, _ in ours.named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], msg=name)


def test_state_dict_of_ours_loads_strictly_into_theirs():
    torch.manual_seed(0)
    ours = GPT(31, sequence_length=16, embed_dim=24, num_layers=2, num_heads=3).eval()
    other = theirs().eval()
    other.load_state_dict(ours.state_dict(), strict=True)
    torch.testing.assert_close(ours(tokens(16)), other(tokens(16)).logits)


@pytest.mark.parametrize(
    ("build", "width", "layers", "heads"),
    [
        (gpt2, 768, 12, 12),
        (gpt2_medium, 1024, 24, 16),
        (gpt2_large, 1280, 36, 20),
        (gpt2_xl, 1600, 48, 25),
    ],
)
def test_published_sizes_have_their_names_and_shapes(build, width, layers, heads):
    with torch.device("meta"):
        ours, other = build(), theirs(50257, 1024, width, layers, heads)
    assert ours.num_heads == heads
    assert {n: p.shape for n, p in ours.state_dict().items()} == {
        n: p.shape for n, p in other.state_dict().items()
    }


def test_attention_maps_are_theirs():
    ours, other = pair(attn_implementation="eager")
    expected = other(tokens(9), output_attentions=True).attentions
    torch.testing.assert_close(tuple(ours.attention_maps(tokens(9)).values()), expected)


def test_greedy_continuation_is_theirs():
    ours, other = pair()
    start = tokens(4)
    drawn = continuation(ours, start, Sampler(0.0))
    text = torch.cat([start, *(next(drawn) for _ in range(12))], dim=1)
    expected = other.generate(
        start, attention_mask=torch.ones_like(start), max_new_tokens=12, do_sample=False
    )
    assert torch.equal(text, expected)
    assert len(text[:, 4:].unique()) > 3


def test_weights_start_with_their_deviations():
    ours = GPT(500, sequence_length=300, embed_dim=96, num_layers=3, num_heads=3)
    other = theirs(500, 300, 96, 3, 3)
    for name, parameter in other.named_parameters():
        expected = parameter.std().item()
        assert ours.get_parameter(name).std().item() == pytest.approx(expected, rel=0.05), name
