import math

import pytest
import torch
from torch import nn

from zoo.tasks.classification import Classification, ConfidentMistakes


class Given(nn.Module):
    """Returns logits that were prepared for each input, which holds its own number."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, x):
        return self.logits[x.flatten(1)[:, 0].long()]


def numbered_pictures(count, channels=1):
    return torch.arange(count).float().view(-1, 1, 1, 1).expand(-1, channels, 4, 4)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_loss_of_equal_logits_is_the_logarithm_of_the_number_of_classes(label_smoothing):
    task = Classification(Given(torch.zeros(6, 5)), num_classes=5, label_smoothing=label_smoothing)
    loss, count = task.loss((numbered_pictures(6), torch.tensor([0, 1, 2, 3, 4, 0])))
    assert loss.item() == pytest.approx(math.log(5)) and count == 6


def test_label_smoothing_is_the_equation():
    logits, targets = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    task = Classification(Given(logits), num_classes=3, label_smoothing=0.3)
    q = 0.7 * torch.eye(3)[targets] + 0.1
    expected = -(q * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(task.loss((numbered_pictures(4), targets))[0], expected)


def test_metrics_weigh_uneven_batches_by_their_samples():
    logits = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    task = Classification(Given(logits), num_classes=3)
    x = numbered_pictures(7)
    for part in (slice(0, 5), slice(5, 7)):
        task.evaluate((x[part], targets[part]))
    values = task.compute()
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
    x = numbered_pictures(200)
    for start in range(0, 200, 7):
        task.evaluate((x[start : start + 7], targets[start : start + 7]))
    confidence, predicted = logits.softmax(1).max(1)
    wrong = (predicted != targets).nonzero().flatten()
    expected = wrong[confidence[wrong].argsort(descending=True)][:16]
    kept = task.mistakes.compute()
    assert kept.pictures[:, 0, 0, 0].tolist() == expected.tolist()
    assert kept.predicted.tolist() == predicted[expected].tolist()
    assert kept.targets.tolist() == targets[expected].tolist()
    torch.testing.assert_close(kept.confidence, confidence[expected])


def test_fewer_mistakes_than_places_leave_the_right_answers_out():
    mistakes = ConfidentMistakes(4)
    assert mistakes.compute() is None
    mistakes.update(numbered_pictures(2), torch.eye(2), torch.tensor([0, 1]))
    assert mistakes.compute() is None
    mistakes.update(numbered_pictures(2), torch.eye(2), torch.tensor([0, 0]))
    kept = mistakes.compute()
    assert (kept.predicted.tolist(), kept.targets.tolist()) == ([1], [0])
    mistakes.reset()
    assert mistakes.compute() is None


def test_kept_pictures_do_not_hold_on_to_their_batch():
    mistakes = ConfidentMistakes(1)
    batch = torch.rand(50, 1, 4, 4)
    mistakes.update(batch, torch.randn(50, 3), torch.zeros(50, dtype=torch.int64))
    assert mistakes.kept.pictures.untyped_storage().nbytes() == 4 * 4 * 4


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_an_evaluation_are_the_confusion_matrix_and_the_mistakes(channels):
    task = Classification(
        Given(torch.eye(3)), num_classes=3, class_names=("cat", "dog", "price in $")
    )
    with torch.inference_mode():
        task.evaluate((numbered_pictures(3, channels), torch.tensor([0, 2, 1])))
        pictures = task.pictures()
    assert set(pictures) == {"confusion_matrix", "mistakes"}
    for picture in pictures.values():
        assert picture.shape[0] == 3 and picture.min() >= 0 and picture.max() <= 1


def test_without_mistakes_or_picture_inputs_there_is_the_confusion_matrix_alone():
    task = Classification(Given(torch.eye(3)), num_classes=3)
    task.evaluate((numbered_pictures(3), torch.arange(3)))
    assert set(task.pictures()) == {"confusion_matrix"}
    task.evaluate((numbered_pictures(3).flatten(1), torch.zeros(3, dtype=torch.int64)))
    assert set(task.pictures()) == {"confusion_matrix"}


def test_predictions_are_probabilities_and_need_no_targets():
    logits = torch.randn(4, 3)
    task = Classification(Given(logits), num_classes=3)
    x = numbered_pictures(4)
    torch.testing.assert_close(task.predict(x), logits.softmax(1))
    assert torch.equal(task.predict(x), task.predict((x, None)))


def test_probabilities_sum_to_one_under_autocast():
    task = Classification(nn.Linear(8, 300), num_classes=300)
    with torch.autocast("cpu", torch.bfloat16):
        probabilities = task.predict(torch.randn(4, 8))
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1, not 0"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), not 1.0"),
        ({"class_names": ("a",)}, r"class_names must name 3 classes \(num_classes\), not 1"),
    ],
)
def test_bad_argument_is_refused_with_its_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        Classification(nn.Identity(), **{"num_classes": 3, **arguments})


def test_model_with_another_number_of_classes_is_refused():
    task = Classification(nn.Linear(2, 4), num_classes=3)
    with pytest.raises(ValueError, match=r"num_classes is 3, .*\(batch, 3\), not \(5, 4\)"):
        task.predict(torch.zeros(5, 2))
