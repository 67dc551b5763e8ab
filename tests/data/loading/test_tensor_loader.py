import random

import numpy as np
import pytest
import torch

from zoo.data.augmentation.base import HorizontalFlip, RandomAffine, RandomCrop
from zoo.data.images.base import Normalize
from zoo.data.loading.tensor import TensorLoader


def numbers(n=10):
    return torch.arange(n).float().unsqueeze(1), torch.arange(n)


def random_images(n=20, channels=3):
    images = torch.randint(0, 256, (n, channels, 8, 8), dtype=torch.uint8)
    return images, torch.arange(n)


def image_loader(images, labels, **changes):
    settings = {
        "batch_size": 4,
        "shuffle": True,
        "seed": 5,
        "augment": (RandomCrop(2), HorizontalFlip(), RandomAffine(10, 0.1)),
        "transform": Normalize([0.5] * images.shape[1], [0.2] * images.shape[1]),
    }
    return TensorLoader((images, labels), **(settings | changes))


def by_sample(batches):
    """Every sample's image by its label, which is its number."""
    return {
        int(label): image
        for images, labels in batches
        for image, label in zip(images, labels, strict=True)
    }


def test_an_epoch_visits_every_sample_once_with_its_own_target():
    loader = TensorLoader(numbers(), batch_size=3, shuffle=True)
    batches = list(loader.batches(0))
    assert [len(targets) for _, targets in batches] == [3, 3, 3, 1]
    assert len(loader) == 4 and loader.num_samples == 10
    inputs, targets = (torch.cat(column) for column in zip(*batches, strict=True))
    assert torch.equal(inputs.squeeze(1).long(), targets)
    assert targets.sort().values.tolist() == list(range(10))


def test_order_is_a_function_of_seed_and_epoch_alone():
    def order(seed, epoch):
        loader = TensorLoader(numbers(), batch_size=3, shuffle=True, seed=seed)
        return torch.cat([targets for _, targets in loader.batches(epoch)]).tolist()

    assert order(0, 1) == order(0, 1)
    assert len({tuple(order(s, e)) for s in (0, 1) for e in (0, 1)}) == 4


@pytest.mark.parametrize("start", [0, 1, 3, 4, 5, 9])
def test_starting_at_any_batch_gives_the_batches_of_the_whole_epoch(start):
    loader = image_loader(*random_images())
    whole = list(loader.batches(2))
    rest = list(loader.batches(2, start))
    assert len(rest) == max(0, 5 - start)
    for (images, labels), (expected, numbers) in zip(rest, whole[start:], strict=True):
        assert torch.equal(images, expected) and torch.equal(labels, numbers)


def test_indices_name_the_samples_of_a_batch():
    for loader in (
        TensorLoader(numbers(), batch_size=4, shuffle=True, seed=2),
        TensorLoader(numbers(), batch_size=4),
    ):
        for number, (_, targets) in enumerate(loader.batches(3)):
            assert loader.indices(3, number) == targets.tolist()


def test_evaluation_drops_and_pads_nothing_and_keeps_the_order():
    loader = TensorLoader(numbers(), batch_size=4)
    batches = list(loader.batches(7))
    assert [len(targets) for _, targets in batches] == [4, 4, 2]
    assert torch.cat([targets for _, targets in batches]).tolist() == list(range(10))


def test_drop_last_leaves_out_the_smaller_batch_only():
    loader = TensorLoader(numbers(), batch_size=4, shuffle=True, drop_last=True)
    assert [len(targets) for _, targets in loader.batches(0)] == [4, 4]
    assert len(loader) == 2


@pytest.mark.parametrize(("batch_size", "shuffle"), [(None, False), (None, True), (10, False)])
def test_a_single_batch_is_the_data_themselves_not_a_copy(batch_size, shuffle):
    inputs, targets = numbers()
    loader = TensorLoader((inputs, targets), batch_size=batch_size, shuffle=shuffle)
    ((x, y),) = loader.batches(0)
    assert x.data_ptr() == inputs.data_ptr() and y.data_ptr() == targets.data_ptr()
    assert torch.equal(y, targets)


def test_global_random_states_are_neither_used_nor_changed():
    loader = image_loader(*random_images())
    torch.manual_seed(0)
    state, python, numpy = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    first = by_sample(loader.batches(0))
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == python
    assert (np.random.get_state()[1] == numpy[1]).all()  # noqa: NPY002
    torch.manual_seed(1)
    second = by_sample(loader.batches(0))
    assert all(torch.equal(first[i], second[i]) for i in first)


def test_equal_images_of_one_batch_are_augmented_differently():
    images = random_images(1)[0].expand(20, -1, -1, -1).contiguous()
    for augmentation in (RandomCrop(3), RandomAffine(10, 0.1)):
        loader = image_loader(images, torch.arange(20), batch_size=20, augment=(augmentation,))
        ((changed, _),) = loader.batches(0)
        assert len({tuple(image.flatten().tolist()) for image in changed}) > 10


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "augment",
    [
        (RandomCrop(2), HorizontalFlip(), RandomAffine(10, 0.1)),
        (HorizontalFlip(), RandomCrop(2)),
        (RandomAffine(10),),
    ],
)
def test_augmentation_depends_on_the_sample_not_on_batch_size_or_order(augment, channels):
    images, labels = random_images(channels=channels)
    expected = by_sample(image_loader(images, labels, augment=augment).batches(3))
    for changes in ({"batch_size": 7}, {"batch_size": 20}, {"shuffle": False}, {"batch_size": 1}):
        loader = image_loader(images, labels, augment=augment, **changes)
        actual = by_sample(loader.batches(3))
        assert all(torch.equal(actual[i], expected[i]) for i in range(20)), changes


def test_augmentation_differs_between_epochs_and_seeds():
    images, labels = random_images()
    loader = image_loader(images, labels)
    other = image_loader(images, labels, seed=6)
    first, epoch, seed = (
        by_sample(b) for b in (loader.batches(0), loader.batches(1), other.batches(0))
    )
    assert sum(torch.equal(first[i], epoch[i]) for i in range(20)) < 3
    assert sum(torch.equal(first[i], seed[i]) for i in range(20)) < 3


def test_the_crop_fused_with_the_gather_equals_cropping_the_batch():
    images, labels = random_images()
    fused = image_loader(images, labels, augment=(RandomCrop(2),), transform=None)

    class Separate(RandomCrop):
        """Called on each batch, as the loader knows nothing of it."""

    separate = image_loader(images, labels, augment=(Separate(2),), transform=None)
    first, second = by_sample(fused.batches(1)), by_sample(separate.batches(1))
    assert all(torch.equal(first[i], second[i]) for i in range(20))


def test_what_a_crop_brings_in_from_outside_is_normalised_black():
    images = torch.full((4, 3, 8, 8), 255, dtype=torch.uint8)
    mean, std = [0.4, 0.5, 0.6], [0.1, 0.2, 0.3]
    loader = image_loader(
        images, torch.arange(4), augment=(RandomCrop(4),), transform=Normalize(mean, std)
    )
    ((batch, _),) = loader.batches(0)
    black = -torch.tensor(mean) / torch.tensor(std)
    white = (1 - torch.tensor(mean)) / torch.tensor(std)
    for channel in range(3):
        values = batch[:, channel].unique()
        torch.testing.assert_close(values, torch.stack((black[channel], white[channel])))


@pytest.mark.parametrize("shuffle", [True, False])
def test_pixels_last_images_come_out_as_such_and_equal(shuffle):
    images, labels = random_images()
    last = images.contiguous(memory_format=torch.channels_last)
    settings = {"augment": (), "shuffle": shuffle}
    plain = list(image_loader(images, labels, **settings).batches(0))
    for (a, _), (b, _) in zip(
        image_loader(last, labels, **settings).batches(0), plain, strict=True
    ):
        assert torch.equal(a, b)
        assert a.is_contiguous(memory_format=torch.channels_last) and b.is_contiguous()


@pytest.mark.gpu
def test_batches_on_a_gpu_equal_those_on_the_cpu():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    images, labels = random_images()
    settings = {"augment": (RandomCrop(2), HorizontalFlip())}
    cpu = image_loader(images, labels, **settings).batches(0)
    gpu = image_loader(images, labels, device="cuda", **settings).batches(0)
    for (a, i), (b, j) in zip(cpu, gpu, strict=True):
        assert b.device.type == "cuda" and i.tolist() == j.tolist()
        torch.testing.assert_close(a, b.cpu())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1 or None, not 0"),
        ({"batch_size": 2.5}, "batch_size must be at least 1 or None, not 2.5"),
        ({"batch_size": 11, "drop_last": True}, "batch_size must be at most 10"),
    ],
)
def test_nonsense_is_refused_with_the_value(settings, message):
    with pytest.raises(ValueError, match=message):
        TensorLoader(numbers(), **settings)


def test_tensors_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match=r"tensors must have one length .* not \[10, 3\]"):
        TensorLoader((torch.zeros(10), torch.zeros(3)), batch_size=2)
