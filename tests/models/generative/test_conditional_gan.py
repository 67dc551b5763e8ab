import pytest
import torch

from zoo.models.generative.conditional_gan import ConditionalGAN

SMALL = {
    **{"num_classes": 3, "latent_dim": 4, "latent_size": 8, "class_size": 8, "joint_size": 16},
    **{"image_units": 8, "class_units": 4, "joint_units": 8},
}


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_parameter_counts_are_the_docstrings():
    with torch.device("meta"):
        model = ConditionalGAN()
    assert (count(model.generator), count(model.discriminator)) == (2_413_984, 1_224_351)


def test_images_and_logits_depend_on_the_class():
    torch.manual_seed(0)
    model = ConditionalGAN(8, 1, **SMALL).eval()
    latents = torch.randn(1, 4).expand(3, 4)
    images = model(latents, torch.eye(3))
    assert images.shape == (3, 1, 8, 8) and images.abs().max() <= 1
    assert not torch.equal(images[0], images[1])
    logits = model.discriminator(images[:1].expand(3, 1, 8, 8), torch.eye(3))
    assert logits.shape == (3,) and len(logits.unique()) == 3


def test_both_networks_drop_out_in_training_only():
    torch.manual_seed(0)
    model, classes = ConditionalGAN(8, 1, **SMALL), torch.eye(3)
    latents, images = torch.randn(3, 4), torch.randn(3, 1, 8, 8)
    assert not torch.equal(model(latents, classes), model(latents, classes))
    found = [model.discriminator(images, classes) for _ in range(2)]
    assert not torch.equal(*found)
    model.eval()
    assert torch.equal(model(latents, classes), model(latents, classes))


def test_batch_norm_keeps_noise_that_the_weights_would_forget():
    latents, classes = torch.randn(64, 4), torch.eye(3)[:1].expand(64, 3)
    spread = {}
    for batch_norm in (False, True):
        torch.manual_seed(0)
        model = ConditionalGAN(8, 1, **SMALL, dropout=0.0, batch_norm=batch_norm)
        with torch.no_grad():
            model.generator.of_latents.weight.mul_(1e-2)
            spread[batch_norm] = model(latents, classes).std(0).mean()
    assert spread[True] > 20 * spread[False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1, not 0"),
        ({"joint_units": 0}, "joint_units must be at least 1, not 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        ConditionalGAN(8, 1, **{**SMALL, **arguments})
