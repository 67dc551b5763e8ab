import pytest
import torch

from zoo.layers.message_passing import Edges
from zoo.models.graph.gated_graph import GatedGraphConv, GatedGraphNetwork

EDGES = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])


def test_parameter_count_is_the_docstrings():
    assert sum(p.numel() for p in GatedGraphNetwork(1433, 7).parameters()) == 54_727


def test_steps_are_the_papers_equations():
    torch.manual_seed(0)
    conv, x = GatedGraphConv(4, 2).double(), torch.randn(5, 3, dtype=torch.double)
    a = torch.zeros(5, 5, dtype=torch.double)
    a[EDGES[1], EDGES[0]] = 1
    h = torch.cat([x, torch.zeros(5, 1)], dim=1)
    w_r, w_z, w_n = conv.rnn.weight_ih.chunk(3)
    u_r, u_z, u_n = conv.rnn.weight_hh.chunk(3)
    b_r, b_z, b_n = conv.rnn.bias_ih.chunk(3)
    c_r, c_z, c_n = conv.rnn.bias_hh.chunk(3)
    for w in conv.weight:
        m = a @ h @ w
        reset = torch.sigmoid(m @ w_r.T + b_r + h @ u_r.T + c_r)
        keep = torch.sigmoid(m @ w_z.T + b_z + h @ u_z.T + c_z)
        new = torch.tanh(m @ w_n.T + b_n + reset * (h @ u_n.T + c_n))
        h = (1 - keep) * new + keep * h
    torch.testing.assert_close(conv(x, EDGES), h)


@pytest.mark.parametrize("aggr", ["add", "mean", "max"])
def test_prepared_edges_give_the_same(aggr):
    conv, x, weights = GatedGraphConv(4, 2, aggr=aggr), torch.randn(5, 3), torch.rand(6)
    found = conv(x, Edges(EDGES, 5), weights)
    assert torch.equal(found, conv(x, EDGES, weights))


def test_nonsense_is_refused_with_the_value():
    with pytest.raises(ValueError, match="aggr must be add, mean or max, not 'median'"):
        GatedGraphConv(4, 2, aggr="median")
    with pytest.raises(ValueError, match="num_layers must be at least 1, not 0"):
        GatedGraphNetwork(5, 3, num_layers=0)
    with pytest.raises(ValueError, match="x has 5 channels: out_channels must be at least as many"):
        GatedGraphConv(4, 2)(torch.rand(5, 5), EDGES)
