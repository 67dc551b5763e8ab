import math

import pytest
import torch
import torch.nn.functional as F

from zoo.models.generative.gan import GAN


def small(**arguments):
    sizes = {"latent_dim": 6, "hidden_sizes": (16,), "maxout_sizes": (8,), "pieces": 3}
    return GAN(8, 3, **{**sizes, **arguments})


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_parameter_counts_are_the_docstrings():
    model = GAN()
    assert count(model.generator) == 2_503_984
    assert count(model.discriminator) == 1_231_441
    assert count(model) == 3_735_425


def test_two_parts_share_no_parameter_and_leave_none_out():
    model = small()
    generator, discriminator = (
        set(map(id, part.parameters())) for part in (model.generator, model.discriminator)
    )
    assert not generator & discriminator
    assert generator | discriminator == set(map(id, model.parameters()))


def test_images_have_the_stated_shape_and_range_and_logits_one_number_each():
    torch.manual_seed(0)
    model = small()
    with torch.no_grad():
        model.generator.output.weight.mul_(1000)
    images = model(torch.randn(5, model.latent_dim))
    assert images.shape == (5, 3, 8, 8)
    assert images.min() >= -1 and images.max() <= 1 and images.abs().max() > 0.99
    assert model.discriminator(images).shape == (5,)
    assert model.discriminator(images[:1]).shape == (1,)


def test_discriminator_starts_at_one_half_where_the_value_is_minus_log_four():
    torch.manual_seed(0)
    model = GAN()
    real = torch.rand(16, 1, 28, 28) * 2 - 1
    fake = model(torch.randn(16, 100))
    real_logits, fake_logits = (model.discriminator(images) for images in (real, fake))
    value = F.logsigmoid(real_logits).mean() + F.logsigmoid(-fake_logits).mean()
    assert value.item() == pytest.approx(-math.log(4), abs=0.01)


def test_generators_gradient_passes_through_the_discriminator():
    torch.manual_seed(0)
    model = small()
    loss = F.softplus(-model.discriminator(model(torch.randn(4, 6)))).mean()
    loss.backward(inputs=list(model.generator.parameters()))
    assert all(p.grad.abs().sum() > 0 for p in model.generator.parameters())
    assert all(p.grad is None for p in model.discriminator.parameters())


def test_discriminator_drops_out_in_training_only():
    torch.manual_seed(0)
    model, images = small(), torch.rand(4, 3, 8, 8)
    assert not torch.equal(model.discriminator(images), model.discriminator(images))
    model.eval()
    assert torch.equal(model.discriminator(images), model.discriminator(images))


def test_weights_start_within_the_published_ranges():
    torch.manual_seed(0)
    model = GAN()
    for part, limit in ((model.generator, 0.05), (model.discriminator, 0.005)):
        for name, parameter in part.named_parameters():
            bound = limit if name.endswith("weight") else 0
            assert 0.95 * bound <= parameter.abs().max() <= bound


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latent_dim": 0}, "latent_dim must be at least 1, not 0"),
        ({"hidden_sizes": (8, 0)}, r"hidden_sizes must be at least 1, not \(8, 0\)"),
        ({"maxout_sizes": (-1,)}, r"maxout_sizes must be at least 1, not \(-1,\)"),
        ({"pieces": 0}, "pieces must be at least 1, not 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
        ({"input_dropout": -0.5}, r"input_dropout must be in \[0, 1\), not -0.5"),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        small(**arguments)


def test_images_without_pixels_are_refused():
    with pytest.raises(ValueError, match="image_size must be at least 1, not 0"):
        GAN(0)
    with pytest.raises(ValueError, match="in_channels must be at least 1, not 0"):
        GAN(8, 0)
