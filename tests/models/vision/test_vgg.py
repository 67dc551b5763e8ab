import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zoo.models.vision import vgg
from zoo.models.vision.vgg import VGG, VGGSmall, vgg11, vgg11_cifar

PARAMETERS = {
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
    "vgg11_cifar": 9_231_114,
    "vgg13_cifar": 9_416_010,
    "vgg16_cifar": 14_728_266,
    "vgg19_cifar": 20_040_522,
}


def on_meta(build, *args, **arguments):
    with torch.device("meta"):
        return build(*args, **arguments)


@pytest.fixture(scope="module")
def large():
    torch.manual_seed(0)
    return vgg11(10).eval()


@pytest.mark.parametrize(("name", "expected"), PARAMETERS.items())
def test_builder_has_the_published_number_of_parameters(name, expected):
    model = on_meta(getattr(vgg, name))
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize(
    ("name", "layers"), [(f"vgg{n}{s}", n) for n in (11, 13, 16, 19) for s in ("", "_bn")]
)
def test_name_counts_the_layers_with_weights(name, layers):
    model = on_meta(getattr(vgg, name))
    assert sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in model.modules()) == layers
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in model.modules()) == (
        layers - 3 if name.endswith("_bn") else 0
    )


@pytest.mark.parametrize("name", ["vgg11", "vgg13", "vgg16", "vgg19"])
def test_every_convolution_is_3x3_and_keeps_the_size(name):
    for layer in on_meta(getattr(vgg, name)).features:
        if isinstance(layer, nn.Conv2d):
            assert (layer.kernel_size, layer.stride, layer.padding) == ((3, 3), (1, 1), (1, 1))


@pytest.mark.parametrize("name", ["vgg11", "vgg19_bn"])
def test_blocks_end_in_the_papers_sizes(name):
    model, x = on_meta(getattr(vgg, name)).eval(), torch.zeros(1, 3, 224, 224, device="meta")
    found = []
    for layer in model.features:
        x = layer(x)
        if isinstance(layer, nn.MaxPool2d):
            found.append((x.size(1), x.size(2)))
    assert found == [(64, 112), (128, 56), (256, 28), (512, 14), (512, 7)]


def test_averaging_changes_nothing_at_the_papers_size():
    x = torch.randn(1, 2, 7, 7)
    assert torch.equal(on_meta(vgg11).avgpool(x), x)


@pytest.mark.parametrize("name", ["vgg11", "vgg11_cifar"])
def test_smallest_image_works_and_one_pixel_less_leaves_nothing(name):
    model = on_meta(getattr(vgg, name), 7)
    assert model(torch.zeros(2, 3, 32, 32, device="meta")).shape == (2, 7)
    with pytest.raises(RuntimeError):
        model.features(torch.zeros(2, 3, 31, 31, device="meta"))
    with pytest.raises(ValueError, match="x must be at least 32x32 pixels for this network"):
        model(torch.zeros(2, 3, 64, 31, device="meta"))


@pytest.mark.parametrize("name", ["vgg16", "vgg13_bn", "vgg19_cifar"])
def test_any_channels_classes_and_size_will_do(name):
    model = on_meta(getattr(vgg, name), 7, in_channels=4)
    assert model(torch.zeros(2, 4, 300, 65, device="meta")).shape == (2, 7)


def test_small_network_averages_what_larger_images_leave():
    torch.manual_seed(0)
    model, x = vgg11_cifar().eval(), torch.randn(2, 3, 64, 96)
    maps = model.features(x)
    assert maps.shape == (2, 512, 2, 3)
    expected = sum(model.classifier(maps[:, :, i, j]) for i in range(2) for j in range(3)) / 6
    torch.testing.assert_close(model(x), expected)


def test_weights_start_by_hes_procedure_and_the_papers_for_linear_layers(large):
    for layer in large.modules():
        if isinstance(layer, nn.Conv2d):
            expected = math.sqrt(2 / (9 * layer.out_channels))
            assert layer.weight.std().item() == pytest.approx(expected, rel=0.1)
        elif isinstance(layer, nn.Linear):
            sample = layer.weight[:, :1000]
            assert sample.std().item() == pytest.approx(0.01, rel=0.05)
            assert abs(sample.mean().item()) < 1e-3
        else:
            continue
        assert not layer.bias.any()


def test_untrained_network_is_about_undecided_and_sees_the_image(large):
    torch.manual_seed(0)
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        logits = large(x)
        assert F.cross_entropy(logits, torch.arange(4)).item() == pytest.approx(
            math.log(10), abs=0.7
        )
        assert (logits[0] - logits[1]).abs().max() > 1e-3
        torch.testing.assert_close(large(x[2:3]), logits[2:3])


def test_every_parameter_gets_a_finite_gradient(large):
    torch.manual_seed(0)
    loss = F.cross_entropy(large(torch.randn(2, 3, 32, 32)), torch.tensor([3, 4]))
    # The weights of the wide layers take long: their biases stand for them.
    parameters = {n: p for n, p in large.named_parameters() if p.numel() < 5_000_000}
    for name, gradient in zip(
        parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True
    ):
        assert gradient.isfinite().all(), name
        assert gradient.any(), name


@pytest.mark.parametrize(
    ("build", "arguments", "message"),
    [
        (VGG, {"num_classes": 0}, "num_classes must be at least 1, not 0"),
        (VGG, {"in_channels": 0}, "in_channels must be at least 1, not 0"),
        (VGG, {"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
        (VGG, {"blocks": (1, 1, 1)}, r"blocks must be 5 numbers of layers, not \(1, 1, 1\)"),
        (VGGSmall, {"num_classes": 0}, "num_classes must be at least 1, not 0"),
        (VGGSmall, {"in_channels": -1}, "in_channels must be at least 1, not -1"),
        (VGGSmall, {"blocks": (1, 1, 1, 1, 0)}, "blocks must be 5 numbers of layers"),
    ],
)
def test_nonsense_is_refused_with_the_value(build, arguments, message):
    with pytest.raises(ValueError, match=message):
        on_meta(build, **arguments)
