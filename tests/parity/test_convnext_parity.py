import pytest
import torch

from zoo.models.vision import convnext
from zoo.models.vision.convnext import ConvNeXt

pytestmark = pytest.mark.parity

NAMES = ["convnext_tiny", "convnext_small", "convnext_base", "convnext_large"]
CHANNELS, BLOCKS = (8, 16, 24, 32), (1, 2, 3, 1)


def module():
    return pytest.importorskip("torchvision.models.convnext", reason="needs torchvision")


def shapes(model):
    return {name: value.shape for name, value in model.state_dict().items()}


def torchvisions(stochastic_depth):
    """torchvision's class with few channels and blocks, and no parameter at 0, 1 or 1e-6."""
    theirs = module()
    settings = [
        theirs.CNBlockConfig(width, after, depth)
        for width, after, depth in zip(CHANNELS, [*CHANNELS[1:], None], BLOCKS, strict=True)
    ]
    model = theirs.ConvNeXt(settings, stochastic_depth_prob=stochastic_depth, num_classes=7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.1, 0.3)
    return model.double()


def ours(stochastic_depth):
    model = ConvNeXt(CHANNELS, BLOCKS, num_classes=7, stochastic_depth=stochastic_depth)
    return model.double()


def run(model, x):
    """Output, gradient of the input, and gradients of the parameters by name."""
    x = x.clone().requires_grad_()
    output = model(x)
    weights = torch.linspace(-1, 1, output.numel(), dtype=x.dtype).view_as(output)
    names, parameters = zip(*model.named_parameters(), strict=True)
    first, *others = torch.autograd.grad((output * weights).sum(), [x, *parameters])
    return output, first, dict(zip(names, others, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_every_key_and_shape_is_torchvisions(name):
    theirs = getattr(module(), name)
    with torch.device("meta"):
        assert shapes(getattr(convnext, name)()) == shapes(theirs())


@pytest.mark.parametrize("is_training", [False, True])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_torchvisions_weights_load_with_equal_outputs_and_gradients(is_training, memory_format):
    torch.manual_seed(0)
    theirs, mine = torchvisions(0.0).train(is_training), ours(0.0).train(is_training)
    mine.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(3, 3, 35, 64, dtype=torch.double).to(memory_format=memory_format)
    torch.testing.assert_close(run(mine, x), run(theirs, x))


def test_stochastic_depth_of_one_seed_is_torchvisions():
    theirs, mine = torchvisions(0.6), ours(0.6)
    mine.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(8, 3, 32, 32, dtype=torch.double)
    outputs = []
    for model in (mine, theirs):
        torch.manual_seed(1)
        outputs.append(model(x))
    torch.testing.assert_close(*outputs)


def test_our_weights_load_strictly_into_torchvisions():
    mine, theirs = ours(0.0), torchvisions(0.0)
    theirs.load_state_dict(mine.state_dict(), strict=True)
    x = torch.randn(2, 3, 32, 32, dtype=torch.double)
    torch.testing.assert_close(mine(x), theirs(x))


def test_one_seed_gives_torchvisions_tiny():
    states = []
    for build in (convnext.convnext_tiny, module().convnext_tiny):
        torch.manual_seed(0)
        states.append(build(num_classes=7).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[1])
