import pytest
import torch
from torch import nn

from zoo.models.graph.gin import GIN, GINConv

pyg = pytest.importorskip("torch_geometric.nn", reason="torch_geometric is the reference here")
pytestmark = pytest.mark.parity


def graph(nodes=12, width=9):
    """Directed, with edges twice and self-loops; node 11 has no edge."""
    torch.manual_seed(0)
    edge_index = torch.randint(nodes - 1, (2, 30))
    x = torch.randn(nodes, width, dtype=torch.double)
    return x, torch.cat([edge_index, edge_index[:, :3], torch.tensor([[4, 7], [4, 7]])], dim=1)


def network():
    return nn.Sequential(nn.Linear(9, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4))


def values(model, output, *inputs):
    """The output and all gradients."""
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    parameters = dict(model.named_parameters())
    found = torch.autograd.grad((output.sin() * weights).sum(), [*inputs, *parameters.values()])
    names = [*map(str, range(len(inputs))), *parameters]
    return {"output": output, **dict(zip(names, found, strict=True))}


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("train_eps", [False, True])
@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_layer_loads_strictly_with_equal_outputs_and_gradients(train_eps, eps):
    x, edge_index = graph()
    x.requires_grad_()
    theirs = pyg.GINConv(network(), eps, train_eps=train_eps).double()
    ours = GINConv(network(), 7.0, train_eps=train_eps).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    close(values(ours, ours(x, edge_index), x), values(theirs, theirs(x, edge_index), x))
    assert ours.eps.item() == pytest.approx(eps)


def test_sources_may_be_others_than_targets():
    torch.manual_seed(0)
    x = tuple(torch.randn(n, 9, dtype=torch.double, requires_grad=True) for n in (8, 5))
    edge_index = torch.stack([torch.randint(8, (20,)), torch.randint(4, (20,))])
    theirs = pyg.GINConv(network(), 0.3, train_eps=True).double()
    ours = GINConv(network(), train_eps=True).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    close(values(ours, ours(x, edge_index), *x), values(theirs, theirs(x, edge_index), *x))


class Reference(nn.Module):
    """Section 4.2 of the paper from PyG's layer and pooling, in the authors' order."""

    def __init__(self, ours):
        super().__init__()
        width, classes = ours.readouts[1].in_features, ours.readouts[0].out_features
        widths = [linear.in_features for linear in ours.readouts]
        self.convs = nn.ModuleList(
            pyg.GINConv(pyg.MLP([w, width, width], plain_last=True), train_eps=True)
            for w in widths[:-1]
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in self.convs)
        self.readouts = nn.ModuleList(nn.Linear(w, classes) for w in widths)

    def forward(self, x, edge_index, batch):
        score = self.readouts[0](pyg.global_add_pool(x, batch))
        for conv, norm, linear in zip(self.convs, self.norms, self.readouts[1:], strict=True):
            x = norm(conv(x, edge_index)).relu()
            score = score + linear(pyg.global_add_pool(x, batch))
        return score


def test_network_equals_one_made_of_pygs_parts():
    x, edge_index = graph()
    batch = torch.tensor([0] * 4 + [1] * 3 + [2] * 5)
    ours = GIN(9, 3, hidden_channels=6, num_layers=3, dropout=0.0).double()
    theirs = Reference(ours).double()
    renamed = {
        key.replace("nn.0.", "nn.lins.0.")
        .replace("nn.1.", "nn.norms.0.module.")
        .replace("nn.3.", "nn.lins.1."): value
        for key, value in ours.state_dict().items()
    }
    theirs.load_state_dict(renamed, strict=True)
    found = values(ours, ours(x, edge_index, batch, 3))
    expected = values(theirs, theirs(x, edge_index, batch))
    close(found["output"], expected["output"])
    assert len(found) == len(expected)
    for key, value in found.items():
        name = key.replace("nn.0.", "nn.lins.0.").replace("nn.1.", "nn.norms.0.module.")
        close(value, expected[name.replace("nn.3.", "nn.lins.1.")])
