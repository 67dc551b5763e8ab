import pytest
import torch
from torch.nn import functional as F

from zoo.data.augmentation.deformation import (
    BrightnessContrast,
    Dihedral,
    ElasticDeformation,
    RandomTile,
    mirrored,
    normal,
    tile_pixels,
)


def batch(n=4, channels=3, height=12, width=12, dtype=torch.float32):
    """Images, masks and weights that all hold the same pattern in their first channel."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 250, (n, channels, height, width), generator=generator).to(dtype)
    return images, images[:, 0].long(), images[:, 0].float()


def uniform(augmentation, n=4, seed=0):
    return torch.rand(n, augmentation.num_draws, generator=torch.Generator().manual_seed(seed))


def test_dihedral_shows_each_of_the_eight_symmetries_once():
    image = torch.arange(9.0).view(1, 1, 3, 3)
    draws = torch.arange(8).view(8, 1) / 8 + 0.01
    turned = Dihedral()(image.expand(8, -1, -1, -1), draws)
    turns = [image.rot90(k, (2, 3)) for k in range(4)]
    expected = torch.cat(turns + [turn.flip(3) for turn in turns])
    assert len(turned.unique(dim=0)) == 8
    assert torch.equal(turned.unique(dim=0), expected.unique(dim=0))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("augmentation", [Dihedral(), RandomTile(7), RandomTile(20, overhang=3)])
def test_moved_pixels_take_their_mask_and_weights_along(augmentation, dtype):
    images, masks, weights = augmentation.apply(batch(dtype=dtype), uniform(augmentation))
    assert images.dtype == dtype and masks.dtype == torch.int64 and weights.dtype == torch.float32
    assert torch.equal(images[:, 0].long(), masks) and torch.equal(masks.float(), weights)
    assert torch.equal(images, augmentation(batch(dtype=dtype)[0], uniform(augmentation)))


def test_labels_of_whole_images_are_left_alone():
    images, _, _ = batch()
    labels = torch.arange(4)
    for augmentation in (Dihedral(), ElasticDeformation(), RandomTile(5)):
        assert augmentation.apply((images, labels), uniform(augmentation))[1] is labels


def test_images_that_are_not_square_are_not_turned():
    with pytest.raises(ValueError, match="images must be square to be turned, not 12x9"):
        Dihedral()(batch(width=9)[0], torch.zeros(4, 1))


@pytest.mark.parametrize("border", ["mirror", "ignore"])
def test_a_deformation_without_deviation_changes_nothing(border):
    elastic = ElasticDeformation(0.0, border=border)
    images, masks, weights = batch(height=11, width=17)
    moved = elastic.apply((images, masks, weights), uniform(elastic))
    torch.testing.assert_close(moved[0], images, atol=1e-3, rtol=0)
    assert torch.equal(moved[1], masks)
    torch.testing.assert_close(moved[2], weights, atol=1e-3, rtol=0)


def test_displacements_are_torchs_bicubic_interpolation_of_gaussian_vectors():
    elastic = ElasticDeformation(2.0, nodes=4)
    draws = uniform(elastic)
    vectors = 2 * normal(draws).view(4, 2, 4, 4)
    shift = F.interpolate(vectors, size=(30, 40), mode="bicubic", align_corners=True)
    # Images whose value is the column, then the row, of a pixel, read far from the border.
    columns = torch.arange(40.0).expand(30, 40)
    rows = torch.arange(30.0).unsqueeze(1).expand(30, 40)
    moved = elastic(torch.stack((columns, rows)).expand(4, -1, -1, -1), draws)
    inner = (..., slice(10, 20), slice(10, 30))
    expected = torch.stack((columns, rows)) + shift
    torch.testing.assert_close(moved[inner], expected[inner], atol=1e-3, rtol=0)


def test_gaussian_numbers_have_their_quantiles_and_are_finite():
    numbers = normal(torch.tensor([0.0, 0.5, 0.8413447461, 0.0227501319, 1 - 2.0**-24]))
    torch.testing.assert_close(numbers[1:4], torch.tensor([0.0, 1.0, -2.0]), atol=1e-6, rtol=0)
    assert numbers.isfinite().all() and numbers[0] < -5 and numbers[4] > 5
    many = normal(torch.rand(100_000, generator=torch.Generator().manual_seed(0)))
    assert abs(many.mean()) < 0.02 and abs(many.std() - 1) < 0.02


def test_masks_move_with_their_images_and_stay_whole():
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    disc = ((x - 31) ** 2 + (y - 33) ** 2 < 400).float().expand(3, 1, 64, 64)
    elastic = ElasticDeformation(6.0)
    images, masks, weights = elastic.apply(
        (disc, disc[:, 0].long() * 7, disc[:, 0]), uniform(elastic, 3)
    )
    assert set(masks.unique().tolist()) == {0, 7}
    assert torch.equal(images[:, 0], weights)
    assert ((images[:, 0] > 0.5) != (masks == 7)).float().mean() < 0.02
    assert (images != disc).float().mean() > 0.02
    assert not torch.equal(images[0], images[1])


def test_a_margin_is_moved_in_and_cut_off():
    elastic = ElasticDeformation(0.0, margin=3)
    images, masks, _ = batch()
    moved = elastic.apply((images, masks), uniform(elastic))
    torch.testing.assert_close(moved[0], images[:, :, 3:-3, 3:-3], atol=1e-3, rtol=0)
    assert torch.equal(moved[1], masks[:, 3:-3, 3:-3])


@pytest.mark.parametrize(
    ("border", "image", "mask", "weight"), [("mirror", 50.0, 3, 2.0), ("ignore", 0.0, 255, 0.0)]
)
def test_what_comes_in_from_outside_is_mirrored_or_ignored(border, image, mask, weight):
    elastic = ElasticDeformation(50.0, nodes=2, border=border)
    draws = torch.full((1, elastic.num_draws), 0.98)  # all to the lower right, by about 100
    ones = torch.ones(1, 1, 16, 16)
    images, masks, weights = elastic.apply((50 * ones, 3 * ones[0].long(), 2 * ones[0]), draws)
    assert (masks == mask).all()
    torch.testing.assert_close(images, torch.full_like(images, image))
    torch.testing.assert_close(weights, torch.full_like(weights, weight))


def test_tiles_are_windows_of_the_image_everywhere_equally_often():
    columns = torch.arange(10).view(1, 1, 1, 10).expand(20_000, 1, 6, 10)
    tiles = RandomTile(4)(columns, uniform(RandomTile(4), 20_000))
    assert torch.equal(tiles[:, 0, 0] - tiles[:, 0, 0, :1], torch.arange(4).expand(20_000, -1))
    counts = tiles[:, 0, 0, 0].bincount(minlength=7) / 20_000
    torch.testing.assert_close(counts, torch.full((7,), 1 / 7), atol=0.02, rtol=0)


@pytest.mark.parametrize("border", ["mirror", "ignore"])
def test_a_small_image_is_filled_up_evenly(border):
    images, masks, weights = batch(n=2, height=5, width=6)
    tile = RandomTile(8, border=border)
    moved = tile.apply((images, masks, weights), uniform(tile, 2))
    frame = (1, 1, 2, 1)
    if border == "mirror":
        assert torch.equal(moved[0], F.pad(images, frame, mode="reflect"))
        assert torch.equal(moved[1].float(), F.pad(weights, frame, mode="reflect"))
    else:
        assert torch.equal(moved[0], F.pad(images, frame))
        assert torch.equal(moved[1], F.pad(masks, frame, value=255))
        assert torch.equal(moved[2], F.pad(weights, frame))


def test_an_overhang_reaches_the_first_and_last_mirrored_pixels():
    image = torch.arange(6).view(1, 1, 1, 6).expand(2, 1, 6, 6)
    tiles = RandomTile(4, overhang=2)(image, torch.tensor([[0.0, 0.0], [0.999, 0.999]]))
    assert tiles[:, 0, 0].tolist() == [[2, 1, 0, 1], [4, 5, 4, 3]]


def test_mirror_images_repeat_for_ever_and_exist_for_a_single_pixel():
    index = torch.arange(-7, 8)
    expected = [1, 0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]
    assert mirrored(index, torch.tensor(4)).tolist() == expected
    assert (mirrored(index, torch.tensor(1)) == 0).all()


def test_tiles_of_images_of_several_sizes_lie_within_each():
    heights, widths = torch.tensor([3, 9, 20]), torch.tensor([30, 9, 4])
    pixels, inside = tile_pixels(heights, widths, (5, 7), torch.rand(3, 2))
    assert pixels.shape == (3, 5, 7) and (pixels >= 0).all()
    assert (pixels.amax((1, 2)) < heights * widths).all()
    assert inside[1].all() and inside[0].sum() == 3 * 7 and inside[2].sum() == 5 * 4


def test_brightness_and_contrast_are_those_drawn_and_stay_in_range():
    images = torch.tensor([0.0, 100.0, 127.5, 255.0]).view(1, 1, 2, 2).expand(3, -1, -1, -1)
    draws = torch.tensor([[0.5, 0.5], [1.0, 0.5], [0.5, 0.0]])
    same, bright, flat = BrightnessContrast(0.2, 0.5)(images, draws).view(3, 4)
    assert same.tolist() == [0.0, 100.0, 127.5, 255.0]
    torch.testing.assert_close(bright, torch.tensor([51.0, 151.0, 178.5, 255.0]))
    torch.testing.assert_close(flat, torch.tensor([63.75, 113.75, 127.5, 191.25]))
    assert BrightnessContrast(white=1.0)(images / 255, draws).max() <= 1
    assert BrightnessContrast()(images.to(torch.uint8), draws).dtype == torch.float32


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "augmentation",
    [
        Dihedral(),
        ElasticDeformation(3.0),
        ElasticDeformation(3.0, margin=2, border="ignore"),
        RandomTile(9, overhang=2),
        BrightnessContrast(),
    ],
    ids=lambda augmentation: type(augmentation).__name__,
)
def test_what_happens_to_a_sample_does_not_depend_on_its_batch(
    augmentation, memory_format, channels
):
    images, masks, weights = batch(13, channels, 17, 17)
    whole = (images.contiguous(memory_format=memory_format), masks, weights)
    draws = uniform(augmentation, 13)
    together = augmentation.apply(whole, draws)
    assert all(len(tensor) == 13 for tensor in together)
    for part in (slice(0, 1), slice(3, 8), slice(8, 13)):
        alone = augmentation.apply(tuple(tensor[part] for tensor in whole), draws[part])
        for one, other in zip(alone, together, strict=True):
            assert torch.equal(one, other[part])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ElasticDeformation(-1), "deviation must not be negative, not -1"),
        (lambda: ElasticDeformation(nodes=1), "nodes must be at least 2, not 1"),
        (lambda: ElasticDeformation(margin=-1), "margin must not be negative, not -1"),
        (lambda: ElasticDeformation(border="x"), "border must be 'mirror' or 'ignore', not 'x'"),
        (lambda: RandomTile(0), "tile_size must be at least 1, not 0"),
        (lambda: RandomTile(4, overhang=-1), "overhang must not be negative, not -1"),
        (lambda: RandomTile(4, border="black"), "border must be .* not 'black'"),
        (lambda: BrightnessContrast(2), r"brightness must be in \[0, 1\], not 2"),
        (lambda: BrightnessContrast(0, -1), r"contrast must be in \[0, 1\], not -1"),
    ],
)
def test_nonsense_is_refused_with_the_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()
