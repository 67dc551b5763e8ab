import pytest
import torch
from torch import nn

from zoo.models.graph.graph_network import GraphNetworkBlock, Structure

pyg = pytest.importorskip("torch_geometric", reason="torch_geometric is the reference here")
pytestmark = pytest.mark.parity

IN, OUT = (3, 4, 2), (5, 6, 7)  # of edges, nodes and graphs


class Part(nn.Sequential):
    """A network of ours as one of the three that PyG's MetaLayer calls."""

    def __init__(self, network, aggregation):
        super().__init__(*network)
        self.reduce = aggregation

    def gathered(self, values, index, size):
        return pyg.utils.scatter(values, index, 0, size, reduce=self.reduce)


class EdgePart(Part):
    def forward(self, source, target, edge_attr, u, batch):
        return super().forward(torch.cat([edge_attr, target, source, u[batch]], dim=1))


class NodePart(Part):
    def forward(self, x, edge_index, edge_attr, u, batch):
        incoming = self.gathered(edge_attr, edge_index[1], len(x))
        return super().forward(torch.cat([incoming, x, u[batch]], dim=1))


class GlobalPart(Part):
    def forward(self, x, edge_index, edge_attr, u, batch):
        edges = self.gathered(edge_attr, batch[edge_index[1]], len(u))
        nodes = self.gathered(x, batch, len(u))
        return super().forward(torch.cat([edges, nodes, u], dim=1))


@pytest.mark.parametrize("aggregation", ["sum", "mean", "max"])
def test_full_block_equals_pygs_meta_layer_with_the_same_networks(aggregation):
    torch.manual_seed(0)
    batch = torch.tensor([0] * 4 + [1] * 3 + [2] * 5)
    edge_index = torch.randint(4, (2, 9))  # of graph 0; graph 1 has no edge
    edge_index = torch.cat([edge_index, torch.randint(7, 11, (2, 12))], dim=1)
    ours = GraphNetworkBlock(IN, OUT, hidden_channels=8, aggregation=aggregation).double()
    theirs = pyg.nn.MetaLayer(
        EdgePart(ours.edge_model, aggregation),
        NodePart(ours.node_model, aggregation),
        GlobalPart(ours.global_model, aggregation),
    )
    assert theirs.state_dict().keys() == ours.state_dict().keys()
    inputs = [
        torch.randn(rows, width, dtype=torch.double, requires_grad=True)
        for rows, width in zip((12, 21, 3), (IN[1], IN[0], IN[2]), strict=True)
    ]
    x, edge_attr, u = inputs
    found = ours(x, Structure.of(edge_index, batch, 3), edge_attr, u)
    expected = theirs(x, edge_index, edge_attr, u, batch)
    sums = [sum(out.sin().square().sum() for out in outputs) for outputs in (found, expected)]
    sources = [*inputs, *ours.parameters()]
    torch.testing.assert_close(
        (found, *(torch.autograd.grad(sums[0], sources, retain_graph=True),)),
        (expected, *(torch.autograd.grad(sums[1], sources),)),
        rtol=1e-10,
        atol=1e-10,
    )
