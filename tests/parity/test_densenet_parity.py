import pytest
import torch
from torch import nn

from zoo.models.vision.densenet import (
    IMAGENET,
    DenseNet,
    densenet121,
    densenet161,
    densenet169,
    densenet201,
    densenet_cifar,
)

pytestmark = pytest.mark.parity
models = pytest.importorskip("torchvision.models", reason="needs torchvision")

BUILDERS = [
    (densenet121, "densenet121"),
    (densenet161, "densenet161"),
    (densenet169, "densenet169"),
    (densenet201, "densenet201"),
]


def scramble(model):
    """Weights, biases and running statistics that nobody would start from."""
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point() and tensor.ndim < 2:
                tensor.uniform_(0.5, 1.5) if "bias" not in name else tensor.uniform_(-0.5, 0.5)
    return model.double()


def gradients(model, x):
    x = x.clone().requires_grad_()
    logits = model(x)
    weights = torch.linspace(-1, 1, logits.numel(), dtype=x.dtype).view_as(logits)
    (logits * weights).sum().backward()
    return logits, x.grad, {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize(("ours", "name"), BUILDERS, ids=[name for _, name in BUILDERS])
def test_names_and_shapes_are_torchvisions(ours, name):
    with torch.device("meta"):
        mine, theirs = ours(12).state_dict(), getattr(models, name)(num_classes=12).state_dict()
    assert [(k, v.shape) for k, v in mine.items()] == [(k, v.shape) for k, v in theirs.items()]


@pytest.mark.parametrize("training", [False, True])
def test_small_network_equals_torchvisions_in_outputs_gradients_and_statistics(training):
    torch.manual_seed(0)
    theirs = models.DenseNet(6, (2, 3, 2, 1), 12, num_classes=5)
    ours = DenseNet((2, 3, 2, 1), IMAGENET, num_classes=5, growth_rate=6)
    ours.load_state_dict(scramble(theirs).state_dict(), strict=True)
    ours.double().train(training)
    theirs.train(training)
    x = torch.randn(3, 3, 40, 33, dtype=torch.double)
    torch.testing.assert_close(gradients(ours, x), gradients(theirs, x))
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_densenet121_equals_torchvisions_and_loads_into_it():
    torch.manual_seed(0)
    ours, theirs = scramble(densenet121(10)), models.densenet121(num_classes=10).double()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = torch.randn(1, 3, 32, 32, dtype=torch.double)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_cifar_network_equals_torchvisions_behind_another_stem():
    torch.manual_seed(0)
    ours = scramble(densenet_cifar(depth=22, growth_rate=6))
    theirs = models.DenseNet(6, (3, 3, 3), 12, num_classes=10)
    theirs.features.conv0 = nn.Conv2d(3, 12, 3, padding=1, bias=False)
    for part in ("norm0", "relu0", "pool0"):
        delattr(theirs.features, part)
    theirs.double().load_state_dict(ours.state_dict(), strict=True)
    x = torch.randn(3, 3, 16, 16, dtype=torch.double)
    torch.testing.assert_close(gradients(ours, x), gradients(theirs, x))
