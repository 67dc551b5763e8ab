import pytest
import torch

from zoo.layers.message_passing import Edges
from zoo.models.graph.gat import GAT, GATConv, GATv2, GATv2Conv

# Node 0 and node 1 both listen to 2, 3 and 4; node 5 is alone.
EDGES = torch.tensor([[2, 3, 4, 2, 3, 4, 0], [0, 0, 0, 1, 1, 1, 4]])
LAYERS = pytest.mark.parametrize("layer", [GATConv, GATv2Conv])


def features(nodes=6, width=5):
    torch.manual_seed(1)
    return torch.randn(nodes, width, dtype=torch.double)


@pytest.mark.parametrize(("network", "count"), [(GAT, 92_373), (GATv2, 184_604)])
def test_parameter_count_is_the_docstrings(network, count):
    assert sum(p.numel() for p in network(1433, 7).parameters()) == count


def test_attention_is_the_papers_equation_computed_edge_by_edge():
    torch.manual_seed(0)
    gat, v2, x = GATConv(5, 3).double(), GATv2Conv(5, 3).double(), features()
    leaky = torch.nn.LeakyReLU(0.2)
    neighbours = {0: [2, 3, 4, 0], 1: [2, 3, 4, 1], 4: [0, 4], 5: [5]}
    h = x @ gat.lin.weight.T
    attention = torch.cat([gat.att_dst, gat.att_src], dim=2).flatten()
    for i, own in neighbours.items():
        scores = [leaky(attention @ torch.cat([h[i], h[j]])) for j in own]
        expected = torch.stack(scores).softmax(0) @ h[own]
        torch.testing.assert_close(gat(x, EDGES)[i], expected)
        scores = [v2.att.flatten() @ leaky(v2.lin_r(x[i]) + v2.lin_l(x[j])) for j in own]
        expected = torch.stack(scores).softmax(0) @ v2.lin_l(x[own])
        torch.testing.assert_close(v2(x, EDGES)[i], expected)


@LAYERS
def test_weights_into_each_node_sum_to_one_for_every_head(layer):
    x = features()
    out, (edges, alpha) = layer(5, 3, 4).double()(x, EDGES, return_attention_weights=True)
    assert out.shape == (6, 12) and alpha.shape == (len(edges.T), 4)
    sums = torch.zeros(6, 4, dtype=torch.double).index_add(0, edges[1], alpha)
    torch.testing.assert_close(sums, torch.ones_like(sums))
    assert (alpha > 0).all()


def rankings(layer, x):
    """In which order nodes 0 and 1 rank the neighbours that they share."""
    _, (_, alpha) = layer(x, EDGES, return_attention_weights=True)
    return [alpha[start : start + 3, 0].argsort().tolist() for start in (0, 3)]


def test_all_nodes_rank_alike_in_gat_and_need_not_in_gatv2():
    differ = {GATConv: 0, GATv2Conv: 0}
    for seed in range(40):
        torch.manual_seed(seed)
        x = torch.randn(6, 5, dtype=torch.double)
        for layer in differ:
            first, second = rankings(layer(5, 8, add_self_loops=False).double(), x)
            differ[layer] += first != second
    assert differ[GATConv] == 0  # theorem 1 of Brody et al.
    assert differ[GATv2Conv] > 5


@LAYERS
def test_dropout_silences_neighbours_in_training_and_keeps_the_mean(layer):
    torch.manual_seed(0)
    conv, x = layer(5, 3, dropout=0.4, bias=False).double(), features()
    _, (_, expected) = conv.eval()(x, EDGES, return_attention_weights=True)
    conv.train()
    with torch.no_grad():
        draws = torch.stack(
            [conv(x, EDGES, return_attention_weights=True)[1][1] for _ in range(2000)]
        )
    assert draws.eq(0).double().mean().item() == pytest.approx(0.4, abs=0.02)
    torch.testing.assert_close(draws.mean(0), expected, atol=0.05, rtol=0)
    assert torch.equal(conv.eval()(x, EDGES), conv(x, EDGES))


def test_prepared_edges_are_taken_as_they_are():
    conv, x = GATConv(5, 3).double(), features()
    without = GATConv(5, 3, add_self_loops=False).double()
    without.load_state_dict(conv.state_dict())
    torch.testing.assert_close(conv(x, Edges(EDGES, 6)), without(x, EDGES))
    assert (without(x, EDGES)[5] == without.bias).all()  # a node that hears nothing


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("network", [GAT, GATv2])
def test_autocast_runs_close_to_full_precision(network, dtype):
    torch.manual_seed(0)
    model, x = network(5, 3).eval(), features().float()
    for inputs in (x, x.to_sparse_csr()):
        with torch.autocast("cpu", dtype):
            found = model(inputs, EDGES)
        found.float().square().sum().backward()
        torch.testing.assert_close(found.float(), model(inputs, EDGES), rtol=0.05, atol=0.05)
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_layers": 0}, "num_layers must be at least 1, not 0"),
        ({"heads": 0}, "heads must be at least 1, not 0"),
        ({"output_heads": 0}, "output_heads must be at least 1, not 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        GAT(5, 3, **arguments)


def test_edge_weights_are_refused():
    with pytest.raises(ValueError, match="edge_weight must be None"):
        GAT(5, 3)(features().float(), EDGES, torch.ones(7))
