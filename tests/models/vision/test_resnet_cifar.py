import pytest
import torch
import torch.nn.functional as F

from zoo.models.vision.resnet_cifar import (
    CifarResNet,
    PlainBlock,
    PlainNet,
    ResidualBlock,
    plainnet20,
    plainnet56,
    resnet20,
    resnet32,
    resnet44,
    resnet56,
    resnet110,
)


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("build", "parameters", "depth"),
    [
        (resnet20, 269_722, 20),
        (resnet32, 464_154, 32),
        (resnet44, 658_586, 44),
        (resnet56, 853_018, 56),
        (resnet110, 1_727_962, 110),
        (plainnet20, 269_722, 20),
        (plainnet56, 853_018, 56),
    ],
)
def test_parameters_and_depth_are_the_papers(build, parameters, depth):
    with torch.device("meta"):
        model = build()
    assert count(model) == parameters
    assert sum(p.ndim > 1 for p in model.parameters()) == depth


@pytest.mark.parametrize("build", [resnet20, plainnet20])
def test_stages_have_the_papers_sizes(build):
    model, shapes = build(), {}
    for name in ("conv1", "layer1", "layer2", "layer3"):
        getattr(model, name).register_forward_hook(
            lambda _, __, out, name=name: shapes.update({name: tuple(out.shape[1:])})
        )
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert shapes == {
        "conv1": (16, 32, 32),
        "layer1": (16, 32, 32),
        "layer2": (32, 16, 16),
        "layer3": (64, 8, 8),
    }


@pytest.mark.parametrize(("height", "width"), [(6, 6), (5, 7), (1, 1)])
def test_shortcut_takes_every_second_pixel_and_adds_channels_of_zeros(height, width):
    torch.manual_seed(0)
    block = ResidualBlock(4, 8, stride=2)
    x = torch.randn(2, 4, height, width)
    expected = torch.zeros(2, 8, -(-height // 2), -(-width // 2))
    expected[:, 2:6] = x[:, :, ::2, ::2]
    assert torch.equal(block.shortcut(x), expected)
    assert block.shortcut(x).shape == block.residual(x).shape


def test_shortcut_has_the_gradient_of_slices_and_padding():
    torch.manual_seed(0)
    block = ResidualBlock(4, 8, stride=2)
    x = torch.randn(2, 4, 5, 6, requires_grad=True)
    weights = torch.randn(2, 8, 3, 3)
    (ours,) = torch.autograd.grad((block.shortcut(x) * weights).sum(), x)
    sliced = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
    (expected,) = torch.autograd.grad((sliced * weights).sum(), x)
    assert torch.equal(ours, expected)


def test_shortcut_keeps_the_memory_format():
    x = torch.randn(2, 4, 6, 6).to(memory_format=torch.channels_last)
    shortcut = ResidualBlock(4, 8, stride=2).shortcut(x)
    assert shortcut.is_contiguous(memory_format=torch.channels_last)


def test_block_whose_residual_is_zero_is_relu_of_its_input():
    block = ResidualBlock(4, 4)
    torch.nn.init.zeros_(block.bn2.weight)
    x = torch.randn(2, 4, 6, 6)
    assert torch.equal(block(x), x.relu())


def test_residual_block_is_the_plain_block_plus_a_shortcut():
    torch.manual_seed(0)
    plain, residual = PlainBlock(4, 8, stride=2).eval(), ResidualBlock(4, 8, stride=2).eval()
    residual.load_state_dict(plain.state_dict())
    x = torch.randn(2, 4, 6, 6)
    assert torch.equal(plain(x), plain.residual(x).relu())
    torch.testing.assert_close(residual(x), (plain.residual(x) + residual.shortcut(x)).relu())


def test_plain_and_residual_network_have_the_same_parameters_and_other_outputs():
    torch.manual_seed(0)
    residual, plain = CifarResNet(depth=8).eval(), PlainNet(depth=8).eval()
    plain.load_state_dict(residual.state_dict(), strict=True)
    x = torch.rand(2, 3, 8, 8)
    assert not torch.allclose(plain(x), residual(x))


def test_convolutions_start_with_he_variance_of_the_outputs():
    torch.manual_seed(0)
    model = resnet20()
    weight = model.layer3[1].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.03)
    assert model.conv1.weight.std().item() == pytest.approx((2 / (16 * 9)) ** 0.5, rel=0.1)


def test_untrained_network_is_undecided_when_batch_norm_normalises():
    torch.manual_seed(0)
    loss = F.cross_entropy(resnet20()(torch.rand(32, 3, 32, 32)), torch.randint(10, (32,)))
    assert loss.item() == pytest.approx(2.3, abs=0.7)


def test_image_of_one_pixel_works_and_channels_and_classes_are_free():
    model = resnet20(7, in_channels=1).eval()
    assert model(torch.zeros(2, 1, 1, 1)).shape == (2, 7)
    assert model(torch.zeros(2, 1, 9, 14)).shape == (2, 7)
    with pytest.raises(ValueError, match="at least 1x1 pixels"):
        model(torch.zeros(2, 1, 0, 1))
    with pytest.raises(ValueError, match=r"x must be \(batch, 1, height, width\)"):
        model(torch.zeros(2, 3, 8, 8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1, not 0"),
        ({"in_channels": 0}, "in_channels must be at least 1, not 0"),
        ({"depth": 18}, r"depth must be 6n \+ 2 \(8, 14, 20, ...\), not 18"),
        ({"depth": 2}, r"depth must be 6n \+ 2 \(8, 14, 20, ...\), not 2"),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        CifarResNet(**arguments)
