import pytest
import torch
from torch import nn

from zoo.metrics.sums import R2, Accuracy, ConfusionMatrix, Mean, Residuals
from zoo.tasks.classification import Classification
from zoo.tasks.generative.adversarial import Adversarial
from zoo.tasks.language_modeling import LanguageModeling
from zoo.tasks.node_classification import NodeClassification
from zoo.tasks.regression import Regression


@pytest.fixture
def torchmetrics():
    return pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")


def scores_and_targets(batches=3, size=7, classes=4):
    torch.manual_seed(0)
    return [
        (torch.randn(size + i, classes), torch.randint(classes, (size + i,)))
        for i in range(batches)
    ]


def test_mean_weighs_by_count_and_reset_forgets():
    mean = Mean()
    mean.update(torch.tensor(1.0), 3)
    mean.update(5.0, torch.tensor(1))
    assert mean.compute() == 2
    mean.reset()
    mean.update(4.0)
    assert mean.compute() == 4


def test_mean_counts_on_where_single_precision_stops():
    mean = Mean()
    mean.update(torch.tensor(1.0), 2**24)
    for _ in range(10):
        mean.update(torch.tensor(0.0), 1)
    assert mean.sums["count"] == 2**24 + 10


def test_mean_keeps_no_graph():
    mean = Mean()
    mean.update(torch.ones((), requires_grad=True), 2)
    assert not mean.compute().requires_grad


@pytest.mark.parity
def test_mean_equals_torchmetrics(torchmetrics):
    ours, theirs = Mean(), torchmetrics.MeanMetric()
    for value, count in [(0.3, 5), (0.7, 1), (2.5, 9)]:
        ours.update(torch.tensor(value), count)
        theirs.update(torch.tensor(value), count)
    torch.testing.assert_close(ours.compute().float(), theirs.compute())


@pytest.mark.parity
@pytest.mark.parametrize("top_k", [1, 2])
def test_accuracy_equals_torchmetrics(torchmetrics, top_k):
    ours = Accuracy(top_k)
    theirs = torchmetrics.Accuracy(
        task="multiclass", num_classes=4, top_k=top_k, ignore_index=-100, average="micro"
    )
    for scores, targets in scores_and_targets():
        targets[0] = -100
        ours.update(scores, targets)
        theirs.update(scores, targets)
    torch.testing.assert_close(ours.compute().float(), theirs.compute())


def test_accuracy_of_segmented_images_counts_pixels():
    scores, targets = torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64)
    scores[:, 1] = 1
    targets[0] = 1
    accuracy = Accuracy()
    accuracy.update(scores, targets)
    assert accuracy.compute() == 0.5 and accuracy.sums["count"] == 32


def test_accuracy_without_a_guess_is_refused():
    with pytest.raises(ValueError, match="top_k must be at least 1, not 0"):
        Accuracy(0)


@pytest.mark.parity
def test_confusion_matrix_equals_torchmetrics(torchmetrics):
    ours = ConfusionMatrix(4)
    theirs = torchmetrics.ConfusionMatrix(task="multiclass", num_classes=4)
    for scores, targets in scores_and_targets():
        ours.update(scores, targets)
        theirs.update(scores, targets)
    assert torch.equal(ours.compute(), theirs.compute())


def test_confusion_matrix_has_true_classes_in_rows():
    matrix = ConfusionMatrix(3)
    matrix.update(torch.tensor([1, 1, 2]), torch.tensor([0, 0, 2]))
    assert matrix.compute().tolist() == [[0, 2, 0], [0, 0, 0], [0, 0, 1]]


@pytest.mark.parity
@pytest.mark.parametrize("shape", [(6,), (6, 3)])
def test_r2_equals_torchmetrics(torchmetrics, shape):
    torch.manual_seed(0)
    ours, theirs = R2(), torchmetrics.R2Score()
    for _ in range(3):
        targets = torch.randn(shape) * 70 + 150
        predictions = targets + torch.randn(shape) * 30
        ours.update(predictions, targets)
        theirs.update(predictions, targets)
    torch.testing.assert_close(ours.compute().float(), theirs.compute(), rtol=1e-4, atol=0)


@pytest.mark.parity
@pytest.mark.parametrize("shape", [(6,), (6, 3)])
def test_residuals_equal_torchmetrics(torchmetrics, shape):
    torch.manual_seed(0)
    ours, rmse, mae = (
        Residuals(),
        torchmetrics.MeanSquaredError(squared=False),
        torchmetrics.MeanAbsoluteError(),
    )
    batches = [(torch.randn(shape), torch.randn(shape)) for _ in range(3)]
    for predictions, targets in batches:
        for metric in (ours, rmse, mae):
            metric.update(predictions, targets)
    found = ours.compute()
    torch.testing.assert_close(found["rmse"].float(), rmse.compute())
    torch.testing.assert_close(found["mae"].float(), mae.compute())
    bias = torch.cat([predictions - targets for predictions, targets in batches]).mean()
    torch.testing.assert_close(found["bias"].float(), bias)


def test_r2_is_one_for_the_targets_and_zero_for_their_mean():
    targets = torch.tensor([1.0, 2.0, 6.0])
    r2 = R2()
    r2.update(targets, targets)
    assert r2.compute() == 1
    r2.reset()
    r2.update(torch.full((3,), 3.0), targets)
    assert r2.compute() == pytest.approx(0)


@pytest.mark.parity
@pytest.mark.parametrize("level", [0.0, 1e6, -1e9, 1e12])
def test_r2_of_targets_far_from_zero_equals_scikit_learns(level):
    scores = pytest.importorskip("sklearn.metrics")
    generator = torch.Generator().manual_seed(0)
    targets = level + torch.randn(90, 2, generator=generator, dtype=torch.double)
    predictions = targets + 0.1 * torch.randn(90, 2, generator=generator, dtype=torch.double)
    r2, other = R2(), R2()
    for start in range(0, 60, 20):
        r2.update(predictions[start : start + 20], targets[start : start + 20])
    other.update(predictions[60:], targets[60:])
    other.update(predictions[90:], targets[90:])  # nothing
    r2.merge(other)
    expected = scores.r2_score(targets.numpy(), predictions.numpy())
    assert expected > 0.98
    assert r2.compute().item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("value", [0.1, 1e6 / 3])
def test_equal_targets_in_several_batches_do_not_vary(value):
    r2 = R2()
    for size in (3, 7, 1):
        targets = torch.full((size, 1), value, dtype=torch.double)
        r2.update(targets * 1.5, targets)
    assert r2.compute() == 0


def test_r2_of_equal_targets_is_one_if_exact_and_zero_otherwise():
    targets = torch.full((3,), 0.1)
    for predictions, value in [(targets, 1), (targets + 1, 0)]:
        r2 = R2()
        r2.update(predictions, targets)
        assert r2.compute() == value


def test_sums_of_two_halves_add_up_to_those_of_the_whole():
    (first, second) = scores_and_targets(batches=2)
    whole, half, other = Accuracy(), Accuracy(), Accuracy()
    for metric, batches in [(whole, [first, second]), (half, [first]), (other, [second])]:
        for batch in batches:
            metric.update(*batch)
    half.add(**other.sums)
    assert half.sums == whole.sums


def test_metric_updated_in_inference_mode_is_usable_after_its_reset():
    for metric in (Accuracy(), ConfusionMatrix(4)):
        with torch.inference_mode():
            metric.update(*scores_and_targets(batches=1)[0])
        expected = torch.as_tensor(metric.compute()).clone()
        metric.reset()
        metric.update(*scores_and_targets(batches=1)[0])
        assert torch.equal(torch.as_tensor(metric.compute()), expected)


class Pair(nn.Module):
    latent_dim = 2

    def __init__(self):
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(2, 16), nn.Unflatten(1, (1, 4, 4)))
        self.discriminator = nn.Sequential(nn.Flatten(), nn.Linear(16, 1))


class Graph(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, features, edge_index):
        return self.linear(features)


class Language(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(5, 5), nn.LSTM(5, 5, batch_first=True)

    def forward(self, tokens, state=None):
        return self.lstm(self.embedding(tokens), state)


def every_task():
    tokens = torch.zeros(2, 3, dtype=torch.int64)
    images, targets = torch.zeros(5, 1, 4, 4), torch.zeros(5, dtype=torch.int64)
    graph = (torch.zeros(4, 3), torch.zeros(2, 6, dtype=torch.int64), targets[:4], targets[:4] == 0)
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    return [
        (Classification(classifier, num_classes=3), (images, targets)),
        (Regression(nn.Linear(3, 1)), (torch.zeros(5, 3), torch.zeros(5))),
        (LanguageModeling(Language()), (tokens, tokens, True)),
        (NodeClassification(Graph(), num_classes=2), graph),
        (Adversarial(Pair()), (images, targets)),
        *(
            (Regression(nn.Linear(3, n), loss=loss), (torch.zeros(5, 3), torch.zeros(5)))
            for loss, n in (("quantile", 3), ("gaussian_nll", 2), ("log_cosh", 1))
        ),
    ]


@pytest.mark.parametrize("number", range(8))
def test_neither_training_nor_evaluation_waits_for_the_device(number):
    # The meta device has no values, so whatever would read one fails on it.
    task, batch = every_task()[number]
    task.prepare([batch])
    task.model.to("meta")
    task.to("meta")
    batch = tuple(x.to("meta") if isinstance(x, torch.Tensor) else x for x in batch)
    for objective in task.objectives(batch):
        objective.loss.backward()
    for _ in range(2):
        task.evaluate(batch)
    for metric in task.metrics.values():
        assert all(total.is_meta for total in getattr(metric, "sums", {}).values())


@pytest.mark.parametrize("number", range(8))
def test_evaluation_in_inference_mode_and_bfloat16_gives_finite_numbers_and_is_repeatable(number):
    task, batch = every_task()[number]
    task.prepare([batch])
    results = []
    for _ in range(2):
        task.reset()
        torch.manual_seed(0)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            task.evaluate(batch)
            task.evaluate(batch)
        results.append(task.compute())
    assert results[0] == results[1] and task.monitor in results[0]
    assert all(torch.tensor(value).isfinite() for value in results[0].values())
