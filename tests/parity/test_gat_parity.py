import pytest
import torch

from zoo.models.graph.gat import GAT, GATConv, GATv2, GATv2Conv

pyg = pytest.importorskip("torch_geometric.nn", reason="torch_geometric is the reference here")
pytestmark = pytest.mark.parity

LAYERS = [(GATConv, "GATConv"), (GATv2Conv, "GATv2Conv")]


def graph(nodes=12, edges=30, width=9):
    """Directed, with edges twice and, once and twice, self-loops; node 11 has no edge."""
    torch.manual_seed(0)
    edge_index = torch.randint(nodes - 1, (2, edges))
    loops = torch.tensor([[4, 4, 7], [4, 4, 7]])
    x = torch.randn(nodes, width, dtype=torch.double)
    return x * (torch.rand(nodes, width) < 0.4), torch.cat(
        [edge_index, edge_index[:, :3], loops], dim=1
    )


def strict(ours, theirs):
    """Both with the same weights, in float64, none of them zero."""
    theirs = theirs.double()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    ours = ours.double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


def gradients(model, outputs, *inputs):
    weights = torch.linspace(-1, 1, outputs.numel(), dtype=outputs.dtype).view_as(outputs)
    parameters = dict(model.named_parameters())
    found = torch.autograd.grad((outputs.sin() * weights).sum(), [*inputs, *parameters.values()])
    named = zip(parameters, found[len(inputs) :], strict=True)
    return found[: len(inputs)], dict(sorted(named))


def dense(x):
    return x if isinstance(x, tuple) or x.layout == torch.strided else x.to_dense()


def assert_equal(ours, theirs, x, edge_index):
    outputs = ours(x, edge_index), theirs(dense(x), edge_index)
    torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-10)
    inputs = [x] if x.requires_grad else []
    torch.testing.assert_close(
        gradients(ours, outputs[0], *inputs),
        gradients(theirs, outputs[1], *inputs),
        rtol=1e-10,
        atol=1e-10,
    )


@pytest.mark.parametrize(("layer", "name"), LAYERS)
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"heads": 3},
        {"heads": 3, "concat": False, "negative_slope": 0.5},
        {"heads": 2, "add_self_loops": False},
        {"heads": 2, "bias": False},
        {"heads": 2, "residual": True},
    ],
)
def test_layer_loads_strictly_with_equal_outputs_and_gradients(layer, name, arguments):
    x, edge_index = graph()
    ours, theirs = strict(layer(9, 4, **arguments), getattr(pyg, name)(9, 4, **arguments))
    assert_equal(ours, theirs, x.requires_grad_(), edge_index)


def test_shared_weights_have_both_names_and_equal_outputs_and_gradients():
    x, edge_index = graph()
    arguments = {"heads": 2, "share_weights": True}
    ours, theirs = strict(GATv2Conv(9, 4, **arguments), pyg.GATv2Conv(9, 4, **arguments))
    assert "lin_r.weight" in ours.state_dict()
    assert_equal(ours, theirs, x.requires_grad_(), edge_index)


@pytest.mark.parametrize(("layer", "name"), LAYERS)
def test_attention_weights_are_equal_edge_by_edge(layer, name):
    x, edge_index = graph()
    ours, theirs = strict(layer(9, 4, 2), getattr(pyg, name)(9, 4, 2))
    found = ours(x, edge_index, return_attention_weights=True)
    expected = theirs(x, edge_index, return_attention_weights=True)
    edges, alpha = found[1]
    # PyG drops the graph's self-loops; here they stay, with a weight of zero.
    is_dropped = torch.arange(edges.size(1)).lt(edge_index.size(1)) & edges[0].eq(edges[1])
    assert is_dropped.sum() >= 3
    assert (alpha[is_dropped] == 0).all()
    torch.testing.assert_close(
        (found[0], (edges[:, ~is_dropped], alpha[~is_dropped])), expected, rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize(("network", "v2"), [(GAT, False), (GATv2, True)])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("sparse", [False, True])
def test_network_loads_strictly_with_equal_outputs_and_gradients(network, v2, num_layers, sparse):
    x, edge_index = graph()
    # PyG's network wants the width of all heads together, and gives the last layer as many.
    theirs = pyg.GAT(9, 8, num_layers, 4, v2=v2, heads=2, act="elu").double().eval()
    ours = network(9, 4, hidden_channels=4, num_layers=num_layers, heads=2, output_heads=2).eval()
    ours, theirs = strict(ours, theirs)
    assert_equal(ours, theirs, x.to_sparse_csr() if sparse else x, edge_index)


@pytest.mark.parametrize(("layer", "name"), LAYERS)
def test_layer_starts_with_the_same_distribution(layer, name):
    torch.manual_seed(0)
    ours, theirs = layer(200, 50, 40), getattr(pyg, name)(200, 50, 40)
    for name, parameter in theirs.named_parameters():
        found = ours.get_parameter(name).std().item()
        assert found == pytest.approx(parameter.std().item(), rel=0.05), name
