import pytest
import torch
from torch import nn

from zoo.models.vision.googlenet import googlenet_bn

pytestmark = pytest.mark.parity
models = pytest.importorskip("torchvision.models", reason="needs torchvision")


def theirs_of(num_classes, **arguments):
    return models.GoogLeNet(num_classes, init_weights=False, **arguments)


def entries(model):
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def scramble(model):
    """Biases and statistics that nobody would start from."""
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.uniform_(-0.5, 0.5)
                layer.running_mean.uniform_(-0.5, 0.5)
                layer.running_var.uniform_(0.5, 1.5)
            elif isinstance(layer, nn.Linear):
                layer.bias.uniform_(-0.5, 0.5)
    return model


def pair(*, is_training):
    torch.manual_seed(0)
    theirs = scramble(theirs_of(7)).double().train(is_training)
    mine = googlenet_bn(7).double().train(is_training)
    mine.load_state_dict(theirs.state_dict(), strict=True)
    return mine, theirs


def gradients(model, x):
    """What the network returns, and the gradients of the image and of all that takes part."""
    torch.manual_seed(1)  # dropout draws alike
    x = x.clone().requires_grad_()
    outputs = model(x)
    outputs = tuple(outputs) if isinstance(outputs, tuple) else (outputs,)
    weights = torch.linspace(-1, 1, x.size(0) * 7, dtype=x.dtype).view(-1, 7)
    loss = sum((i + 1) * (output * weights).sum() for i, output in enumerate(outputs))
    loss.backward()
    return outputs, x.grad, {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("aux_logits", [True, False])
def test_names_and_shapes_are_torchvisions(aux_logits):
    with torch.device("meta"):
        mine = googlenet_bn(12, aux_logits=aux_logits)
        theirs = theirs_of(12, aux_logits=aux_logits)
    assert entries(mine) == entries(theirs)


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("size", [(64, 64), (33, 50)])
def test_outputs_heads_and_gradients_equal_torchvisions(is_training, size):
    mine, theirs = pair(is_training=is_training)
    x = torch.randn(3, 3, *size, dtype=torch.double)
    found = gradients(mine, x)
    assert len(found[0]) == (3 if is_training else 1)
    torch.testing.assert_close(found, gradients(theirs, x))
    torch.testing.assert_close(mine.state_dict(), dict(theirs.state_dict()), check_dtype=True)


def test_heads_are_in_torchvisions_order():
    mine, theirs = pair(is_training=True)
    x = torch.randn(3, 3, 64, 64, dtype=torch.double)
    outputs = []
    for model in (mine, theirs):
        torch.manual_seed(1)
        with torch.no_grad():
            outputs.append(model(x))
    for ours, name in (("logits", "logits"), ("aux2", "aux_logits2"), ("aux1", "aux_logits1")):
        torch.testing.assert_close(getattr(outputs[0], ours), getattr(outputs[1], name))


def test_ours_loads_strictly_into_torchvisions():
    torch.manual_seed(0)
    mine, theirs = scramble(googlenet_bn(7)).eval(), theirs_of(7).eval()
    theirs.load_state_dict(mine.state_dict(), strict=True)
    x = torch.randn(2, 3, 48, 40)
    with torch.no_grad():
        torch.testing.assert_close(mine(x), theirs(x))


def test_images_scaled_to_one_equal_torchvisions_transformed_input():
    mine, theirs = pair(is_training=False)
    theirs.transform_input = True
    pixels = torch.rand(2, 3, 48, 48, dtype=torch.double)
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.double).view(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225], dtype=torch.double).view(3, 1, 1)
    with torch.no_grad():
        expected = theirs((pixels - mean) / deviation)
        torch.testing.assert_close(mine((pixels - 0.5) / 0.5), expected)
