"""What holds for every network of graphs. One row a network."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch

from zoo.models.graph.appnp import APPNPNet
from zoo.models.graph.cheb import ChebNet
from zoo.models.graph.gat import GAT, GATv2
from zoo.models.graph.gated_graph import GatedGraphNetwork
from zoo.models.graph.gcn import GCN
from zoo.models.graph.gcnii import GCNII
from zoo.models.graph.gin import GIN, gin0
from zoo.models.graph.graph_network import ORDERS, GraphNetwork
from zoo.models.graph.graph_sage import GraphSAGE
from zoo.models.graph.sgc import SGC
from zoo.models.graph.structure_free import DeepMultiset, MolecularFingerprint

NODES, WIDTH, CLASSES = 7, 5, 3
# A triangle 0-1-2 with a tail 2-3-4-5; node 6 has no edge.
EDGES = torch.tensor([[0, 1, 2, 2, 3, 4], [1, 2, 0, 3, 4, 5]])
EDGES = torch.cat([EDGES, EDGES.flip(0)], dim=1)
DIRECTED = EDGES[:, :6]


class Network(NamedTuple):
    build: Callable[..., Any]  # of in_features and num_classes
    takes_sparse: bool = False  # features of CSR layout
    takes_weights: bool = False  # of edges
    ignores_self_loops: bool = False  # since each node has one anyway
    is_recurrent: bool = False  # reads one neighbour after the other


NODE_LEVEL = {
    "gcn": Network(GCN, takes_sparse=True, takes_weights=True, ignores_self_loops=True),
    "cheb": Network(ChebNet, takes_sparse=True, takes_weights=True, ignores_self_loops=True),
    "sgc": Network(SGC, takes_sparse=True, takes_weights=True, ignores_self_loops=True),
    "appnp": Network(APPNPNet, takes_sparse=True, takes_weights=True, ignores_self_loops=True),
    "gated_graph": Network(GatedGraphNetwork, takes_sparse=True, takes_weights=True),
    "gcnii": Network(
        lambda *sizes: GCNII(*sizes, hidden_channels=16, num_layers=3),
        takes_sparse=True,
        takes_weights=True,
        ignores_self_loops=True,
    ),
    "gat": Network(GAT, takes_sparse=True, ignores_self_loops=True),
    "gat_3": Network(lambda *sizes: GAT(*sizes, num_layers=3, output_heads=2)),
    "gatv2": Network(GATv2, takes_sparse=True, ignores_self_loops=True),
    "sage": Network(GraphSAGE, takes_sparse=True),
    "sage_max": Network(lambda *sizes: GraphSAGE(*sizes, aggr="max", normalize=True)),
    "sage_max_project": Network(
        lambda *sizes: GraphSAGE(*sizes, aggr="max", project=True), takes_sparse=True
    ),
    "sage_lstm": Network(lambda *sizes: GraphSAGE(*sizes, aggr="lstm"), is_recurrent=True),
}

# forward(x, edge_index, batch, num_graphs) -> one row a graph
GRAPH_LEVEL = {
    "gin": Network(GIN),
    "gin0_mean": Network(lambda *sizes: gin0(*sizes, readout="mean")),
    "gin_max": Network(lambda *sizes: GIN(*sizes, readout="max")),
    "molecular_fingerprint": Network(MolecularFingerprint, ignores_self_loops=True),
    "deep_multiset": Network(DeepMultiset, ignores_self_loops=True),
    "graph_network_mean": Network(lambda *sizes: GraphNetwork(*sizes, aggregation="mean")),
    "graph_network_max": Network(lambda *sizes: GraphNetwork(*sizes, aggregation="max")),
    **{f"graph_network_{order}": Network(partial(GraphNetwork, order=order)) for order in ORDERS},
}


def each(networks, condition=lambda network: True):
    chosen = {name: network for name, network in networks.items() if condition(network)}
    return pytest.mark.parametrize("network", chosen.values(), ids=chosen.keys())


def model_of(network):
    """In float64, ready to evaluate, its running statistics those of some batch."""
    torch.manual_seed(0)
    model = network.build(WIDTH, CLASSES).double()
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    return model.eval()


def features(nodes=NODES, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(nodes, WIDTH, dtype=torch.double, generator=generator)
    return x * (torch.rand(nodes, WIDTH, generator=generator) < 0.6)


def one_graph(x, edge_index):
    return x, edge_index, torch.zeros(len(x), dtype=torch.long), 1


def gradients(model, *inputs):
    model.zero_grad()
    model(*inputs).square().sum().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@each(NODE_LEVEL)
@pytest.mark.parametrize("edge_index", [EDGES, DIRECTED], ids=["undirected", "directed"])
def test_permuting_the_nodes_permutes_the_outputs(network, edge_index):
    model, x = model_of(network), features()
    order = torch.randperm(NODES, generator=torch.Generator().manual_seed(3))
    close(model(x[order], order.argsort()[edge_index]), model(x, edge_index)[order])


@each(NODE_LEVEL, lambda network: not network.is_recurrent)
def test_the_order_of_the_edges_changes_nothing(network):
    model, x = model_of(network), features()
    order = torch.randperm(EDGES.size(1), generator=torch.Generator().manual_seed(3))
    close(model(x, EDGES[:, order]), model(x, EDGES))


@each(NODE_LEVEL)
def test_messages_follow_the_edges_from_source_to_target(network):
    model, x = model_of(network), features()
    other = x.clone()
    other[2] += 1.0
    is_changed = (model(x, DIRECTED) - model(other, DIRECTED)).abs().sum(1) > 1e-12
    assert is_changed[2] and is_changed[3] and is_changed[0]
    assert not is_changed[6]
    arrow = torch.tensor([[0], [1]])
    is_changed = (model(x, arrow) - model(other, arrow)).abs().sum(1) > 1e-12
    assert is_changed.tolist() == [False, False, True, False, False, False, False]


@each(NODE_LEVEL)
def test_isolated_nodes_and_graphs_without_edges_are_finite_with_their_gradients(network):
    model, x = model_of(network).train(), features()
    for edge_index in (EDGES, torch.zeros(2, 0, dtype=torch.long)):
        assert model(x, edge_index).isfinite().all()
        assert all(gradient.isfinite().all() for gradient in gradients(model, x, edge_index))


@each(NODE_LEVEL)
def test_two_graphs_side_by_side_equal_each_alone(network):
    model, x, other = model_of(network), features(), features(seed=2)
    both = model(torch.cat([x, other]), torch.cat([EDGES, DIRECTED + NODES], dim=1))
    close(both, torch.cat([model(x, EDGES), model(other, DIRECTED)]))


@each(NODE_LEVEL, lambda network: network.takes_weights)
def test_weights_of_one_equal_none_and_a_weight_of_zero_no_edge(network):
    model, x = model_of(network), features()
    ones = torch.ones(EDGES.size(1), dtype=torch.double)
    close(model(x, EDGES, ones), model(x, EDGES))
    ones[-2:] = 0
    close(model(x, EDGES, ones), model(x, EDGES[:, :-2]))


@each(NODE_LEVEL, lambda network: network.ignores_self_loops)
def test_self_loops_of_the_graph_are_not_counted_twice(network):
    model, x = model_of(network), features()
    loops = torch.tensor([[0, 3, 6], [0, 3, 6]])
    close(model(x, torch.cat([loops, EDGES], dim=1)), model(x, EDGES))


@each(NODE_LEVEL, lambda network: network.takes_sparse)
def test_sparse_features_equal_dense_ones_with_their_gradients(network):
    model, x = model_of(network), features()
    close(model(x.to_sparse_csr(), EDGES), model(x, EDGES))
    close(gradients(model, x.to_sparse_csr(), EDGES), gradients(model, x, EDGES))


@each(NODE_LEVEL)
def test_without_the_cache_a_network_computes_the_same(network):
    model, x, edges = model_of(network), features(), EDGES.clone()
    if not hasattr(model, "cached"):
        pytest.skip("it has no cache")
    cached = [gradients(model, x, edges) for _ in range(2)]
    close(cached[0], cached[1])
    model.cached = False
    close(gradients(model, x, edges), cached[0])


@each(NODE_LEVEL)
def test_edges_changed_in_place_are_noticed(network):
    model, x, edges = model_of(network), features(), EDGES.clone()
    before = model(x, edges)
    edges[:, 3] = torch.tensor([0, 5])
    close(model(x, edges), model(x, edges.clone()))
    assert not torch.allclose(model(x, edges), before)


@each(NODE_LEVEL)
def test_evaluation_in_inference_mode_may_come_before_training(network):
    model, x, edges = model_of(network), features(), EDGES.clone()
    with torch.inference_mode():
        model(x, edges)
    model.train()
    assert all(gradient.isfinite().all() for gradient in gradients(model, x, edges))


@each(NODE_LEVEL, lambda network: not network.is_recurrent)  # torch.func knows no LSTM
def test_torch_func_differentiates_it(network):
    model, x = model_of(network), features()
    weights = dict(model.named_parameters())

    def loss(weights):
        return torch.func.functional_call(model, weights, (x, EDGES)).square().sum()

    close(list(torch.func.grad(loss)(weights).values()), gradients(model, x, EDGES))


@each(NODE_LEVEL)
def test_not_a_bit_changes_from_run_to_run_with_any_number_of_threads(network):
    model, before = model_of(network).float(), torch.get_num_threads()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, WIDTH, generator=generator)
    edge_index = torch.randint(300, (2, 3000), generator=generator)
    found = []
    try:
        for threads in (1,) if network.is_recurrent else (1, 2):
            torch.set_num_threads(threads)
            runs = [[model(x, edge_index), *gradients(model, x, edge_index)] for _ in range(2)]
            assert all(map(torch.equal, *runs))
            found.append(runs[0])
    finally:
        torch.set_num_threads(before)
    # Some processors multiply matrices in another order with another number of threads.
    for one, other in zip(found[0], found[-1], strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5 * float(one.abs().max()))


@each(GRAPH_LEVEL)
def test_packed_graphs_equal_each_alone(network):
    model, x, other = model_of(network), features(), features(4, seed=2)
    square = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
    packed = model(
        torch.cat([x, other]),
        torch.cat([EDGES, square + NODES], dim=1),
        torch.tensor([0] * NODES + [1] * 4),
        2,
    )
    alone = [model(*one_graph(x, EDGES)), model(*one_graph(other, square))]
    close(packed, torch.cat(alone))


@each(GRAPH_LEVEL)
def test_permuting_the_nodes_of_a_graph_changes_nothing(network):
    model, x = model_of(network), features()
    order = torch.randperm(NODES, generator=torch.Generator().manual_seed(3))
    permuted = one_graph(x[order], order.argsort()[DIRECTED])
    close(model(*permuted), model(*one_graph(x, DIRECTED)))


@each(GRAPH_LEVEL)
def test_graphs_without_edges_are_finite_with_their_gradients(network):
    model, x = model_of(network).train(), features()
    inputs = x, torch.zeros(2, 0, dtype=torch.long), torch.tensor([0, 0, 0, 1, 1, 2, 2]), 3
    assert model(*inputs).isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients(model, *inputs))


@each(GRAPH_LEVEL)
def test_torch_func_differentiates_a_network_of_packed_graphs(network):
    model, inputs = model_of(network), one_graph(features(), EDGES)
    weights = dict(model.named_parameters())

    def loss(weights):
        return torch.func.functional_call(model, weights, inputs).square().sum()

    close(list(torch.func.grad(loss)(weights).values()), gradients(model, *inputs))
