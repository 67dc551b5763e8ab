from functools import partial

import pytest
import torch

from zoo.layers.adjacency import normalized_adjacency
from zoo.models.graph.appnp import APPNP, APPNPNet
from zoo.models.graph.cheb import ChebConv, ChebNet, scaled_laplacian
from zoo.models.graph.gated_graph import GatedGraphConv
from zoo.models.graph.gcn import GCN, GCNConv
from zoo.models.graph.gcnii import GCN2Conv
from zoo.models.graph.label_propagation import LabelPropagation
from zoo.models.graph.sgc import SGConv

pyg = pytest.importorskip("torch_geometric.nn", reason="torch_geometric is the reference here")
pytestmark = pytest.mark.parity

assert_equal = partial(torch.testing.assert_close, atol=1e-10, rtol=1e-10)


def random_graph(nodes=12, edges=30, width=9):
    torch.manual_seed(0)
    source = torch.randint(nodes - 1, (edges,))  # the last node stays alone
    edge_index = torch.stack([source, (source + torch.randint(1, nodes - 1, (edges,))) % 11])
    return torch.randn(nodes, width, dtype=torch.double), edge_index


def directed_with_loops_and_duplicates():
    x, edge_index = random_graph()
    return x, torch.cat([edge_index, edge_index[:, :3], torch.tensor([[4, 3], [4, 3]])], dim=1)


def undirected():
    x, edge_index = random_graph()
    return x, torch.cat([edge_index, edge_index.flip(0)], dim=1).unique(dim=1)


GRAPHS = [directed_with_loops_and_duplicates, undirected]


def weighted(graph):
    x, edge_index = graph()
    weights = torch.rand(edge_index.size(1), dtype=torch.double) + 0.1
    return x.requires_grad_(), edge_index, weights.requires_grad_()


def gradients(model, outputs, *inputs):
    weights = torch.linspace(-1, 1, outputs.numel(), dtype=outputs.dtype).view_as(outputs)
    parameters = dict(model.named_parameters())
    found = torch.autograd.grad((outputs.sin() * weights).sum(), [*inputs, *parameters.values()])
    named = zip(parameters, found[len(inputs) :], strict=True)
    return found[: len(inputs)], dict(sorted(named))


def assert_same(ours, theirs, graph, is_weighted, *, run=lambda layer, *inputs: layer(*inputs)):
    """Strict load, then equal outputs and gradients: of weights, features and edge weights."""
    ours, theirs = ours.double(), theirs.double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x, edge_index, weights = weighted(graph)
    inputs = (x, edge_index, weights) if is_weighted else (x, edge_index)
    outputs = run(ours, *inputs), run(theirs, *inputs)
    assert_equal(*outputs)
    wanted = (x, weights) if is_weighted else (x,)
    assert_equal(gradients(ours, outputs[0], *wanted), gradients(theirs, outputs[1], *wanted))


every_graph = pytest.mark.parametrize("graph", GRAPHS)
with_weights_or_without = pytest.mark.parametrize("is_weighted", [True, False])


@every_graph
@with_weights_or_without
def test_graph_convolution(graph, is_weighted):
    assert_same(GCNConv(9, 4), pyg.GCNConv(9, 4), graph, is_weighted)


@every_graph
@pytest.mark.parametrize("cached", [True, False])
def test_network_of_graph_convolutions_with_constant_weights(graph, cached):
    theirs = pyg.GCN(9, 16, 2, 3).double().eval()
    ours = GCN(9, 3, cached=cached).double().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x, edge_index, weights = weighted(graph)
    weights = weights.detach()
    outputs = ours(x, edge_index, weights), theirs(x, edge_index, weights)
    assert_equal(*outputs)
    assert_equal(gradients(ours, outputs[0], x), gradients(theirs, outputs[1], x))


@every_graph
@with_weights_or_without
@pytest.mark.parametrize("add_self_loops", [True, False])
def test_adjacency(graph, is_weighted, add_self_loops):
    from torch_geometric.nn.conv.gcn_conv import gcn_norm
    from torch_geometric.utils import to_dense_adj

    _, edge_index, weights = weighted(graph)
    weights = weights if is_weighted else None
    ends, values = gcn_norm(
        edge_index, weights, 12, add_self_loops=add_self_loops, dtype=torch.double
    )
    found = normalized_adjacency(edge_index, 12, weights, torch.double, add_self_loops)
    expected = to_dense_adj(ends, edge_attr=values, max_num_nodes=12)[0].T
    assert_equal(found.matrix.to_dense(), expected)


@every_graph
@with_weights_or_without
@pytest.mark.parametrize("normalization", ["sym", "rw", None])
@pytest.mark.parametrize("lambda_max", [None, 1.7])
def test_laplacian(graph, is_weighted, normalization, lambda_max):
    _, edge_index, weights = weighted(graph)
    weights = weights.detach() if is_weighted else None
    theirs = pyg.ChebConv(9, 4, 3, normalization=normalization)
    ends, values = theirs.__norm__(  # what its layer propagates by
        edge_index, 12, weights, normalization, lambda_max, dtype=torch.double
    )
    expected = torch.zeros(12, 12, dtype=torch.double)
    expected.index_put_((ends[1], ends[0]), values, accumulate=True)
    given = normalization, lambda_max, None, torch.double
    found = scaled_laplacian(edge_index, 12, weights, *given)
    assert_equal(found.matrix.to_dense(), expected)


@every_graph
@with_weights_or_without
@pytest.mark.parametrize("normalization", ["sym", "rw", None])
@pytest.mark.parametrize("K", [1, 2, 3, 5])
def test_chebyshev_convolution(graph, is_weighted, normalization, K):
    if K == 1:  # which looks at no edge, so that there is no gradient to compare
        is_weighted = False
    both = (part(9, 4, K, normalization=normalization) for part in (ChebConv, pyg.ChebConv))
    assert_same(*both, graph, is_weighted)


def test_chebyshev_convolution_with_an_eigenvalue_for_each_graph():
    batch, largest = torch.arange(12) // 6, torch.tensor([1.5, 1.9], dtype=torch.double)
    torch.manual_seed(0)
    edge_index = torch.cat([torch.randint(6, (2, 15)), torch.randint(6, (2, 15)) + 6], dim=1)

    def run(layer, x, edges):
        return layer(x, edges, batch=batch, lambda_max=largest)

    both = (part(9, 4, 3) for part in (ChebConv, pyg.ChebConv))
    assert_same(*both, lambda: (random_graph()[0], edge_index), False, run=run)


@every_graph
@with_weights_or_without
@pytest.mark.parametrize("add_self_loops", [True, False])
def test_simple_graph_convolution(graph, is_weighted, add_self_loops):
    both = (part(9, 4, K=3, add_self_loops=add_self_loops) for part in (SGConv, pyg.SGConv))
    assert_same(*both, graph, is_weighted)


@every_graph
@with_weights_or_without
@pytest.mark.parametrize("add_self_loops", [True, False])
def test_personalised_propagation(graph, is_weighted, add_self_loops):
    both = (part(7, 0.2, add_self_loops=add_self_loops) for part in (APPNP, pyg.APPNP))
    assert_same(*both, graph, is_weighted)


@every_graph
@with_weights_or_without
@pytest.mark.parametrize("aggr", ["add", "mean", "max"])
def test_gated_graph_convolution(graph, is_weighted, aggr):
    both = (part(11, 3, aggr=aggr) for part in (GatedGraphConv, pyg.GatedGraphConv))
    assert_same(*both, graph, is_weighted)


@every_graph
@with_weights_or_without
@pytest.mark.parametrize("shared_weights", [True, False])
@pytest.mark.parametrize("depth", [{}, {"theta": 0.5, "layer": 3}])
def test_convolution_with_initial_residual(graph, is_weighted, shared_weights, depth):
    start = torch.randn(12, 9, dtype=torch.double)

    def run(layer, x, *edges):
        return layer(x, start, *edges)

    options = {"shared_weights": shared_weights, **depth}
    both = (part(9, 0.1, **options) for part in (GCN2Conv, pyg.GCN2Conv))
    assert_same(*both, graph, is_weighted, run=run)


def test_networks_equal_theirs_made_of_the_same_layers():
    x, edge_index = undirected()
    ours, layers = ChebNet(9, 3).double().eval(), [pyg.ChebConv(9, 16, 3), pyg.ChebConv(16, 3, 3)]
    theirs = torch.nn.ModuleDict({"convs": torch.nn.ModuleList(layers)}).double()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    expected = layers[1](layers[0](x, edge_index).relu(), edge_index)
    assert_equal(ours(x, edge_index), expected)
    assert_equal(ours(x.to_sparse_csr(), edge_index), expected)
    appnp = APPNPNet(9, 3).double().eval()
    hidden = appnp.lins[1](appnp.lins[0](x).relu())
    assert_equal(appnp(x, edge_index), pyg.APPNP(10, 0.1)(hidden, edge_index))


@every_graph
@pytest.mark.parametrize("as_scores", [False, True])
def test_label_propagation(graph, as_scores):
    _, edge_index = graph()
    labels, mask = torch.arange(12) % 3, torch.arange(12) < 5
    y = torch.nn.functional.one_hot(labels).double() if as_scores else labels
    theirs, ours = pyg.LabelPropagation(20, 0.9), LabelPropagation(20, 0.9)
    found = ours(y, edge_index, mask=mask)
    torch.testing.assert_close(found, theirs(y, edge_index, mask=mask).to(found.dtype))
