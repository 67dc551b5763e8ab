import math

import pytest
import torch
from torch import nn

from zoo.models.vision.densenet import (
    DenseLayer,
    densenet121,
    densenet161,
    densenet169,
    densenet201,
    densenet_cifar,
    transition,
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def count(module):
    return sum(p.numel() for p in module.parameters())


def shapes(model, x):
    """Output shape of each part of `features`, without the batch."""
    found = {}
    for name, part in model.features.named_children():
        part.register_forward_hook(
            lambda _, inputs, output, name=name: found.update({name: tuple(output.shape[1:])})
        )
    model.eval()(x)
    return found


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (densenet121, 7_978_856),
        (densenet161, 28_681_000),
        (densenet169, 14_149_480),
        (densenet201, 20_013_928),
        (densenet_cifar, 769_162),
    ],
)
def test_network_has_the_published_number_of_parameters(build, expected):
    with torch.device("meta"):
        assert count(build()) == expected


@pytest.mark.parametrize(
    ("depth", "growth_rate", "millions"), [(100, 12, 0.8), (250, 24, 15.3), (190, 40, 25.6)]
)
def test_cifar_networks_have_the_sizes_of_the_papers_table(depth, growth_rate, millions):
    with torch.device("meta"):
        model = densenet_cifar(depth=depth, growth_rate=growth_rate)
    assert round(count(model) / 1e6, 1) == millions


@pytest.mark.parametrize(
    ("build", "depth"),
    [(densenet121, 121), (densenet161, 161), (densenet169, 169), (densenet201, 201)],
)
def test_number_in_the_name_counts_the_layers_with_weights(build, depth):
    with torch.device("meta"):
        layers = [m for m in build().modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == depth


def test_cifar_network_of_depth_100_has_100_layers_with_weights():
    with torch.device("meta"):
        layers = [m for m in densenet_cifar().modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == 100


def test_stages_of_densenet121_have_the_papers_sizes():
    with torch.device("meta"):
        found = shapes(densenet121(), torch.zeros(1, 3, 224, 224))
    assert found == {
        "conv0": (64, 112, 112),
        "norm0": (64, 112, 112),
        "relu0": (64, 112, 112),
        "pool0": (64, 56, 56),
        "denseblock1": (256, 56, 56),
        "transition1": (128, 28, 28),
        "denseblock2": (512, 28, 28),
        "transition2": (256, 14, 14),
        "denseblock3": (1024, 14, 14),
        "transition3": (512, 7, 7),
        "denseblock4": (1024, 7, 7),
        "norm5": (1024, 7, 7),
    }


def test_stages_of_the_cifar_network_have_the_papers_sizes():
    with torch.device("meta"):
        found = shapes(densenet_cifar(), torch.zeros(1, 3, 32, 32))
    assert found == {
        "conv0": (24, 32, 32),
        "denseblock1": (216, 32, 32),
        "transition1": (108, 16, 16),
        "denseblock2": (300, 16, 16),
        "transition2": (150, 8, 8),
        "denseblock3": (342, 8, 8),
        "norm5": (342, 8, 8),
    }


def test_each_layer_passes_on_all_it_has_read_and_adds_its_own_behind():
    layer, x = DenseLayer(5, 3), torch.randn(2, 5, 4, 4)
    before = x.clone()
    output = layer(x)
    assert output.shape == (2, 8, 4, 4)
    assert torch.equal(output[:, :5], before)
    assert torch.equal(x, before)


def test_first_maps_reach_the_end_of_their_block_unchanged():
    block = densenet_cifar(depth=22, growth_rate=4).features.denseblock1
    x = torch.randn(2, 8, 5, 5)
    assert torch.equal(block(x)[:, :8], x)


def test_dropout_silences_new_maps_alone_and_in_training_alone():
    layer, x = DenseLayer(5, 3, dropout=0.5), torch.randn(8, 5, 6, 6)
    output = layer(x)
    assert torch.equal(output[:, :5], x)
    assert (output[:, 5:] == 0).float().mean().item() == pytest.approx(0.5, abs=0.1)
    assert (layer.eval()(x) != 0).all()


def test_dropout_follows_every_convolution_but_the_first():
    model = densenet_cifar(depth=10, growth_rate=4, dropout=0.2)
    assert not any(isinstance(m, nn.Dropout) for m in model.features.denseblock1.modules())
    assert model.features.denseblock1.denselayer1.dropout == 0.2
    assert list(dict(model.features.transition1.named_children())) == [
        "norm",
        "relu",
        "conv",
        "dropout",
        "pool",
    ]
    assert "dropout" not in dict(transition(4, 2, dropout=0.0).named_children())


@pytest.mark.parametrize(("build", "smallest"), [(densenet121, 29), (densenet_cifar, 4)])
def test_smallest_image_works_and_one_pixel_less_leaves_nothing(build, smallest):
    with torch.device("meta"):
        model = build().eval()
        assert model(torch.zeros(1, 3, smallest, smallest)).ndim == 2
        less = torch.zeros(1, 3, smallest - 1, smallest - 1)
    with pytest.raises(ValueError, match=f"at least {smallest}x{smallest} pixels"):
        model(less)
    with pytest.raises(RuntimeError, match="too small"):
        model.features(less)


def test_any_channels_classes_and_shape_of_image_pass():
    model = densenet_cifar(7, in_channels=2, depth=10, growth_rate=4)
    assert model(torch.rand(2, 2, 20, 13)).shape == (2, 7)


def test_convolutions_start_as_he_says_and_the_classifier_without_bias():
    model = densenet_cifar()
    weights = model.features.denseblock3.denselayer16.conv1.weight
    assert weights.std().item() == pytest.approx(math.sqrt(2 / weights.size(1)), rel=0.05)
    assert not model.classifier.bias.any()
    assert all(m.bias is None for m in model.modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize(
    ("build", "arguments", "message"),
    [
        (densenet121, {"num_classes": 0}, "num_classes must be at least 1, not 0"),
        (densenet121, {"in_channels": 0}, "in_channels must be at least 1, not 0"),
        (densenet121, {"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
        (densenet_cifar, {"in_channels": 0}, "in_channels must be at least 1, not 0"),
        (densenet_cifar, {"depth": 101}, r"depth must be 6 n \+ 4 .*, not 101"),
        (densenet_cifar, {"growth_rate": 0}, "growth_rate must be at least 1, not 0"),
        (densenet_cifar, {"compression": 0.0}, r"compression must be in \(0, 1\], not 0.0"),
    ],
)
def test_nonsense_is_refused_with_the_value(build, arguments, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        build(**arguments)
