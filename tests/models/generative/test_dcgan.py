import copy
import io

import pytest
import torch
from torch import nn

from zoo.models.generative.dcgan import DCGAN, Discriminator


def count(model):
    return sum(p.numel() for p in model.parameters())


def small(**arguments):
    torch.manual_seed(0)
    return DCGAN(8, 1, **{"latent_dim": 5, "base_channels": 4, **arguments})


def of_the_example(latent_dim=100, base=64, channels=3):
    """Both networks as PyTorch's example writes them, layer by layer, for 64x64 pixels."""
    generator = nn.Sequential(
        nn.ConvTranspose2d(latent_dim, base * 8, 4, 1, 0, bias=False),
        nn.BatchNorm2d(base * 8),
        nn.ReLU(True),
        nn.ConvTranspose2d(base * 8, base * 4, 4, 2, 1, bias=False),
        nn.BatchNorm2d(base * 4),
        nn.ReLU(True),
        nn.ConvTranspose2d(base * 4, base * 2, 4, 2, 1, bias=False),
        nn.BatchNorm2d(base * 2),
        nn.ReLU(True),
        nn.ConvTranspose2d(base * 2, base, 4, 2, 1, bias=False),
        nn.BatchNorm2d(base),
        nn.ReLU(True),
        nn.ConvTranspose2d(base, channels, 4, 2, 1, bias=False),
        nn.Tanh(),
    )
    discriminator = nn.Sequential(
        nn.Conv2d(channels, base, 4, 2, 1, bias=False),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(base, base * 2, 4, 2, 1, bias=False),
        nn.BatchNorm2d(base * 2),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(base * 2, base * 4, 4, 2, 1, bias=False),
        nn.BatchNorm2d(base * 4),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(base * 4, base * 8, 4, 2, 1, bias=False),
        nn.BatchNorm2d(base * 8),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(base * 8, 1, 4, 1, 0, bias=False),
    )
    return nn.ModuleDict({"main": generator}), nn.ModuleDict({"main": discriminator})


def test_parameter_counts_are_those_of_the_example():
    with torch.device("meta"):
        rgb, grey, small = DCGAN(), DCGAN(in_channels=1), DCGAN(28, 1)
    assert (count(rgb.generator), count(rgb.discriminator)) == (3_576_704, 2_765_568)
    assert (count(grey.generator), count(grey.discriminator)) == (3_574_656, 2_763_520)
    assert (count(small.generator), count(small.discriminator)) == (759_680, 138_624)


def test_weights_of_the_example_load_strictly_and_outputs_and_gradients_are_equal():
    torch.manual_seed(0)
    generator, discriminator = of_the_example(latent_dim=7, base=4)
    ours = DCGAN(latent_dim=7, base_channels=4)
    ours.generator.load_state_dict(generator.state_dict(), strict=True)
    ours.discriminator.load_state_dict(discriminator.state_dict(), strict=True)
    latents = torch.randn(6, 7)
    images = ours(latents)
    theirs = generator["main"](latents.view(6, 7, 1, 1))
    assert torch.equal(images, theirs)
    assert torch.equal(ours.discriminator(images), discriminator["main"](theirs).view(-1))
    ours.discriminator(images).mean().backward()
    discriminator["main"](theirs).mean().backward()
    for pair in ((ours.generator, generator), (ours.discriminator, discriminator)):
        for mine, other in zip(pair[0].parameters(), pair[1].parameters(), strict=True):
            torch.testing.assert_close(mine.grad, other.grad)


def test_weights_start_as_in_the_example():
    torch.manual_seed(0)
    model = DCGAN(base_channels=32)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.weight.numel() > 1e4:
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
    norms = torch.cat([m.weight for m in model.modules() if isinstance(m, nn.BatchNorm2d)])
    assert norms.mean().item() == pytest.approx(1, abs=0.01)
    assert norms.std().item() == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize("image_size", [8, 28, 32, 64])
def test_images_have_the_stated_shape_and_range(image_size):
    model = DCGAN(image_size, 2, latent_dim=3, base_channels=2)
    images = model(torch.randn(4, 3))
    assert images.shape == (4, 2, image_size, image_size)
    assert images.abs().max() <= 1
    assert model.discriminator(images).shape == (4,)
    assert model.discriminator(images[:1]).shape == (1,)


def test_spectral_normalisation_brings_the_largest_singular_value_to_one():
    model = small(norm="spectral")
    for _ in range(200):  # each pass in training refines the singular vectors
        model.discriminator(torch.randn(2, 1, 8, 8))
    for layer in model.discriminator.main:
        if isinstance(layer, nn.Conv2d):
            largest = torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item()
            assert largest == pytest.approx(1, abs=1e-3)


def test_spectral_normalisation_survives_a_checkpoint_and_a_copy():
    model, images = small(norm="spectral"), torch.randn(3, 1, 8, 8)
    model.discriminator(images)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = small(norm="spectral")
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    copied = copy.deepcopy(model)
    for _ in range(3):  # each pass moves the singular vectors on
        expected = model.discriminator(images)
        assert torch.equal(other.discriminator(images), expected)
        assert torch.equal(copied.discriminator(images), expected)


def test_spectral_normalisation_started_anew_keeps_the_parameters_that_optimizers_have():
    model = small(norm="spectral")
    before = list(map(id, model.parameters()))
    model.init_weights()
    assert list(map(id, model.parameters())) == before


def test_discriminator_without_norm_has_none():
    for norm in (None, "spectral"):
        layers = small(norm=norm).discriminator.modules()
        assert not [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
    assert isinstance(Discriminator(8, 1, base_channels=2).main[0], nn.Conv2d)


def test_packing_widens_the_first_layer_of_the_discriminator_alone():
    one, two = small(), small(packing=2)
    assert count(two.generator) == count(one.generator)
    assert count(two.discriminator) - count(one.discriminator) == 4 * 16  # one more channel


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 30}, "image_size must be 4 or 7 times a power of two .*, not 30"),
        ({"image_size": 4}, "image_size must be 4 or 7 times a power of two .*, not 4"),
        ({"in_channels": 0}, "in_channels must be at least 1, not 0"),
        ({"latent_dim": 0}, "latent_dim must be at least 1, not 0"),
        ({"base_channels": 0}, "base_channels must be at least 1, not 0"),
        ({"packing": 0}, "packing must be at least 1, not 0"),
        ({"norm": "layer"}, "norm must be 'batch', 'spectral' or None, not 'layer'"),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        DCGAN(**{"image_size": 8, "base_channels": 2, **arguments})
