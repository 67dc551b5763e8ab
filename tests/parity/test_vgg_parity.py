import pytest
import torch

from zoo.models.vision import vgg

pytestmark = pytest.mark.parity
models = pytest.importorskip("torchvision.models", reason="needs torchvision")

NAMES = [f"vgg{depth}{suffix}" for depth in (11, 13, 16, 19) for suffix in ("", "_bn")]


def entries(model):
    return [(name, tensor.shape) for name, tensor in model.state_dict().items()]


def fill(model):
    """Weights, biases and statistics that nobody would start from, with all signals alive.

    Long tensors repeat a shorter one: 129 million draws would take seconds.
    """
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not tensor.is_floating_point():
                tensor.zero_()
                continue
            values = torch.rand(min(tensor.numel(), 1_000_003)) - 0.5
            repeats = -(-tensor.numel() // values.numel())
            values = values.repeat(repeats)[: tensor.numel()].view_as(tensor)
            if tensor.ndim > 1:
                values *= (24 / tensor[0].numel()) ** 0.5
            elif "var" in name:
                values += 1
            tensor.copy_(values)
    return model


def gradients(model, x):
    """Logits and gradients of the image and of all parameters, those of the largest summed."""
    x = x.clone().requires_grad_()
    logits = model(x)
    weights = torch.linspace(-1, 1, logits.numel(), dtype=x.dtype).view_as(logits)
    inputs = [x, *model.parameters()]
    found = torch.autograd.grad((logits * weights).sum(), inputs)
    return logits, [g if g.numel() < 10_000_000 else g.sum(1) for g in found]


@pytest.mark.parametrize("name", NAMES)
def test_names_and_shapes_are_torchvisions(name):
    with torch.device("meta"):
        mine, theirs = getattr(vgg, name)(12), getattr(models, name)(num_classes=12)
    assert entries(mine) == entries(theirs)


@pytest.mark.parametrize(
    ("name", "is_training"), [("vgg11", True), ("vgg11_bn", True), ("vgg11_bn", False)]
)
def test_torchvisions_network_loads_strictly_with_equal_outputs_and_gradients(name, is_training):
    torch.manual_seed(0)
    with torch.device("meta"):
        mine, theirs = getattr(vgg, name)(5), getattr(models, name)(num_classes=5)
    mine = fill(mine.to_empty(device="cpu"))
    # Parameters are shared, since they are many; what a step in training changes is not.
    state = {k: v if "classifier" in k else v.clone() for k, v in mine.state_dict().items()}
    theirs.load_state_dict(state, strict=True, assign=True)
    x = torch.randn(3, 3, 33, 46)
    torch.manual_seed(1)
    expected = gradients(theirs.train(is_training), x)
    torch.manual_seed(1)  # dropout draws alike
    torch.testing.assert_close(gradients(mine.train(is_training), x), expected)
    features = (mine.features.state_dict(), theirs.features.state_dict())
    torch.testing.assert_close(*features)
