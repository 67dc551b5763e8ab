import math
import warnings
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.tasks.seen import images_of, tables_of
from zoo.metrics.mistakes import ConfidentMistakes
from zoo.metrics.sums import class_scores
from zoo.tasks.classification import Classification


class Given(nn.Module):
    """Returns logits that were prepared for each input, which holds its own number."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, x):
        return self.logits[x.flatten(1)[:, 0].long()]


def numbered_images(count, channels=1):
    return torch.arange(count).float().view(-1, 1, 1, 1).expand(-1, channels, 4, 4)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_loss_of_equal_logits_is_the_logarithm_of_the_number_of_classes(label_smoothing):
    task = Classification(Given(torch.zeros(6, 5)), num_classes=5, label_smoothing=label_smoothing)
    loss, count = task.loss((numbered_images(6), torch.tensor([0, 1, 2, 3, 4, 0])))
    assert loss.item() == pytest.approx(math.log(5)) and count == 6


def test_label_smoothing_is_the_equation():
    logits, targets = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    task = Classification(Given(logits), num_classes=3, label_smoothing=0.3)
    q = 0.7 * torch.eye(3)[targets] + 0.1
    expected = -(q * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(task.loss((numbered_images(4), targets))[0], expected)


def test_metrics_weigh_uneven_batches_by_their_samples():
    logits = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    task = Classification(Given(logits), num_classes=3)
    x = numbered_images(7)
    for part in (slice(0, 5), slice(5, 7)):
        task.evaluate((x[part], targets[part]))
    values = task.compute()
    assert values.pop("calibration_error") > 0
    assert values == {
        "loss": pytest.approx(nn.functional.cross_entropy(logits, targets).item()),
        "accuracy": pytest.approx((logits.argmax(1) == targets).float().mean().item()),
    }
    assert task.confusion_matrix.compute().trace() == round(values["accuracy"] * 7)
    assert (task.monitor, task.mode) == ("accuracy", "max")


def test_mistakes_kept_are_the_most_confident_of_all_batches():
    torch.manual_seed(0)
    logits, targets = 3 * torch.randn(200, 4), torch.randint(4, (200,))
    task = Classification(Given(logits), num_classes=4)
    x = numbered_images(200)
    for start in range(0, 200, 7):
        task.evaluate((x[start : start + 7], targets[start : start + 7]))
    confidence, predicted = logits.softmax(1).max(1)
    wrong = (predicted != targets).nonzero().flatten()
    expected = wrong[confidence[wrong].argsort(descending=True)][:16]
    kept = task.mistakes.compute()
    assert kept.images[:, 0, 0, 0].tolist() == expected.tolist()
    assert kept.predicted.tolist() == predicted[expected].tolist()
    assert kept.targets.tolist() == targets[expected].tolist()
    torch.testing.assert_close(kept.confidence, confidence[expected])


def test_fewer_mistakes_than_places_leave_the_right_answers_out():
    mistakes = ConfidentMistakes(4)
    assert mistakes.compute() is None
    mistakes.update(numbered_images(2), torch.eye(2), torch.tensor([0, 1]))
    assert mistakes.compute() is None
    mistakes.update(numbered_images(2), torch.eye(2), torch.tensor([0, 0]))
    kept = mistakes.compute()
    assert (kept.predicted.tolist(), kept.targets.tolist()) == ([1], [0])
    mistakes.reset()
    assert mistakes.compute() is None


def test_kept_images_do_not_hold_on_to_their_batch():
    mistakes = ConfidentMistakes(1)
    batch = torch.rand(50, 1, 4, 4)
    mistakes.update(batch, torch.randn(50, 3), torch.zeros(50, dtype=torch.int64))
    assert mistakes.kept.images.untyped_storage().nbytes() == 4 * 4 * 4


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_an_evaluation_are_confusions_reliability_and_mistakes(channels):
    task = Classification(
        Given(torch.eye(3)), num_classes=3, class_names=("cat", "dog", "price in $")
    )
    with torch.inference_mode():
        task.evaluate((numbered_images(3, channels), torch.tensor([0, 2, 1])))
        images = images_of(task)
    assert set(images) == {"confusion_matrix", "reliability", "mistakes"}
    for image in images.values():
        assert image.shape[0] == 3 and image.min() >= 0 and image.max() <= 1


def test_without_mistakes_or_image_inputs_there_are_none_of_mistakes():
    task = Classification(Given(torch.eye(3)), num_classes=3)
    task.evaluate((numbered_images(3), torch.arange(3)))
    assert set(images_of(task)) == {"confusion_matrix", "reliability"}
    task.evaluate((numbered_images(3).flatten(1), torch.zeros(3, dtype=torch.int64)))
    assert set(images_of(task)) == {"confusion_matrix", "reliability"}


def test_predictions_are_probabilities_and_need_no_targets():
    logits = torch.randn(4, 3)
    task = Classification(Given(logits), num_classes=3)
    x = numbered_images(4)
    torch.testing.assert_close(task.predict(x).probabilities, logits.softmax(1))
    assert torch.equal(task.predict(x).probabilities, task.predict((x, None)).probabilities)


def test_probabilities_sum_to_one_under_autocast():
    task = Classification(nn.Linear(8, 300), num_classes=300)
    with torch.autocast("cpu", torch.bfloat16):
        probabilities = task.predict(torch.randn(4, 8)).probabilities
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities.sum(1), torch.ones(4))


def test_handful_of_samples_is_learned_by_heart():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    task = Classification(model, num_classes=4)
    batch = (torch.randn(8, 1, 4, 4), torch.arange(8) % 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        for objective in task.objectives(batch):
            optimizer.zero_grad()
            objective.loss.backward()
            optimizer.step()
    task.evaluate(batch)
    assert task.compute()["loss"] < 0.01 and task.compute()["accuracy"] == 1


# --------------------------------------------------------------------------- class weights


WEIGHTS = (0.5, 3.0, 1.0)


def shares(targets, classes=3):
    """Soft targets that say the same as class numbers."""
    return F.one_hot(targets, classes).float()


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("soft", [False, True])
def test_weighted_loss_is_the_equation(label_smoothing, soft):
    torch.manual_seed(0)
    logits, targets = torch.randn(6, 3), torch.tensor([0, 2, 1, 1, 0, 0])
    task = Classification(
        Given(logits), num_classes=3, label_smoothing=label_smoothing, class_weights=WEIGHTS
    )
    w, t = torch.tensor(WEIGHTS), shares(targets)
    if soft:
        t = 0.7 * t + 0.3 * t.flip(0)
    q = (1 - label_smoothing) * t + label_smoothing / 3
    expected = -(w * q * logits.log_softmax(1)).sum() / (w * t).sum()
    loss, count = task.loss((numbered_images(6), t if soft else targets))
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(count, (w * t).sum() / w.mean())


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_weighted_loss_of_class_numbers_is_torchs(label_smoothing):
    logits, targets = torch.randn(6, 3), torch.tensor([0, 2, 1, 1, 0, 0])
    task = Classification(
        Given(logits), num_classes=3, label_smoothing=label_smoothing, class_weights=WEIGHTS
    )
    loss, _ = task.loss((numbered_images(6), targets))
    weight = torch.tensor(WEIGHTS)
    expected = F.cross_entropy(logits, targets, weight=weight, label_smoothing=label_smoothing)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_shares_that_are_sure_cost_what_class_numbers_cost(class_weights, label_smoothing):
    logits, targets = torch.randn(6, 3), torch.tensor([0, 2, 1, 1, 0, 0])
    task = Classification(
        Given(logits), num_classes=3, label_smoothing=label_smoothing, class_weights=class_weights
    )
    x = numbered_images(6)
    for soft, hard in zip(task.loss((x, shares(targets))), task.loss((x, targets)), strict=True):
        torch.testing.assert_close(torch.as_tensor(soft), torch.as_tensor(hard))


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
def test_losses_of_uneven_batches_weighed_by_their_counts_are_that_of_all(class_weights, soft):
    torch.manual_seed(0)
    logits, targets = torch.randn(9, 3), torch.randint(3, (9,))
    task = Classification(
        Given(logits), num_classes=3, class_weights=class_weights, label_smoothing=0.1
    )
    x, targets = numbered_images(9), torch.rand(9, 3).softmax(1) if soft else targets
    whole, count = task.loss((x, targets))
    parts = [task.loss((x[part], targets[part])) for part in (slice(0, 2), slice(2, 9))]
    torch.testing.assert_close(sum(loss * n for loss, n in parts), whole * count)
    torch.testing.assert_close(
        torch.as_tensor(sum(n for _, n in parts), dtype=torch.float32),
        torch.as_tensor(count, dtype=torch.float32),
    )
    for part in (slice(0, 2), slice(2, 9)):
        task.evaluate((x[part], targets[part]))
    assert task.compute()["loss"] == pytest.approx(whole.item())


def counted(task, targets):
    task.prepare((numbered_images(len(t)), t) for t in targets.split(4))
    return task.class_weights


def test_balanced_weights_are_scikit_learns():
    compute = pytest.importorskip(
        "sklearn.utils.class_weight", reason="scikit-learn is not installed"
    ).compute_class_weight
    targets = torch.tensor([0, 0, 0, 0, 1, 2, 2, 0, 0, 1])
    task = Classification(nn.Identity(), num_classes=3, class_weights="balanced")
    expected = compute("balanced", classes=np.arange(3), y=targets.numpy())
    assert counted(task, targets).tolist() == pytest.approx(list(expected))
    assert counted(task, shares(targets)).tolist() == pytest.approx(list(expected))
    # Every class has the same say, and a sample weighs 1 on average.
    assert task.class_weights[targets].mean().item() == pytest.approx(1)
    assert task.class_weights[:3] @ targets.bincount().float() == pytest.approx(10)


def test_balanced_weights_travel_with_the_state_and_are_counted_only_where_they_are_asked_for():
    task = Classification(nn.Identity(), num_classes=3, class_weights="balanced")
    assert task.class_weights.tolist() == [1, 1, 1]
    weights = counted(task, torch.tensor([0, 0, 1, 0]))
    assert weights.tolist() == pytest.approx([4 / 9, 4 / 3, 1])  # a class without samples: 1
    other = Classification(nn.Identity(), num_classes=3, class_weights="balanced")
    other.load_state_dict(task.state_dict())
    assert torch.equal(other.class_weights, weights)
    for class_weights in (None, WEIGHTS):
        task = Classification(nn.Identity(), num_classes=3, class_weights=class_weights)
        before = task.class_weights
        assert counted(task, torch.tensor([0, 0, 1, 0])) is before
        assert task.state_dict() == {}


def test_class_weights_work_in_every_precision():
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        model = nn.Linear(4, 3).to(dtype)
        task = Classification(model, num_classes=3, class_weights=WEIGHTS)
        for targets in (torch.tensor([0, 2]), torch.rand(2, 3)):
            loss, _ = task.loss((torch.randn(2, 4, dtype=dtype), targets))
            loss.backward()
            assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


# ------------------------------------------------------------ mixed targets, heads, guesses


def test_mixed_targets_are_judged_by_their_largest_share():
    logits = torch.eye(3)
    task = Classification(Given(logits), num_classes=3)
    mixed = torch.tensor([[0.6, 0.4, 0.0], [0.2, 0.3, 0.5], [0.0, 0.0, 1.0]])
    task.evaluate((numbered_images(3), mixed))
    values = task.compute()
    assert values.pop("calibration_error") == pytest.approx(2 / 3 - logits.softmax(1)[0, 0].item())
    assert values == {
        "loss": pytest.approx(-(mixed * logits.log_softmax(1)).sum().item() / 3),
        "accuracy": pytest.approx(2 / 3),
    }
    assert task.confusion_matrix.compute().tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 1]]
    assert task.mistakes.compute().targets.tolist() == [2]


class Heads(NamedTuple):
    logits: Tensor
    first: Tensor
    second: Tensor


class WithHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(4, 3) for _ in range(3))

    def forward(self, x):
        return Heads(*(head(x) for head in self.heads)) if self.training else self.heads[0](x)


@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
def test_auxiliary_heads_count_in_training_with_their_weight_and_not_in_evaluation(class_weights):
    model, batch = WithHeads(), (torch.randn(5, 4), torch.tensor([0, 1, 2, 2, 0]))
    alone = [
        Classification(head, num_classes=3, class_weights=class_weights).loss(batch)[0]
        for head in model.heads
    ]
    for aux_weight, arguments in ((0.3, {}), (0.7, {"aux_weight": 0.7})):
        task = Classification(model, num_classes=3, class_weights=class_weights, **arguments)
        model.train()
        expected = alone[0] + aux_weight * (alone[1] + alone[2])
        torch.testing.assert_close(task.loss(batch)[0], expected)
        (objective,) = task.objectives(batch)
        assert list(objective.terms) == ["main_loss", "auxiliary_loss"]
        assert not any(term.requires_grad for term in objective.terms.values())
        torch.testing.assert_close(objective.terms["main_loss"], alone[0])
        torch.testing.assert_close(objective.terms["auxiliary_loss"], alone[1] + alone[2])
        model.eval()
        torch.testing.assert_close(task.loss(batch)[0], alone[0])
        task.evaluate(batch)
        assert task.compute()["loss"] == pytest.approx(alone[0].item())


def test_a_weight_of_heads_that_are_not_there_is_said_to_have_no_effect_once():
    model, batch = nn.Linear(4, 3), (torch.randn(5, 4), torch.tensor([0, 1, 2, 2, 0]))
    task = Classification(model, num_classes=3, aux_weight=0.7)
    with pytest.warns(UserWarning, match="task.aux_weight=0.7 has no effect") as said:
        task.loss(batch)
        task.loss(batch)
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Classification(model, num_classes=3).loss(batch)  # the default asks for nothing
        heads = WithHeads()
        task = Classification(heads, num_classes=3, aux_weight=0.7)
        for is_training in (True, False):
            heads.train(is_training)
            task.loss(batch)


def test_every_auxiliary_head_must_know_all_classes():
    model = WithHeads()
    model.heads[2] = nn.Linear(4, 5)
    with pytest.raises(ValueError, match=r"num_classes is 3, .*not \(2, 5\)"):
        Classification(model, num_classes=3).loss((torch.randn(2, 4), torch.tensor([0, 1])))


def test_top_k_accuracy_is_torchmetrics():
    functional = pytest.importorskip(
        "torchmetrics.functional", reason="torchmetrics is not installed"
    )
    logits, targets = torch.randn(50, 6), torch.randint(6, (50,))
    task = Classification(Given(logits), num_classes=6, top_k=(2, 5))
    task.evaluate((numbered_images(50), targets))
    values = task.compute()
    assert list(values) == [
        "loss",
        "accuracy",
        "top2_accuracy",
        "top5_accuracy",
        "calibration_error",
    ]
    for k, name in ((1, "accuracy"), (2, "top2_accuracy"), (5, "top5_accuracy")):
        expected = functional.classification.multiclass_accuracy(
            logits, targets, num_classes=6, top_k=k, average="micro"
        )
        assert values[name] == pytest.approx(expected.item())


def test_table_of_the_classes_is_scikit_learns_report():
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    torch.manual_seed(0)
    logits, targets = torch.randn(60, 5), torch.randint(4, (60,))  # of class 4 there is no sample
    logits[:, 3] = -9  # and class 3 is never predicted
    names = ("a", "b", "c", "d", "e")
    task = Classification(Given(logits), num_classes=5, class_names=names)
    x = numbered_images(60)
    for start in range(0, 60, 13):
        task.evaluate((x[start : start + 13], targets[start : start + 13]))
    report = metrics.classification_report(
        targets,
        logits.argmax(1),
        labels=range(5),
        target_names=names,
        output_dict=True,
        zero_division=0,
    )
    (name,), (rows,) = tables_of(task).keys(), tables_of(task).values()
    assert name == "classes"
    assert [row["class"] for row in rows] == [*names, "macro mean"]
    for row in rows:
        expected = report[row["class"].replace("macro mean", "macro avg")]
        for ours, theirs in (("f1", "f1-score"), *((n, n) for n in ("precision", "recall"))):
            assert row[ours] == pytest.approx(expected[theirs])
        assert row["support"] == expected["support"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1, not 0"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), not 1.0"),
        ({"class_names": ("a",)}, r"class_names must name 3 classes \(num_classes\), not 1"),
        ({"class_weights": (1.0, 2.0)}, r"class_weights must be 3 positive numbers .*\[1.0, 2.0\]"),
        ({"class_weights": (1.0, 2.0, 0.0)}, r"class_weights must be 3 positive numbers"),
        ({"class_weights": (1.0, 2.0, math.inf)}, r"class_weights must be 3 positive numbers"),
        ({"class_weights": "even"}, r"class_weights must be 'balanced', .* not 'even'"),
        ({"aux_weight": -0.1}, r"aux_weight must be at least 0, not -0.1"),
        ({"top_k": (3,)}, r"top_k must .* smaller than num_classes \(3\), not 3"),
        ({"top_k": (2, 5)}, r"top_k must .* smaller than num_classes \(3\), not 5"),
        ({"top_k": (1,)}, r"top_k must .* greater than 1 .*, not 1"),
        ({"top_k": (2, 2)}, r"top_k must hold different numbers .*, not 2"),
    ],
)
def test_bad_argument_is_refused_with_its_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        Classification(nn.Identity(), **{"num_classes": 3, **arguments})


def test_model_with_another_number_of_classes_is_refused():
    task = Classification(nn.Linear(2, 4), num_classes=3)
    with pytest.raises(ValueError, match=r"num_classes is 3, .*\(batch, 3\), not \(5, 4\)"):
        task.predict(torch.zeros(5, 2))


# ------------------------------------------------------------------------ numbers by hand


def test_a_softmax_and_its_loss_are_what_a_hand_computes():
    task = Classification(Given(torch.tensor([[1.0, 2.0, 3.0]])), num_classes=3)
    (probabilities,) = task.predict(numbered_images(1)).probabilities.tolist()
    assert probabilities == pytest.approx([0.0900, 0.2447, 0.6652], abs=5e-5)
    loss, _ = task.loss((numbered_images(1), torch.tensor([2])))
    assert loss.item() == pytest.approx(0.4076, abs=5e-5)


@pytest.mark.parametrize(
    ("smoothing", "target", "others"), [(1 / 9, 0.9, 1 / 90), (0.1, 0.91, 0.01)]
)
def test_the_label_that_is_smoothed_keeps_its_own_part_of_the_smoothing(smoothing, target, others):
    logits = torch.zeros(1, 10, requires_grad=True)
    task = Classification(Given(logits), num_classes=10, label_smoothing=smoothing)
    task.loss((numbered_images(1), torch.tensor([3])))[0].backward()
    wanted = (0.1 - logits.grad[0]).tolist()  # the gradient is probabilities less targets
    assert (wanted[3], wanted[0]) == pytest.approx((target, others), abs=1e-6)


def test_a_class_of_weight_three_is_each_of_its_samples_three_times():
    torch.manual_seed(0)
    labels, found = torch.tensor([0, 1, 2, 1, 0]), []
    each = torch.where(labels == 1, 3, 1)
    first = torch.randn(5, 3)
    for rows, weights in (
        (torch.arange(5), [1.0, 3.0, 1.0]),
        (torch.arange(5).repeat_interleave(each), None),
    ):
        logits = first.clone().requires_grad_()
        task = Classification(Given(logits), num_classes=3, class_weights=weights)
        images = numbered_images(5)[rows]
        loss, _ = task.loss((images, labels[rows]))
        loss.backward()
        found.append((loss.detach(), logits.grad))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(
    ("answer", "accuracy", "precision", "recall", "f1"),
    [(0, 0.99, 0, 0, 0), (1, 0.01, 0.01, 1, 0.01980)],
)
def test_constant_answers_to_one_positive_in_a_hundred(answer, accuracy, precision, recall, f1):
    labels = torch.zeros(100, dtype=torch.long)
    labels[0] = 1
    logits = F.one_hot(torch.tensor([answer]), 2).float().expand(100, -1)
    task = Classification(Given(logits), num_classes=2)
    task.evaluate((numbered_images(100), labels))
    assert task.compute()["accuracy"] == pytest.approx(accuracy)
    scores = class_scores(task.confusion_matrix.compute())
    found = [scores[name][1].item() for name in ("precision", "recall", "f1")]
    assert found == pytest.approx([precision, recall, f1], abs=5e-6)
