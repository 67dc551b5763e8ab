"""Adversarial training: beside plain training, and by hand."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo.inference.attacks import Attack, Pixels
from zoo.tasks.classification import Classification
from zoo.tasks.robust_classification import RobustClassification

PIXELS = {"pixel_mean": (0.4,), "pixel_std": (0.25,)}


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(),
        nn.Linear(4 * 36, 3),
    )  # fmt: skip


def batches(count=6):
    generator = torch.Generator().manual_seed(1)
    raw = torch.rand(count, 16, 1, 8, 8, generator=generator)
    classes = torch.arange(16) % 3
    raw[:, :, 0, 0, 0] = classes / 2
    return [((images - 0.4) / 0.25, classes) for images in raw]


def trained(task, steps=6):
    optimizer = torch.optim.SGD(task.model.parameters(), lr=0.05)
    torch.manual_seed(2)
    task.model.train()
    for batch in batches(steps):
        optimizer.zero_grad()
        task.loss(batch)[0].backward()
        optimizer.step()
    return task.model.state_dict()


def test_eps_0_is_plain_training_bit_for_bit():
    plain = trained(Classification(network(), num_classes=3))
    robust = trained(RobustClassification(network(), num_classes=3, eps=0.0, **PIXELS))
    other = trained(RobustClassification(network(), num_classes=3, eps=0.1, **PIXELS))
    assert all(torch.equal(plain[name], robust[name]) for name in plain)
    assert not torch.equal(plain["5.weight"], other["5.weight"])


def test_loss_is_that_of_the_attacked_images_in_training_mode():
    task = RobustClassification(network(), num_classes=3, attack="bim", eps=0.1, steps=3, **PIXELS)
    (batch,) = batches(1)
    model = copy.deepcopy(task.model).eval()
    attack = Attack("bim", 0.1, steps=3)
    images = attack(model, batch[0], batch[1], Pixels((0.4,), (0.25,)))
    torch.manual_seed(3)
    expected = F.cross_entropy(model.train()(images), batch[1])
    torch.manual_seed(3)
    loss, count = task.loss(batch)
    assert torch.equal(loss, expected) and count == 16
    assert task.model.training
    mine, theirs = task.model.state_dict(), model.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)  # batch norm saw one pass


def test_shares_of_classes_are_attacked_at_their_largest():
    ((images, classes),) = batches(1)
    losses = []
    for targets in (classes, F.one_hot(classes, 3).float()):
        task = RobustClassification(network(), num_classes=3, attack="fgsm", eps=0.1, **PIXELS)
        torch.manual_seed(3)
        losses.append(task.loss((images, targets))[0])
    torch.testing.assert_close(*losses)


def test_evaluation_judges_the_images_as_they_are_and_as_attacked():
    task = RobustClassification(network(), num_classes=3, attack="bim", eps=0.3, **PIXELS)
    plain, attacked = (Classification(task.model, num_classes=3) for _ in range(2))
    trained(plain)
    task.model.eval()
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    attack, pixels = Attack("bim", 0.3), Pixels((0.4,), (0.25,))
    for images, classes in batches():
        task.evaluate((images, classes))
        plain.evaluate((images, classes))
        attacked.evaluate((attack(task.model, images, classes, pixels), classes))
    values = task.compute()
    assert {name: values[name] for name in plain.compute()} == plain.compute()
    assert values["robust_accuracy"] == attacked.compute()["accuracy"] < values["accuracy"]
    assert (task.monitor, task.directions()["robust_accuracy"]) == ("robust_accuracy", "max")
    assert all(torch.equal(task.model.state_dict()[name], v) for name, v in before.items())


def test_attack_is_refused_as_everywhere():
    with pytest.raises(ValueError, match="eps must be between 0 and 1"):
        RobustClassification(network(), num_classes=3, eps=8.0, **PIXELS)
