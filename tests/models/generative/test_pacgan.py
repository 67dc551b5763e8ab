import pytest
import torch
from torch import nn

from zoo.models.generative.pacgan import PacGAN


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_parameter_counts_are_the_docstrings():
    with torch.device("meta"):
        plain, packed = PacGAN(), PacGAN(packing=4)
    assert (count(plain.generator), count(plain.discriminator)) == (484_802, 405_201)
    assert (count(packed.generator), count(packed.discriminator)) == (484_802, 411_201)


def test_points_have_the_stated_shape_and_packs_one_logit_each():
    model = PacGAN(3, latent_dim=5, packing=2, hidden_sizes=(8,), maxout_sizes=(6,), pieces=2)
    points = model(torch.randn(8, 5))
    assert points.shape == (8, 3)
    assert model.discriminator(points.view(4, 6)).shape == (4,)


def test_weights_start_with_the_stated_deviation_and_biases_at_zero():
    torch.manual_seed(0)
    for layer in PacGAN().modules():
        if isinstance(layer, nn.Linear):
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.2)
            assert layer.bias is None or layer.bias.count_nonzero() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_features": 0}, "in_features must be at least 1, not 0"),
        ({"packing": 0}, "packing must be at least 1, not 0"),
        ({"maxout_sizes": (0,)}, r"maxout_sizes must be at least 1, not \(0,\)"),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        PacGAN(**arguments)
