"""One logit or two, and any number of labels: losses, metrics, decisions."""

import math

import pytest
import torch
from sklearn import metrics as sklearn
from torch import nn
from torch.nn import functional as F

from tests.tasks.seen import images_of, tables_of
from zoo.metrics.labels import LabelScores
from zoo.tasks.binary_classification import BinaryClassification
from zoo.tasks.classification import Classification
from zoo.tasks.multi_label_classification import MultiLabelClassification


def seeded(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def binary(**options):
    return BinaryClassification(nn.Identity(), **options)


def multi_label(num_classes=4, **options):
    return MultiLabelClassification(nn.Identity(), num_classes=num_classes, **options)


def test_two_classes_by_a_softmax_are_one_logit():
    z = torch.tensor([[0.0, 1.7]])
    target = torch.tensor([1])
    one, two = binary(), Classification(nn.Identity(), num_classes=2)
    assert one.predict((z[:, 1:],)).probabilities[0, 1].item() == pytest.approx(0.84554, abs=1e-5)
    torch.testing.assert_close(one.loss((z[:, 1:], target))[0], two.loss((z, target))[0])
    logits, targets = seeded(9, 2), torch.arange(9) % 2
    torch.testing.assert_close(
        one.loss((logits, targets))[0], two.loss((logits, targets))[0], rtol=1e-6, atol=1e-6
    )
    torch.testing.assert_close(
        one.predict((logits,)).probabilities, two.predict((logits,)).probabilities
    )


def test_loss_and_gradient_are_the_worked_numbers():
    assert binary().loss((torch.zeros(6, 1), torch.arange(6) % 2))[0].item() == pytest.approx(
        math.log(2)
    )
    unsure = torch.tensor([[math.log(0.012 / 0.988)]])
    assert binary().loss((unsure, torch.tensor([1])))[0].item() == pytest.approx(4.422849, abs=1e-5)
    x, y = seeded(20, 3).double(), torch.arange(20) % 2
    model = nn.Linear(3, 1, dtype=torch.float64)
    BinaryClassification(model).loss((x, y))[0].backward()
    sigma = model(x).sigmoid().detach()
    torch.testing.assert_close(model.weight.grad, (sigma - y.unsqueeze(1)).mT @ x / 20)


def test_a_positive_that_weighs_three_is_three_of_them():
    logits, targets = seeded(10, 1).requires_grad_(), torch.arange(10) % 2
    weighted, _ = binary(pos_weight=3.0).loss((logits, targets))
    (gradient,) = torch.autograd.grad(weighted, logits)
    repeats = 1 + 2 * targets
    loss, _ = binary().loss(
        (logits.repeat_interleave(repeats, 0), targets.repeat_interleave(repeats))
    )
    torch.testing.assert_close(weighted, loss)
    torch.testing.assert_close(gradient, torch.autograd.grad(loss, logits)[0])


def test_balanced_weights_give_both_answers_equal_shares_and_are_kept():
    batches = [(seeded(4, 2), torch.tensor([[1.0, 1], [0, 1], [0, 1], [0, 1]]))]
    task = multi_label(2, pos_weight="balanced")
    task.prepare(batches)
    assert task.pos_weight.tolist() == [3.0, 1.0]  # of the second there is nothing to balance
    other = multi_label(2, pos_weight="balanced")
    other.load_state_dict(task.state_dict())
    assert other.pos_weight.tolist() == [3.0, 1.0]


def test_labels_do_not_exclude_each_other():
    logits = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    probabilities = multi_label(3).predict((logits,)).probabilities
    assert probabilities.sum().item() == pytest.approx(2.5644, abs=1e-4)
    jacobian = torch.autograd.functional.jacobian(
        lambda z: multi_label(3).predict((z,)).probabilities, logits
    )[0, :, 0]
    assert torch.equal(jacobian, jacobian.diagonal().diag())


@pytest.mark.parametrize("threshold", [0.5, 0.3, (0.2, 0.5, 0.7, 0.9)])
def test_metrics_of_labels_are_scikit_learns_whatever_the_batches(threshold):
    logits = seeded(90, 4)
    targets = (seeded(90, 4, seed=1) + logits > torch.tensor([0.0, 0.5, 1.0, 2.0])).float()
    task = multi_label(threshold=threshold, beta=2.0)
    for part in (slice(0, 50), slice(50, 90)):
        task.evaluate((logits[part], targets[part]))
    p, y = logits.sigmoid().numpy(), targets.numpy()
    chosen = p >= task.threshold.numpy()
    f = {how: sklearn.fbeta_score(y, chosen, beta=2, average=how) for how in ("macro", "micro")}
    assert task.compute() == pytest.approx(
        {
            "loss": F.binary_cross_entropy_with_logits(logits, targets).item(),
            "accuracy": 1 - sklearn.hamming_loss(y, chosen),
            "subset_accuracy": sklearn.accuracy_score(y, chosen),
            "macro_f2": f["macro"],
            "micro_f2": f["micro"],
            "auc": sklearn.roc_auc_score(y, p),
            "average_precision": sklearn.average_precision_score(y, p),
        },
        abs=1e-6,
    )
    rows = tables_of(task)["labels"]
    assert [row["precision"] for row in rows] == pytest.approx(
        sklearn.precision_score(y, chosen, average=None)
    )
    assert set(images_of(task)) == {"curves"}


def test_metrics_of_two_classes_are_scikit_learns():
    logits = seeded(80, 1)
    targets = (seeded(80, seed=1) + logits[:, 0] > 1).long()
    task = binary(threshold=0.4, class_names=("no", "yes"))
    task.evaluate((logits, targets))
    p = logits.sigmoid()[:, 0].numpy()
    chosen = p >= 0.4
    assert task.compute() == pytest.approx(
        {
            "loss": sklearn.log_loss(targets, p.astype("float64")),
            "accuracy": sklearn.accuracy_score(targets, chosen),
            "precision": sklearn.precision_score(targets, chosen),
            "recall": sklearn.recall_score(targets, chosen),
            "f1": sklearn.f1_score(targets, chosen),
            "auc": sklearn.roc_auc_score(targets, p),
            "average_precision": sklearn.average_precision_score(targets, p),
        },
        abs=1e-6,
    )
    assert {task.directions()[name] for name in ("auc", "f1", "precision")} == {"max"}
    best = task.predict((logits,)).best()
    assert [name for name, _ in best] == ["yes" if x else "no" for x in chosen]


def test_one_sample_in_a_hundred_makes_accuracy_worthless():
    targets = torch.arange(100) == 0
    negative, positive = LabelScores(1), LabelScores(1)
    negative.update(torch.zeros(100, 1), targets.unsqueeze(1))
    positive.update(torch.ones(100, 1), targets.unsqueeze(1))
    found = {name: value.item() for name, value in negative.compute().items()}
    assert found == {"accuracy": 0.99, "precision": 0, "recall": 0, "f1": 0}
    found = {name: value.item() for name, value in positive.compute().items()}
    assert found == pytest.approx({"accuracy": 0.01, "precision": 0.01, "recall": 1, "f1": 2 / 101})


def test_a_label_that_nobody_has_leaves_the_areas_of_the_others():
    task = multi_label(2)
    task.evaluate((torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([[1.0, 0], [0, 0]])))
    values = task.compute()
    assert values["auc"] == 1 and values["average_precision"] == 1
    assert set(images_of(task)) == {"curves"}


@pytest.mark.parametrize(
    ("build", "fragment"),
    [
        (lambda: binary(threshold=1.5), "threshold must be from 0 to 1, not 1.5"),
        (lambda: binary(pos_weight=0.0), "pos_weight must be greater than 0, not 0.0"),
        (lambda: binary(pos_weight="most"), "pos_weight must be 'balanced'"),
        (lambda: binary(beta=0.0), "beta must be greater than 0"),
        (lambda: binary(class_names=("a", "b", "c")), "task=classification"),
        (lambda: multi_label(2, threshold=(0.5,)), "threshold must be a number or 2 of them"),
        (lambda: multi_label(2, class_names=("a",)), "class_names must name 2 labels"),
        (lambda: multi_label(0), "num_classes must be at least 1"),
    ],
)
def test_wrong_arguments_are_refused(build, fragment):
    with pytest.raises(ValueError, match="must") as raised:
        build()
    assert fragment in str(raised.value)


def test_batches_of_another_kind_name_the_task_that_fits():
    with pytest.raises(ValueError, match="task=multi_label_classification"):
        binary().loss((torch.zeros(4, 1), torch.zeros(4, 3)))
    with pytest.raises(ValueError, match="task=classification or, of two"):
        multi_label(3).loss((torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64)))
    with pytest.raises(ValueError, match=r"model.num_classes=1"):
        binary().loss((torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64)))
