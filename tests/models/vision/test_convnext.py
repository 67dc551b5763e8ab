import pytest
import torch

from zoo.models.vision import convnext
from zoo.models.vision.convnext import ConvNeXt, ConvNeXtBlock, LayerNorm2d


def on_meta(name):
    with torch.device("meta"):
        return getattr(convnext, name)()


def tiny(**arguments):
    return ConvNeXt((4, 8, 12, 16), (1, 1, 2, 1), num_classes=5, **arguments)


@pytest.mark.parametrize(
    ("name", "parameters", "rate"),
    [
        ("convnext_tiny", 28_589_128, 0.1),
        ("convnext_small", 50_223_688, 0.4),
        ("convnext_base", 88_591_464, 0.5),
        ("convnext_large", 197_767_336, 0.5),
    ],
)
def test_parameters_and_stochastic_depth_are_as_published(name, parameters, rate):
    model = on_meta(name)
    assert sum(p.numel() for p in model.parameters()) == parameters
    rates = [m.drop_rate for m in model.modules() if isinstance(m, ConvNeXtBlock)]
    steps = [rate * i / (len(rates) - 1) for i in range(len(rates))]
    assert rates == pytest.approx(steps)


def test_stages_have_the_papers_sizes():
    model, shapes = on_meta("convnext_tiny"), []
    for layer in model.features:
        layer.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape[1:])))
    model(torch.zeros(2, 3, 224, 224, device="meta"))
    stages = [(96, 56, 56), (192, 28, 28), (384, 14, 14), (768, 7, 7)]
    assert shapes == [stage for stage in stages for _ in range(2)]


def test_layer_norm_normalises_the_channels_of_each_pixel():
    torch.manual_seed(0)
    x = 3 + 2 * torch.randn(2, 64, 3, 5)
    out = LayerNorm2d(64)(x)
    torch.testing.assert_close(out.mean(1), torch.zeros(2, 3, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.var(1, correction=0), torch.ones(2, 3, 5))


def test_block_starts_as_the_identity_up_to_the_layer_scale():
    torch.manual_seed(0)
    x = torch.randn(2, 8, 5, 5)
    block = ConvNeXtBlock(8, layer_scale=0.25, drop_rate=0.0)
    torch.testing.assert_close(block(x), x + 0.25 * block.block(x))
    assert torch.equal(ConvNeXtBlock(8, layer_scale=0.0, drop_rate=0.0)(x), x)


def test_stochastic_depth_leaves_whole_samples_out_and_scales_the_others_up():
    torch.manual_seed(0)
    block = ConvNeXtBlock(4, layer_scale=1.0, drop_rate=0.25)
    x = torch.randn(400, 4, 2, 2)
    residual = block.block(x)
    out = block(x)
    left_out = (out == x).flatten(1).all(1)
    assert left_out.float().mean().item() == pytest.approx(0.25, abs=0.05)
    expected = x + residual / 0.75
    torch.testing.assert_close(out[~left_out], expected[~left_out])
    block.eval()
    torch.testing.assert_close(block(x), x + residual)


def test_stochastic_depth_is_seeded_by_torch():
    model = tiny(stochastic_depth=0.9, layer_scale=1.0)
    x = torch.rand(8, 3, 32, 32)
    outputs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outputs.append(model(x))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_weights_start_small_and_biases_at_zero():
    torch.manual_seed(0)
    model = tiny()
    block = model.features[5][0]
    assert block.block[3].weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert (block.layer_scale == 1e-6).all()
    assert all((m.bias == 0).all() for m in model.modules() if hasattr(m, "bias"))


def test_smallest_image_works_and_one_pixel_less_is_refused():
    model = tiny(in_channels=2)
    assert model(torch.rand(2, 2, 32, 45)).shape == (2, 5)
    with pytest.raises(ValueError, match="at least 32x32 pixels"):
        model(torch.rand(2, 2, 31, 32))
    with pytest.raises(RuntimeError):
        model.features(torch.rand(2, 2, 31, 31))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1, not 0"),
        ({"in_channels": 0}, "in_channels must be at least 1, not 0"),
        ({"stochastic_depth": 1.0}, r"stochastic_depth must be in \[0, 1\), not 1.0"),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        ConvNeXt((4, 8, 12, 16), (1, 1, 1, 1), **arguments)
