import math

import pytest
import torch
from torch import nn

from zoo.models.generative.wgan import WGAN, PointWGAN


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_parameter_counts_are_those_of_the_published_code():
    with torch.device("meta"):
        images, points = WGAN(), PointWGAN()
    assert (count(images.generator), count(images.discriminator)) == (1_554_177, 1_030_145)
    assert (count(points.generator), count(points.discriminator)) == (527_874, 527_361)


def test_images_have_the_stated_shape_and_range_and_each_one_number():
    model = WGAN(2, latent_dim=3, base_channels=2)
    images = model(torch.randn(4, 3))
    assert images.shape == (4, 2, 28, 28)
    assert images.min() >= 0 and images.max() <= 1
    assert model.discriminator(images).shape == (4,)


def test_weights_start_with_the_deviations_of_the_published_code():
    torch.manual_seed(0)
    model = WGAN(base_channels=16)
    conv, deconv = model.discriminator.layers[2], model.generator.deconv2
    assert isinstance(conv, nn.Conv2d) and isinstance(deconv, nn.ConvTranspose2d)
    # 16 to 32 maps, and 32 to 16: the fan on the side of the smaller maps counts a quarter.
    expected = math.sqrt(4 / (16 * 25 + 32 * 25 / 4))
    for layer in (conv, deconv):
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.05)
        assert layer.weight.abs().max() <= math.sqrt(3) * expected
        assert layer.bias.count_nonzero() == 0
    hidden = PointWGAN(hidden_sizes=(64, 64)).generator.layers[2].weight
    assert hidden.std().item() == pytest.approx(math.sqrt(2 / 64), rel=0.05)
    output = model.generator.input.weight  # linear in the code too, though ReLU follows
    assert output.std().item() == pytest.approx(math.sqrt(2 / (128 + 1024)), rel=0.05)


def test_critic_has_no_batch_normalisation():
    for model in (WGAN(base_channels=2), PointWGAN(hidden_sizes=(4,))):
        assert not [m for m in model.modules() if "BatchNorm" in type(m).__name__]


def test_points_have_the_stated_shape():
    model = PointWGAN(3, latent_dim=5, hidden_sizes=(4,), packing=2)
    assert model(torch.randn(6, 5)).shape == (6, 3)
    assert model.discriminator(torch.randn(6, 6)).shape == (6,)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (WGAN, {"in_channels": 0}, "in_channels must be at least 1, not 0"),
        (WGAN, {"base_channels": 0}, "base_channels must be at least 1, not 0"),
        (WGAN, {"packing": 0}, "packing must be at least 1, not 0"),
        (PointWGAN, {"in_features": 1}, "in_features must be at least 2, not 1"),
        (PointWGAN, {"hidden_sizes": (4, 0)}, r"hidden_sizes must be at least 1, not \(4, 0\)"),
    ],
)
def test_nonsense_is_refused_with_the_value(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        kind(**arguments)


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match="28x28 pixels for this network, not 8x8"):
        WGAN(base_channels=2).discriminator(torch.zeros(1, 1, 8, 8))
