import math

import pytest
import torch
from torch import nn

from zoo.models.vision.mobilenet_v2 import (
    InvertedResidual,
    mobilenet_v2,
    mobilenet_v2_cifar,
    round_width,
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def count(module):
    return sum(p.numel() for p in module.parameters())


def multiply_adds(model, size):
    total = 0

    def add(layer, inputs, output):
        nonlocal total
        total += output.numel() * math.prod(layer.weight.shape[1:])

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(add)
    model.eval()(torch.zeros(1, 3, size, size))
    return total


def stages(model, size):
    """Maps and size after the stem, after each stage of bottlenecks and after the last layer."""
    x, found = torch.zeros(1, 3, size, size), []
    ends = [0, 1, 3, 6, 10, 13, 16, 17, 18]
    for i, layer in enumerate(model.eval().features):
        x = layer(x)
        if i in ends:
            found.append((x.size(1), x.size(2)))
    return found


@pytest.mark.parametrize(
    ("build", "size", "parameters", "operations"),
    [
        (mobilenet_v2, 224, 3_504_872, 300_774_272),
        (mobilenet_v2_cifar, 32, 2_236_682, 87_976_448),
    ],
)
def test_network_has_the_published_parameters_and_multiply_adds(
    build, size, parameters, operations
):
    with torch.device("meta"):
        model = build()
        assert count(model) == parameters
        assert multiply_adds(model, size) == operations


def test_stages_have_the_sizes_of_table_2():
    with torch.device("meta"):
        found = stages(mobilenet_v2(), 224)
    assert found == [
        (32, 112),
        (16, 112),
        (24, 56),
        (32, 28),
        (64, 14),
        (96, 14),
        (160, 7),
        (320, 7),
        (1280, 7),
    ]


def test_small_images_end_at_a_size_of_four():
    with torch.device("meta"):
        sizes = [size for _, size in stages(mobilenet_v2_cifar(), 32)]
    assert sizes == [32, 32, 32, 16, 8, 8, 4, 4, 4]


def test_shortcuts_join_all_blocks_of_a_stage_but_its_first():
    with torch.device("meta"):
        blocks = [m for m in mobilenet_v2().modules() if isinstance(m, InvertedResidual)]
    in_stages = [(0,), (0, 1), (0, 1, 2), (0, 1, 2, 3), (0, 1, 2), (0, 1, 2), (0,)]
    assert [b.has_shortcut for b in blocks] == [i > 0 for stage in in_stages for i in stage]


def test_bottleneck_is_linear_at_its_thin_end():
    block = InvertedResidual(4, 4, stride=1, expansion=6)
    assert isinstance(block.conv[-2], nn.Conv2d)
    assert isinstance(block.conv[-1], nn.BatchNorm2d)
    assert sum(isinstance(m, nn.ReLU6) for m in block.modules()) == 2
    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(block(x) - x, block.conv(x))


def test_depthwise_kernel_sees_one_map():
    block = InvertedResidual(4, 5, stride=2, expansion=6)
    depthwise = block.conv[1][0]
    assert depthwise.weight.shape == (24, 1, 3, 3)
    assert block(torch.randn(2, 4, 7, 6)).shape == (2, 5, 4, 3)


@pytest.mark.parametrize(
    ("width", "rounded"), [(32, 32), (11.2, 16), (22.4, 24), (12, 16), (44.8, 48), (3, 8)]
)
def test_widths_are_rounded_to_eights_and_lose_no_more_than_a_tenth(width, rounded):
    assert round_width(width) == rounded


@pytest.mark.parametrize(("width_mult", "last"), [(0.35, 1280), (1.0, 1280), (1.4, 1792)])
def test_last_convolution_gets_wider_but_never_narrower(width_mult, last):
    with torch.device("meta"):
        assert mobilenet_v2(width_mult=width_mult).classifier[1].in_features == last


def test_image_of_one_pixel_passes_and_an_empty_one_is_refused():
    model = mobilenet_v2_cifar(width_mult=0.25).eval()
    assert model(torch.rand(1, 3, 1, 1)).shape == (1, 10)
    with pytest.raises(ValueError, match="at least 1x1 pixels"):
        model(torch.rand(1, 3, 1, 0))


def test_any_channels_classes_and_shape_of_image_pass():
    model = mobilenet_v2_cifar(7, in_channels=2, width_mult=0.25)
    assert model(torch.rand(2, 2, 20, 13)).shape == (2, 7)


def test_both_networks_have_the_same_parameters_but_for_the_classifier():
    with torch.device("meta"):
        large, small = mobilenet_v2(10), mobilenet_v2_cifar()
    assert {k: v.shape for k, v in large.state_dict().items()} == {
        k: v.shape for k, v in small.state_dict().items()
    }


def test_weights_start_as_torchvisions():
    model = mobilenet_v2_cifar()
    expand = model.features[16].conv[0][0].weight
    assert expand.std().item() == pytest.approx(math.sqrt(2 / expand.size(0)), rel=0.05)
    assert model.classifier[1].weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not model.classifier[1].bias.any()
    assert all(m.bias is None for m in model.modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize("build", [mobilenet_v2, mobilenet_v2_cifar])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1, not 0"),
        ({"in_channels": 0}, "in_channels must be at least 1, not 0"),
        ({"width_mult": 0.0}, "width_mult must be above 0, not 0.0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
    ],
)
def test_nonsense_is_refused_with_the_value(build, arguments, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        build(**arguments)
