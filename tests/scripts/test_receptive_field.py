import pytest
import torch
from torch import nn
from torch.nn import functional as F

from receptive_field import ReceptiveFields


def conv(size, stride=1, padding=0, dilation=1):
    return nn.Conv2d(1, 1, size, stride, padding, dilation)


class Residual(nn.Module):
    """Branches of other reach that meet again, as a sum or next to one another."""

    def __init__(self, concat=False):
        super().__init__()
        self.long = nn.Sequential(conv(3, 2, 1), nn.ReLU(), conv(5, 1, 2))
        self.short = conv(1, 2)
        self.concat, self.last = concat, nn.Conv2d(1 + concat, 1, 3, 1, 1)

    def forward(self, x):
        branches = [self.long(x), self.short(x)]
        return self.last(torch.cat(branches, 1) if self.concat else branches[0] + branches[1])


class Sliced(nn.Module):
    """Every second pixel, as parameter-free shortcuts take them, and padding by hand."""

    def forward(self, x):
        return F.avg_pool2d(F.pad(x, (1, 1, 2, 0))[:, :, 1:, ::2], 3, 2)


class Last(nn.Module):
    """Channels last in between, as ConvNeXt has it."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.linear = conv(7, 1, 3), nn.LayerNorm(1), nn.Linear(1, 1)

    def forward(self, x):
        y = self.conv(x).permute(0, 2, 3, 1)
        return x + self.linear(y).permute(0, 3, 1, 2)


NETWORKS = {
    "conv": conv(3, 2, 1),
    "chain": nn.Sequential(conv(3), conv(4, 2, 1), nn.GELU(), conv(3, 3, 0, 2)),
    "pools": nn.Sequential(conv(5, 1, 2), nn.AvgPool2d(3, 2, 1), conv(3), nn.AvgPool2d(2)),
    "oblong": nn.Sequential(conv((3, 1)), conv((1, 5), (1, 2)), conv((2, 3), 1, (0, 1))),
    "residual": nn.Sequential(conv(3), Residual()),
    "concat": nn.Sequential(Residual(concat=True), conv(2, 2)),
    "sliced": nn.Sequential(conv(3), Sliced(), conv(2)),
    "last": nn.Sequential(conv(2, 2), Last()),
    "adaptive": nn.Sequential(conv(3, 1, 1), nn.AdaptiveAvgPool2d(10)),
}


def seen(network, x):
    """The pixels that the middle position depends on, found by derivatives."""
    for parameter in network.parameters():
        nn.init.ones_(parameter)
    x = x.double().requires_grad_()
    y = network.double()(x)
    y[0, 0, y.shape[2] // 2, y.shape[3] // 2].backward()
    rows, columns = (x.grad[0, 0] != 0).nonzero().unbind(1)
    return [int(i.max() - i.min()) + 1 for i in (rows, columns)]


def found(network, x):
    mode = ReceptiveFields(x)
    with torch.no_grad(), mode:
        y = network.eval()(x)
    return mode, y


@pytest.mark.parametrize("name", NETWORKS)
def test_field_is_what_derivatives_see(name):
    network, x = NETWORKS[name].float(), torch.rand(1, 1, 60, 60)
    mode, y = found(network, x)
    field = mode.fields[y]
    expected = seen(network, x)
    if name == "last":  # The norm of a single value is constant: derivatives see the shortcut.
        expected = [14, 14]
    assert [axis.last - axis.first + 1 for axis in field] == expected


def test_stride_is_how_far_the_field_moves():
    network, x = NETWORKS["chain"].float(), torch.rand(1, 1, 60, 60)
    mode, y = found(network, x)
    assert [axis.step for axis in mode.fields[y]] == [6, 6]
    assert mode.text(y) == "14 / 6"
    mode, y = found(NETWORKS["oblong"].float(), x)
    assert mode.text(y) == "4x9 / 1x2"


def test_max_pooling_slides_like_a_convolution():
    x = torch.rand(1, 1, 40, 40)
    texts = [
        found(nn.Sequential(conv(3), pool), x)
        for pool in (nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(3, 2, 1))
    ]
    assert len({mode.text(y) for mode, y in texts}) == 1
    mode = ReceptiveFields(x)
    with mode:
        y = F.max_pool2d(x, 2)
    assert mode.text(y) == "2 / 2"


@pytest.mark.parametrize(
    "head",
    [
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 3)),
        nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(1), nn.ReLU()),
        nn.GroupNorm(1, 1),
    ],
    ids=str,
)
def test_what_takes_all_positions_together_sees_everything(head):
    mode, y = found(nn.Sequential(conv(3, 1, 1), head), torch.rand(1, 1, 12, 12))
    assert mode.text(y) == "all"


def test_gate_that_sees_everything_lets_everything_through():
    class Gate(nn.Module):
        def forward(self, x):
            return x * x.mean((2, 3), keepdim=True).sigmoid()

    mode, y = found(nn.Sequential(conv(3, 1, 1), Gate()), torch.rand(1, 1, 12, 12))
    assert mode.text(y) == "all"


class Attention(nn.Module):
    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        return F.scaled_dot_product_attention(tokens, tokens, tokens)


class Skip(nn.Module):
    """A known and an unknown branch: the sum is unknown."""

    def forward(self, x):
        up = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2.0)
        return torch.cat([x, up], 1)


@pytest.mark.parametrize(
    "network",
    [
        Attention(),
        nn.ConvTranspose2d(1, 1, 2, 2),
        nn.Sequential(nn.Upsample(scale_factor=2), conv(3)),
        Skip(),
        nn.Sequential(Skip(), nn.Conv2d(2, 1, 3)),
        nn.AdaptiveAvgPool2d(7),
    ],
    ids=lambda network: type(network).__name__,
)
def test_where_there_is_no_rule_nothing_is_claimed(network):
    mode, y = found(network, torch.rand(1, 1, 12, 12))
    assert mode.text(y) == "n/a"


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "layer", "size"),
    [  # Araujo, Norris and Sim, 2019, "Computing receptive fields of convolutional neural networks"
        ("alexnet", "features", 195),
        ("vgg16", "features", 212),
    ],
)
def test_published_fields_of_torchvisions_networks(name, layer, size):
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
    with torch.device("meta"):
        network = getattr(models, name)(weights=None).get_submodule(layer)
        mode, y = found(network, torch.empty(1, 3, 224, 224))
    assert mode.text(y) == f"{size} / 32"
