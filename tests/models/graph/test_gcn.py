import copy
import io
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from zoo.layers.sparse import SparseMatrix
from zoo.models.graph import gcn
from zoo.models.graph.gcn import GCN, GCNConv, normalized_adjacency

# A triangle 0-1-2 with a tail 2-3-4, and node 5 alone.
EDGES = torch.tensor([[0, 1, 2, 2, 3], [1, 2, 0, 3, 4]])
EDGES = torch.cat([EDGES, EDGES.flip(0)], dim=1)


def dense_adjacency(edge_index, num_nodes):
    a = torch.zeros(num_nodes, num_nodes, dtype=torch.double)
    for source, target in edge_index.T.tolist():
        a[target, source] += source != target
    a += torch.eye(num_nodes, dtype=torch.double)
    scale = a.sum(1).rsqrt()
    return scale[:, None] * a * scale


def sparse_features(nodes=6, width=5):
    torch.manual_seed(1)
    x = torch.rand(nodes, width) * (torch.rand(nodes, width) < 0.5)
    x[0, 0] = 1.0
    return x


def gradients(model, x, edge_index):
    model.zero_grad()
    model(x, edge_index).square().sum().backward()
    return [p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize(
    ("features", "classes", "count"), [(1433, 7, 23_063), (3703, 6, 59_366), (500, 3, 8_067)]
)
def test_parameter_count_is_the_docstrings(features, classes, count):
    assert sum(p.numel() for p in GCN(features, classes).parameters()) == count


def test_adjacency_of_a_path_is_the_one_computed_by_hand():
    path = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    a = normalized_adjacency(path, 3, dtype=torch.double).matrix.to_dense()
    s = 6**-0.5
    expected = torch.tensor([[1 / 2, s, 0], [s, 1 / 3, s], [0, s, 1 / 2]], dtype=torch.double)
    torch.testing.assert_close(a, expected)


@pytest.mark.parametrize(
    "edge_index",
    [
        EDGES,
        EDGES[:, :5],  # directed
        torch.cat([EDGES, torch.tensor([[3, 1], [3, 1]])], dim=1),  # some self-loops
        torch.cat([EDGES, EDGES[:, :2]], dim=1),  # two edges twice
        torch.zeros(2, 0, dtype=torch.long),
    ],
)
def test_adjacency_and_its_transpose_equal_the_dense_formula(edge_index):
    a = normalized_adjacency(edge_index, 6, dtype=torch.double)
    expected = dense_adjacency(edge_index, 6)
    torch.testing.assert_close(a.matrix.to_dense(), expected)
    torch.testing.assert_close(a.transpose.to_dense(), expected.T)


def test_largest_eigenvalue_is_one():
    values = torch.linalg.eigvalsh(dense_adjacency(EDGES, 6))
    assert values.max().item() == pytest.approx(1)
    assert values.min() > -1


@pytest.mark.parametrize("edge_index", [EDGES, EDGES[:, :5]])
def test_convolution_equals_the_dense_formula_with_its_gradients(edge_index):
    torch.manual_seed(0)
    conv = GCNConv(5, 3).double()
    x = torch.randn(6, 5, dtype=torch.double, requires_grad=True)
    expected = dense_adjacency(edge_index, 6) @ x @ conv.lin.weight.T + conv.bias
    torch.testing.assert_close(conv(x, edge_index), expected)
    inputs = (x, conv.lin.weight, conv.bias)
    ours = torch.autograd.grad(conv(x, edge_index).square().sum(), inputs)
    torch.testing.assert_close(ours, torch.autograd.grad(expected.square().sum(), inputs))


def test_product_is_differentiable_twice():
    a = normalized_adjacency(EDGES[:, :5], 6, dtype=torch.double)
    x = torch.randn(6, 2, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda h: (a @ h).square(), x)


def test_sparse_features_equal_dense_ones_with_their_gradients():
    torch.manual_seed(0)
    model, x = GCN(5, 3).eval(), sparse_features()
    torch.testing.assert_close(model(x.to_sparse_csr(), EDGES), model(x, EDGES))
    for ours, dense in zip(
        gradients(model, x.to_sparse_csr(), EDGES), gradients(model, x, EDGES), strict=True
    ):
        torch.testing.assert_close(ours, dense)


def test_layer_alone_takes_sparse_features():
    conv, x = GCNConv(5, 3), sparse_features()
    torch.testing.assert_close(conv(x.to_sparse_csr(), EDGES), conv(x, EDGES))


def test_dropout_of_stored_values_has_the_law_of_dense_dropout():
    torch.manual_seed(0)
    model, x = GCN(5, 4, num_layers=1, dropout=0.4), sparse_features()
    no_edges = torch.zeros(2, 0, dtype=torch.long)
    with torch.no_grad():
        model.convs[0].lin.weight.copy_(torch.eye(5)[:4])
        dense, sparse = (
            torch.stack([model(features, no_edges) for _ in range(4000)])
            for features in (x, x.to_sparse_csr())
        )
    for draws in (dense, sparse):
        torch.testing.assert_close(draws.mean(0), x[:, :4], atol=0.06, rtol=0)
        kept = x[:, :4] / (1 - 0.4)
        assert ((draws == 0) | ((draws - kept).abs() < 1e-5)).all()
        rate = draws[:, 0, 0].eq(0).float().mean().item()
        assert rate == pytest.approx(0.4, abs=0.04)


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    model, x = GCN(5, 3), sparse_features().to_sparse_csr()
    assert not torch.equal(model(x, EDGES), model(x, EDGES))
    model.eval()
    assert torch.equal(model(x, EDGES), model(x, EDGES))


def test_permuting_the_nodes_permutes_the_outputs():
    torch.manual_seed(0)
    model, x = GCN(5, 3).eval(), sparse_features()
    order = torch.randperm(6)
    new_name = order.argsort()
    torch.testing.assert_close(model(x[order], new_name[EDGES]), model(x, EDGES)[order])


def test_two_graphs_side_by_side_equal_each_alone():
    torch.manual_seed(0)
    model, x = GCN(5, 3).eval(), sparse_features()
    both = model(torch.cat([x, x.flip(0)]), torch.cat([EDGES, EDGES[:, :4] + 6], dim=1))
    torch.testing.assert_close(both[:6], model(x, EDGES))
    torch.testing.assert_close(both[6:], model(x.flip(0), EDGES[:, :4]))


def test_a_label_sees_two_steps_far_and_no_further():
    torch.manual_seed(0)
    model = GCN(5, 3, hidden_channels=64).eval()
    x = sparse_features().requires_grad_()
    model(x, EDGES)[4].sum().backward()
    assert x.grad.abs().sum(1).gt(0).tolist() == [False, False, True, True, True, False]


def test_isolated_node_and_empty_graph_are_finite():
    model, x = GCN(5, 3).eval(), sparse_features()
    assert model(x, EDGES)[5].isfinite().all()
    assert model(x, torch.zeros(2, 0, dtype=torch.long)).isfinite().all()


def test_adjacency_is_computed_once_for_an_edge_index(monkeypatch):
    calls = []
    compute = gcn.normalized_adjacency
    monkeypatch.setattr(
        gcn, "normalized_adjacency", lambda *a, **k: calls.append(1) or compute(*a, **k)
    )
    model, x, edges = GCN(5, 3), sparse_features(), EDGES.clone()
    for _ in range(3):
        model(x, edges)
    assert len(calls) == 1
    model.double()(x.double(), edges)
    assert len(calls) == 2


def test_edges_changed_in_place_are_noticed():
    torch.manual_seed(0)
    model, x, edges = GCN(5, 3).eval(), sparse_features(), EDGES.clone()
    model(x, edges)
    edges[:, 0] = torch.tensor([0, 4])
    edges[:, 5] = torch.tensor([4, 0])
    torch.testing.assert_close(model(x, edges), model(x, edges.clone()))


@pytest.mark.parametrize("part", ["edges", "places", "values"])
def test_what_changes_through_an_array_that_shares_its_memory_is_noticed(part):
    torch.manual_seed(0)
    model, x, edges = GCN(5, 3).eval(), sparse_features().to_sparse_csr(), EDGES.clone()
    shared = {"edges": edges, "places": x.col_indices(), "values": x.values()}[part]
    array, version = shared.numpy(), shared._version
    before = model(x, edges)
    if part == "places":
        assert array[:2].tolist() == [0, 3]
        array[1] = 2
    else:
        array[...] = array[..., ::-1].copy()
        array[..., 0] = array[..., 1]
    assert shared._version == version  # so that is no help
    after = model(x, edges)
    assert not torch.allclose(after, before)
    torch.testing.assert_close(after, model(x.to_dense(), edges.clone()))


def test_features_changed_in_place_are_noticed():
    torch.manual_seed(0)
    model, x = GCN(5, 3).eval(), sparse_features().to_sparse_csr()
    before = model(x, EDGES)
    x.values().mul_(2)
    assert not torch.allclose(model(x, EDGES), before)
    torch.testing.assert_close(model(x, EDGES), model(x.to_dense(), EDGES))


def test_a_network_keeps_one_graph_and_other_networks_keep_their_own(monkeypatch):
    calls = []
    compute = gcn.normalized_adjacency
    monkeypatch.setattr(
        gcn, "normalized_adjacency", lambda *a, **k: calls.append(1) or compute(*a, **k)
    )
    model, x, edges = GCN(5, 3), sparse_features(), EDGES.clone()
    model(x, edges)
    model(x, edges.clone())  # takes the place of the other
    model(x, edges)
    assert len(calls) == 3
    copy.deepcopy(model)(x, edges)
    assert len(calls) == 4


def test_without_the_cache_a_network_computes_the_same_and_keeps_nothing(monkeypatch):
    torch.manual_seed(0)
    x, edges = sparse_features().to_sparse_csr(), EDGES.clone()
    model = GCN(5, 3).eval()
    other = GCN(5, 3, cached=False).eval()
    other.load_state_dict(model.state_dict())
    for ours, cached in zip(gradients(other, x, edges), gradients(model, x, edges), strict=True):
        assert torch.equal(ours, cached)
    calls = []
    compute = gcn.normalized_adjacency
    monkeypatch.setattr(
        gcn, "normalized_adjacency", lambda *a, **k: calls.append(1) or compute(*a, **k)
    )
    for _ in range(3):
        other(x, edges)
    assert len(calls) == 3
    assert other._adjacency._tensor is None and model._adjacency._tensor is edges


def test_importing_the_layers_silences_no_warning_of_others():
    script = """
import warnings
import torch
before = list(warnings.filters)
import zoo.models.graph.gcn
assert warnings.filters == before
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_evaluation_in_inference_mode_may_come_before_training():
    model, x, edges = GCN(5, 3), sparse_features().to_sparse_csr(), EDGES.clone()
    with torch.inference_mode():
        model(x, edges)
        model(x.clone(), edges.clone())
    model(x, edges).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_model_that_has_run_can_be_copied_pickled_and_carries_no_graph():
    model, x = GCN(5, 3), sparse_features().to_sparse_csr()
    model(x, EDGES).sum().backward()
    assert list(model.state_dict()) == [
        "convs.0.bias",
        "convs.0.lin.weight",
        "convs.1.bias",
        "convs.1.lin.weight",
    ]
    file = io.BytesIO()
    torch.save(model, file)
    assert len(file.getvalue()) < 10_000
    file.seek(0)
    loaded, copied = torch.load(file, weights_only=False), copy.deepcopy(model)
    for other in (loaded.eval(), copied.eval()):
        torch.testing.assert_close(other(x, EDGES), model.eval()(x, EDGES))


def test_autocast_runs_with_dense_and_sparse_features():
    model, x = GCN(5, 3), sparse_features()
    for features in (x, x.to_sparse_csr()):
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(features, EDGES).square().sum()
        loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_under_autocast_and_in_half_precision_are_close(dtype):
    torch.manual_seed(0)
    model, x = GCN(5, 3, num_layers=1).eval(), sparse_features()  # no ReLU, which may flip
    expected = gradients(model, x, EDGES)
    for features in (x, x.to_sparse_csr()):
        with torch.autocast("cpu", dtype):
            found = gradients(model, features, EDGES)
        torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
        low = copy.deepcopy(model).to(dtype)
        assert low(features.to(dtype), EDGES).dtype == dtype
        found = [g.float() for g in gradients(low, features.to(dtype), EDGES)]
        torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)


def test_half_precision_counts_many_neighbours_right():
    hub = torch.stack([torch.arange(1, 3002), torch.zeros(3001, dtype=torch.long)])
    a = normalized_adjacency(hub, 3002, dtype=torch.bfloat16)
    torch.testing.assert_close(a.values[0].item(), 1 / 3002, rtol=0.01, atol=0)


def test_torch_func_differentiates_it_and_leaves_nothing_behind():
    torch.manual_seed(0)
    model, x = GCN(5, 3).eval(), sparse_features()
    weights = dict(model.named_parameters())

    def loss(weights):
        return torch.func.functional_call(model, weights, (x, EDGES)).square().sum()

    found = torch.func.grad(loss)(weights)
    torch.testing.assert_close(list(found.values()), gradients(model, x, EDGES))
    x = x.to_sparse_csr()
    with pytest.raises(ValueError, match=r"x must be dense for torch\.func"):
        torch.func.grad(loss)(weights)


def test_exported_network_takes_any_graph():
    torch.manual_seed(0)
    model = GCN(5, 3).eval()
    shapes = ({0: torch.export.Dim("nodes")}, {1: torch.export.Dim("edges")})
    exported = torch.export.export(model, (sparse_features(), EDGES), dynamic_shapes=shapes)
    x, edges = torch.rand(9, 5), torch.randint(9, (2, 17))
    torch.testing.assert_close(exported.module()(x, edges), model(x, edges))


def test_weights_start_within_glorots_bounds():
    torch.manual_seed(0)
    weight = GCNConv(300, 16).lin.weight
    bound = (6 / 316) ** 0.5
    assert 0.99 * bound < weight.abs().max() <= bound


def test_a_few_labels_on_two_cliques_label_all_of_them():
    torch.manual_seed(0)
    clique = torch.combinations(torch.arange(6)).T
    edges = torch.cat([clique, clique + 6, torch.tensor([[0], [6]])], dim=1)
    edges = torch.cat([edges, edges.flip(0)], dim=1)
    x, labels = torch.eye(12).to_sparse_csr(), torch.arange(12) // 6
    model = GCN(12, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(x, edges)[[1, 7]], labels[[1, 7]]).backward()
        optimizer.step()
    assert model.eval()(x, edges).argmax(1).equal(labels)


def test_bias_may_be_left_out():
    conv = GCNConv(5, 3, bias=False)
    assert [name for name, _ in conv.named_parameters()] == ["lin.weight"]
    assert conv(sparse_features(), EDGES).shape == (6, 3)


@pytest.mark.parametrize(
    ("edge_index", "message"),
    [
        (EDGES.T, r"edge_index must be \(2, edges\), not \(10, 2\)"),
        (EDGES + 2, "edge_index must name nodes 0 to 5, not 6"),
        (EDGES - 1, "edge_index must name nodes 0 to 5, not -1"),
    ],
)
def test_edges_that_are_none_are_refused(edge_index, message):
    with pytest.raises(ValueError, match=message):
        GCN(5, 3)(sparse_features(), edge_index)


def test_sparse_features_that_want_a_gradient_are_refused():
    x = sparse_features().to_sparse_csr().requires_grad_()
    with pytest.raises(ValueError, match="x must be dense to get a gradient"):
        GCN(5, 3)(x, EDGES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_features": 0}, "in_features must be at least 1, not 0"),
        ({"num_classes": 0}, "num_classes must be at least 1, not 0"),
        ({"hidden_channels": 0}, "hidden_channels must be at least 1, not 0"),
        ({"num_layers": 0}, "num_layers must be at least 1, not 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        GCN(**{"in_features": 5, "num_classes": 3, **arguments})


def test_layer_refuses_sizes_below_one():
    with pytest.raises(ValueError, match="in_channels must be at least 1, not 0"):
        GCNConv(0, 3)
    with pytest.raises(ValueError, match="out_channels must be at least 1, not 0"):
        GCNConv(3, 0)


def test_matrix_with_empty_rows_and_columns_has_the_right_transpose():
    dense = torch.zeros(4, 3)
    dense[1, 2], dense[3, 0], dense[3, 2] = 2.0, 3.0, 4.0
    sparse = SparseMatrix.of(dense.to_sparse_csr())
    assert torch.equal(sparse.transpose.to_dense(), dense.T)
    doubled = sparse.with_values(2 * sparse.values)
    assert torch.equal(doubled.transpose.to_dense(), 2 * dense.T)
