import pytest
import torch
import torch.nn.functional as F

from zoo.models.vision.fractalnet import (
    FractalNet,
    Paths,
    fractalnet20,
    fractalnet40_narrow,
    join,
)


def count(model):
    return sum(p.numel() for p in model.parameters())


def small(**arguments):
    arguments = {"num_columns": 3, "num_classes": 5} | arguments
    return FractalNet((4, 6), **arguments)


def local(drop, *, column=0):
    return Paths(torch.tensor(False), torch.tensor(column), drop)


@pytest.mark.parametrize(
    ("columns", "millions"), [(1, 0.3), (2, 0.8), (3, 2.1), (4, 4.8), (5, 10.2), (6, 21.1)]
)
def test_parameters_are_those_of_the_papers_table_of_depths(columns, millions):
    with torch.device("meta"):
        model = FractalNet((16, 32, 64, 128, 128), num_columns=columns, num_classes=100)
    assert count(model) / 1e6 == pytest.approx(millions, abs=0.05)
    assert sum(p.ndim == 4 for p in model.parameters()) == 5 * (2**columns - 1)


def test_builders_have_the_parameters_of_the_docstring():
    with torch.device("meta"):
        assert count(fractalnet20()) == 33_724_618
        assert count(fractalnet40_narrow()) == 4_767_210


def test_blocks_have_the_papers_sizes():
    with torch.device("meta"):
        model = fractalnet20()
    shapes = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, out: shapes.append([c.shape[1:] for c in out]))
    assert model(torch.zeros(2, 3, 32, 32, device="meta")).shape == (2, 10)
    sizes = [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 2, 2)]
    assert shapes == [[size] * 3 for size in sizes]


def test_deepest_column_of_a_block_has_two_to_the_columns_minus_one_layers():
    model, seen = small(num_columns=4).eval(), []
    for name, module in model.blocks[0].named_modules():
        if name.endswith("bn"):
            module.register_forward_hook(lambda _, __, out: seen.append(out))
    model(torch.randn(1, 3, 4, 4))
    assert len(seen) == 2**4 - 1
    fractal, depth = model.blocks[0], 1
    while fractal.first is not None:
        fractal, depth = fractal.first, 2 * depth
    assert depth == 2**3


def test_fractal_of_three_columns_is_the_expansion_rule_written_out():
    torch.manual_seed(0)
    model, z = small().eval(), torch.randn(2, 3, 8, 8)
    block = model.blocks[0]
    f1 = block.first.first.conv
    first = (block.first.second.conv(f1(z)) + block.first.conv(z)) / 2
    second = block.second
    columns = [second.second.conv(second.first.conv(first)), second.conv(first), block.conv(z)]
    torch.testing.assert_close(block(z, None), columns)


def test_columns_are_pooled_before_the_last_join():
    torch.manual_seed(0)
    model, x = small().eval(), torch.randn(2, 3, 8, 8)
    out = x
    for block in model.blocks:
        out = sum(F.max_pool2d(column, 2) for column in block(out, None)) / 3
    torch.testing.assert_close(model(x), model.linear(out.mean((2, 3))))


@pytest.mark.parametrize("index", [0, 1, 2])
def test_one_column_alone_is_a_plain_network(index):
    torch.manual_seed(0)
    model, x = small().eval(), torch.randn(2, 3, 8, 8)
    out = model.along(x, model.column(index))
    for block in model.blocks:
        layers = {
            0: [block],
            1: [block.first, block.second],
            2: [block.first.first, block.first.second, block.second.first, block.second.second],
        }[index]
        for layer in layers:
            x = layer.conv(x)
        x = F.max_pool2d(x, 2)
    torch.testing.assert_close(out, model.linear(x.mean((2, 3))))


def test_join_is_the_mean_of_what_is_left_and_something_always_is():
    torch.manual_seed(0)
    columns = [torch.full((1, 1, 1, 1), value) for value in (1.0, 10.0, 100.0)]
    everything = {1.0, 10.0, 100.0, 5.5, 50.5, 55.0, 37.0}
    seen = [join(columns, local(0.5), num_columns=3).item() for _ in range(300)]
    assert set(seen) == everything
    assert join(columns, None, num_columns=3).item() == 37.0
    assert join(columns, local(0.0), num_columns=3).item() == 37.0
    seen = [join(columns, local(0.999), num_columns=3).item() for _ in range(100)]
    assert set(seen) <= everything and len(set(seen)) >= 3


def test_local_drop_path_leaves_each_input_out_at_its_rate():
    torch.manual_seed(0)
    columns = [torch.full((1, 1, 1, 1), value) for value in (0.0, 1.0)]
    seen = [join(columns, local(0.15), num_columns=2).item() for _ in range(2000)]
    # Both are left, 0.85^2, or one of them.
    assert seen.count(0.5) / 2000 == pytest.approx(0.7225, abs=0.03)
    assert seen.count(0.0) / 2000 == pytest.approx(0.13875, abs=0.03)


def test_half_of_the_batches_are_global_and_columns_are_equally_likely():
    torch.manual_seed(0)
    model = small()
    drawn = [model.paths(torch.device("cpu")) for _ in range(1000)]
    assert sum(bool(p.is_global) for p in drawn) == pytest.approx(500, abs=60)
    for column in range(3):
        assert sum(int(p.column) == column for p in drawn) == pytest.approx(333, abs=60)


def test_drop_path_is_only_in_training_and_is_seeded_by_torch():
    model, x = small(), torch.randn(4, 3, 8, 8)
    outputs = []
    for seed in (0, 0, 1, 2, 3):
        torch.manual_seed(seed)
        outputs.append(model(x))
    assert torch.equal(outputs[0], outputs[1])
    assert not all(torch.equal(outputs[0], other) for other in outputs[2:])
    model.eval()
    assert torch.equal(model(x), model(x))


def test_every_parameter_has_a_gradient_under_drop_path_if_only_zero():
    torch.manual_seed(0)
    model = small().train()
    model.along(torch.randn(4, 3, 8, 8), model.column(1)).sum().backward()
    block = model.blocks[0]
    assert all(p.grad is not None for p in model.parameters())
    assert block.conv.conv.weight.grad.abs().sum() == 0
    assert block.second.conv.conv.weight.grad.abs().sum() > 0


def test_smallest_image_works_and_one_pixel_less_is_refused():
    model = fractalnet40_narrow(7, in_channels=2).eval()
    assert model(torch.zeros(1, 2, 32, 33)).shape == (1, 7)
    with pytest.raises(ValueError, match="at least 32x32 pixels"):
        model(torch.zeros(1, 2, 31, 32))
    model.smallest = 1
    with pytest.raises(RuntimeError):
        model(torch.zeros(1, 2, 31, 32))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1, not 0"),
        ({"num_columns": 0}, "num_columns must be at least 1, not 0"),
        ({"in_channels": 0}, "in_channels must be at least 1, not 0"),
        ({"dropout": (0.5,)}, r"dropout must be 2 numbers in \[0, 1\), one a block, not \(0.5,\)"),
        ({"dropout": (0.5, 1.0)}, r"dropout must be 2 numbers in \[0, 1\)"),
        ({"local_drop": 1.0}, r"local_drop must be in \[0, 1\), not 1.0"),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        small(**arguments)


def test_column_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="index must be 0 to 2, not 3"):
        small().column(3)
