import math

import pytest
import torch
import torch.nn.functional as F
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
    vit_s_16,
    vit_ti_16,
)

BUILDERS = [vit_ti_16, vit_s_16, vit_b_16, vit_b_32, vit_l_16, vit_l_32, vit_h_14, vit_cifar]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def count(module):
    return sum(p.numel() for p in module.parameters())


def tiny(num_classes=5, **changes):
    """Nine patches of 4x4 pixels, and a classifier that does not start at zero."""
    sizes = {
        "image_size": 12,
        "patch_size": 4,
        "num_layers": 2,
        "embed_dim": 24,
        "num_heads": 3,
        "mlp_dim": 48,
    }
    model = VisionTransformer(num_classes, **(sizes | changes))
    nn.init.normal_(model.heads.head.weight)
    return model


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (vit_ti_16, 5_717_416),
        (vit_s_16, 22_050_664),
        (vit_b_16, 86_567_656),
        (vit_b_32, 88_224_232),
        (vit_l_16, 304_326_632),
        (vit_l_32, 306_535_400),
        (vit_h_14, 632_045_800),
        (vit_cifar, 2_697_610),
    ],
)
def test_network_has_the_published_number_of_parameters(build, expected):
    with torch.device("meta"):
        assert count(build()) == expected


@pytest.mark.parametrize(
    ("build", "num_layers", "embed_dim", "mlp_dim", "num_heads"),
    [
        (vit_b_16, 12, 768, 3072, 12),
        (vit_b_32, 12, 768, 3072, 12),
        (vit_l_16, 24, 1024, 4096, 16),
        (vit_l_32, 24, 1024, 4096, 16),
        (vit_h_14, 32, 1280, 5120, 16),
    ],
)
def test_sizes_are_those_of_the_papers_table_1(build, num_layers, embed_dim, mlp_dim, num_heads):
    with torch.device("meta"):
        layers = build().encoder.layers
    assert len(layers) == num_layers
    assert layers[0].mlp[0].weight.shape == (mlp_dim, embed_dim)
    assert layers[0].self_attention.num_heads == num_heads


@pytest.mark.parametrize("build", BUILDERS)
def test_channels_classes_and_image_size_are_arguments(build):
    with torch.device("meta"):
        model = build(7, in_channels=2, image_size=448)
        assert model(torch.zeros(2, 2, 448, 448)).shape == (2, 7)


def test_projection_is_one_linear_map_of_every_patch_in_reading_order():
    model = tiny().double()
    x = torch.randn(2, 3, 12, 12).double()
    patches = [
        x[:, :, row : row + 4, column : column + 4].flatten(1)
        for row in (0, 4, 8)
        for column in (0, 4, 8)
    ]
    expected = F.linear(
        torch.stack(patches, dim=1), model.conv_proj.weight.flatten(1), model.conv_proj.bias
    )
    seen = []
    model.encoder.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0]))
    model(x)
    torch.testing.assert_close(seen[0][:, 1:], expected)
    assert not seen[0][:, 0].any()


def test_attention_is_the_softmax_of_scaled_products():
    layer, z = MultiheadAttention(6, 2).double(), torch.randn(2, 5, 6).double()
    q, k, v = F.linear(z, layer.in_proj_weight, layer.in_proj_bias).chunk(3, dim=2)
    heads = []
    for h in (slice(0, 3), slice(3, 6)):
        scores = q[..., h] @ k[..., h].transpose(1, 2) / math.sqrt(3)
        heads.append(scores.softmax(2) @ v[..., h])
    torch.testing.assert_close(layer(z), layer.out_proj(torch.cat(heads, dim=2)))


def test_block_adds_attention_and_mlp_of_normalised_tokens():
    block, z = tiny().encoder.layers[0], torch.randn(2, 10, 24)
    between = z + block.self_attention(F.layer_norm(z, (24,), eps=1e-6))
    expected = between + block.mlp(F.layer_norm(between, (24,), eps=1e-6))
    torch.testing.assert_close(block(z), expected)


def test_without_position_embedding_a_image_is_a_bag_of_patches():
    model = tiny().double()
    x = torch.randn(2, 3, 12, 12).double()
    turned = x.unflatten(3, (3, 4))[:, :, :, [2, 0, 1]].flatten(3)
    assert (model(x) - model(turned)).abs().max() > 1e-3
    nn.init.zeros_(model.encoder.pos_embedding)
    torch.testing.assert_close(model(x), model(turned))


def test_weights_start_as_in_the_authors_code():
    model = vit_cifar()
    fan_in = 3 * 4 * 4
    assert model.conv_proj.weight.std().item() == pytest.approx(fan_in**-0.5, rel=0.03)
    assert model.conv_proj.weight.abs().max().item() <= 2 * fan_in**-0.5 / 0.879
    assert model.encoder.pos_embedding.std().item() == pytest.approx(0.02, rel=0.05)
    block = model.encoder.layers[4]
    # Each of q, k and v is a matrix of its own, which all three together would not be.
    bound = math.sqrt(6 / (192 + 192))
    for weight in (
        *block.self_attention.in_proj_weight.chunk(3),
        block.self_attention.out_proj.weight,
    ):
        assert 0.99 * bound < weight.abs().max() <= bound
    assert 0.99 * math.sqrt(6 / 576) < block.mlp[0].weight.abs().max() <= math.sqrt(6 / 576)
    assert block.mlp[3].bias.std().item() == pytest.approx(1e-6, rel=0.2)
    zeros = (
        model.class_token,
        model.conv_proj.bias,
        model.heads.head.weight,
        model.heads.head.bias,
        block.self_attention.in_proj_bias,
        block.self_attention.out_proj.bias,
    )
    assert not any(parameter.any() for parameter in zeros)


def test_untrained_network_finds_every_class_equally_likely():
    assert not vit_cifar(7)(torch.rand(2, 3, 32, 32)).any()


def test_small_network_learns_eight_images_by_heart_from_its_zero_start():
    model = vit_cifar(4, image_size=8, num_layers=2, embed_dim=32, num_heads=2, mlp_dim=64)
    x, targets = torch.randn(8, 3, 8, 8), torch.arange(8) % 4
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(100):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), targets)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.03


def test_dropout_follows_every_dense_layer_but_q_k_v_and_the_position_embedding():
    model = tiny(dropout=0.3)
    names = [name for name, m in model.named_modules() if isinstance(m, nn.Dropout)]
    assert names == [
        "encoder.dropout",
        *(
            f"encoder.layers.encoder_layer_{i}.{part}"
            for i in (0, 1)
            for part in ("dropout", "mlp.2", "mlp.4")
        ),
    ]
    assert all(model.get_submodule(name).p == 0.3 for name in names)


def test_attention_dropout_acts_in_training_only():
    model, x = tiny(attention_dropout=0.5), torch.randn(2, 3, 12, 12)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))
    for block in model.encoder.layers:
        block.self_attention.dropout = 0.0
    torch.testing.assert_close(model(x), model.train()(x))


@pytest.mark.parametrize("size", [(16, 16), (8, 8), (12, 16)])
def test_image_of_another_size_is_refused_with_both_sizes(size):
    message = f"x must be 12x12 pixels, the image_size .* not {size[0]}x{size[1]}"
    with pytest.raises(ValueError, match=message):
        tiny()(torch.zeros(2, 3, *size))


def test_smallest_image_is_one_patch():
    model = tiny(image_size=4)
    assert model(torch.rand(2, 3, 4, 4)).shape == (2, 5)
    with pytest.raises(
        ValueError, match="image_size must be a multiple of the patch_size 4, not 3"
    ):
        tiny(image_size=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1, not 0"),
        ({"in_channels": 0}, "in_channels must be at least 1, not 0"),
        ({"patch_size": 0}, "patch_size must be at least 1, not 0"),
        ({"num_layers": 0}, "num_layers must be at least 1, not 0"),
        ({"embed_dim": 0}, "embed_dim must be at least 1, not 0"),
        ({"mlp_dim": 0}, "mlp_dim must be at least 1, not 0"),
        ({"image_size": 30}, "image_size must be a multiple of the patch_size 4, not 30"),
        ({"num_heads": 5}, "num_heads must divide embed_dim 192, not be 5"),
        ({"num_heads": 0}, "num_heads must divide embed_dim 192, not be 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
        ({"attention_dropout": -0.5}, r"attention_dropout must be in \[0, 1\), not -0.5"),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        vit_cifar(**arguments)
