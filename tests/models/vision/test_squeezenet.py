import math

import pytest
import torch
from torch import nn

from zoo.models.vision.squeezenet import Fire, squeezenet1_0, squeezenet1_1


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def count(module):
    return sum(p.numel() for p in module.parameters())


def trace(model, x):
    """Maps and size after every layer that changes them, and the size of the maps of classes."""
    found = []
    for layer in model.eval().features:
        x = layer(x)
        if not isinstance(layer, nn.ReLU):
            found.append((x.size(1), x.size(2)))
    return found


@pytest.mark.parametrize(
    ("build", "expected"), [(squeezenet1_0, 1_248_424), (squeezenet1_1, 1_235_496)]
)
def test_network_has_the_published_number_of_parameters(build, expected):
    with torch.device("meta"):
        assert count(build()) == expected


def test_layers_have_the_parameters_of_table_1():
    with torch.device("meta"):
        model = squeezenet1_0()
    counts = [count(layer) for layer in model.features if count(layer)]
    assert counts == [
        14_208,
        11_920,
        12_432,
        45_344,
        49_440,
        104_880,
        111_024,
        188_992,
        197_184,
    ]
    assert count(model.classifier) == 513_000


def test_layers_have_the_sizes_of_table_1():
    with torch.device("meta"):
        found = trace(squeezenet1_0(), torch.zeros(1, 3, 227, 227))
    assert found == [
        (96, 111),
        (96, 55),
        (128, 55),
        (128, 55),
        (256, 55),
        (256, 27),
        (256, 27),
        (384, 27),
        (384, 27),
        (512, 27),
        (512, 13),
        (512, 13),
    ]


def test_later_version_pools_earlier():
    with torch.device("meta"):
        sizes = [size for _, size in trace(squeezenet1_1(), torch.zeros(1, 3, 227, 227))]
    assert sizes == [113, 56, 56, 56, 28, 28, 28, 14, 14, 14, 14, 14]


def test_fire_is_two_kernels_side_by_side_on_squeezed_maps():
    fire, x = Fire(6, 3, expand_channels=8), torch.randn(2, 6, 5, 5)
    squeezed = torch.relu(fire.squeeze(x))
    ones, threes = torch.relu(fire.expand1x1(squeezed)), torch.relu(fire.expand3x3(squeezed))
    assert ones.shape == threes.shape == (2, 4, 5, 5)
    torch.testing.assert_close(fire(x), torch.cat([ones, threes], dim=1))


@pytest.mark.parametrize(("build", "smallest"), [(squeezenet1_0, 21), (squeezenet1_1, 17)])
def test_smallest_image_works_and_one_pixel_less_leaves_nothing(build, smallest):
    with torch.device("meta"):
        model = build().eval()
        assert model(torch.zeros(1, 3, smallest, smallest)).shape == (1, 1000)
        less = torch.zeros(1, 3, smallest - 1, smallest - 1)
    with pytest.raises(ValueError, match=f"at least {smallest}x{smallest} pixels"):
        model(less)
    with pytest.raises(RuntimeError, match="too small"):
        model.features(less)


def test_any_channels_classes_and_shape_of_image_pass():
    assert squeezenet1_1(7, in_channels=2)(torch.rand(2, 2, 40, 33)).shape == (2, 7)


def test_each_class_has_its_map_and_the_logit_is_its_average():
    model = squeezenet1_1(5).eval()
    x = torch.rand(2, 3, 64, 64)
    maps = torch.relu(model.classifier[1](model.features(x)))
    torch.testing.assert_close(model(x), maps.mean((2, 3)))
    assert not any(isinstance(m, nn.Linear) for m in model.modules())


def test_weights_start_as_he_says_and_the_last_layers_small():
    model = squeezenet1_0()
    fire = model.features[12]
    bound = math.sqrt(6 / (64 * 9))
    assert 0.99 * bound < fire.expand3x3.weight.abs().max() <= bound
    assert model.classifier[1].weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not any(m.bias.any() for m in model.modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize("build", [squeezenet1_0, squeezenet1_1])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1, not 0"),
        ({"in_channels": 0}, "in_channels must be at least 1, not 0"),
        ({"dropout": -0.1}, r"dropout must be in \[0, 1\), not -0.1"),
    ],
)
def test_nonsense_is_refused_with_the_value(build, arguments, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        build(**arguments)
