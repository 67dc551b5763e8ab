import pytest
import torch
import torch.nn.functional as F

from zoo.models.vision import wide_resnet
from zoo.models.vision.wide_resnet import WideBlock, WideResNet, wide_resnet16_4


def on_meta(name):
    with torch.device("meta"):
        return getattr(wide_resnet, name)()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("wide_resnet16_4", 2_748_890),
        ("wide_resnet16_8", 10_961_370),
        ("wide_resnet40_4", 8_949_210),
        ("wide_resnet28_10", 36_479_194),
    ],
)
def test_parameters_are_as_published(name, parameters):
    assert sum(p.numel() for p in on_meta(name).parameters()) == parameters


@pytest.mark.parametrize(("depth", "k"), [(16, 4), (16, 8), (40, 4), (28, 10)])
def test_depth_counts_convolutions_with_projections(depth, k):
    # d = 6n + 4: the first convolution, 6n, and the three projections.
    model = on_meta(f"wide_resnet{depth}_{k}")
    assert sum(p.ndim == 4 for p in model.parameters()) == depth
    assert sum("projection" in name for name, _ in model.named_parameters()) == 3


def test_stages_have_the_papers_sizes():
    model, shapes = on_meta("wide_resnet28_10"), {}
    for layer in ("conv1", "layer1", "layer2", "layer3"):
        getattr(model, layer).register_forward_hook(
            lambda _, __, out, layer=layer: shapes.update({layer: tuple(out.shape[1:])})
        )
    assert model(torch.zeros(2, 3, 32, 32, device="meta")).shape == (2, 10)
    assert shapes == {
        "conv1": (16, 32, 32),
        "layer1": (160, 32, 32),
        "layer2": (320, 16, 16),
        "layer3": (640, 8, 8),
    }


def test_block_is_norm_relu_convolution_twice_on_an_untouched_shortcut():
    torch.manual_seed(0)
    block, x = WideBlock(8, 8).eval(), torch.randn(2, 8, 5, 5)
    before = x.clone()
    out = block.conv1(block.bn1(x).relu())
    out = block.conv2(block.bn2(out).relu())
    torch.testing.assert_close(block(x), x + out)
    assert torch.equal(x, before)


def test_block_that_changes_the_shape_projects_its_activated_input():
    block, x = WideBlock(8, 16, stride=2), torch.randn(2, 8, 5, 7)
    torch.nn.init.zeros_(block.conv2.weight)
    expected = F.conv2d(block.bn1(x).relu(), block.projection.weight, stride=2)
    torch.testing.assert_close(block(x), expected)


def test_dropout_is_between_the_convolutions_and_only_in_training():
    torch.manual_seed(0)
    block, x = WideBlock(4, 4, dropout=0.5), torch.randn(64, 4, 8, 8)
    seen = []
    block.conv2.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    block(x)
    assert (seen[0] == 0).float().mean().item() == pytest.approx(0.75, abs=0.02)
    block.eval()
    assert torch.equal(block(x), block(x))
    assert (seen[1] == 0).float().mean().item() == pytest.approx(0.5, abs=0.1)


def test_weights_start_as_in_the_authors_code():
    torch.manual_seed(0)
    model = wide_resnet16_4()
    weight = model.layer2[0].projection.weight
    assert weight.std().item() == pytest.approx((2 / 128) ** 0.5, rel=0.03)
    assert (model.fc.bias == 0).all()


def test_image_of_one_pixel_works_and_channels_and_classes_are_free():
    model = WideResNet(7, depth=10, widen_factor=1, in_channels=2).eval()
    assert model(torch.zeros(2, 2, 1, 1)).shape == (2, 7)
    assert model(torch.zeros(2, 2, 9, 14)).shape == (2, 7)
    with pytest.raises(ValueError, match="at least 1x1 pixels"):
        model(torch.zeros(2, 2, 0, 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1, not 0"),
        ({"in_channels": 0}, "in_channels must be at least 1, not 0"),
        ({"widen_factor": 0}, "widen_factor must be at least 1, not 0"),
        ({"depth": 20}, r"depth must be 6n \+ 4 \(10, 16, 22, ...\), not 20"),
        ({"depth": 4}, r"depth must be 6n \+ 4 \(10, 16, 22, ...\), not 4"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        WideResNet(**arguments)
