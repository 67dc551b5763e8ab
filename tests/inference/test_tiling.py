import pytest
import torch
from torch import nn

from zoo.inference.tiling import OverlapTile, average_symmetries, center, mirror


def valid_network():
    """Two unpadded 3x3 convolutions: a margin of 2 pixels on each side."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Conv2d(4, 3, 3), nn.Softmax(1)]
    return nn.Sequential(*layers).double()


def padded_network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 3, padding=1)]
    return nn.Sequential(*layers, nn.Softmax(1)).double()


def image(height, width, batch=2):
    torch.manual_seed(1)
    return torch.randn(batch, 1, height, width, dtype=torch.float64)


@pytest.mark.parametrize(("height", "width"), [(20, 20), (17, 31), (9, 40), (3, 5), (1, 1)])
@pytest.mark.parametrize("tile_size", [None, 7, 12, 16, 50])
def test_tiles_of_an_unpadded_network_equal_the_mirrored_image_in_one_piece(
    height, width, tile_size
):
    network, x = valid_network(), image(height, width)
    expected = network(mirror(x, height + 4, width + 4))
    # From an image smaller than its kernels the network cannot show how much it loses.
    fit = None if min(height, width) > 5 else lambda size: size + 4
    output = OverlapTile(tile_size, input_size_for=fit)(network, x)
    assert output.shape == (2, 3, height, width)
    torch.testing.assert_close(output, expected)


@pytest.mark.parametrize("tile_size", [8, 13, 24])
def test_tiles_of_a_padded_network_differ_from_the_image_at_their_borders_alone(tile_size):
    network, x = padded_network(), image(24, 24)
    whole, tiled = network(x), OverlapTile(tile_size, overlap=0.5)(network, x)
    same = torch.isclose(whole, tiled).all(1).all(0)  # (height, width)
    assert same[0, 0] and same[-1, -1]  # There the image's border is the tile's.
    assert same.all() == (tile_size == 24)
    assert (whole - tiled).abs().max() < 0.5
    pointwise = nn.Conv2d(1, 3, 1).double()
    torch.testing.assert_close(OverlapTile(tile_size)(pointwise, x), pointwise(x))


def test_overlapping_tiles_are_the_mean_weighted_by_the_distance_to_the_border():
    x = image(6, 10, batch=1)
    seen = []

    def network(tile):
        seen.append(tile)
        return torch.full_like(tile, float(len(seen)))

    tiling = OverlapTile(6, overlap=1 / 3)
    output = tiling(network, x)  # The first call asks for the size alone.
    assert len(seen) == 3
    for tile, left in zip(seen[1:], (0, 4), strict=True):
        assert torch.equal(tile, x[..., left : left + 6])
    between = [(2 * 2 + 1 * 3) / 3, (1 * 2 + 2 * 3) / 3]
    expected = torch.tensor([2.0] * 4 + between + [3.0] * 4).double().expand(6, 10)
    torch.testing.assert_close(output[0, 0], expected)
    tiling(network, x)
    assert len(seen) == 5


def test_probabilities_stay_probabilities_under_tiling():
    output = OverlapTile(7, overlap=0.5)(padded_network(), image(23, 18))
    torch.testing.assert_close(output.sum(1), torch.ones(2, 23, 18).double())


def test_tile_larger_than_the_image_is_filled_by_mirroring():
    shapes = []

    def network(x):
        shapes.append(tuple(x.shape[2:]))
        return x

    x = image(5, 20)
    torch.testing.assert_close(OverlapTile(16)(network, x), x)
    assert set(shapes) == {(16, 16)}


def test_network_that_takes_some_sizes_only_is_given_the_least_that_fits():
    network, shapes = valid_network(), []

    def picky(x):
        shapes.append(tuple(x.shape[2:]))
        assert all(size % 8 == 0 for size in x.shape[2:])
        return network(x)

    x = image(10, 21)
    tiling = OverlapTile(input_size_for=lambda size: -(-(size + 4) // 8) * 8)
    torch.testing.assert_close(tiling(picky, x), network(mirror(x, 14, 25)))
    assert shapes == [(16, 32)]


def test_network_that_leaves_pixels_without_a_class_is_refused():
    pool = nn.MaxPool2d(2)
    with pytest.raises(ValueError, match=r"gives 12x12 pixels for images of 24x24.*of 16x16"):
        OverlapTile()(pool, image(16, 16))


def test_mirror_continues_as_torch_reflects():
    x = image(5, 8)
    expected = nn.functional.pad(x, (2, 3, 4, 4), mode="reflect")
    assert torch.equal(mirror(x, 13, 13), expected)
    assert mirror(x, 3, 8) is x


def test_mirror_reflects_as_often_as_it_takes():
    x = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    assert mirror(x, 1, 11).flatten().tolist() == [1, 2, 3, 2, 1, 2, 3, 2, 1, 2, 3]
    assert mirror(x[..., :1], 2, 4).tolist() == [[[[1.0] * 4] * 2]]


def test_center_is_the_middle_of_what_mirror_made():
    x = image(6, 7)
    for height, width in [(6, 7), (9, 12), (31, 20)]:
        assert torch.equal(center(mirror(x, height, width), (6, 7)), x)


@pytest.mark.parametrize(("tta", "passes"), [("none", 1), ("flips", 4), ("dihedral", 8)])
def test_symmetries_are_laid_back_and_averaged(tta, passes):
    seen = []

    def network(x):
        seen.append(x)
        return x + len(seen)

    x = image(4, 6)
    output = average_symmetries(network, x, tta)
    torch.testing.assert_close(output, x + (passes + 1) / 2)
    assert len(seen) == passes
    distinct = {(tuple(view.shape), tuple(view.flatten().tolist())) for view in seen}
    assert len(distinct) == passes


@pytest.mark.parametrize("tta", ["flips", "dihedral"])
def test_averaged_network_commutes_with_the_symmetries(tta):
    network, x = padded_network(), image(7, 9)
    output = average_symmetries(network, x, tta)
    torch.testing.assert_close(average_symmetries(network, x.flip(3), tta), output.flip(3))
    torch.testing.assert_close(average_symmetries(network, x.flip(2), tta), output.flip(2))
    if tta == "dihedral":
        turned = average_symmetries(network, x.rot90(1, (2, 3)), tta)
        torch.testing.assert_close(turned, output.rot90(1, (2, 3)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tile_size": 0}, "tile_size must be at least 1 or None, not 0"),
        ({"overlap": 1.0}, r"overlap must be in \[0, 1\), not 1.0"),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        OverlapTile(**arguments)
