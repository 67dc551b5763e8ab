"""Distillation: the numbers of textbooks, the limits of alpha and temperature, and the teacher."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo.tasks.classification import Classification
from zoo.tasks.distillation import Distillation, distillation_loss


def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(20, 6, generator=generator), torch.arange(20) % 3


def student_of(teacher=None, **options):
    torch.manual_seed(1)
    task = Distillation(nn.Linear(6, 3), num_classes=3, **options)
    task.learn_from(teacher or nn.Linear(6, 3))
    return task


def gradient_of(task):
    task.model.zero_grad()
    task.loss(batch())[0].backward()
    return [p.grad.clone() for p in task.model.parameters()]


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        (1, [0.6652, 0.2447, 0.0900]),
        (2, [0.5065, 0.3072, 0.1863]),
        (5, [0.4018, 0.3289, 0.2693]),
    ],
)
def test_temperature_softens_what_the_teacher_answers(temperature, expected):
    teacher = torch.tensor([[2.0, 1.0, 0.0]])
    student = torch.zeros(1, 3, requires_grad=True)
    distillation_loss(student, teacher, temperature).backward()
    # d/dz of T^2 KL is T (p - q), and p is a third each.
    found = 1 / 3 - student.grad[0] / temperature
    assert found.tolist() == pytest.approx(expected, abs=5e-5)


def test_of_a_high_temperature_the_gradient_is_the_distance_of_the_logits():
    z, v = torch.tensor([[0.5, -0.5, 0.0]]), torch.tensor([[1.0, 0.0, -1.0]])  # of mean 0
    for temperature, most in ((50, 3e-3), (1000, 3e-4)):
        z.requires_grad_(True).grad = None
        distillation_loss(z, v, temperature).backward()
        assert (z.grad - (z.detach() - v) / 3).abs().max() < most


def test_loss_is_the_papers_cross_entropy_without_the_teachers_entropy():
    z, v = torch.randn(2, 7, 4).double()
    soft = F.cross_entropy(z / 4, (v / 4).softmax(1)) - F.cross_entropy(v / 4, (v / 4).softmax(1))
    torch.testing.assert_close(distillation_loss(z, v, 4.0), 16 * soft)


def test_without_the_teachers_share_it_is_a_classification_bit_for_bit():
    task = student_of(alpha=0.0)
    plain = Classification(task.model, num_classes=3)
    assert torch.equal(task.loss(batch())[0], plain.loss(batch())[0])
    ours = gradient_of(task)
    assert all(map(torch.equal, ours, gradient_of(plain)))
    assert gradient_of(student_of(alpha=0.1))[0].ne(ours[0]).any()


def test_a_student_that_answers_as_its_teacher_has_no_gradient():
    task = student_of(alpha=1.0)
    task.learn_from(copy.deepcopy(task.model))
    loss, count, terms = task.loss(batch())
    assert loss.item() == terms["teacher_loss"].item() == pytest.approx(0, abs=1e-6)
    assert count == 20
    assert all(gradient.abs().max() < 1e-6 for gradient in gradient_of(task))


def test_both_parts_are_mixed_and_shown():
    task = student_of(alpha=0.7)
    loss, _, terms = task.loss(batch())
    mixed = 0.3 * terms["label_loss"] + 0.7 * terms["teacher_loss"]
    torch.testing.assert_close(loss.detach(), mixed)


def test_teacher_is_evaluated_as_it_is_and_stays_so():
    teacher = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)).train()
    before = copy.deepcopy(teacher.state_dict())
    task = student_of(teacher)
    optimizer = torch.optim.SGD(task.model.parameters(), 0.1)
    losses = []
    for _ in range(3):
        loss = task.loss(batch())[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(task.loss(batch())[0].item())
    assert losses == sorted(losses, reverse=True)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert task.networks() == {"model": task.model} and task.state_dict() == {}
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_teacher_may_take_other_inputs():
    torch.manual_seed(0)
    teacher = nn.Linear(3, 3)
    task = student_of()
    task.learn_from(teacher, lambda x: x[:, :3] * 2)
    x, _ = batch()
    expected = distillation_loss(task.model(x), teacher(2 * x[:, :3]), 4.0)
    torch.testing.assert_close(task.loss(batch())[2]["teacher_loss"], expected.detach())


def test_nonsense_is_refused():
    for options, message in (
        ({"temperature": 0.0}, "temperature must be greater than 0, not 0.0"),
        ({"alpha": 1.5}, r"alpha must be in \[0, 1\], not 1.5"),
    ):
        with pytest.raises(ValueError, match=message):
            student_of(**options)
    with pytest.raises(ValueError, match="needs a teacher"):
        Distillation(nn.Linear(6, 3), num_classes=3).loss(batch())
    with pytest.raises(ValueError, match="the teacher must return 3 logits"):
        student_of(nn.Linear(6, 4)).loss(batch())
