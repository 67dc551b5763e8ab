import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo.models.generative.pixel_cnn import MaskedConv2d, PixelCNN


def small(image_size=3, in_channels=1, *, scale=0.4, **options):
    torch.manual_seed(0)
    sizes = {"hidden_channels": 6, "num_blocks": 2, "head_channels": 6, **options}
    model = PixelCNN(image_size, in_channels, **sizes).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=scale)
    return model


def states(units):
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=units)), dtype=torch.double)


def seen(model):
    """Which pixels each logit can depend on, ``(outputs, inputs)`` in the order of reading.

    Where weights and pixels are positive, no two ways cancel each other and no ReLU is silent.
    """
    channels, height, width = model.sample_shape
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.1)
    image = torch.ones(1, *model.sample_shape, dtype=torch.double)
    jacobian = torch.autograd.functional.jacobian(model, image)[0, :, :, :, 0]
    pixels = channels * height * width
    return jacobian.permute(1, 2, 0, 4, 5, 3).reshape(pixels, pixels) > 0


@pytest.mark.parametrize(("sizes", "count"), [((16, 7), 26_433), ((128, 15), 3_223_617)])
def test_parameter_counts_are_the_docstrings(sizes, count):
    with torch.device("meta"):
        model = PixelCNN(hidden_channels=sizes[0], num_blocks=sizes[1])
    assert sum(p.numel() for p in model.parameters()) == count


def test_masks_are_those_of_the_paper():
    masks = {kind: MaskedConv2d(1, 1, 3, mask_type=kind).mask[0, 0].int().tolist() for kind in "AB"}
    assert masks == {
        "A": [[1, 1, 1], [1, 0, 0], [0, 0, 0]],
        "B": [[1, 1, 1], [1, 1, 0], [0, 0, 0]],
    }
    # Of three colours, rows see columns: R sees nothing of its own pixel, G sees R, B sees both.
    own = {
        kind: MaskedConv2d(3, 3, 1, mask_type=kind, colours=3).mask[:, :, 0, 0].int().tolist()
        for kind in "AB"
    }
    assert own == {
        "A": [[0, 0, 0], [1, 0, 0], [1, 1, 0]],
        "B": [[1, 0, 0], [1, 1, 0], [1, 1, 1]],
    }
    shared = MaskedConv2d(4, 4, 1, colours=2).mask[:, :, 0, 0].int().tolist()
    assert shared == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_logit_depends_on_just_the_pixels_before_it(channels):
    model = small(4, channels, scale=0.5)
    pixels = channels * 16
    depends = torch.zeros(pixels, pixels, dtype=torch.bool)
    for image in torch.randn(10, 1, channels, 4, 4, dtype=torch.double):
        jacobian = torch.autograd.functional.jacobian(model, image)[0, :, :, :, 0]
        depends |= jacobian.permute(1, 2, 0, 4, 5, 3).reshape(pixels, pixels) != 0
    before = torch.ones(pixels, pixels, dtype=torch.bool).tril(-1)
    assert not (depends & ~before).any()
    assert depends[before].double().mean() > 0.9
    # With four columns nothing lies in the blind spot, and no pixel before is out of reach.
    assert torch.equal(seen(model), before)


@pytest.mark.parametrize("num_blocks", [1, 2, 9])
def test_what_a_pixel_sees_has_no_hole_but_the_blind_spot(num_blocks):
    """By hand: up to three columns to the right by the kernel of 7, which has to go up by a row at
    least, and one more for each further row by a kernel of 3. To the left and up, as far as all
    kernels reach together."""
    size = 12
    found = seen(small(size, num_blocks=num_blocks)).view(size, size, size, size)
    reach = 3 + num_blocks
    for row, column, other, place in itertools.product(range(size), repeat=4):
        up, right = row - other, place - column
        if up == 0:
            expected = -reach <= right < 0
        else:
            expected = 0 < up <= reach and -reach <= right <= 3 + min(up - 1, num_blocks)
        assert found[row, column, other, place] == expected, (row, column, other, place)
    if num_blocks == 9:  # It stays, though these reach to every corner.
        blind = ~found[11, 0]
        assert blind[10].nonzero().flatten().tolist() == [4, 5, 6, 7, 8, 9, 10, 11]


def test_a_kernel_of_the_stem_that_stood_on_its_own_pixel_would_be_found():
    model = small(4)
    model.stem.mask[:, :, 3, 3] = True
    assert seen(model).diagonal().all()


@pytest.mark.parametrize(("size", "channels"), [(3, 1), (2, 2)])
def test_probabilities_of_all_images_sum_to_one(size, channels):
    model = small(size, channels, scale=0.8)
    images = states(channels * size**2).view(-1, channels, size, size)
    log_probabilities = model.log_prob(images)
    assert log_probabilities.logsumexp(0).item() == pytest.approx(0, abs=1e-10)
    assert log_probabilities.std() > 1  # It is not that all of them are equally likely.


@pytest.mark.parametrize("channels", [1, 3])
def test_log_prob_is_the_product_of_the_conditionals_one_by_one(channels):
    model = small(4, channels)
    image = (torch.rand(1, channels, 4, 4) < 0.4).double()
    total, known = 0.0, torch.zeros_like(image)
    for row, column, colour in itertools.product(range(4), range(4), range(channels)):
        mean = model(known).sigmoid()[0, colour, row, column]  # of the pixels before alone
        pixel = image[0, colour, row, column]
        total += torch.log(mean if pixel else 1 - mean)
        known[0, colour, row, column] = pixel
    torch.testing.assert_close(model.log_prob(image)[0], total)


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_are_those_of_a_whole_pass_a_pixel(channels):
    model = small(6, channels, scale=0.3)
    noise = torch.rand(20, channels, 6, 6, generator=torch.Generator().manual_seed(5)).double()
    images = torch.zeros_like(noise)
    for row, column, colour in itertools.product(range(6), range(6), range(channels)):
        means = model(images).sigmoid()[:, colour, row, column]
        images[:, colour, row, column] = (noise[:, colour, row, column] < means).double()
    found = model.sample(20, torch.Generator().manual_seed(5))
    assert torch.equal(found, images)
    assert 0.05 < found.mean() < 0.95


def test_samples_come_from_the_model():
    model = small(2, scale=0.8)
    exact = model.log_prob(states(4).view(-1, 1, 2, 2)).exp()
    samples = model.sample(40_000, torch.Generator().manual_seed(0))
    assert samples.shape == (40_000, 1, 2, 2)
    numbers = samples.flatten(1) @ torch.tensor([8.0, 4.0, 2.0, 1.0]).double()
    shares = torch.bincount(numbers.long(), minlength=16) / len(samples)
    torch.testing.assert_close(shares.double(), exact, atol=0.01, rtol=0)
    assert exact.max() > 3 / 16
    chi_squared = ((shares - exact).square() / exact).sum() * len(samples)
    assert chi_squared < 37.7  # exceeded once in 1,000 by chance, of 15 degrees of freedom


def test_the_first_pixel_is_a_matter_of_the_biases():
    model = small(4)
    first = model(torch.rand(5, 1, 4, 4, dtype=torch.double))[:, 0, 0, 0]
    assert torch.equal(first, first[:1].expand(5))


def test_a_block_is_the_papers_by_torchs_own_layers():
    model = small(5)
    block, x = model.blocks[0], torch.randn(2, 12, 5, 5, dtype=torch.double)
    plain = nn.Sequential(
        *(nn.ReLU(), nn.Conv2d(12, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1)),
        *(nn.ReLU(), nn.Conv2d(6, 12, 1)),
    ).double()
    for layer, ours in zip(plain[1::2], (block.reduce, block.conv, block.expand), strict=True):
        layer.load_state_dict({"weight": ours.weight, "bias": ours.bias})
    with torch.no_grad():
        plain[3].weight[:, :, 2] = 0
        plain[3].weight[:, :, 1, 2] = 0
    torch.testing.assert_close(block(x), x + plain(x))


def test_masked_weights_get_no_gradient_and_the_others_do():
    model = small(6, in_channels=3, num_blocks=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()  # Then no ReLU is silent.
    (-model.log_prob((torch.rand(8, 3, 6, 6) < 0.5).double()).mean()).backward()
    for layer in (model.stem, model.blocks[0].conv):
        assert (layer.weight.grad[~layer.mask] == 0).all()
        assert (layer.weight.grad[layer.mask] != 0).all()


def test_a_small_model_learns_what_follows_from_the_pixels_before():
    """Each row repeats its first pixel: one bit a row, log 2 nats, is all that there is to say."""
    torch.manual_seed(0)
    model = PixelCNN(4, hidden_channels=8, num_blocks=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        images = (torch.rand(64, 1, 4, 1) < 0.5).float().expand(-1, -1, -1, 4)
        loss = -model.log_prob(images).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() == pytest.approx(4 * 0.6931, abs=0.15)
    samples = model.sample(50, torch.Generator().manual_seed(0))
    assert F.mse_loss(samples, samples[..., :1].expand_as(samples)) < 0.02


def test_nonsense_is_refused_with_its_value():
    with pytest.raises(ValueError, match="num_blocks must be at least 1, not 0"):
        PixelCNN(num_blocks=0)
    with pytest.raises(ValueError, match=r"hidden_channels must be at least in_channels=3, .* 2"):
        PixelCNN(8, 3, hidden_channels=2)
    with pytest.raises(ValueError, match=r"x must be \(batch, 1, 8, 8\), not \(2, 1, 4, 4\)"):
        PixelCNN(8)(torch.zeros(2, 1, 4, 4))
