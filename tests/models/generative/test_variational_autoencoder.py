import pytest
import torch
from torch import nn

from zoo.models.generative.variational_autoencoder import VariationalAutoencoder


def small(**arguments):
    return VariationalAutoencoder(4, 2, **{"latent_dim": 3, "hidden_sizes": (6, 5), **arguments})


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        ({}, 425_284),
        ({"latent_dim": 20, "hidden_sizes": (400,)}, 652_824),
        ({"latent_dim": 20, "hidden_sizes": (400,), "num_classes": 10}, 660_824),
        ({"latent_dim": 20, "hidden_sizes": (256,), "channels": (32, 64)}, 1_691_369),
        ({"latent_dim": 20, "hidden_sizes": (400,), "likelihood": "gaussian"}, 652_825),
    ],
)
def test_parameter_counts_are_the_docstrings(arguments, parameters):
    assert count(VariationalAutoencoder(**arguments)) == parameters


@pytest.mark.parametrize("channels", [(), (3,), (3, 7)])
@pytest.mark.parametrize("num_classes", [None, 4])
def test_every_part_has_the_stated_shape(channels, num_classes):
    model = small(channels=channels, num_classes=num_classes)
    images = torch.rand(5, 2, 4, 4)
    classes = None if num_classes is None else torch.eye(num_classes)[[0, 1, 2, 3, 0]]
    found = model(images, classes, samples=6)
    assert found.mean.shape == found.log_variance.shape == (5, 3)
    assert found.latents.shape == found.noise.shape == (6, 5, 3)
    assert found.output.shape == (6, 5, 2, 4, 4)
    assert found.output_log_variance is None


def test_latent_samples_are_decoded_each_with_its_own_image_and_class():
    model = small(num_classes=4)
    images, classes = torch.rand(5, 2, 4, 4), torch.eye(4)[[0, 1, 2, 3, 0]]
    found = model(images, classes, samples=3)
    for drawn, output in zip(found.latents, found.output, strict=True):
        torch.testing.assert_close(model.decode(drawn, classes), output)
    moved = found.mean + (0.5 * found.log_variance).exp() * found.noise
    torch.testing.assert_close(found.latents, moved)
    for i in range(5):
        mean, log_variance = model.encode(images[i : i + 1], classes[i : i + 1])
        torch.testing.assert_close(mean[0], found.mean[i])
        torch.testing.assert_close(log_variance[0], found.log_variance[i])


def test_latents_have_the_posteriors_mean_and_variance():
    torch.manual_seed(0)
    model = small().double()
    found = model(torch.rand(2, 2, 4, 4).double(), samples=40_000)
    assert (found.latents.mean(0) - found.mean).abs().max() < 0.03
    assert (found.latents.var(0).log() - found.log_variance).abs().max() < 0.03


def test_gradients_reach_the_encoder_through_the_drawn_latents():
    model = small()
    model(torch.rand(5, 2, 4, 4)).output.square().sum().backward()
    for part in (model.encoder.mean, model.encoder.log_variance, model.encoder.layers[0]):
        assert part.weight.grad.abs().sum() > 0


def test_both_networks_are_given_the_class():
    torch.manual_seed(0)
    model = small(num_classes=4)
    images, latents, classes = torch.rand(1, 2, 4, 4), torch.randn(1, 3), torch.eye(4)
    for method, given in ((model.encode, images), (model.decode, latents)):
        one, other = method(given, classes[:1]), method(given, classes[1:2])
        assert not torch.equal(one[0], other[0])


def test_weights_start_glorot_uniform_and_biases_at_zero():
    torch.manual_seed(0)
    model = VariationalAutoencoder()
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            limit = (6 / (layer.in_features + layer.out_features)) ** 0.5
            assert 0.99 * limit < layer.weight.abs().max() <= limit
            assert not layer.bias.any()


@pytest.mark.parametrize("channels", [(), (3, 7)])
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_first_guess_is_the_mean_image_and_a_trained_one_stays(likelihood, channels):
    model = small(likelihood=likelihood, channels=channels)
    with torch.no_grad():
        model.decoder.output[-1].weight.zero_()
    mean = torch.rand(2, 1, 1).expand(2, 4, 4) if channels else torch.rand(2, 4, 4)
    for wanted in (torch.rand(2, 4, 4), mean):  # a rehearsal comes first
        model.start_at(wanted)
    output = model.decode(torch.randn(1, 3))
    guess = output.sigmoid() if likelihood == "bernoulli" else output
    torch.testing.assert_close(guess[0], mean.contiguous())
    with torch.no_grad():
        model.decoder.output[-1].bias.add_(1)
    before = model.decoder.output[-1].bias.clone()
    model.start_at(torch.rand(2, 4, 4))
    assert torch.equal(model.decoder.output[-1].bias, before)


def test_pixels_that_are_always_black_have_a_finite_bias():
    model = small()
    model.start_at(torch.zeros(2, 4, 4))
    expected = torch.full((32,), 1e-3).logit()
    torch.testing.assert_close(model.decoder.output[-1].bias.detach(), expected)


def test_variance_is_given_or_learned():
    given = small(likelihood="gaussian", variance=0.25)
    assert given.output_log_variance.exp().item() == pytest.approx(0.25)
    assert "output_log_variance" in given.state_dict()
    assert not any(p is given.output_log_variance for p in given.parameters())
    learned = small(likelihood="gaussian")
    assert isinstance(learned.output_log_variance, nn.Parameter)
    assert learned.output_log_variance.item() == 0
    assert learned.no_weight_decay() == {"output_log_variance"}
    assert not given.no_weight_decay() and not small().no_weight_decay()


def test_bound_is_made_in_single_precision_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        found = small()(torch.rand(2, 2, 4, 4))
    assert {t.dtype for t in found if t is not None} == {torch.float32}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latent_dim": 0}, "latent_dim must be at least 1, not 0"),
        ({"hidden_sizes": (8, 0)}, r"hidden_sizes must be at least 1, not \(8, 0\)"),
        ({"channels": (0,)}, r"channels must be at least 1, not \(0,\)"),
        ({"channels": (1, 1, 1)}, "image_size must be a multiple of 8 for 3 convolutions .* not 4"),
        ({"num_classes": 0}, "num_classes must be at least 1, not 0"),
        ({"activation": "maxout"}, "activation must be one of .*, softplus, not 'maxout'"),
        ({"likelihood": "poisson"}, "likelihood must be bernoulli or gaussian, not 'poisson'"),
        ({"variance": 0.0}, "variance must be a number above 0 or 'learned', not 0.0"),
        ({"variance": "given"}, "variance must be a number above 0 or 'learned', not 'given'"),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        small(**arguments)


def test_classes_and_images_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="classes are needed, since num_classes is set"):
        small(num_classes=4)(torch.rand(1, 2, 4, 4))
    with pytest.raises(ValueError, match="classes are given, but num_classes is not set"):
        small()(torch.rand(1, 2, 4, 4), torch.eye(4)[:1])
    with pytest.raises(ValueError, match=r"x must be \(batch, 2, 4, 4\), not \(1, 1, 4, 4\)"):
        small()(torch.rand(1, 1, 4, 4))
