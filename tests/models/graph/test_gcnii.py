import math

import pytest
import torch

from zoo.layers.adjacency import normalized_adjacency
from zoo.models.graph.gcn import GCN
from zoo.models.graph.gcnii import GCNII, GCN2Conv

EDGES = torch.tensor([[0, 1, 1, 2, 2, 3, 3, 4], [1, 0, 2, 1, 3, 2, 4, 3]])


def test_parameter_count_is_the_docstrings():
    assert sum(p.numel() for p in GCNII(1433, 7).parameters()) == 354_375


def test_layer_is_the_papers_equation():
    torch.manual_seed(0)
    x, x_0 = torch.randn(2, 5, 4, dtype=torch.double)
    conv = GCN2Conv(4, 0.1, theta=0.5, layer=3).double()
    a, beta = normalized_adjacency(EDGES, 5, dtype=torch.double), math.log(0.5 / 3 + 1)
    smooth = 0.9 * a.matrix.to_dense() @ x + 0.1 * x_0
    expected = smooth @ ((1 - beta) * torch.eye(4) + beta * conv.weight1)
    torch.testing.assert_close(conv(x, x_0, EDGES), expected)
    torch.testing.assert_close(conv(x, x_0, a), expected)


def test_maps_come_closer_to_the_identity_layer_by_layer():
    betas = [conv.beta for conv in GCNII(5, 3, num_layers=4).convs]
    assert betas == pytest.approx([math.log(0.5 / layer + 1) for layer in (1, 2, 3, 4)])


def test_many_layers_leave_nodes_distinct_where_plain_convolutions_smooth_them():
    torch.manual_seed(0)
    x, nodes = torch.randn(6, 8), torch.arange(6)
    ring = torch.stack([nodes, (nodes + 1) % 6])
    ring = torch.cat([ring, ring.flip(0)], dim=1)

    def spread(model):
        h = model.eval()(x, ring).detach()
        return ((h - h.mean(0)).norm() / h.norm()).item()

    assert spread(GCNII(8, 3, num_layers=64)) > 0.05
    assert spread(GCN(8, 3, hidden_channels=64, num_layers=64)) < 1e-4


def test_nonsense_is_refused_with_the_value():
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\], not -1"):
        GCNII(5, 3, alpha=-1)
    with pytest.raises(ValueError, match="theta must be above 0, not 0"):
        GCNII(5, 3, theta=0.0)
    with pytest.raises(ValueError, match="theta and layer go together, not theta=None and layer=2"):
        GCN2Conv(4, 0.1, layer=2)
    with pytest.raises(ValueError, match="num_layers must be at least 1, not 0"):
        GCNII(5, 3, num_layers=0)
