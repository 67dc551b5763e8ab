import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo.tasks.node_classification import NodeClassification


class Neighbours(nn.Module):
    """A linear map of the features of a node plus those of its neighbours."""

    def __init__(self, in_features, num_classes):
        super().__init__()
        self.linear = nn.Linear(in_features, num_classes)

    def forward(self, features, edge_index, edge_weight=None):
        source, target = edge_index
        messages = features[source]
        if edge_weight is not None:
            messages = edge_weight.unsqueeze(1) * messages
        return self.linear(features.index_add(0, target, messages))


def graph(nodes=6, labelled=3):
    features = torch.randn(nodes, 4, generator=torch.Generator().manual_seed(0))
    ring = torch.arange(nodes)
    edges = torch.stack([ring, ring.roll(1)])
    return features, torch.cat([edges, edges.flip(0)], 1), ring % 3, ring < labelled


def test_loss_of_equal_logits_is_the_logarithm_of_the_number_of_classes():
    model = Neighbours(4, 3)
    nn.init.zeros_(model.linear.weight)
    nn.init.zeros_(model.linear.bias)
    loss, count = NodeClassification(model, num_classes=3).loss(graph())
    assert loss.item() == pytest.approx(math.log(3))
    assert isinstance(count, torch.Tensor) and count == 3


def test_loss_and_metrics_are_those_of_the_masked_nodes():
    model = Neighbours(4, 3)
    task = NodeClassification(model, num_classes=3)
    features, edge_index, labels, mask = graph()
    logits = model(features, edge_index)[mask]
    expected = F.cross_entropy(logits, labels[mask])
    torch.testing.assert_close(task.loss((features, edge_index, labels, mask))[0], expected)
    task.evaluate((features, edge_index, labels, mask))
    assert task.compute() == {
        "loss": pytest.approx(expected.item()),
        "accuracy": pytest.approx((logits.argmax(1) == labels[mask]).float().mean().item()),
    }
    assert (task.monitor, task.mode) == ("accuracy", "max")


def test_labels_outside_the_mask_change_nothing_even_if_there_are_none():
    task = NodeClassification(Neighbours(4, 3), num_classes=3)
    features, edge_index, labels, mask = graph()
    hidden = labels.where(mask, -1)
    assert torch.equal(
        task.loss((features, edge_index, labels, mask))[0],
        task.loss((features, edge_index, hidden, mask))[0],
    )
    for targets in (labels, hidden):
        task.evaluate((features, edge_index, targets, mask))
    assert task.metrics["accuracy"].sums["count"] == 6


def test_masks_of_two_parts_add_up_to_the_whole():
    task = NodeClassification(Neighbours(4, 3), num_classes=3)
    features, edge_index, labels, mask = graph(labelled=2)
    for part in (mask, ~mask):
        task.evaluate((features, edge_index, labels, part))
    parts = task.compute()
    task.reset()
    task.evaluate((features, edge_index, labels, mask | ~mask))
    assert parts == pytest.approx(task.compute())


def test_predictions_are_probabilities_of_every_node_and_need_neither_labels_nor_mask():
    model = Neighbours(4, 3)
    task = NodeClassification(model, num_classes=3)
    features, edge_index, labels, mask = graph()
    expected = model(features, edge_index).softmax(1)
    torch.testing.assert_close(task.predict((features, edge_index)).probabilities, expected)
    torch.testing.assert_close(
        task.predict((features, edge_index, labels, mask)).probabilities, expected
    )


def test_weights_of_edges_reach_the_model_and_none_are_ones():
    task = NodeClassification(Neighbours(4, 3), num_classes=3)
    batch = graph()
    ones = torch.ones(batch[1].size(1))
    loss, _ = task.loss((*batch, None))
    assert torch.equal(loss, task.loss(batch)[0])
    assert torch.equal(loss, task.loss((*batch, ones))[0])
    heavy = (*batch, 3 * ones)
    expected = task.model(*batch[:2], 3 * ones)
    assert task.loss(heavy)[0] == F.cross_entropy(expected[batch[3]], batch[2][batch[3]])
    torch.testing.assert_close(task.predict(heavy).probabilities, expected.softmax(1))
    task.evaluate(heavy)
    assert task.compute()["loss"] == pytest.approx(task.loss(heavy)[0].item())
    assert len(task.example_inputs(heavy)) == 3 and len(task.example_inputs((*batch, None))) == 2


def test_predictions_bear_the_names_of_the_classes():
    task = NodeClassification(Neighbours(4, 3), num_classes=3, class_names=("a", "b", "c"))
    prediction = task.predict(graph())
    assert [name for name, _ in prediction.best()] == [
        "abc"[i] for i in prediction.probabilities.argmax(1)
    ]
    with pytest.raises(ValueError, match=r"class_names must name 3 classes .* not 2"):
        NodeClassification(Neighbours(4, 3), num_classes=3, class_names=("a", "b"))


def test_handful_of_nodes_is_learned_by_heart():
    torch.manual_seed(0)
    task = NodeClassification(Neighbours(4, 3), num_classes=3)
    optimizer = torch.optim.Adam(task.model.parameters(), lr=0.3)
    for _ in range(150):
        for objective in task.objectives(graph()):
            optimizer.zero_grad()
            objective.loss.backward()
            optimizer.step()
    task.evaluate(graph())
    assert task.compute()["loss"] < 0.01 and task.compute()["accuracy"] == 1


def test_wrong_number_of_classes_is_refused():
    with pytest.raises(ValueError, match="num_classes must be at least 1, not 0"):
        NodeClassification(nn.Identity(), num_classes=0)
    with pytest.raises(ValueError, match=r"num_classes is 5, .*\(nodes, 5\), not \(6, 3\)"):
        NodeClassification(Neighbours(4, 3), num_classes=5).loss(graph())
