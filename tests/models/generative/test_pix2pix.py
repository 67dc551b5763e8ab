import pytest
import torch
from torch import nn

from zoo.models.generative.pix2pix import BatchNorm, Discriminator, Noise, Pix2Pix


def count(model):
    return sum(p.numel() for p in model.parameters())


def small(image_size=32, **arguments):
    torch.manual_seed(0)
    return Pix2Pix(image_size, 3, **{"base_channels": 2, **arguments})


class Skip(nn.Module):
    """A block of the authors' U-Net, whose leaky ReLU changes what is handed across."""

    def __init__(self, outer, inner, submodule=None, *, dropout=False):
        super().__init__()
        down = [nn.LeakyReLU(0.2, True), nn.Conv2d(outer, inner, 4, 2, 1, bias=False)]
        if submodule is not None:
            down += [nn.BatchNorm2d(inner), submodule]
        before = inner if submodule is None else 2 * inner
        up = [nn.ReLU(True), nn.ConvTranspose2d(before, outer, 4, 2, 1, bias=False)]
        up += [nn.BatchNorm2d(outer), *([nn.Dropout(0.5)] if dropout else [])]
        self.model = nn.Sequential(*down, *up)

    def forward(self, x):
        return torch.cat([x, self.model(x)], 1)


class Outermost(nn.Module):
    def __init__(self, n, channels, submodule):
        super().__init__()
        up = nn.ConvTranspose2d(2 * n, channels, 4, 2, 1)
        down = nn.Conv2d(channels, n, 4, 2, 1, bias=False)
        self.model = nn.Sequential(down, submodule, nn.ReLU(True), up, nn.Tanh())

    def forward(self, x):
        return self.model(x)


def unet_of_the_authors(num_downs, n=64, channels=3):
    """The generator as the authors' PyTorch code builds it, from the inside."""
    block = Skip(8 * n, 8 * n)
    for _ in range(num_downs - 5):
        block = Skip(8 * n, 8 * n, block, dropout=True)
    for outer, inner in ((4, 8), (2, 4), (1, 2)):
        block = Skip(outer * n, inner * n, block)
    return nn.ModuleDict({"model": Outermost(n, channels, block)})


def patch_gan_of_the_authors(n=64, channels=6):
    """The discriminator likewise, its three layers one after the other."""
    layers = [nn.Conv2d(channels, n, 4, 2, 1), nn.LeakyReLU(0.2, True)]
    for before, width, stride in ((1, 2, 2), (2, 4, 2), (4, 8, 1)):
        layers += [nn.Conv2d(before * n, width * n, 4, stride, 1, bias=False)]
        layers += [nn.BatchNorm2d(width * n), nn.LeakyReLU(0.2, True)]
    return nn.ModuleDict({"model": nn.Sequential(*layers, nn.Conv2d(8 * n, 1, 4, 1, 1))})


def test_parameter_counts_are_the_published_ones():
    with torch.device("meta"):
        rgb, grey, half = Pix2Pix(), Pix2Pix(256, 1, out_channels=1), Pix2Pix(128)
    assert (count(rgb.generator), count(rgb.discriminator)) == (54_413_955, 2_768_705)
    assert count(grey.generator) == 54_407_809
    assert count(half.generator) == 41_828_995


@pytest.mark.parametrize("image_size", [32, 64, 128, 256])
def test_weights_of_the_authors_code_load_strictly_and_outputs_and_gradients_are_equal(image_size):
    torch.manual_seed(0)
    theirs = unet_of_the_authors(image_size.bit_length() - 1, n=2)
    judge = patch_gan_of_the_authors(n=2)
    ours = Pix2Pix(image_size, base_channels=2)
    ours.generator.load_state_dict(theirs.state_dict(), strict=True)
    ours.discriminator.load_state_dict(judge.state_dict(), strict=True)
    images = torch.randn(2, 3, image_size, image_size)
    torch.manual_seed(1)
    found = ours(images)
    torch.manual_seed(1)  # the same units are dropped
    expected = theirs["model"](images)
    assert torch.equal(found, expected)
    found = ours.discriminator(torch.cat([images, found], 1))
    expected = judge["model"](torch.cat([images, expected], 1))
    assert torch.equal(found, expected)
    for output in (found, expected):
        (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    for pair in ((ours.generator, theirs), (ours.discriminator, judge)):
        for mine, other in zip(pair[0].parameters(), pair[1].parameters(), strict=True):
            torch.testing.assert_close(mine.grad, other.grad)
        for mine, other in zip(pair[0].buffers(), pair[1].buffers(), strict=True):
            assert torch.equal(mine, other)


@pytest.mark.parametrize(("image_size", "blocks"), [(256, 3), (128, 2), (64, 1), (32, 0)])
def test_dropout_stands_where_the_docstring_says(image_size, blocks):
    assert sum(isinstance(m, Noise) for m in small(image_size).modules()) == blocks


@pytest.mark.parametrize(("num_layers", "side"), [(1, 16), (2, 34), (3, 70), (4, 142), (5, 286)])
def test_a_logit_sees_a_patch_of_the_stated_size(num_layers, side):
    torch.manual_seed(0)
    network = Discriminator(1, base_channels=1, num_layers=num_layers).eval()
    for layer in list(network.model):
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.weight, 0.1)
        elif isinstance(layer, BatchNorm):  # by itself it sees the whole image
            layer.forward = lambda x: x
    size = 2 ** (side.bit_length() + 1)
    x = torch.rand(1, 1, size, size, requires_grad=True)
    logits = network(x)
    logits[0, 0, logits.size(2) // 2, logits.size(3) // 2].backward()
    rows, columns = (x.grad[0, 0].abs().sum(dim).nonzero().flatten() for dim in (1, 0))
    assert rows.max() - rows.min() + 1 == len(rows) == side
    assert columns.max() - columns.min() + 1 == len(columns) == side


def test_weights_start_as_the_paper_says():
    torch.manual_seed(0)
    model = Pix2Pix(64, base_channels=16)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            if layer.weight.numel() > 1e4:
                assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
            assert layer.bias is None or not layer.bias.any()
    norms = torch.cat([m.weight for m in model.modules() if isinstance(m, nn.BatchNorm2d)])
    assert norms.mean().item() == pytest.approx(1, abs=0.01)
    assert norms.std().item() == pytest.approx(0.02, rel=0.2)


def test_evaluation_of_one_image_is_what_training_sees_in_a_batch_of_one():
    model = small(64, dropout=0.0).double()
    images = torch.randn(3, 3, 64, 64, dtype=torch.double)
    alone = torch.cat([model.train()(image) for image in images.split(1)])
    for each in model.modules():
        if isinstance(each, nn.BatchNorm2d):
            each.running_mean.fill_(3)  # published, and not used
    torch.testing.assert_close(model.eval()(images), alone)


def test_noise_stays_on_in_evaluation_and_follows_from_the_seed():
    model, images = small(64).eval(), torch.randn(1, 3, 64, 64)
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(model(images))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_training_and_evaluation_with_one_image_a_batch_stay_finite_at_the_bottleneck():
    for image_size in (32, 64):
        model, image = small(image_size), torch.randn(1, 3, image_size, image_size)
        model(image).square().mean().backward()
        assert all(p.grad.isfinite().all() for p in model.generator.parameters())
        # The innermost map still says something, as it would not if it were normalised.
        innermost = [m for m in model.generator.modules() if isinstance(m, nn.Conv2d)][-1]
        maps = []
        innermost.register_forward_hook(lambda *args, maps=maps: maps.append(args[2]))
        model.eval()(image)
        assert maps[0].shape[2:] == (1, 1) and maps[0].abs().min() > 0


def test_larger_images_than_it_was_made_for_are_translated_too():
    assert small(32)(torch.randn(1, 3, 64, 96)).shape == (1, 3, 64, 96)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"image_size": 100}, "image_size must be a power of two, at least 32, not 100"),
        ({"image_size": 16}, "image_size must be a power of two, at least 32, not 16"),
        ({"image_size": 32, "patch_layers": 4}, "patch_layers=4 leaves nothing of images of 32"),
        ({"patch_layers": 0}, "patch_layers must be at least 1, not 0"),
        ({"out_channels": 0}, "out_channels must be at least 1, not 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
    ],
)
def test_impossible_sizes_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        Pix2Pix(**{"base_channels": 2, **arguments})


@pytest.mark.parametrize("side", [16, 32, 72])
def test_images_that_leave_less_than_a_pixel_are_refused(side):
    with pytest.raises(ValueError, match=f"multiples of image_size=64, not {side}x{side}"):
        small(64)(torch.randn(1, 3, side, side))


def test_images_too_small_for_the_discriminator_are_refused():
    with pytest.raises(ValueError, match="x must be at least 24x24 pixels"):
        small(32).discriminator(torch.randn(1, 6, 16, 16))
