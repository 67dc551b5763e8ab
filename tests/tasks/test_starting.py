"""The first answer of a classifier: by the shares that classes have in training."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.training.tiny import Samples
from zoo.models.linear import SoftmaxRegression
from zoo.tasks.binary_classification import BinaryClassification
from zoo.tasks.classification import Classification
from zoo.tasks.multi_label_classification import MultiLabelClassification
from zoo.training.optimizers import make_optimizer
from zoo.training.settings import TrainerSettings
from zoo.training.trainer import Trainer

CLASSES = torch.tensor([0] * 6 + [1] * 3 + [2])
BATCH = (torch.zeros(10, 4), CLASSES)


@pytest.mark.parametrize("weights", [None, "balanced", (1.0, 2.0, 6.0)])
def test_first_loss_is_the_least_that_one_answer_for_all_can_have(weights):
    task = Classification(
        SoftmaxRegression(4, 3), num_classes=3, class_weights=weights, balanced_start=True
    )
    task.prepare([BATCH])
    loss = task.loss(BATCH)[0]
    weigh = 1.0 if task.class_weights is None else task.class_weights[CLASSES]
    shares = torch.zeros(3).index_add(0, CLASSES, torch.ones(10) * weigh)
    shares = shares / shares.sum()
    torch.testing.assert_close(loss, -(shares * shares.log()).sum())
    torch.testing.assert_close(task.predict(BATCH).probabilities[0], shares)
    (gradient,) = torch.autograd.grad(loss, task.model.linear.bias)
    assert gradient.abs().max() < 1e-6  # no constant is better


@pytest.mark.parametrize("logits", [1, 2])
def test_two_classes_start_at_the_share_of_the_second(logits):
    model = SoftmaxRegression(4, logits)
    task = BinaryClassification(model, balanced_start=True)
    batch = (torch.zeros(10, 4), (CLASSES == 2).long())
    task.prepare([batch])
    assert task.predict(batch).probabilities[0, 1].item() == pytest.approx(0.1)
    weighed = BinaryClassification(model, balanced_start=True, pos_weight="balanced")
    weighed.prepare([batch])
    assert weighed.predict(batch).probabilities[0, 1].item() == pytest.approx(0.5)


def test_labels_start_at_their_shares():
    task = MultiLabelClassification(SoftmaxRegression(4, 3), num_classes=3, balanced_start=True)
    targets = F.one_hot(CLASSES, 3).float()
    task.prepare([(BATCH[0][:4], targets[:4]), (BATCH[0][4:], targets[4:])])
    found = task.predict(BATCH).probabilities[0]
    torch.testing.assert_close(found, torch.tensor([0.6, 0.3, 0.1]))


def test_a_class_that_is_not_there_has_a_finite_logit():
    task = Classification(SoftmaxRegression(4, 4), num_classes=4, balanced_start=True)
    task.prepare([BATCH])
    assert task.model.linear.bias.isfinite().all()
    assert task.model.linear.bias.argmin() == 3


def test_a_model_without_such_a_bias_is_refused():
    task = Classification(nn.Linear(4, 3, bias=False), num_classes=3, balanced_start=True)
    with pytest.raises(ValueError, match="balanced_start=true: Linear has no linear layer of 3"):
        task.prepare([BATCH])


def test_averaged_weights_start_there_too():
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    data = Samples().setup()
    model(next(iter(data.batches("train", 0)))[0])
    task = Classification(model, num_classes=3, balanced_start=True)
    settings = TrainerSettings(steps=1, epochs=None, device="cpu", ema_decay=0.9)
    optimizer = make_optimizer(torch.optim.SGD, model, lr=1e-12)
    trainer = Trainer(task, data, optimizer, settings=settings)
    trainer.fit()
    labels = torch.cat([y for _, y in data.batches("train", 0)])
    expected = (labels.bincount(minlength=3) / len(labels)).log()
    torch.testing.assert_close(model[1].bias.detach(), expected)
    mean = trainer.average.state_dict()["1.bias"]
    torch.testing.assert_close(mean, expected)
    assert math.isfinite(task.compute()["loss"])
