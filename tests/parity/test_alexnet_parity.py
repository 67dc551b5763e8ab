import pytest
import torch

from zoo.models.vision.alexnet import alexnet

pytestmark = pytest.mark.parity
models = pytest.importorskip("torchvision.models", reason="needs torchvision")


def entries(model):
    return [(name, tensor.shape) for name, tensor in model.state_dict().items()]


def gradients(model, x):
    """Logits and gradients of the image and of all parameters, those of the largest summed."""
    torch.manual_seed(1)  # dropout draws alike
    x = x.clone().requires_grad_()
    logits = model(x)
    weights = torch.linspace(-1, 1, logits.numel()).view_as(logits)
    found = torch.autograd.grad((logits * weights).sum(), [x, *model.parameters()])
    return logits, [g if g.numel() < 10_000_000 else g.sum(1) for g in found]


def test_names_and_shapes_are_torchvisions():
    with torch.device("meta"):
        mine, theirs = alexnet(12), models.alexnet(num_classes=12)
    assert entries(mine) == entries(theirs)


def test_outputs_and_gradients_equal_torchvisions():
    torch.manual_seed(0)
    theirs = models.alexnet(num_classes=5)
    with torch.device("meta"):
        mine = alexnet(5)
    # Shares the tensors: there are 57 million of them.
    mine.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    for is_training in (True, False):
        for size in ((63, 63), (90, 71)):
            x = torch.randn(2, 3, *size)
            expected = gradients(theirs.train(is_training), x)
            torch.testing.assert_close(gradients(mine.train(is_training), x), expected)
    theirs.load_state_dict(mine.state_dict(), strict=True)


def test_initial_weights_are_torchvisions():
    torch.manual_seed(0)
    mine = alexnet(5).state_dict()
    torch.manual_seed(0)
    theirs = models.alexnet(num_classes=5).state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
