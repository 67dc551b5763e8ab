import pytest
import torch
from torch import nn

from zoo.models.graph.vgae import GAE, VGAE, NodePosterior
from zoo.tasks.link_prediction import LinkPrediction

NODES = 12


def graph(seed=0):
    generator = torch.Generator().manual_seed(seed)
    links = torch.randint(NODES - 1, (2, 20), generator=generator)  # the last node has none
    edge_index = torch.cat([links, links.flip(0)], 1).unique(dim=1)
    edge_index = edge_index[:, edge_index[0] != edge_index[1]]
    x = torch.randn(NODES, 5, generator=generator, dtype=torch.double)
    return x, edge_index


def pairs(seed=1):
    found = torch.randint(NODES, (2, 8), generator=torch.Generator().manual_seed(seed))
    return found, (torch.arange(8) < 4).double()


@pytest.mark.parametrize(("make", "count"), [(GAE, 46_416), (VGAE, 46_944)])
def test_parameter_count_is_the_docstrings(make, count):
    assert sum(p.numel() for p in make(1433).parameters()) == count


def theirs(make):
    """What the examples of torch_geometric build of its layers."""
    pyg = pytest.importorskip("torch_geometric.nn")

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = pyg.GCNConv(5, 6)
            if make is GAE:
                self.conv2 = pyg.GCNConv(6, 3)
            else:
                self.conv_mu, self.conv_logstd = pyg.GCNConv(6, 3), pyg.GCNConv(6, 3)

        def forward(self, x, edge_index):
            h = self.conv1(x, edge_index).relu()
            if make is GAE:
                return self.conv2(h, edge_index)
            return self.conv_mu(h, edge_index), self.conv_logstd(h, edge_index)

    return (pyg.GAE if make is GAE else pyg.VGAE)(Encoder()).double()


@pytest.mark.parity
@pytest.mark.parametrize("make", [GAE, VGAE])
def test_weights_of_torch_geometric_load_and_loss_and_gradients_are_equal(make):
    other = theirs(make)
    ours = make(5, 3, hidden_channels=6).double()
    ours.load_state_dict(other.state_dict())
    x, edge_index = graph()
    found, labels = pairs()
    torch.manual_seed(0)
    z = other.encode(x, edge_index)
    # Theirs adds the means over linked and other pairs, which is twice the mean over all.
    expected = other.recon_loss(z, found[:, :4], found[:, 4:]) / 2
    if make is VGAE:
        expected = expected + other.kl_loss() / NODES
    torch.manual_seed(0)
    loss, count, *_ = LinkPrediction(ours).loss((x, edge_index, found, labels))
    assert count == 8
    # Theirs adds 1e-15 to each probability; scores are compared in single precision here.
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=1e-6)
    loss.backward()
    expected.backward()
    for (name, p), q in zip(ours.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-5, atol=1e-6, msg=name)
    ours.eval(), other.eval()
    output = ours(x, edge_index)
    mean = output.mean if isinstance(output, NodePosterior) else output
    torch.testing.assert_close(mean, other.encode(x, edge_index), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("make", [GAE, VGAE])
def test_nodes_in_another_order_give_outputs_in_that_order_and_sparse_features_the_same(make):
    x, edge_index = graph()
    model = make(5).double().eval()
    expected = torch.cat(tuple(model(x, edge_index)), -1) if make is VGAE else model(x, edge_index)
    order = torch.randperm(NODES, generator=torch.Generator().manual_seed(2))
    moved = model(x[order], order.argsort()[edge_index])
    moved = torch.cat(tuple(moved), -1) if make is VGAE else moved
    torch.testing.assert_close(moved, expected[order])
    assert expected.isfinite().all()
    for cached in (True, False):
        model.cached = cached
        for weight in (None, torch.ones(edge_index.size(1), dtype=torch.double)):
            for features in (x, x.to_sparse_csr()):
                found = model(features, edge_index, weight)
                found = torch.cat(tuple(found), -1) if make is VGAE else found
                torch.testing.assert_close(found, expected)


def test_dropout_is_of_training_alone():
    x, edge_index = graph()
    model = GAE(5, dropout=0.5).double()
    assert not torch.equal(model(x, edge_index), model(x, edge_index))
    model.eval()
    assert torch.equal(model(x, edge_index), model(x, edge_index))


@pytest.mark.parametrize("make", [GAE, VGAE])
def test_nonsense_is_refused_with_the_value(make):
    with pytest.raises(ValueError, match="latent_dim must be at least 1, not 0"):
        make(5, 0)
    with pytest.raises(ValueError, match=r"dropout must be .*, not 2"):
        make(5, dropout=2.0)
