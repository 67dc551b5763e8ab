import pytest
import torch
import torch.nn.functional as F

from zoo.models.vision.shallow_convnet import ShallowConvNet, shallow_convnet


def count(module):
    return sum(p.numel() for p in module.parameters())


def small(**arguments):
    torch.manual_seed(0)
    sizes = {"in_channels": 3, "input_length": 40, "hidden_channels": 5, "kernel_size": 5}
    return ShallowConvNet(**{**sizes, "pool_size": 8, "pool_stride": 3, **arguments}).eval()


def test_network_has_46044_parameters_layer_by_layer():
    model = shallow_convnet()
    layers = {name: count(layer) for name, layer in model.named_children() if count(layer)}
    assert layers == {"temporal": 1_040, "spatial": 35_240, "output": 9_764}
    assert count(model) == 46_044
    assert count(shallow_convnet(elu=False, batch_norm=True, dropout=0.5)) == 46_084


def test_maps_have_the_sizes_of_the_table():
    model, sizes = shallow_convnet(), {}
    for name, layer in model.named_children():
        layer.register_forward_hook(lambda _, xs, y, n=name: sizes.update({n: (xs[0], y)}))
    output = model(torch.randn(2, 22, 1000))
    assert sizes["temporal"][1].shape == (2, 40, 22, 976)
    assert sizes["spatial"][1].shape == (2, 40, 1, 976)
    assert sizes["output"][0].shape == (2, 40 * 61)
    assert output.shape == (2, 4)


@pytest.mark.parametrize("elu", [True, False])
def test_network_is_its_equation(elu):
    model, x = small(elu=elu).double(), torch.randn(2, 3, 40, dtype=torch.float64)
    f = F.elu if elu else lambda value: value
    windows = x.unfold(2, 5, 1)  # (batch, electrodes, 36, kernel)
    a = f(torch.einsum("betk,hk->bhet", windows, model.temporal.weight[:, 0, 0])
          + model.temporal.bias[:, None, None])  # fmt: skip
    weight = model.spatial.weight[..., 0]  # (filters, filters, electrodes)
    b = f(torch.einsum("bket,jke->bjt", a, weight) + model.spatial.bias[:, None])
    power = b.square().unfold(2, 8, 3).mean(3)  # (batch, filters, means)
    expected = power.log().flatten(1) @ model.output.weight.T + model.output.bias
    torch.testing.assert_close(model(x), expected)


def test_linear_filters_make_the_output_depend_on_the_power_alone():
    model, x = small(elu=False), torch.randn(2, 3, 40)
    for layer in (model.temporal, model.spatial):
        torch.nn.init.zeros_(layer.bias)
    torch.testing.assert_close(model(-x), model(x))
    # A signal e times as strong has a log power larger by 2, whatever it is.
    moved = model(torch.e * x) - model(x)
    torch.testing.assert_close(moved, 2 * model.output.weight.sum(1).expand(2, -1), rtol=1e-4,
                               atol=1e-4)  # fmt: skip


def test_silence_has_a_finite_output_and_gradient():
    model = small(batch_norm=True).train()
    output = model(torch.zeros(2, 3, 40))
    output.sum().backward()
    assert output.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_shortest_signal_leaves_one_mean():
    model = small(input_length=12)
    assert model.output.in_features == 5
    assert model(torch.randn(1, 3, 12)).shape == (1, 4)
    message = "input_length must be at least 12 for kernel_size 5 and pool_size 8, not 11"
    with pytest.raises(ValueError, match=message):
        small(input_length=11)


def test_signal_of_another_shape_is_refused_with_both():
    for shape in ((2, 3, 41), (2, 4, 40), (2, 1, 3, 40)):
        with pytest.raises(ValueError, match=r"x must be \(batch, 3, 40\), not \(2, "):
            small()(torch.zeros(shape))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1, not 0"),
        ({"in_channels": 0}, "in_channels must be at least 1, not 0"),
        ({"hidden_channels": 0}, "hidden_channels must be at least 1, not 0"),
        ({"kernel_size": 0}, "kernel_size must be at least 1, not 0"),
        ({"pool_size": 0}, "pool_size must be at least 1, not 0"),
        ({"pool_stride": 0}, "pool_stride must be at least 1, not 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        small(**arguments)
