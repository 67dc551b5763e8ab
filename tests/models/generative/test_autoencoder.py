import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from zoo.models.generative.autoencoder import (
    Autoencoder,
    ConvolutionalAutoencoder,
    Parts,
    TiedAutoencoder,
)


def deep(**options):
    return Autoencoder(8, 3, **{"hidden_sizes": (20,), "latent_dim": 5} | options)


def tied(**options):
    return TiedAutoencoder(8, 3, **{"latent_dim": 5} | options)


def convolutional(**options):
    return ConvolutionalAutoencoder(8, 3, **{"hidden_channels": (4, 6), "latent_dim": 5} | options)


each = pytest.mark.parametrize("build", [deep, tied, convolutional])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_parameter_counts_are_the_docstrings():
    widths = (784, 1000, 500, 250, 30, 250, 500, 1000, 784)
    assert count(Autoencoder()) == 2_837_314 == sum(a * b + b for a, b in pairwise(widths))
    assert count(TiedAutoencoder()) == 784 * 30 + 784 + 30 == 24_334
    assert count(ConvolutionalAutoencoder()) == 258_015


def test_deep_network_is_the_papers_layer_by_layer():
    model = Autoencoder(8, 1, hidden_sizes=(7, 6), latent_dim=3)
    x = torch.rand(4, 1, 8, 8)
    first, _, second, _, code = model.encoder
    hidden = torch.sigmoid(x.flatten(1) @ first.weight.T + first.bias)
    hidden = torch.sigmoid(hidden @ second.weight.T + second.bias)
    codes = hidden @ code.weight.T + code.bias
    torch.testing.assert_close(model.encode(x), codes)
    back, _, again, _, output = model.decoder
    hidden = torch.sigmoid(codes @ back.weight.T + back.bias)
    hidden = torch.sigmoid(hidden @ again.weight.T + again.bias)
    pixels = torch.sigmoid(hidden @ output.weight.T + output.bias)
    torch.testing.assert_close(model(x), pixels.view(4, 1, 8, 8))


def test_logistic_layers_start_as_glorots_tanh_layers():
    model = Autoencoder()
    logistic = [*model.encoder, *model.decoder, nn.Sigmoid()]
    layers = [layer for layer in logistic if isinstance(layer, nn.Linear)]
    # The same network of tanh units: what is drawn, before it is put on the logistic scale.
    x = t = torch.rand(5, 784) * 2 - 1
    for before, layer, after in zip([None, *logistic], logistic, logistic[1:], strict=False):
        if not isinstance(layer, nn.Linear):
            continue
        factor = 2 ** (isinstance(before, nn.Sigmoid) + isinstance(after, nn.Sigmoid))
        weight = layer.weight / factor
        limit = math.sqrt(6 / (layer.in_features + layer.out_features))
        assert 0.98 * limit < weight.abs().max() <= limit * (1 + 1e-6)
        t = t @ weight.T
        t = t.tanh() if isinstance(after, nn.Sigmoid) else t
    ours = model(x.view(5, 1, 28, 28)).flatten(1)
    torch.testing.assert_close(ours, (1 + t) / 2, atol=1e-5, rtol=1e-5)
    assert len(layers) == 8


def test_signal_and_gradient_pass_through_eight_layers():
    model = Autoencoder()
    x = torch.rand(64, 1, 28, 28)
    (model(x) - x).square().flatten(1).sum(1).mean().backward()
    norms = [layer.weight.grad.norm() for layer in model.modules() if isinstance(layer, nn.Linear)]
    assert max(norms) / min(norms) < 20
    assert model.encode(x).std(0).mean() > 0.1  # codes differ from image to image


def test_tied_weights_decode_transposed_and_get_the_gradient_of_both_uses():
    model = TiedAutoencoder(8, 1, latent_dim=3, code="sigmoid").double()
    x = torch.rand(4, 1, 8, 8, dtype=torch.double)
    weight, bias = model.encoder[0].weight, model.encoder[0].bias
    once, again = (weight.detach().clone().requires_grad_() for _ in range(2))
    expected = torch.sigmoid(x.flatten(1) @ once.T + bias) @ again + model.decoder_bias
    torch.testing.assert_close(model(x).flatten(1), expected)
    model(x).square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(weight.grad, once.grad + again.grad)


@each
@pytest.mark.parametrize("output", ["linear", "sigmoid"])
@pytest.mark.parametrize("code", ["linear", "sigmoid"])
def test_reconstruction_is_the_decoded_code_in_the_images_shape(build, code, output):
    model = build(code=code, output=output)
    x = torch.rand(4, 3, 8, 8)
    codes = model.encode(x)
    assert codes.shape == (4, 5)
    assert bool(((codes > 0) & (codes < 1)).all()) == (code == "sigmoid")
    reconstructions = model(x)
    assert reconstructions.shape == x.shape
    assert torch.equal(model.decode(codes), reconstructions)
    parts = model(x, return_parts=True)
    assert isinstance(parts, Parts)
    assert torch.equal(parts.codes, codes) and torch.equal(parts.reconstructions, reconstructions)
    expected = parts.outputs.sigmoid() if output == "sigmoid" else parts.outputs
    assert torch.equal(expected, reconstructions)


def test_convolutions_halve_the_image_and_cover_each_pixel_equally_often():
    model = ConvolutionalAutoencoder(16, 1, hidden_channels=(2, 3, 4))
    assert model.encoder[:6](torch.rand(1, 1, 16, 16)).shape == (1, 4, 2, 2)
    layer = model.decoder[-1]
    nn.init.ones_(layer.weight)
    nn.init.zeros_(layer.bias)
    inner = layer(torch.ones(1, 2, 8, 8))[..., 1:-1, 1:-1]
    assert inner.min() == inner.max()


def test_hidden_units_of_transposed_convolutions_start_with_the_scale_of_what_goes_in():
    model = ConvolutionalAutoencoder(64, 1, hidden_channels=(64, 64, 64))
    layer = next(part for part in model.decoder if isinstance(part, nn.ConvTranspose2d))
    x = torch.randn(16, 64, 8, 8).relu()
    inner = layer(x)[..., 2:-2, 2:-2].relu()
    assert inner.square().mean().item() == pytest.approx(x.square().mean().item(), rel=0.15)


@each
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent_dim": 0}, "latent_dim must be at least 1, not 0"),
        ({"code": "relu"}, "code must be 'linear' or 'sigmoid', not 'relu'"),
        ({"output": "tanh"}, "output must be 'linear' or 'sigmoid', not 'tanh'"),
    ],
)
def test_bad_argument_is_refused_with_its_value(build, options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"hidden_sizes must be at least 1, not \(8, 0\)"):
        Autoencoder(8, 1, hidden_sizes=(8, 0))
    with pytest.raises(ValueError, match=r"multiple of 8 for the 3 convolutions .* not 28"):
        ConvolutionalAutoencoder(28, 1, hidden_channels=(4, 4, 4))
    with pytest.raises(ValueError, match=r"x must be \(batch, 3, 8, 8\), not \(2, 3, 9, 9\)"):
        deep()(torch.rand(2, 3, 9, 9))
