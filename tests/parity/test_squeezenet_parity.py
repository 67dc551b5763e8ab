import pytest
import torch

from zoo.models.vision.squeezenet import squeezenet1_0, squeezenet1_1

pytestmark = pytest.mark.parity
models = pytest.importorskip("torchvision.models", reason="needs torchvision")

BUILDERS = [(squeezenet1_0, "squeezenet1_0"), (squeezenet1_1, "squeezenet1_1")]
each = pytest.mark.parametrize(("ours", "name"), BUILDERS, ids=[name for _, name in BUILDERS])


def scramble(model):
    """Biases that nobody would start from."""
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if name.endswith("bias"):
                tensor.uniform_(-0.5, 0.5)
    return model.double()


def gradients(model, x):
    x = x.clone().requires_grad_()
    logits = model(x)
    weights = torch.linspace(-1, 1, logits.numel(), dtype=x.dtype).view_as(logits)
    (logits * weights).sum().backward()
    return logits, x.grad, {name: p.grad for name, p in model.named_parameters()}


@each
def test_names_and_shapes_are_torchvisions(ours, name):
    with torch.device("meta"):
        mine, theirs = ours(12).state_dict(), getattr(models, name)(num_classes=12).state_dict()
    assert [(k, v.shape) for k, v in mine.items()] == [(k, v.shape) for k, v in theirs.items()]


@each
@pytest.mark.parametrize("size", [(35, 48), (64, 21)])
def test_outputs_and_gradients_equal_torchvisions(ours, name, size):
    torch.manual_seed(0)
    theirs = scramble(getattr(models, name)(num_classes=9, dropout=0.0))
    mine = ours(9, dropout=0.0).double()
    mine.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, 3, *size, dtype=torch.double)
    torch.testing.assert_close(gradients(mine, x), gradients(theirs, x))


@each
def test_ours_loads_strictly_into_torchvisions(ours, name):
    torch.manual_seed(0)
    mine, theirs = scramble(ours(9)), getattr(models, name)(num_classes=9).double()
    theirs.load_state_dict(mine.state_dict(), strict=True)
    x = torch.randn(1, 3, 40, 40, dtype=torch.double)
    with torch.no_grad():
        torch.testing.assert_close(mine.eval()(x), theirs.eval()(x))
