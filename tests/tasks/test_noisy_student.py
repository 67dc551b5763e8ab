"""Noisy student: a teacher's answers to plain samples, learned under noise; and consistency."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo.data.images.digits import Digits
from zoo.tasks.classification import Classification
from zoo.tasks.consistency import Consistency
from zoo.tasks.noisy_student import NoisyStudent


def batch():
    generator = torch.Generator().manual_seed(0)
    x, others, plain = (torch.randn(count, 6, generator=generator) for count in (4, 20, 20))
    return x, torch.arange(4) % 3, others, plain


def network():
    return nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.5))


def student(**options):
    torch.manual_seed(1)
    task = NoisyStudent(network(), num_classes=3, **options)
    task.learn_from(network().train())
    return task


@pytest.mark.parametrize("soft", [True, False])
def test_teacher_answers_what_is_plain_without_noise_and_student_learns_it_under_noise(soft):
    task, (x, y, others, plain) = student(weight=2.0, soft=soft), batch()
    teacher = task._teacher
    torch.manual_seed(3)
    loss, count, terms = task.loss((x, y, others, plain))
    torch.manual_seed(3)  # the student's dropout, in the same order
    labels, answers = F.cross_entropy(task.model(x), y), task.model(others)
    q = teacher[0](plain).softmax(1)  # no dropout
    if not soft:
        q = F.one_hot(q.argmax(1), 3).float()
    taught = -(q * answers.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(loss, labels + 2 * taught)
    assert count == 4 and not teacher.training and task.model.training
    torch.testing.assert_close(terms["teacher_loss"], taught.detach())
    loss.backward()
    assert all(p.grad is None for p in teacher.parameters())


def test_without_weight_or_before_it_counts_it_is_a_classification_bit_for_bit():
    x, y, others, plain = batch()
    consistency = Consistency(network(), num_classes=3, weight=5.0, begin=3, full=4)
    for task in (student(weight=0.0), consistency):
        ours = Classification(task.model, num_classes=3)
        losses = []
        for one, given in ((task, (x, y, others, plain)), (ours, (x, y))):
            torch.manual_seed(2)
            losses.append(one.loss(given)[0])
        assert torch.equal(*losses)


def test_consistency_is_the_distance_of_two_noisy_answers():
    task = Consistency(network(), num_classes=3, weight=5.0, begin=0, full=0)
    x, y, others, plain = batch()
    torch.manual_seed(2)
    loss, _, terms = task.loss((x, y, others, plain))
    torch.manual_seed(2)
    labels = F.cross_entropy(task.model(x), y)
    p, q = task.model(others).softmax(1), task.model(plain).softmax(1)
    distance = (p - q).square().sum(1).mean() / 3
    torch.testing.assert_close(loss, labels + 5 * distance)
    torch.testing.assert_close(terms["consistency_loss"], distance.detach())
    # Without noise and augmentation there is nothing to be consistent about.
    task.model.eval()
    assert task.loss((x, y, others))[2]["consistency_loss"] == 0


def test_digits_come_augmented_and_plain():
    data = Digits(image_size=8, labelled=100, batch_size=50, augment=True)
    few = Digits(image_size=8, labelled=100, batch_size=50)
    for module in (data, few):
        module.setup(seed=1)
    for (x, y, others, plain), (_, same, unchanged) in zip(
        data.batches("train", 1, 3), few.batches("train", 1, 3), strict=True
    ):
        assert torch.equal(y, same) and torch.equal(plain, unchanged)
        assert others.shape == plain.shape and not torch.equal(others, plain)
        assert x.dtype == plain.dtype


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match=r"weight must be at least 0, not -1\.0"):
        student(weight=-1.0)
    with pytest.raises(ValueError, match=r"data\.labelled=100"):
        student().loss(batch()[:2])
    task = NoisyStudent(network(), num_classes=3)
    with pytest.raises(ValueError, match="NoisyStudent needs a teacher"):
        task.loss(batch())
