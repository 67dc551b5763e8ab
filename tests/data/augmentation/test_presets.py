from typing import get_args

import pytest
import torch

from zoo.data.augmentation.base import AlternatingFlip
from zoo.data.augmentation.colour import pixel_covariance
from zoo.data.augmentation.mixing import mixing
from zoo.data.augmentation.presets import Preset, check_preset, preset
from zoo.data.images.base import Normalize
from zoo.data.loading.tensor import TensorLoader

NAMES = get_args(Preset)
GREY = [name for name in NAMES if name not in ("crop_flip_colour", "alexnet")]


def random_images(n=40, channels=3, size=16):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, size, size), generator=generator).to(torch.uint8)


def loader(name, images, *, extra=(), **changes):
    channels = images.shape[1]
    changes = {"batch_size": 8, "shuffle": True, "seed": 4} | changes
    return TensorLoader(
        (images, torch.arange(len(images))),
        augment=preset(name, image_size=16, pixels=lambda: images) + extra,
        transform=Normalize([0.5] * channels, [0.25] * channels),
        **changes,
    )


def test_in_two_epochs_an_image_is_seen_from_both_sides():
    images = random_images(200)
    alternating = TensorLoader((images,), batch_size=64, seed=4, augment=(AlternatingFlip(),))
    epochs = [torch.cat([x for (x,) in alternating.batches(epoch)]) for epoch in range(4)]
    flipped = [[torch.equal(x, y.flip(2)) for x, y in zip(e, images, strict=True)] for e in epochs]
    assert 70 < sum(flipped[0]) < 130
    assert flipped[1] == [not was for was in flipped[0]]
    assert flipped[2:] == flipped[:2]
    other = TensorLoader((images,), batch_size=64, seed=5, augment=(AlternatingFlip(),))
    assert not torch.equal(epochs[0], torch.cat([x for (x,) in other.batches(0)]))


def by_sample(batches):
    return {int(y): x for xs, ys in batches for x, y in zip(xs, ys, strict=True)}


@pytest.mark.parametrize(("name", "channels"), [*((n, 3) for n in NAMES), *((n, 1) for n in GREY)])
def test_what_a_sample_looks_like_depends_on_seed_epoch_and_number_alone(name, channels):
    images = random_images(channels=channels)
    expected = by_sample(loader(name, images).batches(2))
    for changes in ({"batch_size": 7}, {"batch_size": 40}, {"shuffle": False}):
        actual = by_sample(loader(name, images, **changes).batches(2))
        assert all(torch.equal(actual[i], expected[i]) for i in range(40)), changes
    last = images.contiguous(memory_format=torch.channels_last)
    actual = by_sample(loader(name, last).batches(2))
    assert all(torch.equal(actual[i], expected[i]) for i in range(40))
    rest = by_sample(loader(name, images).batches(2, 3))
    assert len(rest) == 16 and all(torch.equal(rest[i], expected[i]) for i in rest)
    if name == "none":
        return
    same = 40 if name == "flip" else 4  # An image is mirrored or it is not.
    for other in (loader(name, images).batches(3), loader(name, images, seed=5).batches(2)):
        other = by_sample(other)
        assert sum(torch.equal(other[i], expected[i]) for i in range(40)) < same


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("none", "flip")])
def test_equal_images_of_a_batch_become_different(name):
    images = random_images(1).expand(40, -1, -1, -1).contiguous()
    ((batch, _),) = loader(name, images, batch_size=40).batches(0)
    # Of 16 pixels a sixteenth is one: there are nine places, and their mirror images.
    assert len(batch.flatten(1).unique(dim=0)) > (12 if name == "airbench" else 20)
    assert batch.dtype == torch.float32 and batch.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_mixing_goes_on_top_of_every_preset(name):
    images = random_images()
    extra = mixing(40, mixup=0.2, cutmix=1.0)
    for batch, targets in loader(name, images, extra=extra).batches(0):
        assert batch.shape == (8, 3, 16, 16) and targets.shape == (8, 40)
        torch.testing.assert_close(targets.sum(1), torch.ones(8))


def test_the_colours_of_alexnet_come_from_the_data():
    images = random_images()
    (_, _, colours) = preset("alexnet", image_size=16, pixels=lambda: images)
    covariance = pixel_covariance(images)
    torch.testing.assert_close(colours.directions @ colours.directions.T, covariance @ covariance)


def test_only_what_needs_the_data_asks_for_them():
    def refuse():
        raise AssertionError("asked for the pixels")

    for name in NAMES:
        if name == "alexnet":
            with pytest.raises(AssertionError, match="asked for the pixels"):
                preset(name, image_size=16, pixels=refuse)
        else:
            assert isinstance(preset(name, image_size=16, pixels=refuse), tuple)


def test_unknown_names_and_colour_for_grey_images_are_refused():
    with pytest.raises(ValueError, match=r"augment must be one of none, affine, .*, not 'flop'"):
        check_preset("flop", in_channels=3)
    with pytest.raises(ValueError, match="augment=alexnet needs images in colour"):
        check_preset("alexnet", in_channels=1)
    check_preset("mine", in_channels=1, names=("mine",))
