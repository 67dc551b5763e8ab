import pytest
import torch

from zoo.models.graph.graph_network import ORDERS, GraphNetwork, GraphNetworkBlock, Structure

# Graph 0: 0 -> 1 -> 2; graph 1: 3 -> 4.
EDGES, BATCH = torch.tensor([[0, 1, 3], [1, 2, 4]]), torch.tensor([0, 0, 0, 1, 1])
NODE, EDGE, GRAPH = 4, 3, 5


def block(**options):
    torch.manual_seed(0)
    widths = EDGE, NODE, GRAPH
    made = GraphNetworkBlock(widths, widths, hidden_channels=32, **options).double()
    for name, parameter in made.named_parameters():
        if name.endswith("2.bias"):  # so that no ReLU at the end is silent
            torch.nn.init.uniform_(parameter, 2.0, 4.0)
    return made


def inputs():
    torch.manual_seed(1)
    x, edges, u = (
        torch.randn(n, w, dtype=torch.double) for n, w in ((5, NODE), (3, EDGE), (2, GRAPH))
    )
    return x, Structure.of(EDGES, BATCH, 2), edges, u


def changed(made, part, row):
    """Which rows of nodes, edges and graphs change with one row of ``x``, ``edges`` or ``u``."""
    x, structure, edges, u = inputs()
    before = made(x, structure, edges, u)
    {"x": x, "edges": edges, "u": u}[part][row] += 1.0
    pairs = zip(before, made(x, structure, edges, u), strict=True)
    return [(a != b).any(1).nonzero().flatten().tolist() for a, b in pairs]


# What learns of edge 0 (from node 0 to node 1), of node 1, of graph 0: nodes, edges, graphs.
REACH = {
    "edge_then_node": ([[1], [0], [0]], [[1, 2], [0, 1], [0]], [[0, 1, 2], [0, 1], [0]]),
    "node_then_edge": ([[1], [0, 1], [0]], [[1], [0, 1], [0]], [[0, 1, 2], [0, 1], [0]]),
    "weave": ([[1], [0], [0]], [[1], [0, 1], [0]], [[0, 1, 2], [0, 1], [0]]),
    "independent": ([[], [0], []], [[1], [], []], [[], [], [0]]),
}


@pytest.mark.parametrize("order", ORDERS)
def test_each_order_reaches_just_what_it_says(order):
    made = block(order=order)
    for (part, row), expected in zip((("edges", 0), ("x", 1), ("u", 0)), REACH[order], strict=True):
        assert changed(made, part, row) == expected


def test_full_block_is_algorithm_1_edge_by_edge():
    made, (x, structure, edges, u) = block(), inputs()
    new_edges = [
        made.edge_model(torch.cat([edges[k], x[r], x[s], u[BATCH[r]]]))
        for k, (s, r) in enumerate(EDGES.T.tolist())
    ]
    new_nodes, new_graphs = [], []
    for i in range(5):
        into = [new_edges[k] for k in range(3) if EDGES[1, k] == i]
        incoming = sum(into, torch.zeros(EDGE, dtype=torch.double))
        new_nodes.append(made.node_model(torch.cat([incoming, x[i], u[BATCH[i]]])))
    for g, own in enumerate(([0, 1], [2])):
        all_edges = sum(new_edges[k] for k in own)
        all_nodes = sum(new_nodes[i] for i in range(5) if BATCH[i] == g)
        new_graphs.append(made.global_model(torch.cat([all_edges, all_nodes, u[g]])))
    expected = tuple(map(torch.stack, (new_nodes, new_edges, new_graphs)))
    torch.testing.assert_close(made(x, structure, edges, u), expected)


def test_what_is_connected_to_what_stays_as_it_is():
    made, (x, structure, edges, u) = block(), inputs()
    first = made(x, structure, edges, u)
    made(first[0], structure, first[1], first[2])
    assert torch.equal(structure.edges.edge_index, EDGES)
    assert first[1].shape == edges.shape and first[0].shape == x.shape


def test_features_of_edges_count():
    torch.manual_seed(0)
    model, x = GraphNetwork(4, 2, edge_features=3).double(), inputs()[0]
    edges = torch.randn(3, 3, dtype=torch.double, requires_grad=True)
    logits = model(x, EDGES, BATCH, 2, edges)
    (gradient,) = torch.autograd.grad(logits[0].sum(), edges)
    assert (gradient[:2] != 0).any(1).all() and (gradient[2] == 0).all()


def test_features_of_edges_must_be_those_announced():
    x = inputs()[0].float()
    with pytest.raises(ValueError, match="edge_attr must have 3 features, not 0"):
        GraphNetwork(4, 2, edge_features=3)(x, EDGES, BATCH, 2)
    with pytest.raises(ValueError, match="edge_attr must have 0 features, not 3"):
        GraphNetwork(4, 2)(x, EDGES, BATCH, 2, torch.zeros(3, 3))


def test_parameter_count_is_the_docstrings():
    assert sum(p.numel() for p in GraphNetwork(7, 2).parameters()) == 41_602


@pytest.mark.parametrize("order", ORDERS)
def test_every_parameter_gets_a_gradient(order):
    torch.manual_seed(0)
    model = GraphNetwork(4, 2, order=order).double()
    (model(inputs()[0], EDGES, BATCH, 2) - 1).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_layers": 0}, "num_layers must be at least 1, not 0"),
        ({"hidden_channels": 0}, "hidden_channels must be at least 1, not 0"),
        ({"edge_features": -1}, "edge_features must be at least 0, not -1"),
        ({"order": "graph_first"}, "order must be one of edge_then_node, .*, not 'graph_first'"),
        ({"aggregation": "median"}, "aggregation must be sum, mean or max, not 'median'"),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        GraphNetwork(5, 3, **arguments)
