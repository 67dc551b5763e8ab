import pytest
import torch
from torch.nn import functional as F

from zoo.data.augmentation.deformation import (
    BrightnessContrast,
    Dihedral,
    ElasticDeformation,
    RandomTile,
)
from zoo.data.loading.stream import StreamLoader
from zoo.data.loading.tensor import TensorLoader
from zoo.data.masks.base import NormalizeAnySize
from zoo.data.masks.tiles import TileStore, Tiling, tiled_loaders

SETTINGS = {
    "batch_size": 4,
    "tile_size": 8,
    "tiles_per_image": 3,
    "overhang": 0,
    "flips": "none",
    "elastic": 0.0,
    "jitter": 0.0,
    "border_weights": False,
}


def samples(sizes, channels=1, classes=2):
    generator = torch.Generator().manual_seed(0)
    found = []
    for height, width in sizes:
        image = torch.randint(0, 256, (channels, height, width), generator=generator)
        mask = (image[0] * classes) // 256
        found.append((image.to(torch.uint8), mask.to(torch.uint8)))
    return found


def loaders(sizes, eval_sizes=None, channels=1, seed=0, **changes):
    splits = {"train": samples(sizes, channels), "val": samples(eval_sizes or sizes, channels)}
    return tiled_loaders(
        splits,
        Tiling(**(SETTINGS | changes)),
        num_classes=2,
        normalize=NormalizeAnySize([0.0] * channels, [1 / 255] * channels),
        seed=seed,
        device="cpu",
    )


@pytest.mark.parametrize("overhang", [0, 5])
@pytest.mark.parametrize("channels", [1, 3])
def test_stored_tiles_are_those_cut_out_of_each_image_alone(channels, overhang):
    stored = samples([(12, 9), (5, 20), (6, 6)], channels)
    weights = [mask * 0.5 for _, mask in stored]
    store = TileStore(stored, (7, 7), overhang=overhang, weights=weights)
    numbers = torch.tensor([2, 0, 1, 1, 0])
    draws = torch.rand(5, 2)
    tiles = store.apply((numbers,), draws)
    cut = RandomTile(7, overhang=overhang)
    for i, number in enumerate(numbers.tolist()):
        image, mask = (part.unsqueeze(0) for part in stored[number])
        alone = cut.apply((image, mask.long(), weights[number].unsqueeze(0)), draws[i : i + 1])
        for tile, expected in zip(tiles, alone, strict=True):
            assert torch.equal(tile[i : i + 1], expected) and tile.dtype == expected.dtype
    assert torch.equal(store(numbers, draws), tiles[0])


def test_an_epoch_holds_so_many_different_tiles_of_each_image():
    loader = loaders([(30, 40), (50, 20)], tiles_per_image=5)["train"]
    assert loader.num_samples == 10 and len(loader) == 3
    tiles = torch.cat([images for images, _ in loader.batches(0)])
    assert len(tiles.flatten(1).unique(dim=0)) == 10


def test_tiles_depend_on_seed_and_epoch_and_an_epoch_may_start_anywhere():
    settings = {"flips": "all", "elastic": 2.0, "jitter": 0.2, "border_weights": True}
    first, same, other = (loaders([(30, 40), (9, 9)], seed=s, **settings) for s in (0, 0, 1))
    whole = list(first["train"].batches(3))
    for start in (0, 1):
        for batch, expected in zip(same["train"].batches(3, start), whole[start:], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(batch, expected, strict=True))
    for loader, epoch in ((first, 4), (other, 3)):
        assert not torch.equal(next(loader["train"].batches(epoch))[0], whole[0][0])


def test_a_tile_does_not_depend_on_the_size_of_its_batch():
    settings = {"flips": "all", "elastic": 2.0, "jitter": 0.2, "border_weights": True}
    large, small = (loaders([(30, 40), (9, 9)], batch_size=n, **settings)["train"] for n in (6, 1))
    (together,) = large.batches(0)
    for i, alone in enumerate(small.batches(0)):
        for one, other in zip(alone, together, strict=True):
            assert torch.equal(one[0], other[i])


def test_masks_and_weights_move_with_the_images():
    loader = loaders([(40, 40)] * 2, flips="all", border_weights=True, overhang=4)["train"]
    for images, masks, weights in loader.batches(0):
        assert images.shape == (len(masks), 1, 8, 8) and masks.dtype == torch.int64
        assert torch.equal((images[:, 0] >= 128).long(), masks)
        assert (weights >= 0.4).all() and weights.dtype == torch.float32


def test_whole_images_are_given_without_a_tile_size():
    stored = samples([(10, 14)] * 5)
    loader = loaders([(10, 14)] * 5, tile_size=None, tiles_per_image=1, batch_size=5)["train"]
    ((images, masks),) = loader.batches(0)
    order = loader.indices(0, 0)
    assert torch.equal(images, torch.stack([stored[i][0].float() for i in order]))
    assert torch.equal(masks, torch.stack([stored[i][1].long() for i in order]))


def test_an_elastic_tile_is_cut_out_with_a_margin_and_so_does_not_fold_at_its_edges():
    ramp = torch.arange(200).to(torch.uint8).expand(1, 200, 200)
    tiling = Tiling(**(SETTINGS | {"tile_size": 32, "elastic": 1.0, "tiles_per_image": 40}))
    (loader,) = tiled_loaders(
        {"train": [(ramp, torch.zeros(200, 200, dtype=torch.uint8))]},
        tiling,
        num_classes=1,
        normalize=NormalizeAnySize([0.0], [1 / 255]),
        seed=0,
        device="cpu",
    ).values()
    assert tiling.margin == 3
    tiles = torch.cat([images for images, _ in loader.batches(0)])
    inner = tiles[((tiles > 4) & (tiles < 195)).flatten(1).all(1)]
    assert len(inner) > 20 and inner.shape[2:] == (32, 32)
    assert (inner.diff(dim=3) > 0).all()


def test_augmentations_are_those_asked_for_in_order():
    settings = SETTINGS | {"flips": "all", "elastic": 3.0, "jitter": 0.3}
    kinds = [type(augmentation) for augmentation in Tiling(**settings).augmentations()]
    assert kinds == [Dihedral, ElasticDeformation, BrightnessContrast]
    assert Tiling(**SETTINGS).augmentations() == ()


def test_evaluation_sees_whole_images_in_order_in_batches_of_about_as_many_pixels():
    loader = loaders([(8, 8)], [(10, 12)] * 5, border_weights=True)["val"]
    assert isinstance(loader, TensorLoader) and loader.batch_size == 2
    images, masks, weights = (torch.cat(parts) for parts in zip(*loader.batches(0), strict=True))
    expected = samples([(10, 12)] * 5)
    assert torch.equal(images, torch.stack([image.float() for image, _ in expected]))
    assert torch.equal(masks, torch.stack([mask.long() for _, mask in expected]))
    assert weights.shape == masks.shape
    assert loaders([(8, 8)], [(100, 100)] * 2)["val"].batch_size == 1


def test_images_of_several_sizes_are_evaluated_one_by_one():
    sizes = [(10, 12), (7, 30), (10, 12)]
    loader = loaders([(8, 8)], sizes, channels=3)["val"]
    assert isinstance(loader, StreamLoader) and len(loader) == 3
    for (images, masks), (image, mask) in zip(loader.batches(0), samples(sizes, 3), strict=True):
        assert torch.equal(images[0], image.float()) and torch.equal(masks[0], mask.long())


def test_the_classes_of_training_balance_the_weights_of_all_splits():
    loader = loaders([(8, 8)] * 2, [(6, 6)], border_weights=True, tile_size=None)
    masks = torch.stack([mask for _, mask in samples([(8, 8)] * 2)])
    share = F.one_hot(masks.long(), 2).float().mean((0, 1, 2))
    ((_, masks, weights),) = loader["val"].batches(0)
    torch.testing.assert_close(weights[masks == 1], (0.5 / share[1]).expand(int(masks.sum())))


@pytest.mark.parametrize(
    ("changes", "sizes", "message"),
    [
        ({}, [(8, 8), (9, 8)], "tile_size must be given, because the training images have 2 siz"),
        ({"flips": "all"}, [(8, 9)], r"flips must not be 'all' .* because .* not square but 9x8"),
    ],
)
def test_whole_images_that_make_no_batch_are_told(changes, sizes, message):
    with pytest.raises(ValueError, match=message):
        loaders(sizes, tile_size=None, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"tile_size": 0}, "tile_size must be at least 1 or None, not 0"),
        ({"tiles_per_image": 0}, "tiles_per_image must be at least 1, not 0"),
        ({"overhang": -1}, "overhang must not be negative, not -1"),
        ({"overhang": 1, "tile_size": None}, "overhang must be 0 without a tile_size, not 1"),
        ({"flips": "vertical"}, "flips must be 'none', 'horizontal' or 'all', not 'vertical'"),
        ({"elastic": -1}, "elastic must not be negative, not -1"),
        ({"jitter": 1.5}, r"jitter must be in \[0, 1\], not 1.5"),
    ],
)
def test_nonsense_is_refused_with_the_value(changes, message):
    with pytest.raises(ValueError, match=message):
        Tiling(**(SETTINGS | changes))
