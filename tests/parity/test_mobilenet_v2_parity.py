import pytest
import torch

from zoo.models.vision.mobilenet_v2 import mobilenet_v2, mobilenet_v2_cifar

pytestmark = pytest.mark.parity
models = pytest.importorskip("torchvision.models", reason="needs torchvision")


def scramble(model):
    """Weights, biases and running statistics that nobody would start from."""
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point() and tensor.ndim < 2:
                tensor.uniform_(0.5, 1.5) if "bias" not in name else tensor.uniform_(-0.5, 0.5)
            elif tensor.ndim == 4:
                # The initial depthwise kernels are too small to carry a signal without training.
                torch.nn.init.kaiming_normal_(tensor)
    return model.double()


def gradients(model, x):
    x = x.clone().requires_grad_()
    logits = model(x)
    weights = torch.linspace(-1, 1, logits.numel(), dtype=x.dtype).view_as(logits)
    (logits * weights).sum().backward()
    return logits, x.grad, {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("width_mult", [0.35, 0.5, 0.75, 1.0, 1.3, 1.4])
def test_names_and_shapes_are_torchvisions(width_mult):
    with torch.device("meta"):
        ours = mobilenet_v2(12, width_mult=width_mult).state_dict()
        theirs = models.mobilenet_v2(num_classes=12, width_mult=width_mult).state_dict()
    assert [(k, v.shape) for k, v in ours.items()] == [(k, v.shape) for k, v in theirs.items()]


@pytest.mark.parametrize("training", [False, True])
def test_narrow_network_equals_torchvisions_in_outputs_gradients_and_statistics(training):
    torch.manual_seed(0)
    theirs = scramble(models.mobilenet_v2(num_classes=5, width_mult=0.35, dropout=0.0))
    ours = mobilenet_v2(5, width_mult=0.35, dropout=0.0).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    ours.train(training)
    theirs.train(training)
    x = torch.randn(3, 3, 64, 45, dtype=torch.double)
    torch.testing.assert_close(gradients(ours, x), gradients(theirs, x))
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_full_network_equals_torchvisions_and_loads_into_it():
    torch.manual_seed(0)
    ours, theirs = scramble(mobilenet_v2(10)), models.mobilenet_v2(num_classes=10).double()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = torch.randn(1, 3, 64, 64, dtype=torch.double)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_cifar_network_equals_torchvisions_with_smaller_strides():
    torch.manual_seed(0)
    settings = [
        [1, 16, 1, 1],
        [6, 24, 2, 1],
        [6, 32, 3, 2],
        [6, 64, 4, 2],
        [6, 96, 3, 1],
        [6, 160, 3, 2],
        [6, 320, 1, 1],
    ]
    theirs = models.MobileNetV2(10, 0.35, settings, dropout=0.0).double()
    theirs.features[0][0].stride = (1, 1)
    ours = scramble(mobilenet_v2_cifar(width_mult=0.35, dropout=0.0))
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = torch.randn(3, 3, 16, 16, dtype=torch.double)
    torch.testing.assert_close(gradients(ours, x), gradients(theirs, x))
