import math

import pytest
import torch
from torch import nn

from zoo.models.generative.denoising_unet import DenoisingUNet, sinusoids
from zoo.models.generative.diffusion import ddpm_cifar10, ddpm_digits, ddpm_mnist


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def small(**arguments):
    sizes = {"channels": (8, 16), "layers_per_level": 1, "attention_sizes": (4,), "num_groups": 4}
    return DenoisingUNet(8, 1, **{**sizes, **arguments})


def warmed(model):
    """With zeros where residual branches end, much of a network is not seen at first."""
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()


def batch(count=3):
    return torch.randn(count, 1, 8, 8), torch.arange(count) * 300


@pytest.mark.parametrize(
    ("build", "count"),
    [(ddpm_cifar10, 35_746_307), (ddpm_mnist, 1_112_801), (ddpm_digits, 284_513)],
)
def test_parameter_counts_are_the_docstrings(build, count):
    with torch.device("meta"):
        model = build()
    assert sum(p.numel() for p in model.parameters()) == count


def test_network_starts_as_zero_and_its_residual_branches_as_nothing():
    model = small()
    assert torch.equal(model(*batch()), torch.zeros(3, 1, 8, 8))
    block, attention = model.down_blocks[0].resnets[0], model.mid_block.attentions[0]
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(block(x, torch.randn(2, 32)), x)
    x = torch.randn(2, 16, 4, 4)
    assert torch.equal(attention(x), x)


def test_weights_start_in_glorots_range_and_biases_at_zero():
    model = small(num_classes=3)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert not layer.bias.any()
            ends = name.endswith(("conv2", "to_out.0")) or name == "conv_out"
            fan_in, fan_out = (layer.weight[0].numel(), layer.weight.transpose(0, 1)[0].numel())
            bound = 0 if ends else math.sqrt(6 / (fan_in + fan_out))
            assert 0.8 * bound <= layer.weight.abs().max() <= bound, name


def test_sinusoids_are_sines_and_cosines_of_geometric_wavelengths():
    found = sinusoids(torch.tensor([0, 5, 999]), 8)
    places = [10000 ** (-k / 3) for k in range(4)]
    for row, time in zip(found, (0, 5, 999), strict=True):
        angles = [time * place for place in places]
        wanted = [*map(math.sin, angles), *map(math.cos, angles)]
        assert row.tolist() == pytest.approx(wanted, abs=1e-4)


def test_output_depends_on_the_time_and_times_can_be_scaled():
    model = warmed(small())
    x, times = batch()
    assert not torch.allclose(model(x, times), model(x, times + 1))
    scaled = small(time_scale=1000.0).eval()
    scaled.load_state_dict(model.state_dict())
    torch.testing.assert_close(scaled(x, times / 1000), model(x, times), rtol=1e-3, atol=1e-4)


def test_no_class_is_one_more_class():
    model = warmed(small(num_classes=3))
    x, times = batch()
    nobody = torch.full((3,), 3)
    assert torch.equal(model(x, times), model(x, times, nobody))
    assert not torch.allclose(model(x, times), model(x, times, torch.tensor([0, 1, 2])))
    assert model.class_embedding.num_embeddings == 4


def test_attention_lets_a_pixel_see_all_others_and_is_there_at_the_bottom_at_least():
    x = torch.randn(1, 1, 32, 32, requires_grad=True)
    reached = []
    for attention in ((), (32,)):
        model = DenoisingUNet(
            32, 1, channels=(8,), layers_per_level=1, attention_sizes=attention, num_groups=4
        )
        count = sum(name.endswith("to_q") for name, _ in model.named_modules())
        assert count == (1 if not attention else 4)
        warmed(model)(x, torch.tensor([5]))[0, 0, 0, 0].backward()
        reached.append(bool(x.grad[0, 0, -1, -1] != 0))
    assert reached == [True, True]


def test_dropout_is_within_residual_blocks_and_for_training_only():
    model, inputs = warmed(small(dropout=0.5)), batch()
    assert torch.equal(model(*inputs), model(*inputs))
    model.train()
    assert not torch.equal(model(*inputs), model(*inputs))
    assert sum(isinstance(m, nn.Dropout) and m.p == 0.5 for m in model.modules()) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": ()}, r"channels must name at least one level, not \(\)"),
        ({"channels": (8, 6)}, r"channels must be multiples of num_groups=4, not \(8, 6\)"),
        ({"channels": (3,)}, r"channels must begin with an even number from 4, not \(3,\)"),
        ({"channels": (8,) * 5}, "image_size must be divisible by 16 for 5 levels, not 8"),
        ({"attention_sizes": (16,)}, r"attention_sizes must be among 8, 4, .* not 16"),
        ({"layers_per_level": 0}, "layers_per_level must be at least 1, not 0"),
        ({"num_classes": 0}, "num_classes must be at least 1, not 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
        ({"time_scale": 0.0}, "time_scale must be greater than 0, not 0.0"),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        small(**arguments)


def test_inputs_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="x must be images of 8x8, not 16x16"):
        small()(torch.zeros(1, 1, 16, 16), torch.zeros(1))
    with pytest.raises(ValueError, match=r"x must be \(batch, 1, height, width\)"):
        small()(torch.zeros(1, 3, 8, 8), torch.zeros(1))
    with pytest.raises(ValueError, match="labels are for a network with num_classes"):
        small()(*batch(), torch.zeros(3, dtype=torch.int64))
