import pytest
import torch
import torch.nn.functional as F

from zoo.models.vision.lenet import (
    C3_CONNECTIONS,
    EuclideanRBF,
    PartialConv2d,
    ScaledTanh,
    Subsampling,
    lenet5,
    lenet5_1998,
    output_codes,
)


def count(module):
    return sum(p.numel() for p in module.parameters())


def sizes_and_connections(model, x):
    """Shape of each layer's output and its number of connections, by the paper's way of counting:
    one for each input of each unit and one for its bias."""
    shapes, connections = {}, {}

    def record(name):
        def hook(layer, _, out):
            shapes[name] = tuple(out.shape[1:])
            area = out.shape[2:].numel()
            if isinstance(layer, Subsampling):
                connections[name] = out[0].numel() * (4 + 1)
            else:
                connections[name] = count(layer) * area

        return hook

    for name in ("c1", "s2", "c3", "s4", "c5", "f6"):
        getattr(model, name).register_forward_hook(record(name))
    model(x)
    return shapes, connections


def test_published_network_has_60000_trainable_parameters():
    model = lenet5_1998()
    by_layer = {name: count(layer) for name, layer in model.named_children() if count(layer)}
    assert by_layer == {
        "c1": 156,
        "s2": 12,
        "c3": 1_516,
        "s4": 32,
        "c5": 48_120,
        "f6": 10_164,
    }
    assert count(model) == 60_000
    assert model.output.codes.numel() == 840


def test_published_network_has_the_papers_map_sizes_and_340908_connections():
    shapes, connections = sizes_and_connections(lenet5_1998(), torch.zeros(1, 1, 32, 32))
    assert shapes == {
        "c1": (6, 28, 28),
        "s2": (6, 14, 14),
        "c3": (16, 10, 10),
        "s4": (16, 5, 5),
        "c5": (120, 1, 1),
        "f6": (84,),
    }
    assert connections == {
        "c1": 122_304,
        "s2": 5_880,
        "c3": 151_600,
        "s4": 2_000,
        "c5": 48_120,
        "f6": 10_164,
    }
    assert sum(connections.values()) + 840 == 340_908


@pytest.mark.parametrize("image_size", [28, 32])
def test_modern_network_has_61706_parameters(image_size):
    model = lenet5(image_size=image_size)
    assert count(model) == 61_706
    assert model(torch.zeros(2, 1, image_size, image_size)).shape == (2, 10)


def test_c3_table_is_the_papers():
    sizes = [len(inputs) for inputs in C3_CONNECTIONS]
    assert sizes == [3] * 6 + [4] * 9 + [6]
    assert len(set(C3_CONNECTIONS)) == 16
    assert all(sum(i in inputs for inputs in C3_CONNECTIONS) == 10 for i in range(6))
    # Six rows of neighbours on a ring, six more, three of two pairs of neighbours, all.
    ring = [{(k + j) % 6 for j in range(3)} for k in range(6)]
    ring += [{(k + j) % 6 for j in range(4)} for k in range(6)]
    ring += [{k, k + 1, k + 3, (k + 4) % 6} for k in range(3)] + [set(range(6))]
    assert [set(inputs) for inputs in C3_CONNECTIONS] == ring


def test_c3_map_ignores_the_inputs_that_the_table_leaves_out():
    torch.manual_seed(0)
    layer = PartialConv2d(6, C3_CONNECTIONS)
    x = torch.randn(1, 6, 14, 14)
    for unseen in range(6):
        changed = x.clone()
        changed[:, unseen] += 1
        moved = (layer(changed) - layer(x)).abs().amax((0, 2, 3)) > 1e-6
        assert moved.tolist() == [unseen in inputs for inputs in C3_CONNECTIONS]


def test_c3_equals_a_convolution_of_each_maps_own_inputs():
    torch.manual_seed(0)
    layer, x = PartialConv2d(6, C3_CONNECTIONS).double(), torch.randn(2, 6, 7, 7).double()
    kernels = layer.weight.split([len(inputs) for inputs in C3_CONNECTIONS])
    maps = [
        F.conv2d(x[:, list(inputs)], kernel[None], bias[None])
        for inputs, kernel, bias in zip(C3_CONNECTIONS, kernels, layer.bias, strict=True)
    ]
    torch.testing.assert_close(layer(x), torch.cat(maps, dim=1))


def test_subsampling_is_coefficient_times_the_sum_of_four_plus_bias():
    torch.manual_seed(0)
    layer, x = Subsampling(3).double(), torch.randn(2, 3, 4, 6).double()
    total = x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]
    expected = total * layer.weight.view(1, 3, 1, 1) + layer.bias.view(1, 3, 1, 1)
    torch.testing.assert_close(layer(x), expected)


def test_squashing_maps_one_to_one_and_bends_most_there():
    squash = ScaledTanh()
    one = torch.ones(1)
    torch.testing.assert_close(squash(one), one, atol=1e-4, rtol=0)
    a = torch.linspace(-3, 3, 6001, dtype=torch.double)
    y = squash(a)
    curvature = (y[2:] - 2 * y[1:-1] + y[:-2]).abs()
    assert abs(a[1:-1][curvature.argmax()].abs().item() - 1) < 0.02


def test_rbf_is_the_squared_distance_to_each_code_and_the_network_returns_it_negated():
    torch.manual_seed(0)
    layer = EuclideanRBF(2)
    assert torch.equal(layer.codes, output_codes(2))
    layer.codes = torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    torch.testing.assert_close(layer(torch.tensor([[1.0, 0.5]])), torch.tensor([[2.25, 0.25]]))
    model = lenet5_1998()
    with torch.no_grad():
        model.f6.weight.zero_()
        # What F6 must be given for its squashed values to be the code of class 7.
        model.f6.bias.copy_(1.5 * torch.atanh(model.output.codes[7] / 1.7159))
    outputs = model(torch.randn(1, 1, 32, 32))[0]
    assert outputs[7].abs() < 1e-4
    torch.testing.assert_close(outputs[:7], torch.full((7,), -168.0), atol=1e-2, rtol=0)


@pytest.mark.parametrize("num_classes", [2, 10, 83])
def test_every_two_output_codes_differ_in_half_their_places(num_classes):
    codes = output_codes(num_classes)
    assert codes.shape == (num_classes, 84)
    assert set(codes.unique().tolist()) == {-1.0, 1.0}
    torch.testing.assert_close(codes @ codes.T, 84 * torch.eye(num_classes))


def test_weights_start_within_the_papers_bounds_and_fill_them():
    torch.manual_seed(0)
    model = lenet5_1998()
    fan_ins = {"c1": 25, "s2": 4, "c5": 400, "f6": 120}
    for name, fan_in in fan_ins.items():
        for parameter in getattr(model, name).parameters():
            assert parameter.abs().max() <= 2.4 / fan_in
    assert model.c5.weight.abs().max() > 0.99 * 2.4 / 400
    kernels = model.c3.weight.split([len(inputs) for inputs in C3_CONNECTIONS])
    for inputs, kernel in zip(C3_CONNECTIONS, kernels, strict=True):
        bound = 2.4 / (25 * len(inputs))
        assert 0.8 * bound < kernel.abs().max() <= bound


def test_a_28_pixel_image_equals_the_same_framed_in_zeros():
    torch.manual_seed(0)
    small, large = (lenet5_1998(image_size=size) for size in (28, 32))
    large.load_state_dict(small.state_dict())
    x = torch.randn(2, 1, 28, 28)
    torch.testing.assert_close(small(x), large(F.pad(x, (2, 2, 2, 2))))


def test_smallest_image_works_and_one_pixel_less_is_refused_by_name():
    assert lenet5(image_size=12)(torch.zeros(1, 1, 12, 12)).shape == (1, 10)
    with pytest.raises(ValueError, match="image_size must be at least 12, not 11"):
        lenet5(image_size=11)


@pytest.mark.parametrize(
    ("build", "arguments", "message"),
    [
        (lenet5_1998, {"num_classes": 84}, "num_classes must be 1 to 83, not 84"),
        (lenet5_1998, {"in_channels": 0}, "in_channels must be at least 1, not 0"),
        (lenet5_1998, {"image_size": 64}, "image_size must be 32, or 28 to be framed, not 64"),
        (lenet5, {"num_classes": 0}, "num_classes must be at least 1, not 0"),
        (lenet5, {"in_channels": 0}, "in_channels must be at least 1, not 0"),
    ],
)
def test_nonsense_is_refused_with_the_value(build, arguments, message):
    with pytest.raises(ValueError, match=message):
        build(**arguments)


@pytest.mark.parametrize("build", [lenet5, lenet5_1998])
def test_image_of_another_size_is_refused_with_both_sizes(build):
    with pytest.raises(ValueError, match=r"x must be \(batch, 1, 32, 32\), not \(2, 1, 28, 28\)"):
        build()(torch.zeros(2, 1, 28, 28))
