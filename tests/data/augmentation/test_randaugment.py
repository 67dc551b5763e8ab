import pytest
import torch
from torch.nn import functional as F

from zoo.data.augmentation.randaugment import OPERATIONS, RandAugment

NAMES = {name: "".join(word.title() for word in name.split("_")) for name in OPERATIONS}
NAMES["autocontrast"] = "AutoContrast"


def random_images(batch=6, channels=3, height=16, width=16):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (batch, channels, height, width), generator=generator)
    coarse = torch.rand(batch, channels, 4, 4, generator=generator) * 180 + 30
    smooth = F.interpolate(coarse, size=(height, width), mode="bilinear")
    plain = torch.full((1, channels, height, width), 77)
    return torch.cat((noise, smooth, plain)).to(torch.uint8)


def uniform(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parity
@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize(
    ("magnitude", "channels"), [(0, 3), (9, 3), (9, 1), (10, 3), (17, 3), (30, 3)]
)
def test_each_operation_is_that_of_torchvision(name, magnitude, channels):
    v2 = pytest.importorskip("torchvision.transforms.v2")
    theirs = v2.RandAugment(1, magnitude)
    images = random_images(channels=channels, height=20, width=24)
    make, is_signed = theirs._AUGMENTATION_SPACE[NAMES[name]]
    levels = make(31, 20, 24)
    for backwards in (False, True):
        level = 0.0 if levels is None else float(levels[magnitude])
        level = -level if is_signed and backwards else level
        expected = torch.stack(
            [
                theirs._apply_image_or_video_transform(
                    image, NAMES[name], level, theirs.interpolation, {torch.Tensor: None}
                )
                for image in images
            ]
        )
        operation = torch.full((len(images),), OPERATIONS.index(name))
        changed = RandAugment(1, magnitude).operate(
            images, operation, torch.full_like(operation, backwards, dtype=torch.bool)
        )
        difference = (changed.int() - expected.int()).abs()
        # A blend that is a whole number but for rounding may lose its fraction on one side only:
        # factors of few digits (magnitude 10: 1.3) have many of them.
        assert difference.max() <= int(name in ("color", "sharpness"))
        assert (difference > 0).float().mean() < 0.1


def test_the_operations_are_those_of_the_paper():
    v2 = pytest.importorskip("torchvision.transforms.v2")
    assert set(NAMES.values()) == set(v2.RandAugment._AUGMENTATION_SPACE)
    assert len(OPERATIONS) == 14


def test_each_image_has_its_own_operations_one_after_the_other():
    augment = RandAugment(3, 12)
    images = random_images(batch=100)
    draws = uniform(len(images), augment.num_draws)
    expected = images
    for i in range(3):
        operation = (draws[:, 2 * i] * 14).long()
        expected = augment.operate(expected, operation, draws[:, 2 * i + 1] < 0.5)
    changed = augment(images, draws)
    assert torch.equal(changed, expected) and changed.dtype == torch.uint8
    kinds = (draws[:, 0] * 14).long().unique()
    assert len(kinds) == 14
    assert (changed != images).flatten(1).any(1).sum() > 150


@pytest.mark.parametrize("channels", [1, 3])
def test_what_happens_to_a_image_does_not_depend_on_its_batch_or_memory_format(channels):
    augment = RandAugment(2, 9)
    images = random_images(batch=40, channels=channels, height=15, width=13)
    draws = uniform(len(images), augment.num_draws)
    together = augment(images, draws)
    for part in (slice(0, 1), slice(1, 30), slice(30, 81)):
        assert torch.equal(augment(images[part], draws[part]), together[part])
    last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(augment(last, draws), together)
    assert torch.equal(images, random_images(batch=40, channels=channels, height=15, width=13))


@pytest.mark.gpu
def test_a_gpu_gives_what_the_cpu_gives():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    augment = RandAugment(2, 9)
    images = random_images(batch=60)
    draws = uniform(len(images), augment.num_draws)
    difference = augment(images.cuda(), draws.cuda()).cpu().int() - augment(images, draws).int()
    assert (difference != 0).float().mean() < 1e-3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_ops": 0}, "num_ops must be at least 1, not 0"),
        ({"magnitude": 31}, "magnitude must be from 0 to 30, not 31"),
    ],
)
def test_nonsense_is_refused_with_the_value(settings, message):
    with pytest.raises(ValueError, match=message):
        RandAugment(**settings)
