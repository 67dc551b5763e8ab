import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zoo.models.vision.googlenet import (
    AuxiliaryHead,
    ConvReLU,
    GoogLeNetOutput,
    googlenet,
    googlenet_bn,
    googlenet_cifar,
)

# Table 1 from top to bottom: maps and size.
TABLE_1 = {
    "conv1": (64, 112),
    "maxpool1": (64, 56),
    "conv3": (192, 56),
    "maxpool2": (192, 28),
    "inception3a": (256, 28),
    "inception3b": (480, 28),
    "maxpool3": (480, 14),
    "inception4a": (512, 14),
    "inception4b": (512, 14),
    "inception4c": (512, 14),
    "inception4d": (528, 14),
    "inception4e": (832, 14),
    "maxpool4": (832, 7),
    "inception5a": (832, 7),
    "inception5b": (1024, 7),
    "avgpool": (1024, 1),
}


def count(module):
    return sum(p.numel() for p in module.parameters())


def weights(module):
    return sum(p.numel() for name, p in module.named_parameters() if name.endswith("weight"))


def on_meta(build, *args, **arguments):
    with torch.device("meta"):
        return build(*args, **arguments)


def random_images(size, *, batch=2, channels=3):
    return torch.zeros(batch, channels, size, size, device="meta")


def sizes(model, x):
    found = {}

    def record(name):
        return lambda layer, inputs, output: found.update({name: tuple(output.shape[1:3])})

    for name, layer in model.named_children():
        if name in TABLE_1:
            layer.register_forward_hook(record(name))
    model.eval()(x)
    return found


@pytest.fixture(scope="module")
def paper():
    torch.manual_seed(0)
    return googlenet(10)


@pytest.mark.parametrize(
    ("build", "arguments", "expected"),
    [
        (googlenet, {"aux_logits": False}, 6_998_552),
        (googlenet, {}, 13_378_280),
        (googlenet_bn, {"aux_logits": False}, 6_624_904),
        (googlenet_bn, {}, 13_004_888),
        (googlenet_cifar, {}, 6_166_250),
    ],
)
def test_builder_has_the_published_number_of_parameters(build, arguments, expected):
    assert count(on_meta(build, **arguments)) == expected


@pytest.mark.parametrize("build", [googlenet, googlenet_bn])
def test_layers_have_the_sizes_of_table_1(build):
    assert sizes(on_meta(build), random_images(224)) == TABLE_1


def test_small_network_keeps_the_resolution_until_3b_and_halves_it_twice():
    found = sizes(on_meta(googlenet_cifar), random_images(32))
    assert found["conv1"] == (192, 32)
    expected = {"inception3b": 32, "inception4e": 16, "inception5b": 8, "avgpool": 1}
    assert {name: found[name][1] for name in expected} == expected


def test_layers_have_the_weights_of_table_1_in_units_of_1024():
    model = on_meta(googlenet, aux_logits=False)
    paper = {
        "inception3a": 159,
        "inception3b": 380,
        "inception4a": 364,
        "inception4b": 437,
        "inception4d": 580,
        "inception4e": 840,
        "inception5b": 1388,
        "fc": 1000,
    }
    for name, thousands in paper.items():
        assert weights(model.get_submodule(name)) / 1024 == pytest.approx(thousands, rel=0.02), name
    assert weights(model.conv2) + weights(model.conv3) == 112 * 1024
    # Where the table's own widths give another number.
    assert {name: weights(model.get_submodule(name)) for name in ("conv1", "inception4c")} == {
        "conv1": 9_408,
        "inception4c": 509_440,
    }
    assert weights(model.inception5a) == 1_042_432


@pytest.mark.parametrize(
    ("build", "expected"),
    [(googlenet, [1, 5]), (googlenet_bn, [1, 3]), (googlenet_cifar, [1, 3, 3])],
)
def test_third_view_has_the_kernels_that_the_docstring_says(build, expected):
    model = on_meta(build)
    for name in ("inception3a", "inception4c", "inception5b"):
        units = model.get_submodule(name).branch3
        assert [unit.conv.kernel_size for unit in units] == [(k, k) for k in expected]
        for before, after in pairwise(units):
            assert before.conv.out_channels == after.conv.in_channels


def test_inception_lays_its_four_views_side_by_side(paper):
    torch.manual_seed(0)
    module, x = paper.inception3a, torch.randn(2, 192, 6, 5)
    output = module(x)
    assert output.shape == (2, 256, 6, 5)
    views = output.split([64, 128, 32, 32], dim=1)

    def conv(unit, inputs, padding):
        return torch.relu(F.conv2d(inputs, unit.conv.weight, unit.conv.bias, padding=padding))

    torch.testing.assert_close(views[0], conv(module.branch1, x, 0))
    torch.testing.assert_close(views[1], conv(module.branch2[1], conv(module.branch2[0], x, 0), 1))
    torch.testing.assert_close(views[2], conv(module.branch3[1], conv(module.branch3[0], x, 0), 2))
    pooled = F.max_pool2d(x, 3, stride=1, padding=1)
    torch.testing.assert_close(views[3], conv(module.branch4[1], pooled, 0))


def test_heads_see_4x4_maps_and_average_no_further_at_the_papers_size():
    for channels in (512, 528):
        head = AuxiliaryHead(
            channels, 10, pool=nn.AvgPool2d(5, stride=3), unit=ConvReLU, dropout=0.7
        )
        pooled = head.pool(torch.randn(1, channels, 14, 14))
        assert pooled.shape == (1, channels, 4, 4)
        assert torch.equal(F.adaptive_avg_pool2d(pooled, 4), pooled)
        assert head.conv.conv.weight.shape == (128, channels, 1, 1)
        assert (head.fc1.in_features, head.fc1.out_features) == (2048, 1024)
        assert head.dropout.p == 0.7


@pytest.mark.parametrize("build", [googlenet, googlenet_bn])
def test_heads_speak_in_training_only(build):
    model, x = on_meta(build, 7), random_images(96)
    output = model.train()(x)
    assert isinstance(output, GoogLeNetOutput)
    assert output._fields == ("logits", "aux2", "aux1")
    assert [field.shape for field in output] == [(2, 7)] * 3
    assert model.eval()(x).shape == (2, 7)
    model = on_meta(build, 7, aux_logits=False)
    assert model.aux1 is None and model.aux2 is None
    assert isinstance(model.train()(x), torch.Tensor)


def test_first_head_reads_4a_and_the_second_4d(paper):
    torch.manual_seed(0)
    output = paper.train()(torch.randn(1, 3, 79, 79))
    reached = {}
    for name in ("aux1", "aux2"):
        loss = getattr(output, name).square().sum()
        modules = [f"inception{stage}" for stage in ("4a", "4b", "4d", "4e")]
        found = torch.autograd.grad(
            loss,
            [paper.get_submodule(module).branch1.conv.weight for module in modules],
            retain_graph=True,
            allow_unused=True,
        )
        reached[name] = [gradient is not None for gradient in found]
    assert reached == {"aux1": [True, False, False, False], "aux2": [True, True, True, False]}


def test_normalisations_stand_where_figure_3_has_them(paper):
    names = [name for name, _ in paper.named_children()][:7]
    assert names == ["conv1", "maxpool1", "norm1", "conv2", "conv3", "norm2", "maxpool2"]
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in paper.modules())
    torch.manual_seed(0)
    x = torch.randn(1, 64, 2, 2)
    squares = F.pad(x.square(), (0, 0, 0, 0, 2, 2)).unfold(1, 5, 1).sum(-1)
    torch.testing.assert_close(paper.norm1(x), x / (1 + 1e-4 / 5 * squares) ** 0.75)


@pytest.mark.parametrize(
    ("build", "arguments", "is_training", "smallest"),
    [
        (googlenet, {}, True, 79),
        (googlenet, {}, False, 31),
        (googlenet, {"aux_logits": False}, True, 31),
        (googlenet_bn, {}, True, 15),
        (googlenet_bn, {}, False, 15),
        (googlenet_cifar, {}, True, 1),
    ],
)
def test_smallest_image_works_and_one_pixel_less_leaves_nothing(
    monkeypatch, build, arguments, is_training, smallest
):
    model = on_meta(build, 7, **arguments).train(is_training)
    output = model(random_images(smallest))
    assert (output.logits if isinstance(output, GoogLeNetOutput) else output).shape == (2, 7)
    message = f"at least {smallest}x{smallest} pixels for this network, not {smallest - 1}x"
    with pytest.raises(ValueError, match=message):
        model(random_images(smallest - 1))
    monkeypatch.setattr("zoo.models.vision.googlenet.check_images", lambda *_, **__: None)
    with pytest.raises(RuntimeError):
        model(random_images(smallest - 1))


@pytest.mark.parametrize("build", [googlenet, googlenet_bn, googlenet_cifar])
def test_any_channels_classes_and_size_will_do(build):
    model = on_meta(build, 7, in_channels=1)
    assert model.eval()(torch.zeros(2, 1, 97, 160, device="meta")).shape == (2, 7)


def test_weights_start_as_in_caffes_replication(paper):
    scores = {"fc", "aux1.fc2", "aux2.fc2"}
    for name, layer in paper.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            bound = math.sqrt(3 / layer.weight[0].numel())
            assert 0.98 * bound < layer.weight.abs().max() <= bound, name
            assert (layer.bias == (0.0 if name in scores else 0.2)).all(), name


def test_weights_of_the_others_start_as_the_docstring_says():
    torch.manual_seed(0)
    model = googlenet_bn(10)
    for layer in (model.conv1.conv, model.inception4a.branch2[1].conv, model.aux1.fc1, model.fc):
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.03)
    model = googlenet_cifar()
    for layer in (model.conv1.conv, model.inception5b.branch1.conv):
        expected = math.sqrt(2 / layer.weight[0].numel())
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(
    ("build", "arguments", "message"),
    [
        (googlenet, {"num_classes": 0}, "num_classes must be at least 1, not 0"),
        (googlenet_bn, {"in_channels": 0}, "in_channels must be at least 1, not 0"),
        (googlenet, {"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
        (googlenet_bn, {"dropout_aux": -0.1}, r"dropout_aux must be in \[0, 1\), not -0.1"),
        (googlenet_cifar, {"num_classes": -1}, "num_classes must be at least 1, not -1"),
    ],
)
def test_nonsense_is_refused_with_the_value(build, arguments, message):
    with pytest.raises(ValueError, match=message):
        on_meta(build, **arguments)
