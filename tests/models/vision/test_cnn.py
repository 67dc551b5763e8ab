import pytest
import torch
from torch import nn

from zoo.models.mlp import MLP
from zoo.models.vision.cnn import CNN


def test_parameter_count_is_the_docstrings():
    assert sum(p.numel() for p in CNN().parameters()) == 148_154


def test_layers_stand_in_the_order_that_the_blocks_say():
    network = CNN(5, 3, image_size=12, blocks=((4,), (6, 8)), batch_norm="before")
    names = [type(layer).__name__ for layer in network.features]
    stage = ["Conv2d", "BatchNorm2d", "ReLU"]
    assert names == [*stage, "MaxPool2d", *stage, *stage, "MaxPool2d"]
    assert network.forward_features(torch.rand(2, 3, 12, 12)).shape == (2, 8, 3, 3)


def test_the_parts_behind_the_convolutions_are_those_of_an_mlp():
    options = {"hidden_sizes": (6, 5), "activation": "tanh", "batch_norm": "after"}
    network = CNN(3, 1, image_size=4, blocks=((2,),), **options)
    head = MLP(8, 3, **options)
    head.load_state_dict({n: t for n, t in network.state_dict().items() if n[:8] != "features"})
    x = torch.rand(4, 1, 4, 4)
    torch.testing.assert_close(head(network.forward_features(x)), network(x))


def test_a_convolution_is_a_sparse_matrix_of_few_distinct_numbers():
    torch.manual_seed(0)
    conv = CNN(2, 2, image_size=6, blocks=((3,),)).features[0]
    basis = torch.eye(2 * 36).view(72, 2, 6, 6)
    matrix = (conv(basis) - conv.bias[:, None, None]).flatten(1).T  # (3 * 36, 2 * 36)
    inner = matrix.view(3, 6, 6, 72)[:, 1:-1, 1:-1].flatten(0, 2)
    assert inner.count_nonzero(1).unique().tolist() == [18]
    assert len(matrix[matrix != 0].unique()) == 54


def test_maps_start_with_the_variance_of_he():
    torch.manual_seed(0)
    network = CNN(2, 8, image_size=8, blocks=((256, 256),))
    convs = [m for m in network.features if isinstance(m, nn.Conv2d)]
    for conv, inputs in zip(convs, (8, 256), strict=True):
        assert conv.weight.var().item() == pytest.approx(2 / (9 * inputs), rel=0.05)


def test_another_classifier_starts_as_the_first_one():
    network = CNN(10)
    network.reset_classifier(3)
    assert network(torch.rand(2, 1, 32, 32)).shape == (2, 3)
    assert not network.classifier.bias.any()


@pytest.mark.parametrize("activation", ["maxout", "selu"])
def test_images_are_classified_with_every_activation(activation):
    network = CNN(5, 1, image_size=9, blocks=((4, 4), (6,)), activation=activation)
    assert network(torch.rand(2, 1, 9, 9)).shape == (2, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"blocks": ()}, "blocks must be lists of at least one"),
        ({"blocks": ((4,), ())}, "blocks must be lists of at least one"),
        ({"blocks": ((4, 0),)}, "blocks must be lists of at least one"),
        ({"kernel_size": 4}, "kernel_size must be odd and at least 1, not 4"),
        ({"image_size": 3}, "image_size must be at least 4 for 2 blocks"),
        ({"hidden_sizes": (0,)}, "hidden_sizes must be at least 1"),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        CNN(5, **arguments)
