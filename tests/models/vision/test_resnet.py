import pytest
import torch
import torch.nn.functional as F

from zoo.models.vision import resnet
from zoo.models.vision.resnet import BasicBlock, Bottleneck, ResNet, resnet18, resnet18_cifar


def count(model):
    return sum(p.numel() for p in model.parameters())


def on_meta(name, **arguments):
    with torch.device("meta"):
        return getattr(resnet, name)(**arguments)


def stage_shapes(model, x):
    shapes = {}
    for name in ("conv1", "maxpool", "layer1", "layer2", "layer3", "layer4"):
        getattr(model, name).register_forward_hook(
            lambda _, __, out, name=name: shapes.update({name: tuple(out.shape[1:])})
        )
    model(x)
    return shapes


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
        ("resnet152", 60_192_808),
        ("resnet50_v1", 25_557_032),
        ("resnet101_v1", 44_549_160),
        ("resnet152_v1", 60_192_808),
        ("resnext50_32x4d", 25_028_904),
        ("resnext101_32x8d", 88_791_336),
        ("resnext101_64x4d", 83_455_272),
        ("wide_resnet50_2", 68_883_240),
        ("wide_resnet101_2", 126_886_696),
        ("resnet18_cifar", 11_173_962),
    ],
)
def test_parameters_are_as_published(name, parameters):
    assert count(on_meta(name)) == parameters


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_layers_with_weights_are_as_many_as_the_name_says(depth):
    layers = [
        name
        for name, p in on_meta(f"resnet{depth}").named_parameters()
        if p.ndim > 1 and "downsample" not in name
    ]
    assert len(layers) == depth


@pytest.mark.parametrize(("name", "expansion"), [("resnet34", 1), ("resnet50", 4)])
def test_stages_have_the_papers_sizes(name, expansion):
    x = torch.zeros(2, 3, 224, 224, device="meta")
    assert stage_shapes(on_meta(name), x) == {
        "conv1": (64, 112, 112),
        "maxpool": (64, 56, 56),
        "layer1": (64 * expansion, 56, 56),
        "layer2": (128 * expansion, 28, 28),
        "layer3": (256 * expansion, 14, 14),
        "layer4": (512 * expansion, 7, 7),
    }


def test_small_image_stem_keeps_the_resolution_until_the_second_stage():
    shapes = stage_shapes(on_meta("resnet18_cifar"), torch.zeros(2, 3, 32, 32, device="meta"))
    assert shapes == {
        "conv1": (64, 32, 32),
        "maxpool": (64, 32, 32),
        "layer1": (64, 32, 32),
        "layer2": (128, 16, 16),
        "layer3": (256, 8, 8),
        "layer4": (512, 4, 4),
    }


@pytest.mark.parametrize(("name", "first", "second"), [("resnet50_v1", 2, 1), ("resnet50", 1, 2)])
def test_stride_is_in_the_1x1_as_published_and_in_the_3x3_since(name, first, second):
    model = on_meta(name)
    for stage in (model.layer2, model.layer3, model.layer4):
        assert stage[0].conv1.stride == (first, first)
        assert stage[0].conv2.stride == (second, second)
        assert stage[0].downsample[0].stride == (2, 2)
        assert stage[1].downsample is None
    assert model.layer1[0].conv1.stride == model.layer1[0].conv2.stride == (1, 1)


def test_resnext_has_32_groups_of_four_times_the_stage():
    model = on_meta("resnext50_32x4d")
    for factor, stage in enumerate((model.layer1, model.layer2, model.layer3, model.layer4)):
        for block in stage:
            assert block.conv2.groups == 32
            assert block.conv2.weight.shape[:2] == (128 * 2**factor, 4 * 2**factor)


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_block_whose_last_norm_is_zero_is_relu_of_its_input(block):
    layer = block(8 * block.expansion, 8)
    torch.nn.init.zeros_((layer.bn2 if block is BasicBlock else layer.bn3).weight)
    x = torch.randn(2, 8 * block.expansion, 5, 5)
    assert torch.equal(layer(x), x.relu())


@pytest.mark.parametrize(("block", "last"), [(BasicBlock, "bn2"), (Bottleneck, "bn3")])
def test_zero_init_residual_starts_every_block_at_its_shortcut(block, last):
    for zero in (False, True):
        model = ResNet(block, (1, 1, 1, 1), num_classes=3, zero_init_residual=zero)
        for name, parameter in model.named_parameters():
            if name.endswith(f"{last}.weight"):
                assert (parameter == (0 if zero else 1)).all()
            elif name.endswith("bn1.weight"):
                assert (parameter == 1).all()


def test_convolutions_start_with_he_variance_of_the_outputs():
    torch.manual_seed(0)
    model = resnet18()
    for conv in (model.conv1, model.layer1[0].conv1, model.layer3[0].downsample[0]):
        fan_out = conv.out_channels * conv.kernel_size[0] ** 2
        assert conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.03)
        assert conv.bias is None


@pytest.mark.parametrize("build", [resnet18, resnet18_cifar])
def test_untrained_network_is_undecided_when_batch_norm_normalises(build):
    torch.manual_seed(0)
    loss = F.cross_entropy(build(10)(torch.rand(8, 3, 32, 32)), torch.randint(10, (8,)))
    assert loss.item() == pytest.approx(2.3, abs=0.7)


@pytest.mark.parametrize("build", [resnet18, resnet18_cifar])
def test_image_of_one_pixel_works_and_channels_and_classes_are_free(build):
    model = build(7, in_channels=2).eval()
    assert model(torch.zeros(2, 2, 1, 1)).shape == (2, 7)
    assert model(torch.zeros(2, 2, 21, 34)).shape == (2, 7)
    with pytest.raises(ValueError, match="at least 1x1 pixels"):
        model(torch.zeros(2, 2, 0, 1))
    with pytest.raises(ValueError, match=r"x must be \(batch, 2, height, width\)"):
        model(torch.zeros(2, 3, 8, 8))


@pytest.mark.parametrize("argument", ["num_classes", "in_channels"])
def test_nonsense_is_refused_with_the_value(argument):
    with pytest.raises(ValueError, match=f"{argument} must be at least 1, not 0"):
        on_meta("resnet18", **{argument: 0})
