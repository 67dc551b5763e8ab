import pytest
import torch

from zoo.layers.message_passing import Edges
from zoo.models.graph.graph_sage import GraphSAGE, LSTMAggregation, SAGEConv

# Node 0 has three neighbours, node 1 one, node 2 two, node 3 none.
EDGES = torch.tensor([[1, 2, 0, 3, 3, 0], [0, 0, 1, 0, 2, 2]])


def features(nodes=4, width=5):
    torch.manual_seed(1)
    return torch.rand(nodes, width, dtype=torch.double) + 0.1


def test_parameter_count_is_the_docstrings():
    assert sum(p.numel() for p in GraphSAGE(1433, 7).parameters()) == 46_103


def test_lstm_reads_each_nodes_neighbours_and_no_padding():
    aggregation, x = LSTMAggregation(5, 3).double().eval(), features()
    found = aggregation(x, Edges(EDGES, 4))
    for node, neighbours in enumerate([[1, 2, 3], [0], [3, 0]]):
        _, (last, _) = aggregation.lstm(x[None, neighbours])
        torch.testing.assert_close(found[node], last[0, 0])
    assert (found[3] == 0).all()
    nothing = aggregation(x, Edges(EDGES[:, :0], 4))
    assert nothing.shape == (4, 3) and (nothing == 0).all()


def test_lstm_passes_the_gradient_of_a_loop_over_nodes():
    aggregation, x = LSTMAggregation(5, 3).double().eval(), features().requires_grad_()
    parts = [aggregation.lstm(x[None, own])[1][0][0] for own in ([1, 2, 3], [0], [3, 0])]
    inputs = [x, *aggregation.parameters()]
    found = torch.autograd.grad(aggregation(x, Edges(EDGES, 4)).square().sum(), inputs)
    expected = torch.autograd.grad(torch.cat(parts).square().sum(), inputs)
    torch.testing.assert_close(found, expected)


def test_lstm_reads_in_any_order_in_training_and_in_all_of_them():
    torch.manual_seed(0)
    aggregation, x = LSTMAggregation(5, 3).double(), features()
    edges, possible = Edges(EDGES, 4), [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1]]
    possible += [[3, 1, 2], [3, 2, 1]]
    states = torch.cat([aggregation.lstm(x[None, own])[1][0][0] for own in possible])
    seen = torch.zeros(len(possible))
    with torch.no_grad():
        for _ in range(240):
            is_this = (aggregation(x, edges)[0] - states).abs().sum(1) < 1e-12
            assert is_this.sum() == 1
            seen += is_this
    assert seen.min() > 15  # 40 expected


def test_layer_by_layer_for_some_targets_equals_the_whole_graph():
    torch.manual_seed(0)
    model, x = GraphSAGE(5, 3, num_layers=2).double().eval(), features()
    h: torch.Tensor = x
    for layer in range(2):
        rows = []
        for targets in ([0, 1], [2, 3]):
            own = (EDGES[1] >= targets[0]) & (EDGES[1] <= targets[1])
            edges = torch.stack([EDGES[0, own], EDGES[1, own] - targets[0]])
            rows.append(model.apply_layer(layer, (h, h[targets]), Edges(edges, 2, 4)))
        h = torch.cat(rows)
    torch.testing.assert_close(h, model(x, EDGES))


def test_a_mean_forgets_how_many_neighbours_there_are_and_a_maximum_too():
    twice = torch.cat([EDGES, EDGES], dim=1)
    for aggr in ("mean", "max"):
        layer, x = SAGEConv(5, 3, aggr).double(), features()
        torch.testing.assert_close(layer(x, twice), layer(x, EDGES))


def test_maximum_takes_sparse_features_once_projected_and_refuses_others():
    x = features() * (features() < 0.5)
    layer = SAGEConv(5, 3, "max", project=True).double()
    torch.testing.assert_close(layer(x.to_sparse_csr(), EDGES), layer(x, EDGES))
    for aggr in ("max", "lstm"):
        with pytest.raises(ValueError, match=f"x must be dense for aggr={aggr} without project"):
            GraphSAGE(5, 3, aggr=aggr)(x.float().to_sparse_csr(), EDGES)


def test_normalised_layer_has_length_one():
    layer, x = SAGEConv(5, 3, normalize=True).double(), features()
    torch.testing.assert_close(layer(x, EDGES).norm(dim=1), torch.ones(4, dtype=torch.double))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_layers": 0}, "num_layers must be at least 1, not 0"),
        ({"hidden_channels": 0}, "hidden_channels must be at least 1, not 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
        ({"aggr": "sum"}, "aggr must be mean, max or lstm, not 'sum'"),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        GraphSAGE(5, 3, **arguments)


def test_edge_weights_are_refused():
    with pytest.raises(ValueError, match="edge_weight must be None"):
        GraphSAGE(5, 3)(features().float(), EDGES, torch.ones(6))
