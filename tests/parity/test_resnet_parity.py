import pytest
import torch

from zoo.models.vision import resnet

pytestmark = pytest.mark.parity

NAMES = [
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
    *("wide_resnet50_2", "wide_resnet101_2"),
]


def models():
    return pytest.importorskip("torchvision.models", reason="needs torchvision")


def shapes(model):
    return {name: value.shape for name, value in model.state_dict().items()}


def randomised(model):
    """Norms and their statistics away from 0 and 1, so that none can hide behind another."""
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if "running_var" in name or (value.ndim == 1 and name.endswith("weight")):
                value.uniform_(0.5, 1.5)
            elif "running_mean" in name or name.endswith("bias"):
                value.normal_(0, 0.1)
    return model


def run(model, x):
    """Output, gradients of input and parameters, and the buffers afterwards."""
    x = x.clone().requires_grad_()
    output = model(x)
    weights = torch.linspace(-1, 1, output.numel(), dtype=x.dtype).view_as(output)
    gradients = torch.autograd.grad((output * weights).sum(), [x, *model.parameters()])
    return output, gradients, dict(model.named_buffers())


@pytest.mark.parametrize("name", NAMES)
def test_every_key_and_shape_is_torchvisions(name):
    with torch.device("meta"):
        ours, theirs = getattr(resnet, name)(), getattr(models(), name)()
    assert shapes(ours) == shapes(theirs)


@pytest.mark.parametrize("is_training", [False, True])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_torchvisions_weights_load_with_equal_outputs_and_gradients(name, is_training):
    torch.manual_seed(0)
    theirs = randomised(getattr(models(), name)(num_classes=7)).double().train(is_training)
    ours = getattr(resnet, name)(7).double().train(is_training)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(3, 3, 33, 40, dtype=torch.double)
    torch.testing.assert_close(run(ours, x), run(theirs, x))


@pytest.mark.parametrize(
    ("groups", "group_width", "block"),
    [
        (32, 8, resnet.resnext101_32x8d),
        (64, 4, resnet.resnext101_64x4d),
        (1, 128, resnet.wide_resnet50_2),
        (1, 128, resnet.wide_resnet101_2),
    ],
)
def test_blocks_of_the_large_networks_equal_torchvisions(groups, group_width, block, monkeypatch):
    torch.manual_seed(0)
    torchvisions = models().resnet
    theirs = torchvisions.ResNet(
        torchvisions.Bottleneck,
        [1, 1, 1, 1],
        num_classes=7,
        groups=groups,
        width_per_group=group_width,
    )
    made = []
    monkeypatch.setattr(resnet, "ResNet", lambda block, blocks, **_: made.append(block))
    block()  # the builder, for the kind of block alone
    monkeypatch.undo()
    ours = resnet.ResNet(made[0], (1, 1, 1, 1), num_classes=7).eval()
    ours.load_state_dict(randomised(theirs).eval().state_dict(), strict=True)
    x = torch.randn(1, 3, 33, 33)
    torch.testing.assert_close(ours(x), theirs(x))


def test_our_weights_load_strictly_into_torchvisions():
    torch.manual_seed(0)
    ours, theirs = resnet.resnet18(7).eval(), models().resnet18(num_classes=7).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(ours(x), theirs(x))


def test_published_bottleneck_is_torchvisions_with_its_strides_moved():
    torch.manual_seed(0)
    theirs = randomised(models().resnet50(num_classes=7)).double().eval()
    ours = resnet.resnet50_v1(7).double().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, 3, 32, 32, dtype=torch.double)
    assert not torch.allclose(ours(x), theirs(x))
    for stage in (theirs.layer2, theirs.layer3, theirs.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("zero_init_residual", [False, True])
def test_one_seed_gives_torchvisions_weights(name, zero_init_residual):
    # Neither draws anything that the other does not, in the same order.
    kinds = []
    for build in (getattr(resnet, name), getattr(models(), name)):
        torch.manual_seed(0)
        kinds.append(build(num_classes=7, zero_init_residual=zero_init_residual).state_dict())
    ours, theirs = kinds
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
