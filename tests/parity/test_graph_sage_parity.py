import pytest
import torch

from zoo.layers.message_passing import Edges
from zoo.models.graph.graph_sage import GraphSAGE, SAGEConv

pyg = pytest.importorskip("torch_geometric.nn", reason="torch_geometric is the reference here")
pytestmark = pytest.mark.parity

NODES, WIDTH = 12, 9
BOTH = SAGEConv, pyg.SAGEConv


def graph():
    """Directed, with edges twice and self-loops; node 11 has no edge."""
    torch.manual_seed(0)
    edge_index = torch.randint(NODES - 1, (2, 30))
    x = torch.randn(NODES, WIDTH, dtype=torch.double) * (torch.rand(NODES, WIDTH) < 0.4)
    return x, torch.cat([edge_index, edge_index[:, :3], torch.tensor([[4, 7], [4, 7]])], dim=1)


def three_neighbours_each():
    """PyG's LSTM goes on over padding, so its nodes must all have as many; sorted, as it wants."""
    x, _ = graph()
    edge_index = torch.stack([torch.randint(NODES, (3 * NODES,)), torch.arange(3 * NODES) // 3])
    return x, edge_index


def strict(ours, theirs):
    theirs = theirs.double()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    ours = ours.double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours.eval(), theirs.eval()


def dense(x):
    return x if isinstance(x, tuple) or x.layout == torch.strided else x.to_dense()


def assert_equal(ours, theirs, x, *edge_index):
    inputs = x if isinstance(x, tuple) else (x,)
    inputs = [part for part in inputs if part.requires_grad]
    outputs = ours(x, edge_index[0]), theirs(dense(x), edge_index[-1])
    found = []
    for model, output in zip((ours, theirs), outputs, strict=True):
        weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
        parameters = dict(sorted(model.named_parameters()))
        values = torch.autograd.grad(
            (output.sin() * weights).sum(), [*inputs, *parameters.values()]
        )
        names = [*map(str, range(len(inputs))), *parameters]
        found.append({"output": output, **dict(zip(names, values, strict=True))})
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("aggr", ["mean", "max"])
@pytest.mark.parametrize("out", [4, 20])  # narrower and wider than the input
@pytest.mark.parametrize(
    "arguments",
    [{}, {"normalize": True}, {"root_weight": False}, {"project": True}, {"bias": False}],
)
def test_layer_loads_strictly_with_equal_outputs_and_gradients(aggr, out, arguments):
    x, edge_index = graph()
    ours, theirs = strict(*(sage(WIDTH, out, aggr, **arguments) for sage in BOTH))
    assert_equal(ours, theirs, x.requires_grad_(), edge_index)


@pytest.mark.parametrize("project", [False, True])
def test_lstm_layer_loads_strictly_with_equal_outputs_and_gradients(project):
    x, edge_index = three_neighbours_each()
    ours, theirs = strict(*(sage(WIDTH, 4, "lstm", project=project) for sage in BOTH))
    assert_equal(ours, theirs, x.requires_grad_(), edge_index)


@pytest.mark.parametrize("aggr", ["mean", "max"])
@pytest.mark.parametrize("project", [False, True])
def test_sources_may_be_others_than_targets(aggr, project):
    torch.manual_seed(0)
    x = torch.randn(8, WIDTH, dtype=torch.double), torch.randn(5, 3, dtype=torch.double)
    edge_index = torch.stack([torch.randint(8, (20,)), torch.randint(4, (20,))])
    ours, theirs = strict(*(sage((WIDTH, 3), 4, aggr, project=project) for sage in BOTH))
    x = tuple(part.requires_grad_() for part in x)
    assert_equal(ours, theirs, x, edge_index)
    assert_equal(ours, theirs, x, Edges(edge_index, 5, 8), edge_index)


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("sparse", [False, True])
def test_network_loads_strictly_with_equal_outputs_and_gradients(num_layers, sparse):
    x, edge_index = graph()
    # PyG gives a network of one layer no hidden width.
    ours, theirs = strict(
        GraphSAGE(WIDTH, 3, num_layers=num_layers), pyg.GraphSAGE(WIDTH, 16, num_layers, 3)
    )
    assert_equal(ours, theirs, x.to_sparse_csr() if sparse else x, edge_index)


@pytest.mark.parametrize("aggr", ["mean", "lstm"])
def test_layer_starts_with_the_same_distribution(aggr):
    torch.manual_seed(0)
    ours, theirs = SAGEConv(200, 100, aggr), pyg.SAGEConv(200, 100, aggr)
    for name, parameter in theirs.named_parameters():
        found = ours.get_parameter(name).abs().max().item()
        assert found == pytest.approx(parameter.abs().max().item(), rel=0.05), name
