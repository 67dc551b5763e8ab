import pytest
import torch
from torch import nn
from torch.nn import functional as F

from faults.outcomes import only_run
from train import train
from zoo.app.main import main
from zoo.tasks.classification import Classification
from zoo.tasks.pseudo_label import PseudoLabel
from zoo.training.checkpoints.checkpoint import read


def batch():
    generator = torch.Generator().manual_seed(0)
    labelled, others = (torch.randn(count, 6, generator=generator) for count in (4, 20))
    return labelled, torch.arange(4) % 3, others


def task_of(**options):
    torch.manual_seed(1)
    return PseudoLabel(nn.Linear(6, 3), num_classes=3, **options)


def test_weight_rises_in_a_straight_line_between_two_updates():
    task = task_of(weight=3.0, begin=2, full=5)
    weights = []
    for _ in range(7):
        weights.append(task.present_weight())
        task.after_update("model")
    assert weights == pytest.approx([0, 0, 0, 1, 2, 3, 3])
    again = task_of(weight=3.0, begin=2, full=5)
    again.load_state_dict(task.state_dict())
    assert again.present_weight() == 3
    assert task_of(weight=2.0, begin=0, full=0).present_weight() == 2


def test_loss_is_that_of_labels_and_of_the_classes_chosen():
    task = task_of(weight=0.5, begin=0, full=0)
    x, y, others = batch()
    loss, count, terms = task.loss((x, y, others))
    logits = task.model(others)
    expected = F.cross_entropy(task.model(x), y), -logits.log_softmax(1).max(1).values.mean()
    torch.testing.assert_close(loss, expected[0] + 0.5 * expected[1])
    assert count == 4
    torch.testing.assert_close(
        [terms["label_loss"], terms["pseudo_label_loss"]], [part.detach() for part in expected]
    )
    # The gradient is that with the chosen classes as if they were labels.
    (ours,) = torch.autograd.grad(loss, [task.model.weight])
    fixed = expected[0] + 0.5 * F.cross_entropy(logits, logits.argmax(1))
    torch.testing.assert_close(ours, torch.autograd.grad(fixed, [task.model.weight])[0])


def test_before_the_others_count_it_is_a_classification_bit_for_bit():
    task = task_of(begin=10, full=20)
    plain = Classification(task.model, num_classes=3)
    assert torch.equal(task.loss(batch())[0], plain.loss(batch())[0])


def test_without_weight_a_run_is_the_one_on_the_labels_alone_bit_for_bit(tmp_path):
    words = ("experiment=pseudo_label_digits", "trainer.epochs=1", "logger=off")
    weights = []
    for number, more in enumerate((["task=classification"], ["task.weight=0"], ["task.begin=0"])):
        place = tmp_path / str(number)
        assert main(train, [*words, *more, f"paths.runs_dir={place}"]) == 0
        weights.append(read(only_run(place) / "checkpoints" / "last.pt")["model"])
    plain, without, used = weights
    assert all(torch.equal(plain[name], without[name]) for name in plain)
    assert not all(torch.equal(plain[name], used[name]) for name in plain)


def test_nonsense_is_refused():
    for options, message in (
        ({"weight": -1.0}, "weight must be at least 0, not -1.0"),
        ({"begin": 5, "full": 4}, r"begin must be from 0 to full \(4\), not 5"),
    ):
        with pytest.raises(ValueError, match=message):
            task_of(**options)
    with pytest.raises(ValueError, match=r"data\.labelled=100"):
        task_of().loss(batch()[:2])
