import pytest
import torch
import torch.nn.functional as F

from zoo.models.vision import preact_resnet
from zoo.models.vision.preact_resnet import PreActBlock, PreActBottleneck, PreActResNet

BLOCKS = pytest.mark.parametrize("block", [PreActBlock, PreActBottleneck])


def on_meta(name):
    with torch.device("meta"):
        return getattr(preact_resnet, name)()


@pytest.mark.parametrize(
    ("depth", "parameters", "weights", "published"),
    [
        (110, 1_727_962, 1_719_856, 1.7e6),
        (164, 1_703_258, 1_679_024, 1.7e6),
        (1001, 10_327_706, 10_178_480, 10.2e6),
    ],
)
def test_parameters_and_depth_are_as_published(depth, parameters, weights, published):
    model = on_meta(f"preact_resnet{depth}")
    matrices = [p.numel() for name, p in model.named_parameters() if p.ndim > 1]
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert sum(matrices) == weights == pytest.approx(published, abs=0.05e6)
    projections = sum("projection" in name for name, _ in model.named_parameters())
    assert len(matrices) - projections == depth
    assert projections == (0 if depth == 110 else 3)


@pytest.mark.parametrize(("name", "expansion"), [("preact_resnet110", 1), ("preact_resnet164", 4)])
def test_stages_have_the_papers_sizes(name, expansion):
    model, shapes = on_meta(name), {}
    for layer in ("conv1", "layer1", "layer2", "layer3"):
        getattr(model, layer).register_forward_hook(
            lambda _, __, out, layer=layer: shapes.update({layer: tuple(out.shape[1:])})
        )
    assert model(torch.zeros(2, 3, 32, 32, device="meta")).shape == (2, 10)
    assert shapes == {
        "conv1": (16, 32, 32),
        "layer1": (16 * expansion, 32, 32),
        "layer2": (32 * expansion, 16, 16),
        "layer3": (64 * expansion, 8, 8),
    }


@BLOCKS
def test_block_whose_last_convolution_is_zero_is_exactly_the_identity(block):
    layer = block(8 * block.expansion, 8)
    torch.nn.init.zeros_((layer.conv2 if block is PreActBlock else layer.conv3).weight)
    x = torch.randn(2, 8 * block.expansion, 5, 5)
    assert torch.equal(layer(x), x)


def test_first_block_sends_the_activated_input_down_the_shortcut_and_later_ones_the_input():
    x = torch.randn(2, 8, 5, 5)
    for is_first in (False, True):
        layer = PreActBlock(8, 8, is_first=is_first)
        torch.nn.init.zeros_(layer.conv2.weight)
        expected = layer.bn1(x).relu() if is_first else x
        assert torch.equal(layer(x), expected)
    model = PreActResNet(PreActBlock, 2)
    blocks = [block for layer in (model.layer1, model.layer2, model.layer3) for block in layer]
    assert [block.is_first for block in blocks] == [True] + [False] * 5


def test_block_that_changes_the_shape_slices_pixels_and_adds_channels_of_zeros():
    layer = PreActBlock(4, 8, stride=2)
    torch.nn.init.zeros_(layer.conv2.weight)
    x = torch.randn(2, 4, 5, 7)
    expected = torch.zeros(2, 8, 3, 4)
    expected[:, 2:6] = x[:, :, ::2, ::2]
    assert torch.equal(layer(x), expected)


def test_bottleneck_that_changes_the_shape_projects_its_activated_input():
    layer = PreActBottleneck(4, 4, stride=2)
    torch.nn.init.zeros_(layer.conv3.weight)
    x = torch.randn(2, 4, 5, 7)
    expected = F.conv2d(layer.bn1(x).relu(), layer.projection.weight, stride=2)
    torch.testing.assert_close(layer(x), expected)


@BLOCKS
def test_block_does_not_change_its_input(block):
    x = torch.randn(2, 8, 5, 5)
    before = x.clone()
    block(8, 8, stride=2)(x)
    assert torch.equal(x, before)


@BLOCKS
def test_untrained_network_is_undecided_when_batch_norm_normalises(block):
    torch.manual_seed(0)
    model = PreActResNet(block, 3)
    loss = F.cross_entropy(model(torch.rand(16, 3, 16, 16)), torch.randint(10, (16,)))
    assert loss.item() == pytest.approx(2.3, abs=0.7)


@BLOCKS
def test_image_of_one_pixel_works_and_channels_and_classes_are_free(block):
    model = PreActResNet(block, 1, num_classes=7, in_channels=2).eval()
    assert model(torch.zeros(2, 2, 1, 1)).shape == (2, 7)
    assert model(torch.zeros(2, 2, 9, 14)).shape == (2, 7)
    with pytest.raises(ValueError, match="at least 1x1 pixels"):
        model(torch.zeros(2, 2, 0, 1))


@pytest.mark.parametrize("argument", ["blocks", "num_classes", "in_channels"])
def test_nonsense_is_refused_with_the_value(argument):
    arguments = {"blocks": 1} | {argument: 0}
    with pytest.raises(ValueError, match=f"{argument} must be at least 1, not 0"):
        PreActResNet(PreActBlock, **arguments)
