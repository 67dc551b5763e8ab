import pytest
import torch

from zoo.data.masks.shapes import Shapes, draw_shapes


def module(**changes):
    settings = {"batch_size": 50, "train_size": 100, "val_size": 70, "test_size": 10}
    return Shapes(**(settings | changes))


def everything(data, split):
    order = torch.tensor(
        [i for b in range(data.num_batches(split)) for i in data.loaders[split].indices(0, b)]
    )
    parts = [torch.cat(parts) for parts in zip(*data.batches(split, 0), strict=True)]
    return [part[order.argsort()] for part in parts]


def test_batches_are_normalised_images_and_whole_masks_with_all_classes():
    data = module()
    data.setup()
    images, masks = next(data.batches("train", 0))
    assert images.shape == (50, 3, 64, 64) and images.dtype == torch.float32
    assert masks.shape == (50, 64, 64) and masks.dtype == torch.int64
    assert images.min() >= -2 and images.max() <= 2 and images.std() > 0.5
    assert {s: data.loaders[s].num_samples for s in data.splits} == {
        "train": 100,
        "val": 70,
        "test": 10,
    }
    assert data.facts() == {
        "num_classes": 4,
        "class_names": ["background", "circle", "square", "triangle"],
        "in_channels": 3,
        "image_size": 64,
    }
    assert len(data.class_names) == 4 and data.resolved() == {}


def test_all_shapes_are_about_equally_frequent_and_every_image_has_one():
    images, masks = draw_shapes(400, 32, torch.Generator().manual_seed(0))
    assert images.dtype == masks.dtype == torch.uint8
    shares = masks.flatten().bincount() / masks.numel()
    assert 0.7 < shares[0] < 0.9
    assert shares[1:].min() > 0.8 * shares[1:].max()
    assert ((masks > 0).flatten(1).sum(1) > 0).float().mean() > 0.99


def test_images_are_a_function_of_the_split_seed_alone():
    first, same, other = module(), module(), module(split_seed=1)
    first.setup(seed=0)
    same.setup(seed=7)
    other.setup(seed=0)
    for split in first.splits:
        for a, b in zip(everything(first, split), everything(same, split), strict=True):
            assert torch.equal(a, b)
    assert not torch.equal(everything(first, "test")[1], everything(other, "test")[1])


def test_splits_have_no_image_in_common_and_fewer_images_are_the_first_of_many():
    data, few = module(), module(train_size=3)
    data.setup()
    few.setup()
    seen = torch.cat([everything(data, split)[0] for split in data.splits])
    assert len(seen.flatten(1).unique(dim=0)) == 180
    assert torch.equal(everything(few, "train")[0], everything(data, "train")[0][:3])


@pytest.mark.parametrize(
    ("kind", "least", "most"), [(1, 0.75, 0.8), (2, 0.55, 0.9), (3, 0.4, 0.54)]
)
def test_shapes_fill_as_much_of_their_bounding_boxes_as_they_should(kind, least, most):
    _, masks = draw_shapes(300, 64, torch.Generator().manual_seed(1))
    shares = []
    for mask in masks:
        if set(mask.unique().tolist()) == {0, kind}:
            ys, xs = mask.nonzero(as_tuple=True)
            height, width = ys.max() - ys.min() + 1, xs.max() - xs.min() + 1
            shares.append(len(ys) / (height * width).item())
    assert len(shares) > 20 and least < sorted(shares)[len(shares) // 2] < most


def test_weights_come_with_the_batches_where_asked_for():
    data = module(border_weights=True, train_size=4, val_size=2, test_size=2, flips="all")
    data.setup()
    for split in data.splits:
        images, masks, weights = next(data.batches(split, 0))
        assert weights.shape == masks.shape and (weights > 0).all()
        assert len(images) == len(masks)


def test_flips_change_training_images_together_with_their_masks():
    plain, flipped = module(), module(flips="all")
    for data in (plain, flipped):
        data.setup()
    for split, same in (("train", False), ("val", True)):
        (a, b), (c, d) = everything(plain, split), everything(flipped, split)
        assert torch.equal(a, c) == same and torch.equal(b, d) == same
        assert torch.equal(b.flatten(1).sort().values, d.flatten(1).sort().values)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"image_size": 8}, "image_size must be at least 16, not 8"),
        ({"val_size": 0}, "val_size must be at least 1, not 0"),
        ({"flips": "up"}, "flips must be 'none', 'horizontal' or 'all', not 'up'"),
    ],
)
def test_nonsense_is_refused_with_the_value(settings, message):
    with pytest.raises(ValueError, match=message):
        Shapes(**settings)
