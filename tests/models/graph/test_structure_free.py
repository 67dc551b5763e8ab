import pytest
import torch
from torch.nn import functional as F

from zoo.models.graph.structure_free import DeepMultiset, MolecularFingerprint

BATCH = torch.tensor([0, 0, 0, 1, 1, 3])  # the third graph has no nodes
BOTH = pytest.mark.parametrize("build", [MolecularFingerprint, DeepMultiset])


def features(nodes=6):
    return torch.randn(nodes, 5, dtype=torch.double, generator=torch.Generator().manual_seed(0))


def made(build, **options):
    torch.manual_seed(0)
    return build(5, 3, hidden_channels=7, **options).double()


def test_fingerprint_is_a_network_on_the_counts_of_each_graph():
    model, x = made(MolecularFingerprint), features()
    first, _, _, second = model.mlp
    for graph, logits in enumerate(model(x, None, BATCH, 4)):
        counts = x[BATCH.eq(graph)].sum(0)
        expected = second.weight @ F.relu(first.weight @ counts + first.bias) + second.bias
        torch.testing.assert_close(logits, expected)


def test_multiset_is_the_papers_equation_graph_by_graph():
    model, x = made(DeepMultiset), features()
    first, _, _, second = model.mlp
    for graph, logits in enumerate(model(x, None, BATCH, 4)):
        nodes = F.relu(x[BATCH.eq(graph)] @ model.node.weight.T + model.node.bias)
        hidden = F.relu(first.weight @ nodes.sum(0) + first.bias)
        torch.testing.assert_close(logits, second.weight @ hidden + second.bias)


@BOTH
def test_edges_and_the_order_of_nodes_change_nothing(build):
    model, x = made(build), features()
    plain = model(x, None, BATCH, 4)
    assert torch.equal(model(x, torch.randint(6, (2, 9)), BATCH, 4), plain)
    order = torch.tensor([2, 0, 1, 4, 3, 5])
    torch.testing.assert_close(model(x[order], None, BATCH, 4), plain)


@BOTH
def test_packed_equals_one_by_one(build):
    model, x = made(build), features()
    alone = [
        model(x[BATCH.eq(g)], None, torch.zeros(int((BATCH.eq(g)).sum()), dtype=torch.int64), 1)
        for g in range(4)
    ]
    torch.testing.assert_close(model(x, None, BATCH, 4), torch.cat(alone))


@pytest.mark.parametrize(
    ("in_features", "fingerprint", "multiset"), [(7, 322, 1378), (3, 194, 1250), (37, 1282, 2338)]
)
def test_parameter_counts_are_the_docstrings(in_features, fingerprint, multiset):
    for build, count in ((MolecularFingerprint, fingerprint), (DeepMultiset, multiset)):
        assert sum(p.numel() for p in build(in_features, 2).parameters()) == count


@BOTH
def test_nonsense_is_refused_with_the_value(build):
    with pytest.raises(ValueError, match="hidden_channels must be at least 1, not 0"):
        build(5, 2, hidden_channels=0)
    with pytest.raises(ValueError, match=r"dropout must be in \[0, 1\), not 1"):
        build(5, 2, dropout=1.0)
