import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from zoo.data.graphs.karate import KarateClub
from zoo.data.graphs.links import Links
from zoo.models.graph.vgae import GAE, VGAE
from zoo.tasks.link_prediction import LinkPrediction
from zoo.tasks.prediction import Values


class Table(nn.Module):
    """A vector for each node, or a distribution, whatever the graph is."""

    def __init__(self, z, logstd=None):
        super().__init__()
        self.z = nn.Parameter(z)
        self.logstd = None if logstd is None else nn.Parameter(logstd)
        self.calls = []

    def forward(self, *inputs):
        self.calls.append(inputs)
        return self.z if self.logstd is None else (self.z, self.logstd)


def batch(weight=None):
    pairs = torch.tensor([[0, 1, 0, 2], [1, 2, 3, 3]])
    labels = torch.tensor([1.0, 1, 0, 0])
    return torch.eye(4), torch.tensor([[0, 1], [1, 0]]), pairs, labels, weight


def test_loss_is_the_cross_entropy_of_inner_products_and_its_gradient_too():
    torch.manual_seed(0)
    z = torch.randn(4, 3)
    task = LinkPrediction(Table(z))
    loss, count = task.loss(batch())
    plain = z.clone().requires_grad_()
    _, _, (i, j), labels, _ = batch()
    expected = F.binary_cross_entropy((plain @ plain.T).sigmoid()[i, j], labels)
    torch.testing.assert_close(loss, expected)
    assert count == 4
    loss.backward()
    expected.backward()
    torch.testing.assert_close(task.model.z.grad, plain.grad)
    prediction = task.predict(batch())
    assert isinstance(prediction, Values)
    torch.testing.assert_close(prediction.values, (z @ z.T).sigmoid()[i, j])


def test_divergence_is_torchs_and_weighs_one_node():
    torch.manual_seed(0)
    mean, logstd = torch.randn(4, 3), torch.randn(4, 3)
    task = LinkPrediction(Table(mean, logstd))
    torch.manual_seed(1)
    loss, _, terms = task.loss(batch())
    kl = kl_divergence(Normal(mean, logstd.exp()), Normal(0.0, 1.0)).sum(1).mean()
    torch.testing.assert_close(terms["kl"], kl)
    torch.testing.assert_close(loss.detach(), terms["reconstruction"] + kl / 4)
    torch.manual_seed(1)
    sample = mean + torch.randn(4, 3) * logstd.exp()
    expected, _ = LinkPrediction(Table(sample)).loss(batch())
    torch.testing.assert_close(terms["reconstruction"], expected.detach())


def test_evaluation_decodes_the_means_and_counts_all_pairs():
    mean = torch.tensor([[2.0, 0], [1, 0], [0, 1], [1, -1]])
    task = LinkPrediction(Table(mean, torch.full((4, 2), 5.0)))
    for _ in range(2):  # scores 2, 0 of links, and 2, -1 of others
        task.evaluate(batch())
    found = task.compute()
    losses = [math.log(1 + math.exp(s)) for s in (-2, 0, 2, -1)]
    assert found["loss"] == pytest.approx(sum(losses) / 4)
    assert found["auc"] == pytest.approx((0.5 + 1 + 0 + 1) / 4)
    assert (task.monitor, task.mode) == ("auc", "max")
    assert task.directions() == {"loss": "min", "auc": "max", "average_precision": "max"}


def test_weights_of_edges_reach_the_model():
    task = LinkPrediction(Table(torch.randn(4, 3)))
    weight = torch.ones(2)
    for given, size in ((batch(), 2), (batch()[:4], 2), (batch(weight), 3)):
        task.loss(given)
        assert len(task.model.calls[-1]) == size == len(task.example_inputs(given))
    assert task.model.calls[-1][2] is weight


@pytest.mark.parametrize("make", [GAE, VGAE])
def test_links_of_the_karate_club_are_learned(make):
    torch.manual_seed(0)
    data = Links(KarateClub(), val_fraction=0.1, test_fraction=0.15)
    data.setup()
    task = LinkPrediction(make(34))
    optimizer = torch.optim.Adam(task.model.parameters(), lr=0.01)
    for epoch in range(150):
        for objective in task.objectives(next(data.batches("train", epoch))):
            optimizer.zero_grad()
            objective.loss.backward()
            optimizer.step()
    task.model.eval()
    task.evaluate(next(data.batches("train", 0)))
    assert task.compute()["auc"] > 0.8
