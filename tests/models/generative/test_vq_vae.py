import pytest
import torch

from zoo.models.generative.vq_vae import VQVAE, ResidualBlock, VectorQuantizer


def small(**arguments):
    torch.manual_seed(0)
    return VQVAE(1, **{"hidden_channels": 6, "num_codes": 5, "code_dim": 4, **arguments})


def spread(quantizer):
    """Codes as far apart as the vectors that are to find them."""
    quantizer.codes.data.normal_()
    return quantizer


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        ({}, 4_811_843),
        ({"in_channels": 1, "hidden_channels": 64, "num_codes": 64, "code_dim": 16}, 300_817),
    ],
)
def test_parameter_counts_are_the_docstrings(arguments, parameters):
    model = VQVAE(**arguments, update="loss")
    assert sum(p.numel() for p in model.parameters()) == parameters
    averaged = VQVAE(**arguments)
    codes = averaged.quantizer.codes.numel()
    assert sum(p.numel() for p in averaged.parameters()) + codes == parameters


def test_quantizer_finds_the_nearest_code_by_brute_force():
    torch.manual_seed(0)
    quantizer = spread(VectorQuantizer(7, 3)).double().eval()
    encoded = torch.randn(4, 3, 5, 6, dtype=torch.double)
    quantized, indices = quantizer(encoded)
    for sample in range(4):
        for row in range(5):
            for column in range(6):
                vector = encoded[sample, :, row, column]
                nearest = min(range(7), key=lambda k: (vector - quantizer.codes[k]).norm().item())
                assert indices[sample, row, column] == nearest
                assert torch.equal(quantized[sample, :, row, column], quantizer.codes[nearest])


def test_gradient_passes_straight_through_the_codes():
    model = small().double()
    spread(model.quantizer)
    images = torch.rand(2, 1, 8, 8).double()
    found = model.eval()(images)
    (gradient,) = torch.autograd.grad(found.output.square().sum(), found.encoded)
    codes = found.quantized.detach().requires_grad_()
    (expected,) = torch.autograd.grad(model.decoder(codes).square().sum(), codes)
    torch.testing.assert_close(gradient, expected)
    torch.testing.assert_close(found.output, model.decode(found.indices))


def test_averaged_codes_follow_the_means_of_what_they_replace():
    torch.manual_seed(0)
    quantizer = VectorQuantizer(2, 2, decay=0.9, restart_below=0)
    quantizer.codes.copy_(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
    quantizer.sums.copy_(quantizer.codes)
    vectors = torch.cat([torch.randn(40, 2) * 0.1 + m for m in (torch.tensor([-2.0, 1]), 2)])
    usage, sums = torch.ones(2), quantizer.sums.clone()
    for _ in range(3):
        quantizer(vectors)
        usage = 0.9 * usage + 0.1 * 40
        sums = 0.9 * sums + 0.1 * torch.stack([vectors[:40].sum(0), vectors[40:].sum(0)])
    torch.testing.assert_close(quantizer.usage, usage)
    torch.testing.assert_close(quantizer.codes, sums / usage.unsqueeze(1))
    for _ in range(200):
        quantizer(vectors)
    means = torch.stack([vectors[:40].mean(0), vectors[40:].mean(0)])
    torch.testing.assert_close(quantizer.codes, means, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("update", ["ema", "loss"])
@pytest.mark.parametrize("restarts", [True, False])
def test_codes_that_nothing_uses_become_vectors_of_the_batch(update, restarts):
    torch.manual_seed(0)
    restart_below = 0.1 if restarts else 0.0
    quantizer = VectorQuantizer(4, 2, update=update, decay=0.5, restart_below=restart_below)
    far = torch.tensor([[0.0, 0], [90, 90], [91, 91], [92, 92]])
    quantizer.codes.data.copy_(far)
    if update == "ema":
        quantizer.sums.copy_(far)
    vectors = torch.randn(64, 2)
    for _ in range(40):
        quantizer(vectors)
    assert len(quantizer(vectors)[1].unique()) == (4 if restarts else 1)
    if restarts:
        assert quantizer.codes.abs().max() < 5
    else:
        torch.testing.assert_close(quantizer.codes[1:].detach(), far[1:])


def test_evaluation_leaves_the_codebook_alone_and_training_does_not():
    model = small()
    before = {name: t.clone() for name, t in model.quantizer.state_dict().items()}
    model.eval()(torch.rand(4, 1, 8, 8))
    assert all(torch.equal(t, before[name]) for name, t in model.quantizer.state_dict().items())
    model.train()(torch.rand(4, 1, 8, 8))
    assert not torch.equal(model.quantizer.codes, before["codes"])


def test_codes_learn_by_a_loss_where_they_are_parameters():
    model = small(update="loss")
    found = model(torch.rand(4, 1, 8, 8))
    (found.quantized - found.encoded.detach()).square().sum().backward()
    used = found.indices.unique()
    gradient = model.quantizer.codes.grad
    assert gradient[used].abs().sum(1).all()
    assert all(p.grad is None for p in model.encoder.parameters())


def test_residual_block_is_the_papers():
    torch.manual_seed(0)
    block, x = ResidualBlock(3), torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(block(x), x + block.conv2(block.conv1(x.relu()).relu()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden_channels": 0}, "hidden_channels must be at least 1, not 0"),
        ({"num_codes": 0}, "num_codes must be at least 1, not 0"),
        ({"code_dim": 0}, "code_dim must be at least 1, not 0"),
        ({"update": "adam"}, "update must be 'ema' or 'loss', not 'adam'"),
        ({"decay": 1.0}, "decay must be between 0 and 1, not 1.0"),
        ({"restart_below": -1.0}, "restart_below must be at least 0, not -1.0"),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        small(**arguments)
