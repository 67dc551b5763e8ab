import math

import pytest
import torch
from torch.nn import functional as F

from zoo.data.augmentation.colour import (
    ColorJitter,
    ColorPCA,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    pixel_covariance,
)


def random_images(batch=8, channels=3, size=12):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (batch, channels, size, size), generator=generator)
    coarse = torch.rand(batch, channels, 3, 3, generator=generator) * 255
    smooth = F.interpolate(coarse, size=(size, size), mode="bilinear")
    grey = torch.randint(0, 256, (2, 1, size, size), generator=generator).expand(
        -1, channels, -1, -1
    )
    return torch.cat((noise, smooth, grey)).to(torch.uint8)


def uniform(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parity
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("change", "name", "start", "width"),
    [
        (adjust_brightness, "adjust_brightness", 0.0, 2.0),
        (adjust_contrast, "adjust_contrast", 0.0, 2.0),
        (adjust_saturation, "adjust_saturation", 0.0, 2.0),
        (adjust_hue, "adjust_hue", -0.5, 1.0),
    ],
)
def test_each_change_of_colour_is_that_of_torchvision(change, name, start, width, channels):
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    images = random_images(channels=channels)
    factors = start + width * uniform(len(images))
    changed = change(images, factors)
    expected = torch.stack(
        [
            getattr(functional, name)(image, float(factor))
            for image, factor in zip(images, factors, strict=True)
        ]
    )
    difference = (changed.int() - expected.int()).abs()
    assert changed.dtype == torch.uint8
    # A result that is a whole number but for rounding may lose its fraction on one side only.
    assert difference.max() <= 1 and (difference > 0).float().mean() < 2e-3


def test_a_factor_of_one_and_a_turn_of_nothing_change_nothing():
    images = random_images()
    ones = torch.ones(len(images))
    assert torch.equal(adjust_brightness(images, ones), images)
    assert torch.equal(adjust_contrast(images, ones), images)
    assert torch.equal(adjust_saturation(images, ones), images)
    assert torch.equal(adjust_hue(images, 0 * ones), images)


def test_a_third_of_a_turn_makes_red_green():
    red = torch.tensor([200, 10, 30], dtype=torch.uint8).view(1, 3, 1, 1)
    turned = adjust_hue(red, torch.tensor([1 / 3])).flatten().tolist()
    assert [abs(a - b) <= 1 for a, b in zip(turned, [30, 200, 10], strict=True)] == [True] * 3


def test_jitter_applies_its_changes_in_their_order_with_each_images_own_factors():
    images = random_images()
    draws = uniform(len(images), 4)
    jittered = ColorJitter(0.4, 0.3, 0.2, 0.1)(images, draws)
    u = 2 * draws - 1
    expected = adjust_brightness(images, 1 + 0.4 * u[:, 0])
    expected = adjust_contrast(expected, 1 + 0.3 * u[:, 1])
    expected = adjust_saturation(expected, 1 + 0.2 * u[:, 2])
    assert torch.equal(jittered, adjust_hue(expected, 0.1 * u[:, 3]))
    assert torch.equal(ColorJitter()(images, draws), images)


def test_covariance_is_that_of_all_pixels():
    images = random_images(batch=40)
    pixels = images.permute(0, 2, 3, 1).reshape(-1, 3).double() / 255
    expected = torch.cov(pixels.T, correction=0)
    torch.testing.assert_close(pixel_covariance(images), expected)
    last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(pixel_covariance(last), pixel_covariance(images))


def test_colours_move_along_the_principal_components_by_the_eigenvalues():
    root = torch.tensor([[0.3, 0.1, 0.0], [0.1, 0.4, 0.2], [0.0, 0.2, 0.5]], dtype=torch.float64)
    covariance = root @ root.T
    images = torch.zeros(4000, 3, 1, 1, dtype=torch.uint8)
    shifts = ColorPCA(covariance, std=0.1)(images, uniform(4000, 3)).flatten(1).double() / 255
    # The covariance of P diag(lambda) alpha, with alpha of variance 0.01, is 0.01 C C.
    torch.testing.assert_close(
        torch.cov(shifts.T), 0.01 * covariance @ covariance, atol=1.5e-4, rtol=0.1
    )
    values, vectors = torch.linalg.eigh(covariance)
    one_deviation = torch.full((1, 3), 0.5)
    one_deviation[0, 2] = 0.5 * (1 + math.erf(1 / math.sqrt(2)))
    shift = ColorPCA(covariance, std=0.1)(images[:1], one_deviation).flatten().double() / 255
    along = 0.1 * values[2] * vectors[:, 2]
    torch.testing.assert_close(shift.abs(), along.abs(), atol=1e-6, rtol=0)


def test_a_draw_of_zero_gives_no_infinite_colour():
    shifted = ColorPCA(torch.eye(3))(random_images(), torch.zeros(18, 3))
    assert shifted.isfinite().all() and shifted.dtype == torch.float32


@pytest.mark.parametrize(
    "augmentation",
    [
        ColorJitter(0.4, 0.4, 0.4, 0.1),
        ColorPCA(torch.eye(3) + 0.3),
        ColorJitter(1),
    ],
)
def test_what_happens_to_a_image_does_not_depend_on_its_batch_or_memory_format(augmentation):
    images = random_images(batch=13, size=9)
    draws = uniform(len(images), augmentation.num_draws)
    together = augmentation(images, draws)
    for part in (slice(0, 1), slice(3, 8), slice(8, 28)):
        assert torch.equal(augmentation(images[part], draws[part]), together[part])
    last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(augmentation(last, draws), together)
    assert torch.equal(images, random_images(batch=13, size=9))


@pytest.mark.gpu
@pytest.mark.parametrize(
    "augmentation", [ColorJitter(0.4, 0.4, 0.4, 0.1), ColorPCA(torch.eye(3) + 0.3)]
)
def test_a_gpu_gives_what_the_cpu_gives(augmentation):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    images = random_images()
    draws = uniform(len(images), augmentation.num_draws)
    there = augmentation(images.cuda(), draws.cuda()).cpu()
    here = augmentation(images, draws)
    assert there.dtype == here.dtype and (there.float() - here.float()).abs().max() <= 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ColorJitter(1.5), r"brightness must be in \[0, 1\], not 1.5"),
        (lambda: ColorJitter(0, -1), r"contrast must be in \[0, 1\], not -1"),
        (lambda: ColorJitter(0, 0, 2), r"saturation must be in \[0, 1\], not 2"),
        (lambda: ColorJitter(hue=0.6), r"hue must be in \[0, 0.5\], not 0.6"),
        (lambda: ColorPCA(torch.eye(2)), r"covariance must be 3x3, not \(2, 2\)"),
        (lambda: ColorPCA(torch.eye(3), std=-1), "std must not be negative, not -1"),
    ],
)
def test_nonsense_is_refused_with_the_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()
