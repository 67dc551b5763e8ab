import math

import pytest
import torch
from torch.nn import functional as F

from zoo.data.augmentation.base import AlternatingFlip, HorizontalFlip, RandomAffine, RandomCrop


def random_images(batch=4, channels=3, height=6, width=5, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 255, (batch, channels, height, width), generator=generator).to(dtype)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_crop_cuts_the_window_at_the_drawn_corner_out_of_the_padded_image(dtype, channels):
    images = random_images(channels=channels, dtype=dtype)
    draws = torch.tensor([[0.0, 0.0], [0.5, 0.5], [0.99, 0.0], [0.3, 0.99]])
    cropped = RandomCrop(2)(images, draws)
    padded = F.pad(images, (2, 2, 2, 2))
    for i, (y, x) in enumerate([(0, 0), (2, 2), (4, 0), (1, 4)]):
        assert torch.equal(cropped[i], padded[i, :, y : y + 6, x : x + 5])
    assert cropped.dtype == dtype


def test_crop_draws_every_corner_equally_often():
    positions = torch.arange(5).expand(1, 1, 5, 5).float()  # the value of a pixel is its column
    crop = RandomCrop(2, fill=-1)
    draws = torch.rand(20_000, 2, generator=torch.Generator().manual_seed(0))
    left = crop(positions.expand(20_000, -1, -1, -1), draws)[:, 0, 2, 2]
    counts = left.long().bincount(minlength=5)
    torch.testing.assert_close(counts / 20_000, torch.full((5,), 0.2), atol=0.02, rtol=0)


def test_crop_fills_with_the_given_value():
    corner = RandomCrop(1, fill=7)(random_images(batch=1), torch.zeros(1, 2))
    assert (corner[:, :, 0] == 7).all() and (corner[:, :, :, 0] == 7).all()
    assert torch.equal(corner[:, :, 1:, 1:], random_images(batch=1)[:, :, :-1, :-1])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_crop_mirrors_the_image_at_its_border_as_torch_does(dtype):
    images = random_images(dtype=dtype)
    padded = RandomCrop(3, fill="reflect").pad(images)
    assert padded.dtype == dtype and padded.is_contiguous()
    expected = F.pad(images.float(), (3, 3, 3, 3), "reflect")
    assert torch.equal(padded.permute(0, 3, 1, 2).float(), expected)
    with pytest.raises(ValueError, match="padding=5 is too much to mirror images of 5 pixels"):
        RandomCrop(5, fill="reflect").pad(images)


def test_crop_reads_the_last_window_of_the_last_image():
    images = random_images(batch=2)
    cropped = RandomCrop(3)(images, torch.full((2, 2), 0.999))
    assert torch.equal(cropped[1], F.pad(images, (3, 3, 3, 3))[1, :, 6:, 6:])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_flip_mirrors_exactly_the_drawn_images(memory_format):
    images = random_images().contiguous(memory_format=memory_format)
    before = images.clone()
    flipped = HorizontalFlip(0.5)(images, torch.tensor([[0.1], [0.5], [0.49], [0.9]]))
    expected = torch.stack([images[0].flip(2), images[1], images[2].flip(2), images[3]])
    assert torch.equal(flipped, expected)
    assert torch.equal(images, before)
    assert flipped.is_contiguous(memory_format=memory_format)


def test_affine_without_ranges_changes_nothing():
    images = random_images()
    torch.testing.assert_close(RandomAffine()(images, torch.rand(4, 5)), images)


def test_affine_of_whole_pixels_is_a_shift_with_black_coming_in():
    images = random_images(batch=1, height=8, width=8)
    draws = torch.tensor([[0.5, 1.0, 0.0, 0.5, 0.5]])  # right and up by a quarter
    moved = RandomAffine(translate=0.25)(images, draws)
    torch.testing.assert_close(moved[:, :, :6, 2:], images[:, :, 2:, :6])
    assert (moved[:, :, 6:] == 0).all() and (moved[..., :2] == 0).all()


def test_affine_of_ninety_degrees_is_a_rotation():
    images = random_images(batch=2, height=6, width=6)
    draws = torch.full((2, 5), 0.5)
    draws[:, 0] = torch.tensor([0.0, 1.0])
    turned = RandomAffine(90)(images, draws)
    torch.testing.assert_close(turned[0], images[0].rot90(1, (1, 2)), atol=1e-3, rtol=0)
    torch.testing.assert_close(turned[1], images[1].rot90(-1, (1, 2)), atol=1e-3, rtol=0)


def test_affine_zoom_enlarges_and_fill_is_what_lies_outside():
    images = torch.full((2, 1, 8, 8), 200.0)
    draws = torch.full((2, 5), 0.5)
    draws[:, 3] = torch.tensor([0.0, 1.0])
    small, large = RandomAffine(scale=(0.5, 2.0), fill=50)(images, draws)
    torch.testing.assert_close(small[0, :2], torch.full((2, 8), 50.0))
    torch.testing.assert_close(small[0, 3:5, 3:5], torch.full((2, 2), 200.0))
    torch.testing.assert_close(large[0, 1:7, 1:7], torch.full((6, 6), 200.0))


def test_affine_shear_moves_rows_against_one_another():
    images = torch.zeros(1, 1, 9, 9)
    images[..., 4] = 1.0
    draws = torch.full((1, 5), 0.5)
    draws[0, 4] = 1.0
    sheared = RandomAffine(shear=math.degrees(math.atan(1.0)))(images, draws)[0, 0]
    assert sheared[4].argmax() == 4
    assert abs(sheared[6].argmax().item() - sheared[2].argmax().item()) == 4


@pytest.mark.parametrize("augmentation", [RandomCrop(2), AlternatingFlip(), RandomAffine(20, 0.1)])
def test_what_happens_to_a_image_does_not_depend_on_its_batch(augmentation):
    images = random_images(batch=13, height=9, width=7)
    draws = torch.rand(13, augmentation.num_draws)
    together = augmentation(images, draws)
    for part in (slice(0, 1), slice(3, 8), slice(8, 13)):
        assert torch.equal(augmentation(images[part], draws[part]), together[part])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomCrop(0), "padding must be at least 1, not 0"),
        (lambda: HorizontalFlip(1.5), r"p must be in \[0, 1\], not 1.5"),
        (lambda: RandomAffine(-1), "degrees must not be negative, not -1"),
        (lambda: RandomAffine(translate=2), r"translate must be in \[0, 1\], not 2"),
        (lambda: RandomAffine(scale=(2, 1)), "scale must be two numbers"),
        (lambda: RandomAffine(shear=90), r"shear must be in \[0, 90\), not 90"),
    ],
)
def test_nonsense_is_refused_with_the_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()
