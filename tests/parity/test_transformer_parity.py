import pytest
import torch
from torch import nn

from zoo.layers.attention import padding_mask
from zoo.models.transformer.transformer import DecoderLayer, EncoderDecoder, EncoderLayer

pytestmark = [
    pytest.mark.parity,
    # Torch says which of its own fast paths it does not take.
    pytest.mark.filterwarnings("ignore:enable_nested_tensor is True"),
]

SIZES = {"num_encoder_layers": 2, "num_decoder_layers": 3}
LENGTHS = torch.tensor([6, 4, 1])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def randomised(module):
    """Torch starts biases at 0 and normalisations at 1 and 0, where a mistake would not show."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.double()


def results(module, run, source, target):
    """The output of `run` and the gradients of what it depends on, by name."""
    inputs = {"source": source.clone().requires_grad_(), "target": target.clone().requires_grad_()}
    output = run(module, **inputs)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    inputs |= dict(module.named_parameters())
    gradients = torch.autograd.grad((output * weights).sum(), list(inputs.values()))
    return {"output": output.detach()} | dict(zip(inputs, gradients, strict=True))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("norm_first", [False, True])
def test_torchs_transformer_loads_strictly_with_equal_outputs_and_gradients(norm_first, masked):
    theirs = randomised(
        nn.Transformer(16, 4, 2, 3, 24, dropout=0.0, norm_first=norm_first, batch_first=True)
    )
    ours = EncoderDecoder(
        16, 4, **SIZES, mlp_dim=24, dropout=0.0, norm_first=norm_first, final_norm=True
    ).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    source, target = torch.randn(3, 6, 16).double(), torch.randn(3, 5, 16).double()
    visible = padding_mask(LENGTHS, 6) if masked else None
    hidden = None if visible is None else ~visible

    def run_theirs(module, source, target):
        return module(
            source,
            target,
            tgt_mask=~torch.ones(5, 5, dtype=torch.bool).tril(),
            src_key_padding_mask=hidden,
            memory_key_padding_mask=hidden,
        )

    def run_ours(module, source, target):
        return module(source, target, None if visible is None else visible[:, None, None])

    torch.testing.assert_close(
        results(ours, run_ours, source, target), results(theirs, run_theirs, source, target)
    )


@pytest.mark.parametrize("norm_first", [False, True])
def test_ours_loads_strictly_into_torchs(norm_first):
    ours = EncoderDecoder(16, 4, **SIZES, mlp_dim=24, norm_first=norm_first, final_norm=True).eval()
    theirs = nn.Transformer(16, 4, 2, 3, 24, norm_first=norm_first, batch_first=True).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    source, target = torch.randn(3, 6, 16), torch.randn(3, 5, 16)
    causal = ~torch.ones(5, 5, dtype=torch.bool).tril()
    torch.testing.assert_close(ours(source, target), theirs(source, target, tgt_mask=causal))


@pytest.mark.parametrize("norm_first", [False, True])
def test_each_layer_equals_torchs(norm_first):
    mask = padding_mask(LENGTHS, 6)
    x, y = torch.randn(3, 6, 16).double(), torch.randn(3, 5, 16).double()
    options = {"dropout": 0.0, "norm_first": norm_first}

    theirs = randomised(nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, **options))
    ours = EncoderLayer(16, 4, mlp_dim=24, **options).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    torch.testing.assert_close(ours(x, mask[:, None, None]), theirs(x, src_key_padding_mask=~mask))

    theirs = randomised(nn.TransformerDecoderLayer(16, 4, 24, batch_first=True, **options))
    ours = DecoderLayer(16, 4, mlp_dim=24, **options).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    expected = theirs(
        y,
        x,
        tgt_mask=~torch.ones(5, 5, dtype=torch.bool).tril(),
        memory_key_padding_mask=~mask,
    )
    torch.testing.assert_close(ours(y, x, mask[:, None, None]), expected)
