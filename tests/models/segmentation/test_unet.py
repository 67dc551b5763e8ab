import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zoo.models.segmentation.unet import UNet, center_crop, unet, unet_padded


def count(module):
    return sum(p.numel() for p in module.parameters())


def on_meta(build, **arguments):
    with torch.device("meta"):
        return build(**arguments).eval()


def small(**arguments):
    torch.manual_seed(0)
    return UNet(**{"base_channels": 4, "num_levels": 2, "dropout": 0.0, **arguments}).eval()


@pytest.mark.parametrize(
    ("build", "arguments", "expected"),
    [
        (unet, {}, 31_030_658),
        (unet, {"in_channels": 3}, 31_031_810),
        (unet_padded, {}, 31_036_546),
        (unet_padded, {"in_channels": 3}, 31_037_698),
        (unet_padded, {"batch_norm": False}, 31_030_658),
    ],
)
def test_parameter_count_is_the_published_one(build, arguments, expected):
    assert count(on_meta(build, **arguments)) == expected


def test_maps_have_the_sizes_of_the_papers_figure():
    model, sizes = on_meta(unet), {}
    for name, part in model.named_modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            part.register_forward_hook(lambda _, __, y, n=name: sizes.update({n: y.shape[1:]}))
    model(torch.zeros(1, 1, 572, 572, device="meta"))
    assert [tuple(size) for size in sizes.values()] == [
        (64, 570, 570),
        (64, 568, 568),
        (128, 282, 282),
        (128, 280, 280),
        (256, 138, 138),
        (256, 136, 136),
        (512, 66, 66),
        (512, 64, 64),
        (1024, 30, 30),
        (1024, 28, 28),
        (512, 56, 56),
        (512, 54, 54),
        (512, 52, 52),
        (256, 104, 104),
        (256, 102, 102),
        (256, 100, 100),
        (128, 200, 200),
        (128, 198, 198),
        (128, 196, 196),
        (64, 392, 392),
        (64, 390, 390),
        (64, 388, 388),
        (2, 388, 388),
    ]
    assert len(sizes) == 23  # As the paper counts them.


def test_network_is_its_own_weights_written_as_functions():
    model = small(num_classes=3, in_channels=2).double()
    x = torch.randn(2, 2, 48, 52, dtype=torch.float64)
    tensors = iter(model.state_dict().values())

    def pair(x):
        for _ in range(2):
            x = F.conv2d(x, next(tensors), next(tensors)).relu()
        return x

    first = pair(x)
    second = pair(F.max_pool2d(first, 2))
    y = pair(F.max_pool2d(second, 2))
    for copied in (second, first):
        y = F.conv_transpose2d(y, next(tensors), next(tensors), stride=2)
        cut = [(a - b) // 2 for a, b in zip(copied.shape[2:], y.shape[2:], strict=True)]
        copied = F.pad(copied, (-cut[1], -cut[1], -cut[0], -cut[0]))
        y = pair(torch.cat((copied, y), 1))
    y = F.conv2d(y, next(tensors), next(tensors))
    torch.testing.assert_close(model(x), y)
    assert y.shape == (2, 3, 8, 12)


@pytest.mark.parametrize("num_levels", [1, 2, 3])
def test_output_size_is_that_of_the_network_and_every_other_size_is_refused(num_levels):
    model = UNet(base_channels=1, num_levels=num_levels).eval()
    smallest, step = model.smallest_image, 2**num_levels
    for size in range(1, smallest + 2 * step + 1):
        if size >= smallest and (size - smallest) % step == 0:
            b = (size + 4) // step - 8
            assert model.output_size(size) == step * (b - 4) + 4
            assert size - model.output_size(size) == 12 * step - 8
            assert model(torch.zeros(1, 1, size, smallest)).size(2) == model.output_size(size)
        else:
            with pytest.raises(ValueError, match="must have sides"):
                model.output_size(size)


@pytest.mark.parametrize("num_levels", [1, 2, 4])
def test_input_size_for_an_output_is_the_least_that_fits(num_levels):
    model = on_meta(UNet, num_levels=num_levels)
    step = 2**num_levels
    for wanted in range(1, 3 * step):
        size = model.input_size_for(wanted)
        assert model.output_size(size) >= wanted
        assert size == model.smallest_image or model.output_size(size - step) < wanted
    assert on_meta(unet).input_size_for(388) == 572


def test_refused_size_comes_with_the_nearest_allowed_ones():
    model = on_meta(unet)
    with pytest.raises(ValueError, match=r"188 pixels plus a multiple of 16.*not 576.*572 or 588"):
        model(torch.zeros(1, 1, 572, 576, device="meta"))
    with pytest.raises(ValueError, match="at least 188x188 pixels for this network, not 187x300"):
        model(torch.zeros(1, 1, 187, 300, device="meta"))
    with pytest.raises(ValueError, match=r"x must be \(batch, 1, height, width\), not \(1, 3, "):
        model(torch.zeros(1, 3, 188, 188, device="meta"))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 8), (7, 9), (30, 17)])
def test_padded_network_keeps_any_size(height, width):
    model = unet_padded(3, in_channels=2, base_channels=2, num_levels=3).eval()
    assert model(torch.randn(1, 2, height, width)).shape == (1, 3, height, width)
    assert (model.smallest_image, model.output_size(9), model.input_size_for(9)) == (1, 9, 9)


def test_uneven_image_is_continued_by_its_outermost_pixels():
    model, x = unet_padded(base_channels=2, num_levels=2).eval(), torch.randn(1, 1, 6, 7)
    larger = x[:, :, [0, 1, 2, 3, 4, 5, 5, 5]][:, :, :, [0, 1, 2, 3, 4, 5, 6, 6]]
    torch.testing.assert_close(model(x), model(larger)[:, :, :6, :7])


def test_moving_the_image_by_the_pooling_step_moves_the_output():
    model = small().double()
    x = torch.randn(1, 1, 64, 64, dtype=torch.float64)
    whole = model(x)  # (1, 2, 24, 24)
    torch.testing.assert_close(model(x[:, :, 4:56, 8:60]), whole[:, :, 4:16, 8:20])


def test_weights_are_drawn_with_the_papers_deviation():
    torch.manual_seed(0)
    model = unet(base_channels=32)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif parameter.numel() > 10_000:
            up = ".up." in name
            fan_in = parameter.size(0) if up else parameter[0].numel()
            assert parameter.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05), name


def test_dropout_stands_at_the_end_of_the_contracting_path_alone():
    names = [n for n, m in on_meta(unet).named_modules() if isinstance(m, nn.Dropout)]
    assert names == ["contracting.3.4", "contracting.4.4"]
    assert not [m for m in on_meta(unet_padded).modules() if isinstance(m, nn.Dropout)]
    model = small(dropout=0.5).train()
    x = torch.randn(1, 1, 48, 48)
    assert not torch.equal(model(x), model(x))


def test_copies_are_cut_from_the_middle():
    x = torch.arange(36.0).view(1, 1, 6, 6)
    assert center_crop(x, 2, 4)[0, 0].tolist() == [[13, 14, 15, 16], [19, 20, 21, 22]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1, not 0"),
        ({"in_channels": 0}, "in_channels must be at least 1, not 0"),
        ({"base_channels": 0}, "base_channels must be at least 1, not 0"),
        ({"num_levels": 0}, "num_levels must be at least 1, not 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
    ],
)
@pytest.mark.parametrize("build", [unet, unet_padded])
def test_nonsense_is_refused_with_the_value(build, arguments, message):
    with pytest.raises(ValueError, match=message):
        build(**arguments)
