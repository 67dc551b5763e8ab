import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.tasks.seen import images_of, tables_of, vectors_of
from zoo.metrics.calibration import CalibrationError
from zoo.tasks.sequence_classification import SequenceClassification


class Given(nn.Module):
    """Returns logits that were prepared, and remembers what it was asked."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits
        self.lengths = []

    def forward(self, inputs, lengths=None):
        self.lengths.append(lengths)
        return self.logits[: len(inputs)]


class Reader(nn.Module):
    def __init__(self, every_step):
        super().__init__()
        self.embedding = nn.Embedding(9, 16)
        self.rnn = nn.GRU(16, 32, batch_first=True)
        self.head = nn.Linear(32, 4)
        self.every_step = every_step

    def forward(self, tokens, lengths=None):
        hidden, _ = self.rnn(self.embedding(tokens))
        if self.every_step:
            return self.head(hidden)
        return self.head(hidden[torch.arange(len(tokens)), lengths - 1])


class Names:
    """As much of a vocabulary as the task asks for."""

    def tokens(self):
        return [f"token {number}" for number in range(9)]


LENGTHS = torch.tensor([3, 5, 1])
STEPS = torch.tensor([[0, 2, 1, -100, -100], [1, 1, 0, 2, 2], [2, -100, -100, -100, -100]])


def inputs(batch=3, time=5):
    return torch.zeros(batch, time, dtype=torch.int64)


def of_steps(**arguments):
    torch.manual_seed(0)
    logits = torch.randn(3, 5, 3)
    return SequenceClassification(Given(logits), num_classes=3, **arguments), logits


def test_loss_of_equal_logits_is_the_logarithm_of_the_number_of_classes():
    for targets in (torch.tensor([0, 2, 1]), STEPS):
        model = Given(torch.zeros(*targets.shape, 3))
        task = SequenceClassification(model, num_classes=3)
        loss, count = task.loss((inputs(), targets, LENGTHS))
        assert loss.item() == pytest.approx(math.log(3)) and int(count) == (targets >= 0).sum()
        assert model.lengths == [LENGTHS]


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("class_weights", [None, (0.5, 3.0, 1.0)])
def test_loss_is_the_mean_over_steps_that_count(label_smoothing, class_weights):
    task, logits = of_steps(label_smoothing=label_smoothing, class_weights=class_weights)
    loss, count = task.loss((inputs(), STEPS, LENGTHS))
    counted = STEPS >= 0
    weights = None if class_weights is None else torch.tensor(class_weights) / 1.5
    expected = F.cross_entropy(
        logits[counted], STEPS[counted], weights, label_smoothing=label_smoothing
    )
    torch.testing.assert_close(loss, expected)
    total = 9.0 if weights is None else weights[STEPS[counted]].sum().item()
    assert float(count) == pytest.approx(total)


def test_two_uneven_batches_weighed_by_their_counts_are_one():
    task, logits = of_steps()
    whole, count = task.loss((inputs(), STEPS, LENGTHS))
    parts = []
    for part in (slice(0, 1), slice(1, 3)):
        task.model.logits = logits[part]
        parts.append(task.loss((inputs()[part], STEPS[part], LENGTHS[part])))
    torch.testing.assert_close(sum(loss * n for loss, n in parts) / count, whole)


def test_padding_changes_no_metric():
    task, logits = of_steps()
    task.evaluate((inputs(), STEPS, LENGTHS))
    expected = task.compute()
    table = tables_of(task)
    task.reset()
    task.model.logits = F.pad(logits, (0, 0, 0, 4), value=7.0)
    task.evaluate((inputs(3, 9), F.pad(STEPS, (0, 4), value=-100), LENGTHS))
    assert task.compute() == pytest.approx(expected)
    assert tables_of(task) == table


def test_metrics_over_uneven_batches_are_those_of_all_steps():
    task, logits = of_steps()
    for part in (slice(0, 2), slice(2, 3)):
        task.model.logits = logits[part]
        task.evaluate((inputs()[part], STEPS[part], LENGTHS[part]))
    counted = STEPS >= 0
    right = logits.argmax(-1) == STEPS
    values = task.compute()
    expected = CalibrationError()
    expected.update(logits[counted], STEPS[counted])
    assert values.pop("calibration_error") == pytest.approx(expected.compute().item())
    assert values == {
        "loss": pytest.approx(F.cross_entropy(logits[counted], STEPS[counted]).item()),
        "accuracy": pytest.approx(right[counted].double().mean().item()),
        "sequence_accuracy": pytest.approx((right | ~counted).all(1).double().mean().item()),
    }
    matrix = task.confusion_matrix.compute()
    assert matrix.sum() == 9 and matrix.trace() == right[counted].sum()
    assert matrix.sum(1).tolist() == [int(STEPS.eq(k).sum()) for k in range(3)]


def test_one_class_a_sequence_has_the_metrics_of_classification():
    logits, targets = torch.randn(3, 4), torch.tensor([3, 0, 1])
    task = SequenceClassification(
        Given(logits), num_classes=4, top_k=(2,), class_names=("a", "b", "c", "d")
    )
    task.evaluate((inputs(), targets, LENGTHS))
    top = logits.topk(2).indices
    values = task.compute()
    assert values.pop("calibration_error") > 0
    assert values == {
        "loss": pytest.approx(F.cross_entropy(logits, targets).item()),
        "accuracy": pytest.approx((logits.argmax(1) == targets).double().mean().item()),
        "top2_accuracy": pytest.approx((top == targets[:, None]).any(1).double().mean().item()),
    }
    assert set(images_of(task)) == {"confusion_matrix", "reliability"}
    assert [row["class"] for row in tables_of(task)["classes"]] == [
        "a",
        "b",
        "c",
        "d",
        "macro mean",
    ]
    assert (task.monitor, task.mode) == ("accuracy", "max")


def test_balanced_weights_are_those_of_the_targets_that_count():
    task, _ = of_steps(class_weights="balanced")
    task.prepare([(inputs(), STEPS[:2], LENGTHS[:2]), (inputs(), STEPS[2:], LENGTHS[2:])])
    counts = torch.tensor([2.0, 3.0, 4.0])
    torch.testing.assert_close(task.class_weights, 9 / (3 * counts))
    other, _ = of_steps(class_weights="balanced")
    other.load_state_dict(task.state_dict())
    torch.testing.assert_close(other.class_weights, task.class_weights)


def test_predictions_are_probabilities_and_need_neither_targets_nor_lengths():
    task, logits = of_steps()
    torch.testing.assert_close(
        task.predict((inputs(), None, LENGTHS)).probabilities, logits.softmax(-1)
    )
    torch.testing.assert_close(task.predict(inputs()).probabilities, logits.softmax(-1))
    assert task.model.lengths == [LENGTHS, None]


def test_tokens_of_the_embedding_bear_the_names_of_the_vocabulary():
    model = Reader(every_step=True)
    task = SequenceClassification(model, num_classes=4, vocabulary=Names())
    ((name, (vectors, labels)),) = vectors_of(task).items()
    assert name == "tokens" and labels == Names().tokens()
    assert torch.equal(vectors, model.embedding.weight)
    assert vectors_of(SequenceClassification(model, num_classes=4)) == {}


@pytest.mark.parametrize("every_step", [False, True])
def test_handful_of_sequences_is_learned_by_heart(every_step):
    torch.manual_seed(0)
    model = Reader(every_step)
    task = SequenceClassification(model, num_classes=4)
    tokens, lengths = torch.randint(9, (8, 7)), torch.tensor([3, 7, 5, 4, 7, 6, 3, 5])
    targets = torch.arange(8) % 4
    if every_step:
        targets = tokens.cumsum(1) % 4  # of what has been read so far
        targets[torch.arange(7) >= lengths.unsqueeze(1)] = -100
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(100):
        for objective in task.objectives((tokens, targets, lengths)):
            optimizer.zero_grad()
            objective.loss.backward()
            optimizer.step()
    task.evaluate((tokens, targets, lengths))
    assert task.compute()["accuracy"] == 1 and task.compute()["loss"] < 0.05


def test_no_batch_waits_for_the_device():
    # The meta device has no values, so whatever would read one fails on it.
    for targets in (torch.zeros(3, dtype=torch.int64), STEPS):
        logits = torch.randn(*targets.shape, 3, device="meta", requires_grad=True)
        task = SequenceClassification(Given(logits), num_classes=3).to("meta")
        batch = (inputs().to("meta"), targets.to("meta"), LENGTHS)
        for objective in task.objectives(batch):
            objective.loss.backward()
        task.evaluate(batch)


def test_model_of_another_shape_is_refused():
    task = SequenceClassification(Given(torch.randn(3, 5)), num_classes=4)
    with pytest.raises(ValueError, match=r"must return logits \(3, 4\), not \(3, 5\)"):
        task.loss((inputs(), torch.tensor([0, 1, 2]), LENGTHS))
    with pytest.raises(ValueError, match=r"targets are \(3, 5\).* logits \(3, 5, 4\)"):
        task.loss((inputs(), STEPS, LENGTHS))
