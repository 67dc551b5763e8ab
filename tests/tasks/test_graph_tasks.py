import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo.data.graphs.packed import PackedGraphs
from zoo.tasks.classification import Classification
from zoo.tasks.graph_classification import GraphClassification
from zoo.tasks.graph_regression import GraphRegression
from zoo.tasks.prediction import Classes, Values
from zoo.tasks.regression import Regression


class Totals(nn.Module):
    """A linear map of the sum over the nodes, each weighted by its neighbours' number plus one."""

    def __init__(self, in_features, outputs):
        super().__init__()
        self.linear = nn.Linear(in_features, outputs).double()

    def sums(self, features, edge_index, batch, num_graphs):
        degrees = 1 + edge_index[1].bincount(minlength=len(features)).unsqueeze(1)
        zeros = features.new_zeros(num_graphs, features.shape[1])
        return zeros.index_add(0, batch, features * degrees)

    def forward(self, features, edge_index, batch, num_graphs):
        return self.linear(self.sums(features, edge_index, batch, num_graphs))


def packed(labels):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(9, 4, generator=generator, dtype=torch.double)
    batch = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 3])
    edges = torch.tensor([[1, 0, 2, 4, 5], [0, 1, 1, 5, 4]])
    return PackedGraphs(features, edges, batch, labels)


CLASSES = torch.tensor([2, 0, 1, 2])
VALUES = torch.tensor([[1.5], [-2.0], [0.0], [4.0]], dtype=torch.double)


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "class_weights": (1, 2, 3)}])
def test_loss_and_metrics_are_those_of_classification_of_the_graphs(options):
    model = Totals(4, 3)
    task = GraphClassification(model, num_classes=3, **options)
    plain = Classification(model.linear, num_classes=3, **options)
    batch = packed(CLASSES)
    sums = model.sums(*batch[:3], 4)
    assert task.loss(batch)[0] == plain.loss((sums, CLASSES))[0]
    task.evaluate(batch)
    plain.evaluate((sums, CLASSES))
    assert task.compute() == plain.compute()
    assert task.show()["classes"] == plain.show()["classes"]
    assert (task.monitor, task.mode, task.unit) == ("accuracy", "max", "graphs")


def test_loss_and_metrics_are_those_of_regression_of_the_graphs():
    model = Totals(4, 1)
    task, plain = GraphRegression(model), Regression(model.linear)
    batch = packed(VALUES)
    sums = model.sums(*batch[:3], 4)
    assert task.loss(batch) == plain.loss((sums, VALUES))
    task.evaluate(batch)
    plain.evaluate((sums, VALUES))
    assert task.compute() == plain.compute() and "fit" in task.show()
    assert (task.monitor, task.mode, task.unit) == ("loss", "min", "graphs")


def test_balanced_weights_count_the_graphs_of_each_class():
    task = GraphClassification(Totals(4, 3), num_classes=3, class_weights="balanced")
    task.prepare([packed(CLASSES)])
    torch.testing.assert_close(task.class_weights, torch.tensor([4 / 3, 4 / 3, 2 / 3]))


def test_predictions_are_for_graphs():
    model = Totals(4, 3)
    task = GraphClassification(model, num_classes=3, class_names=("a", "b", "c"))
    batch = packed(CLASSES)
    found = task.predict(batch)
    assert isinstance(found, Classes) and len(found.best()) == 4
    expected = model(*batch[:3], 4).softmax(1)
    torch.testing.assert_close(found.probabilities.double(), expected, rtol=1e-5, atol=1e-6)
    regression = GraphRegression(Totals(4, 1))
    values = regression.predict(packed(VALUES))
    assert isinstance(values, Values)
    assert torch.equal(values.values, regression.model(*batch[:3], 4))


def test_example_inputs_are_what_the_model_takes():
    batch = packed(CLASSES)
    for task in (GraphClassification(Totals(4, 3), num_classes=3), GraphRegression(Totals(4, 1))):
        assert len(task.model(*task.example_inputs(batch))) == 4


def test_handful_of_graphs_is_learned_by_heart():
    torch.manual_seed(0)
    task = GraphClassification(Totals(4, 3), num_classes=3)
    optimizer = torch.optim.Adam(task.model.parameters(), lr=0.1)
    for _ in range(200):
        for objective in task.objectives(packed(CLASSES)):
            optimizer.zero_grad()
            objective.loss.backward()
            optimizer.step()
    assert F.cross_entropy(task.model(*task.example_inputs(packed(CLASSES))), CLASSES) < 0.02


def test_wrong_outputs_are_refused():
    with pytest.raises(ValueError, match=r"num_classes is 3, .*not \(4, 2\)"):
        GraphClassification(Totals(4, 2), num_classes=3).loss(packed(CLASSES))
    with pytest.raises(ValueError, match=r"targets' shape \(4, 1\), not \(4, 2\)"):
        GraphRegression(Totals(4, 2)).loss(packed(VALUES))
