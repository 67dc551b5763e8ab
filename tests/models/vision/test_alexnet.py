import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zoo.models.vision.alexnet import alexnet, alexnet_2012, local_response_norm

LAYERS = {
    "conv1": (34_944, (96, 55, 55)),
    "conv2": (307_456, (256, 27, 27)),
    "conv3": (885_120, (384, 13, 13)),
    "conv4": (663_936, (384, 13, 13)),
    "conv5": (442_624, (256, 13, 13)),
    "fc6": (37_752_832, (4096,)),
    "fc7": (16_781_312, (4096,)),
    "fc8": (4_097_000, (1000,)),
}


def count(module):
    return sum(p.numel() for p in module.parameters())


def on_meta(build, *args, **arguments):
    with torch.device("meta"):
        return build(*args, **arguments)


def sizes(model, x):
    found = {}

    def record(name):
        return lambda layer, inputs, output: found.update({name: tuple(output.shape[1:])})

    for name, layer in model.named_children():
        layer.register_forward_hook(record(name))
    model(x)
    return found


@pytest.fixture(scope="module")
def published():
    torch.manual_seed(0)
    return alexnet_2012(10).eval()


@pytest.mark.parametrize(("build", "expected"), [(alexnet_2012, 60_965_224), (alexnet, 61_100_840)])
def test_builder_has_the_published_number_of_parameters(build, expected):
    assert count(on_meta(build)) == expected


def test_published_layers_have_their_parameters_and_sizes():
    model = on_meta(alexnet_2012)
    found = sizes(model, torch.zeros(1, 3, 227, 227, device="meta"))
    assert {name: (count(getattr(model, name)), found[name]) for name in LAYERS} == LAYERS
    pools = {name: found[name] for name in ("pool1", "pool2", "pool5", "avgpool")}
    assert pools == {
        "pool1": (96, 27, 27),
        "pool2": (256, 13, 13),
        "pool5": (256, 6, 6),
        "avgpool": (256, 6, 6),
    }


def test_published_layers_have_the_neurons_that_the_paper_counts():
    model = on_meta(alexnet_2012)
    found = sizes(model, torch.zeros(1, 3, 227, 227, device="meta"))
    neurons = [math.prod(found[name]) for name in LAYERS]
    assert neurons[1:] == [186_624, 64_896, 64_896, 43_264, 4096, 4096, 1000]
    assert neurons[0] == 290_400  # 253,440 in the paper, which 96 maps cannot make


def test_averaging_changes_nothing_at_the_papers_size():
    x = torch.randn(1, 2, 6, 6)
    assert torch.equal(on_meta(alexnet_2012).avgpool(x), x)


@pytest.mark.parametrize("maps", [3, 5, 96])
def test_normalisation_is_the_papers_formula(maps):
    torch.manual_seed(0)
    a = 30 * torch.randn(2, maps, 3, 2).double()
    expected = torch.empty_like(a)
    for i in range(maps):
        total = sum(a[:, j] ** 2 for j in range(max(0, i - 2), min(maps - 1, i + 2) + 1))
        expected[:, i] = a[:, i] / (2 + 1e-4 * total) ** 0.75
    torch.testing.assert_close(local_response_norm()(a), expected)


def test_one_device_computes_the_two_towers_of_figure_2(published):
    torch.manual_seed(0)
    x = torch.rand(2, 3, 99, 99)

    def half(layer, inputs, side, padding):
        """One card's kernels of a layer, on what that card sees."""
        weight, bias = layer.weight.chunk(2)[side], layer.bias.chunk(2)[side]
        return torch.relu(F.conv2d(inputs, weight, bias, padding=padding))

    def normalised(left, right):
        joined = local_response_norm()(torch.cat([left, right], 1))
        return F.max_pool2d(joined, 3, stride=2).chunk(2, dim=1)

    first = torch.relu(F.conv2d(x, published.conv1.weight, published.conv1.bias, stride=4))
    towers = normalised(*first.chunk(2, dim=1))
    towers = normalised(*(half(published.conv2, towers[i], i, 2) for i in range(2)))
    both = torch.cat(towers, 1)  # here the cards communicate
    towers = [half(published.conv3, both, i, 1) for i in range(2)]
    towers = [half(published.conv4, towers[i], i, 1) for i in range(2)]
    towers = [half(published.conv5, towers[i], i, 1) for i in range(2)]
    maps = F.adaptive_avg_pool2d(F.max_pool2d(torch.cat(towers, 1), 3, stride=2), 6)
    hidden = torch.relu(published.fc7(torch.relu(published.fc6(maps.flatten(1)))))
    with torch.no_grad():
        torch.testing.assert_close(published(x), published.fc8(hidden))


def test_weights_start_as_in_the_paper(published):
    for name, layer in published.named_children():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            sample = layer.weight[:, :1000]
            assert sample.std().item() == pytest.approx(0.01, rel=0.03), name
            assert abs(sample.mean().item()) < 3e-4, name
            assert (layer.bias == (0 if name in {"conv1", "conv3", "fc8"} else 1)).all(), name


def test_dropout_is_behind_the_hidden_layers_in_2012_and_before_them_in_2014():
    names = [name for name, _ in on_meta(alexnet_2012).named_children()]
    assert names[-5:] == ["fc6", "drop6", "fc7", "drop7", "fc8"]
    kinds = [type(layer) for layer in on_meta(alexnet).classifier]
    linear, drop = nn.Linear, nn.Dropout
    assert kinds == [drop, linear, nn.ReLU, drop, linear, nn.ReLU, linear]


@pytest.mark.parametrize("build", [alexnet, alexnet_2012])
def test_untrained_network_is_about_undecided_and_treats_samples_alone(build, request):
    torch.manual_seed(0)
    model = request.getfixturevalue("published") if build is alexnet_2012 else build(10).eval()
    x = torch.rand(4, 3, 80, 80)
    with torch.no_grad():
        logits = model(x)
        loss = F.cross_entropy(logits, torch.randint(10, (4,))).item()
        assert loss == pytest.approx(math.log(10), abs=0.7)
        torch.testing.assert_close(model(x[2:3]), logits[2:3])


def test_every_parameter_gets_a_finite_gradient(published):
    torch.manual_seed(0)
    loss = F.cross_entropy(published(torch.rand(2, 3, 80, 80)), torch.tensor([3, 4]))
    parameters = dict(published.named_parameters())
    found = torch.autograd.grad(loss, list(parameters.values()))
    for name, gradient in zip(parameters, found, strict=True):
        assert gradient.isfinite().all(), name
        assert gradient.any(), name


@pytest.mark.parametrize(("build", "smallest"), [(alexnet_2012, 67), (alexnet, 63)])
def test_smallest_image_works_and_one_pixel_less_leaves_nothing(monkeypatch, build, smallest):
    model = on_meta(build, 7)
    assert model(torch.zeros(2, 3, smallest, smallest, device="meta")).shape == (2, 7)
    too_small = torch.zeros(2, 3, 200, smallest - 1, device="meta")
    with pytest.raises(ValueError, match=f"x must be at least {smallest}x{smallest} pixels"):
        model(too_small)
    monkeypatch.setattr("zoo.models.vision.alexnet.check_images", lambda *_, **__: None)
    with pytest.raises(RuntimeError):
        model(too_small)


@pytest.mark.parametrize("build", [alexnet, alexnet_2012])
def test_any_channels_classes_and_size_will_do(build):
    model = on_meta(build, 7, in_channels=4)
    assert model(torch.zeros(2, 4, 300, 111, device="meta")).shape == (2, 7)


@pytest.mark.parametrize("build", [alexnet, alexnet_2012])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1, not 0"),
        ({"in_channels": 0}, "in_channels must be at least 1, not 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
    ],
)
def test_nonsense_is_refused_with_the_value(build, arguments, message):
    with pytest.raises(ValueError, match=message):
        on_meta(build, **arguments)
