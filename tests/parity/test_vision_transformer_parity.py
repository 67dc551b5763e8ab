import pytest
import torch
from torch import nn

from zoo.layers.attention import MultiheadAttention
from zoo.models.vision.vision_transformer import (
    VisionTransformer,
    vit_b_16,
    vit_b_32,
    vit_cifar,
    vit_h_14,
    vit_l_16,
    vit_l_32,
)

pytestmark = pytest.mark.parity


def scramble(model):
    """Weights and biases that nobody would start from, none of them zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model.double()


def gradients(model, x, *, run=None):
    x = x.clone().requires_grad_()
    output = (run or model)(x)
    weights = torch.linspace(-1, 1, output.numel(), dtype=x.dtype).view_as(output)
    (output * weights).sum().backward()
    return output, x.grad, {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize(("embed_dim", "num_heads"), [(6, 1), (12, 3), (8, 8)])
def test_torchs_attention_loads_strictly_with_equal_outputs_and_gradients(
    embed_dim, num_heads, need_weights
):
    torch.manual_seed(0)
    theirs = scramble(nn.MultiheadAttention(embed_dim, num_heads, batch_first=True))
    ours = MultiheadAttention(embed_dim, num_heads).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(3, 7, embed_dim, dtype=torch.double)
    expected = gradients(theirs, x, run=lambda x: theirs(x, x, x, need_weights=need_weights)[0])
    torch.testing.assert_close(gradients(ours, x), expected)


def test_attention_of_ours_loads_strictly_into_torchs():
    torch.manual_seed(0)
    ours = scramble(MultiheadAttention(12, 3)).eval()
    theirs = nn.MultiheadAttention(12, 3, batch_first=True).double().eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = torch.randn(3, 7, 12, dtype=torch.double)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x, x, x)[0])


@pytest.mark.parametrize("build", [vit_b_16, vit_b_32, vit_l_16, vit_l_32, vit_h_14])
@pytest.mark.parametrize("image_size", [224, 448])
def test_names_and_shapes_are_torchvisions(build, image_size):
    models = pytest.importorskip("torchvision.models", reason="needs torchvision")
    with torch.device("meta"):
        ours = build(12, image_size=image_size).state_dict()
        theirs = getattr(models, build.__name__)(num_classes=12, image_size=image_size)
    theirs = theirs.state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
    assert "encoder.layers.encoder_layer_0.self_attention.in_proj_weight" in ours


@pytest.mark.parametrize("training", [False, True])
def test_small_network_equals_torchvisions_in_outputs_and_gradients(training):
    models = pytest.importorskip("torchvision.models", reason="needs torchvision")
    torch.manual_seed(0)
    theirs = scramble(models.VisionTransformer(24, 8, 3, 4, 16, 40, num_classes=5))
    ours = VisionTransformer(
        5, image_size=24, patch_size=8, num_layers=3, embed_dim=16, num_heads=4, mlp_dim=40
    ).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    ours.train(training)
    theirs.train(training)
    x = torch.randn(3, 3, 24, 24, dtype=torch.double)
    torch.testing.assert_close(gradients(ours, x), gradients(theirs, x))


def test_cifar_network_equals_torchvisions_of_its_sizes_and_loads_into_it():
    models = pytest.importorskip("torchvision.models", reason="needs torchvision")
    torch.manual_seed(0)
    theirs = models.VisionTransformer(32, 4, 9, 3, 192, 384, num_classes=10).double()
    ours = scramble(vit_cifar())
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = torch.randn(2, 3, 32, 32, dtype=torch.double)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
