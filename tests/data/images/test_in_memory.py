"""What all images in memory share: which of the training images an epoch has."""

import pytest
import torch

from zoo.data.images.in_memory import ImagesInMemory


class Squares(ImagesInMemory):
    """Grey squares, each of a level of its own: 90 of the first class and 10 of the second."""

    in_channels, image_size = 1, 4
    class_names = ("many", "few")
    statistics = (0.5,), (0.25,)

    def _read(self):
        levels = torch.arange(100, dtype=torch.uint8).view(-1, 1, 1, 1).expand(100, 1, 4, 4)
        labels = (torch.arange(100) >= 90).long()
        return (levels, labels), (levels[:20], labels[:20])


def made(**options):
    module = Squares(**{"batch_size": 16, "augment": "none", "val_size": 10} | options)
    module.setup(seed=1)
    return module


def drawn(module, split, epoch=0):
    """The levels of the images in the order of an epoch, and their classes."""
    images, labels = map(torch.cat, zip(*module.batches(split, epoch), strict=True))
    mean, std = (torch.tensor(values) for values in module.statistics)
    levels = ((images.amax((1, 2, 3)) * std + mean) * 255).round().int()
    return levels.tolist(), labels


@pytest.mark.parametrize("augment", ["none", "crop_flip"])
@pytest.mark.parametrize(("balance", "sizes"), [("oversample", [81, 81]), ("undersample", [9, 9])])
def test_classes_come_equally_often_in_training_alone(augment, balance, sizes):
    module, plain = made(balance=balance, augment=augment), made(augment=augment)
    levels, labels = drawn(module, "train")
    assert labels.bincount().tolist() == sizes
    assert all((level >= 90) == label for level, label in zip(levels, labels.tolist(), strict=True))
    for split in ("val", "test"):
        assert drawn(module, split)[0] == drawn(plain, split)[0]


def test_bagging_draws_training_images_alone():
    plain, *bags = (made(bootstrap_seed=seed) for seed in (None, 3, 3, 4))
    whole = drawn(plain, "train")[0]
    first, again, other = (drawn(bag, "train")[0] for bag in bags)
    assert len(first) == len(whole) == len(set(whole)) == 90
    assert first == again and set(first) < set(whole) and sorted(first) != sorted(other)
    assert 45 < len(set(first)) < 67  # 63.2 % of 90, give or take
    for split in ("val", "test"):
        assert drawn(bags[0], split)[0] == drawn(plain, split)[0]
    assert {"balance", "bootstrap_seed"} <= set(Squares.for_training)


def test_another_balance_is_refused():
    with pytest.raises(ValueError, match=r"balance must be one of none, .* not 'even'"):
        made(balance="even")
