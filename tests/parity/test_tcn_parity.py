import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo.models.recurrent.tcn import SequenceTCN, TemporalConvNet, tcn_regressor

pytestmark = pytest.mark.parity


class TheirBlock(nn.Module):
    """Says what the authors' code says: padding on both sides, of which the right is cut off.

    Weights are normalised by torch's older function, whose parts are `weight_g` and `weight_v`.
    """

    def __init__(self, inputs, outputs, taps, dilation):
        super().__init__()
        self.cut = (taps - 1) * dilation
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            self.conv1, self.conv2 = (
                nn.utils.weight_norm(
                    nn.Conv1d(width, outputs, taps, padding=self.cut, dilation=dilation)
                )
                for width in (inputs, outputs)
            )
        self.net = nn.Sequential(self.conv1, self.conv2)  # a second name for the same weights
        self.downsample = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x):
        out = x
        for conv in (self.conv1, self.conv2):
            out = F.relu(conv(out)[:, :, : out.size(2)])
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class TheirNet(nn.Module):
    def __init__(self, inputs, widths, taps):
        super().__init__()
        self.network = nn.Sequential(
            *(
                TheirBlock(before, after, taps, 2**level)
                for level, (before, after) in enumerate(
                    zip((inputs, *widths), widths, strict=False)
                )
            )
        )

    def forward(self, x):
        return self.network(x)


class TheirRegressor(nn.Module):
    """As the authors' model of the adding problem, with steps before features."""

    def __init__(self, widths, taps):
        super().__init__()
        self.tcn = TheirNet(2, widths, taps)
        self.linear = nn.Linear(widths[-1], 1)

    def forward(self, x):
        return self.linear(self.tcn(x.transpose(1, 2))[:, :, -1])


def without_doubles(state):
    return {name: value for name, value in state.items() if ".net." not in name}


def assert_equal_gradients(ours, theirs):
    """Gradients of the outputs' weights and of the inputs, under the names of each."""
    expected = {
        name.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): parameter.grad
        for name, parameter in theirs.named_parameters()
    }
    found = {name: parameter.grad for name, parameter in ours.named_parameters()}
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name], msg=name)


@pytest.mark.parametrize("taps", [2, 5])
def test_authors_network_loads_strictly_with_equal_outputs_and_gradients(taps):
    torch.manual_seed(0)
    theirs = TheirNet(3, (4, 4, 6), taps).double()
    ours = TemporalConvNet(3, (4, 4, 6), kernel_size=taps, dropout=0.0).double()
    ours.load_state_dict(without_doubles(theirs.state_dict()), strict=True)
    x = torch.randn(2, 3, 25, dtype=torch.double)
    torch.testing.assert_close(ours(x), theirs(x))
    for model in (ours, theirs):
        model(x).square().sum().backward()
    assert_equal_gradients(ours, theirs)


def test_authors_model_of_the_adding_problem_loads_strictly_with_equal_outputs():
    torch.manual_seed(0)
    theirs = TheirRegressor((5, 5, 5), 4)
    ours = tcn_regressor(2, hidden_channels=(5, 5, 5), kernel_size=4)
    assert isinstance(ours, SequenceTCN)
    ours.load_state_dict(without_doubles(theirs.state_dict()), strict=True)
    x = torch.randn(3, 30, 2)
    torch.testing.assert_close(ours(x), theirs(x))
