import pytest
import torch

from zoo.data.augmentation.erasing import RandomErasing


def random_images(batch=18, size=12):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, 3, size, size), generator=generator).to(torch.uint8)


def uniform(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parity
def test_erasing_fills_the_rectangle_as_torchvision_does():
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    images = random_images()
    erasing = RandomErasing(1.0, fill=7)
    draws = uniform(len(images), 6)
    erased = erasing(images, draws)
    rectangles = erasing.rectangles(draws, 12, 12).tolist()
    for image, (top, left, height, width), result in zip(images, rectangles, erased, strict=True):
        value = torch.full((3, height, width), 7, dtype=torch.uint8)
        assert torch.equal(functional.erase(image, top, left, height, width, value), result)


def test_rectangles_lie_inside_with_the_drawn_areas_ratios_and_probability():
    draws = uniform(5000, 6)
    top, left, height, width = RandomErasing(0.25).rectangles(draws, 40, 60).unbind(1)
    used = height > 0
    assert abs(used.float().mean() - 0.25) < 0.02
    top, left, height, width = (n[used].float() for n in (top, left, height, width))
    assert (top >= 0).all() and (top + height <= 40).all()
    assert (left >= 0).all() and (left + width <= 60).all()
    area = height * width / 2400
    assert 0.015 < area.min() < 0.03 and 0.38 < area.max() < 0.42
    assert abs(area.mean() - 0.21) < 0.01
    ratio = height / width
    assert 0.25 < ratio.min() < 0.35 and 2.5 < ratio.max() < 4


def test_what_is_erased_looks_like_noise_of_its_own_for_every_image():
    images = torch.zeros(1000, 3, 16, 16, dtype=torch.uint8)
    erased = RandomErasing(1.0, area=(1.0, 1.0), ratio=(1.0, 1.0))(images, uniform(1000, 6))
    counts = erased.flatten().long().bincount(minlength=256) / erased.numel()
    assert len(counts) == 256 and (counts * 256 - 1).abs().max() < 0.1
    values = erased.flatten(1).float()
    values = (values - values.mean()) / values.std()
    between = (values @ values.T / values.shape[1]).fill_diagonal_(0)
    neighbours = (values[:, 1:] * values[:, :-1]).mean()
    assert between.abs().max() < 0.25 and abs(neighbours) < 0.01


@pytest.mark.parametrize("fill", [None, 7])
def test_what_happens_to_a_image_does_not_depend_on_its_batch_or_memory_format(fill):
    images, draws = random_images(), uniform(18, 6)
    together = RandomErasing(fill=fill)(images, draws)
    for part in (slice(0, 1), slice(3, 8), slice(8, 18)):
        assert torch.equal(RandomErasing(fill=fill)(images[part], draws[part]), together[part])
    last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(RandomErasing(fill=fill)(last, draws), together)
    assert together.dtype == torch.uint8 and torch.equal(images, random_images())


@pytest.mark.gpu
def test_a_gpu_gives_what_the_cpu_gives():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    images, draws = random_images(), uniform(18, 6)
    assert torch.equal(
        RandomErasing()(images.cuda(), draws.cuda()).cpu(), RandomErasing()(images, draws)
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomErasing(2), r"p must be in \[0, 1\], not 2"),
        (lambda: RandomErasing(area=(0, 1)), "area must be two numbers"),
        (lambda: RandomErasing(ratio=(2, 1)), "ratio must be two numbers"),
    ],
)
def test_nonsense_is_refused_with_the_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()
