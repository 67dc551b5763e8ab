"""What every network of this field must have in common, whatever its equations."""

import copy

import pytest
import torch

from zoo.models.graph.appnp import APPNPNet
from zoo.models.graph.cheb import ChebNet
from zoo.models.graph.gated_graph import GatedGraphNetwork
from zoo.models.graph.gcn import GCN
from zoo.models.graph.gcnii import GCNII
from zoo.models.graph.mlp import NodeMLP
from zoo.models.graph.sgc import SGC

# A triangle 0-1-2 with a tail 2-3-4, and node 5 alone.
EDGES = torch.tensor([[0, 1, 2, 2, 3], [1, 2, 0, 3, 4]])
EDGES = torch.cat([EDGES, EDGES.flip(0)], dim=1)

NETWORKS = {
    "gcn": GCN,
    "cheb": ChebNet,
    "sgc": SGC,
    "appnp": APPNPNet,
    "gated_graph": GatedGraphNetwork,
    "gcnii": lambda *sizes, **options: GCNII(*sizes, num_layers=3, **options),
    "mlp": NodeMLP,
}
LOOKS_AT_EDGES = [name for name in NETWORKS if name != "mlp"]


@pytest.fixture(params=NETWORKS)
def build(request):
    def build(**options):
        torch.manual_seed(0)
        return NETWORKS[request.param](5, 3, **options).eval()

    return build


def sparse_features(nodes=6, width=5):
    torch.manual_seed(1)
    return torch.rand(nodes, width) * (torch.rand(nodes, width) < 0.6)


def gradients(model, x, *edges):
    model.zero_grad()
    model(x, *edges).square().sum().backward()
    return [p.grad.clone() for p in model.parameters()]


def test_permuting_the_nodes_permutes_the_outputs(build):
    model, x, weights = build(), sparse_features(), torch.rand(10)
    order = torch.randperm(6)
    mixed = torch.randperm(10)
    found = model(x[order], order.argsort()[EDGES][:, mixed], weights[mixed])
    torch.testing.assert_close(found, model(x, EDGES, weights)[order])


def test_lonely_nodes_and_a_graph_without_edges_give_numbers(build):
    model = build()
    for edges in (EDGES, torch.zeros(2, 0, dtype=torch.long)):
        x = sparse_features().requires_grad_()
        out = model(x, edges)
        out.square().sum().backward()
        assert out.isfinite().all() and x.grad.isfinite().all()
        torch.testing.assert_close(out[5:], model(x[5:], torch.zeros(2, 0, dtype=torch.long)))


def test_weights_of_one_equal_none_with_self_loops_too(build):
    model, x = build(), sparse_features()
    loops = torch.cat([EDGES, torch.tensor([[3, 1], [3, 1]])], dim=1)
    for edges in (EDGES, loops):
        found = model(x, edges, torch.ones(edges.size(1)))
        torch.testing.assert_close(found, model(x, edges), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", LOOKS_AT_EDGES)
def test_weights_change_the_outputs_and_get_a_gradient(name):
    torch.manual_seed(0)
    model, x = NETWORKS[name](5, 3).eval(), sparse_features()
    weights = torch.rand(10)
    before = model(x, EDGES, weights)
    assert not torch.allclose(before, model(x, EDGES))
    weights.requires_grad_()
    after = model(x, EDGES, weights)
    torch.testing.assert_close(after, before)
    after.square().sum().backward()
    assert (weights.grad != 0).all()


def test_weights_changed_in_place_are_noticed(build):
    model, x, weights = build(), sparse_features(), torch.rand(10)
    model(x, EDGES, weights)
    weights.mul_(torch.rand(10))
    torch.testing.assert_close(model(x, EDGES, weights), model(x, EDGES, weights.clone()))


def test_sparse_features_equal_dense_ones_with_their_gradients(build):
    model, x = build(), sparse_features()
    torch.testing.assert_close(model(x.to_sparse_csr(), EDGES), model(x, EDGES))
    found = gradients(model, x.to_sparse_csr(), EDGES)
    torch.testing.assert_close(found, gradients(model, x, EDGES))


def test_without_the_cache_a_network_computes_the_same(build):
    model, other, weights = build(), build(cached=False), torch.rand(10)
    other.load_state_dict(model.state_dict())
    for x in (sparse_features(), sparse_features().to_sparse_csr()):
        for edges in ((EDGES,), (EDGES, weights)):
            found = gradients(other, x, *edges)
            assert all(map(torch.equal, found, gradients(model, x, *edges)))
    caches = [part for part in vars(other).values() if type(part).__name__ == "LastSeen"]
    assert all(cache._tensor is None for cache in caches)


def test_two_graphs_side_by_side_equal_each_alone(build):
    model, x = build(), sparse_features()
    both = model(torch.cat([x, x.flip(0)]), torch.cat([EDGES, EDGES[:, :4] + 6], dim=1))
    torch.testing.assert_close(both[:6], model(x, EDGES))
    torch.testing.assert_close(both[6:], model(x.flip(0), EDGES[:, :4]))


def test_torch_func_differentiates_it(build):
    model, x = build(), sparse_features()
    weights = dict(model.named_parameters())

    def loss(weights):
        return torch.func.functional_call(model, weights, (x, EDGES)).square().sum()

    found = torch.func.grad(loss)(weights)
    torch.testing.assert_close(list(found.values()), gradients(model, x, EDGES))


def test_evaluation_in_inference_mode_may_come_before_training(build):
    model, x, edges = build(), sparse_features().to_sparse_csr(), EDGES.clone()
    with torch.inference_mode():
        model(x, edges)
    model(x, edges).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_model_that_has_run_carries_no_graph_and_copies_compute_the_same(build):
    model, x = build(), sparse_features()
    expected = model(x, EDGES)
    assert torch.equal(copy.deepcopy(model)(x, EDGES), expected)
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "sgc"])
def test_dropout_acts_in_training_only(name):
    torch.manual_seed(0)
    model, x = NETWORKS[name](5, 3), sparse_features()
    assert not torch.equal(model(x, EDGES), model(x, EDGES))
    model.eval()
    assert torch.equal(model(x, EDGES), model(x, EDGES))


@pytest.mark.parametrize("argument", ["in_features", "num_classes"])
def test_sizes_below_one_are_refused(argument):
    for network in NETWORKS.values():
        sizes = {"in_features": 5, "num_classes": 3, argument: 0}
        with pytest.raises(ValueError, match=f"{argument} must be at least 1, not 0"):
            network(sizes["in_features"], sizes["num_classes"])
