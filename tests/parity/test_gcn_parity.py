import pytest
import torch

from zoo.models.graph.gcn import GCN, GCNConv

pyg = pytest.importorskip("torch_geometric.nn", reason="torch_geometric is the reference here")
pytestmark = pytest.mark.parity


def random_graph(nodes=12, edges=30, width=9):
    torch.manual_seed(0)
    edge_index = torch.randint(nodes, (2, edges))
    x = torch.randn(nodes, width, dtype=torch.double)
    return x * (torch.rand(nodes, width) < 0.4), edge_index


def directed_with_loops_and_duplicates():
    x, edge_index = random_graph()
    return x, torch.cat([edge_index, edge_index[:, :3], torch.tensor([[4, 4], [4, 4]])], dim=1)


def undirected():
    x, edge_index = random_graph()
    return x, torch.cat([edge_index, edge_index.flip(0)], dim=1).unique(dim=1)


def gradients(model, outputs, *inputs):
    weights = torch.linspace(-1, 1, outputs.numel(), dtype=outputs.dtype).view_as(outputs)
    parameters = dict(model.named_parameters())
    found = torch.autograd.grad((outputs.sin() * weights).sum(), [*inputs, *parameters.values()])
    named = zip(parameters, found[len(inputs) :], strict=True)
    return found[: len(inputs)], dict(sorted(named))


@pytest.mark.parametrize("graph", [directed_with_loops_and_duplicates, undirected])
@pytest.mark.parametrize("bias", [True, False])
def test_layer_loads_strictly_with_equal_outputs_and_gradients(graph, bias):
    x, edge_index = graph()
    theirs = pyg.GCNConv(9, 4, bias=bias).double()
    ours = GCNConv(9, 4, bias=bias).double()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x.requires_grad_()
    outputs = ours(x, edge_index), theirs(x, edge_index)
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(gradients(ours, outputs[0], x), gradients(theirs, outputs[1], x))


@pytest.mark.parametrize("graph", [directed_with_loops_and_duplicates, undirected])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("sparse", [False, True])
def test_network_loads_strictly_with_equal_outputs_and_gradients(graph, num_layers, sparse):
    x, edge_index = graph()
    # PyG gives a network of one layer no hidden width.
    theirs = pyg.GCN(9, 16, num_layers, 3).double().eval()
    ours = GCN(9, 3, num_layers=num_layers).double().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    outputs = ours(x.to_sparse_csr() if sparse else x, edge_index), theirs(x, edge_index)
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(gradients(ours, outputs[0]), gradients(theirs, outputs[1]))


def test_layer_starts_with_the_same_distribution():
    torch.manual_seed(0)
    theirs = pyg.GCNConv(200, 100)
    torch.manual_seed(0)
    ours = GCNConv(200, 100)
    for name, parameter in theirs.named_parameters():
        ours_std = ours.get_parameter(name).std().item()
        assert ours_std == pytest.approx(parameter.std().item(), rel=0.02)
