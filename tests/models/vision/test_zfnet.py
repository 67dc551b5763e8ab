import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zoo.models.vision.zfnet import zfnet

# Figure 3.
SIZES = {
    "conv1": (96, 110, 110),
    "pool1": (96, 55, 55),
    "norm1": (96, 55, 55),
    "conv2": (256, 26, 26),
    "pool2": (256, 13, 13),
    "norm2": (256, 13, 13),
    "conv3": (384, 13, 13),
    "conv4": (384, 13, 13),
    "conv5": (256, 13, 13),
    "pool5": (256, 6, 6),
    "avgpool": (256, 6, 6),
    "fc6": (4096,),
    "fc7": (4096,),
    "fc8": (1000,),
}


def on_meta(*args, **arguments):
    with torch.device("meta"):
        return zfnet(*args, **arguments)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return zfnet(10).eval()


def test_network_has_62357608_parameters_in_these_layers():
    model = on_meta()
    counts = {
        name: sum(p.numel() for p in layer.parameters()) for name, layer in model.named_children()
    }
    assert {name: n for name, n in counts.items() if n} == {
        "conv1": 14_208,
        "conv2": 614_656,
        "conv3": 885_120,
        "conv4": 1_327_488,
        "conv5": 884_992,
        "fc6": 37_752_832,
        "fc7": 16_781_312,
        "fc8": 4_097_000,
    }
    assert sum(counts.values()) == 62_357_608


def test_layers_have_the_sizes_of_figure_3_in_its_order():
    model, found = on_meta(), []

    def record(name):
        return lambda layer, inputs, output: found.append((name, tuple(output.shape[1:])))

    for name, layer in model.named_children():
        if name in SIZES:
            layer.register_forward_hook(record(name))
    model(torch.zeros(1, 3, 224, 224, device="meta"))
    assert found == list(SIZES.items())


def test_first_two_layers_have_the_papers_kernels_and_strides():
    model = on_meta()
    assert (model.conv1.kernel_size, model.conv1.stride) == ((7, 7), (2, 2))
    assert (model.conv2.kernel_size, model.conv2.stride) == ((5, 5), (2, 2))


def test_averaging_changes_nothing_at_the_papers_size():
    x = torch.randn(1, 2, 6, 6)
    assert torch.equal(on_meta().avgpool(x), x)


def test_normalisation_is_krizhevskys_formula(model):
    torch.manual_seed(0)
    a = 30 * torch.randn(2, 7, 3, 2).double()
    squares = F.pad(a.square(), (0, 0, 0, 0, 2, 2)).unfold(1, 5, 1).sum(-1)
    torch.testing.assert_close(model.norm1(a), a / (2 + 1e-4 * squares) ** 0.75)


def test_weights_start_small_and_unalike_and_biases_at_zero(model):
    for name, layer in model.named_children():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            sample = layer.weight[:, :1000]
            assert sample.std().item() == pytest.approx(0.01, rel=0.03), name
            assert not layer.bias.any(), name


def test_untrained_network_is_undecided_and_treats_samples_alone(model):
    torch.manual_seed(0)
    x = torch.randn(4, 3, 64, 48)
    with torch.no_grad():
        logits = model(x)
        loss = F.cross_entropy(logits, torch.randint(10, (4,))).item()
        assert loss == pytest.approx(math.log(10), abs=0.7)
        torch.testing.assert_close(model(x[2:3]), logits[2:3])


def test_every_parameter_gets_a_finite_gradient(model):
    torch.manual_seed(0)
    loss = F.cross_entropy(model(torch.randn(2, 3, 64, 64)), torch.tensor([3, 4]))
    parameters = dict(model.named_parameters())
    found = torch.autograd.grad(loss, list(parameters.values()))
    for name, gradient in zip(parameters, found, strict=True):
        assert gradient.isfinite().all(), name
        assert gradient.any(), name


def test_smallest_image_works_and_one_pixel_less_leaves_nothing(monkeypatch):
    model = on_meta(7)
    assert model(torch.zeros(2, 3, 47, 47, device="meta")).shape == (2, 7)
    too_small = torch.zeros(2, 3, 46, 200, device="meta")
    with pytest.raises(ValueError, match="x must be at least 47x47 pixels"):
        model(too_small)
    monkeypatch.setattr("zoo.models.vision.zfnet.check_images", lambda *_, **__: None)
    with pytest.raises(RuntimeError):
        model(too_small)


def test_any_channels_classes_and_size_will_do():
    model = on_meta(7, in_channels=4)
    assert model(torch.zeros(2, 4, 300, 111, device="meta")).shape == (2, 7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1, not 0"),
        ({"in_channels": 0}, "in_channels must be at least 1, not 0"),
        ({"dropout": -0.5}, r"dropout must be in \[0, 1\), not -0.5"),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        on_meta(**arguments)
