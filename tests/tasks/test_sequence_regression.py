import pytest
import torch
from torch import nn

from tests.tasks.seen import images_of
from zoo.tasks.regression import Regression
from zoo.tasks.sequence_regression import SequenceRegression


class Echo(nn.Module):
    """Says the targets where it is told them, and otherwise always the same."""

    def __init__(self, constant=0.0):
        super().__init__()
        self.constant = nn.Parameter(torch.tensor(constant))

    def forward(self, inputs, lengths=None, targets=None):
        if targets is not None:
            return targets + self.constant
        return self.constant.expand(len(inputs), 6, 1)


def batch(samples=4):
    return torch.randn(samples, 3), torch.randn(samples, 6, 1)


def test_teacher_speaks_in_training_and_never_in_evaluation():
    inputs, targets = batch()
    task = SequenceRegression(Echo(0.5), teacher_forcing=True)
    loss, count = task.loss((inputs, targets))
    assert loss.item() == pytest.approx(0.25) and count == 24
    task.evaluate((inputs, targets))
    free = (targets - 0.5).square().mean().item()
    assert task.compute()["loss"] == pytest.approx(free)
    without = SequenceRegression(Echo(0.5))
    assert without.loss((inputs, targets))[0].item() == pytest.approx(free)


def test_metrics_are_those_of_regression():
    model = nn.Sequential(nn.Flatten(), nn.Linear(5, 2))
    tasks = Regression(model), SequenceRegression(model)
    for samples in (4, 3):
        pair = torch.randn(samples, 5, 1), torch.randn(samples, 2)
        for task in tasks:
            task.evaluate(pair)
    assert tasks[0].compute() == tasks[1].compute()


@pytest.mark.parametrize("shape", [(4, 50, 1), (4, 3)])
@pytest.mark.parametrize("time", [1, 6])
def test_image_shows_the_curves_of_the_last_evaluation(shape, time):
    class Zeros(nn.Module):
        def forward(self, inputs, lengths=None):
            return torch.zeros(len(inputs), time)

    task = SequenceRegression(Zeros(), num_curves=3)
    assert images_of(task) == {}
    inputs, targets = torch.randn(shape), torch.randn(4, time)
    task.evaluate((inputs, targets))
    task.evaluate((torch.randn(shape), torch.randn(4, time)))
    assert torch.equal(task.curves.targets, targets[:3])
    assert (task.curves.given is None) == (len(shape) == 2)
    (image,) = images_of(task).values()
    assert image.shape[0] == 3 and image.min() >= 0 and image.max() <= 1
    assert image.std() > 0
    task.reset()
    assert images_of(task) == {}


def test_no_curves_are_kept_where_none_are_wanted_or_there_is_one_number_a_sample():
    for task, targets in (
        (SequenceRegression(Echo(), num_curves=0), torch.randn(4, 6, 1)),
        (SequenceRegression(nn.Linear(3, 1)), torch.randn(4)),
    ):
        task.evaluate((torch.randn(4, 3), targets))
        assert images_of(task) == {}


def test_kept_curves_do_not_hold_on_to_their_batch():
    task = SequenceRegression(Echo(), num_curves=2)
    task.evaluate((torch.randn(500, 3), torch.randn(500, 6, 1)))
    assert task.curves.targets.untyped_storage().nbytes() == 2 * 6 * 4


def test_predictions_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"targets' shape \(4, 7\), not \(4, 6, 1\)"):
        SequenceRegression(Echo()).loss((torch.randn(4, 3), torch.randn(4, 7)))
    with pytest.raises(ValueError, match="num_curves must be at least 0, not -1"):
        SequenceRegression(Echo(), num_curves=-1)
