import torch

from zoo.layers.maxout import LargestPiece, Maxout


def test_maxout_is_the_largest_of_its_pieces():
    torch.manual_seed(0)
    layer, x = Maxout(4, 2, pieces=3), torch.randn(5, 4)
    pieces = x @ layer.linear.weight.T + layer.linear.bias
    for unit in range(2):
        expected = pieces[:, 3 * unit : 3 * unit + 3].max(1).values
        torch.testing.assert_close(layer(x)[:, unit], expected)


def test_maxout_with_two_pieces_can_be_a_rectifier_and_an_absolute_value():
    layer = Maxout(1, 2, pieces=2)
    with torch.no_grad():
        layer.linear.weight.copy_(torch.tensor([[0.0], [1.0], [-1.0], [1.0]]))
        layer.linear.bias.zero_()
    x = torch.linspace(-2, 2, 9)[:, None]
    torch.testing.assert_close(layer(x), torch.cat([x.relu(), x.abs()], dim=1))


def test_the_largest_of_neighbouring_maps_is_taken_place_by_place():
    x = torch.randn(2, 6, 3, 4)
    expected = torch.stack([x[:, 0:3].amax(1), x[:, 3:6].amax(1)], dim=1)
    assert torch.equal(LargestPiece(3)(x), expected)
