"""Devices without float64: a tensor that says it lies on Apple's mps and refuses double precision.

Nobody here has such a device. What computes on it must ask for single precision or come back to the
CPU first; everything else about it these tests cannot know.
"""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from zoo.data.augmentation.base import RandomAffine
from zoo.data.augmentation.colour import ColorPCA, mean_grey, pixel_covariance
from zoo.data.augmentation.deformation import normal
from zoo.data.augmentation.erasing import RandomErasing
from zoo.data.augmentation.mixing import CutMix
from zoo.metrics.segmentation import SegmentationScores
from zoo.tasks.classification import Classification
from zoo.tasks.sequence_classification import SequenceClassification
from zoo.tasks.translation import Translation

MPS = torch.device("mps")


class Apple(Tensor):
    """A tensor of the CPU that says it is one of mps."""


class Machine(TorchFunctionMode):
    """Computes on the CPU what is asked for on mps, and refuses float64 as mps does."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        def is_on(place, value):
            return isinstance(value, torch.device) and value.type == place

        on_mps = []

        def on_the_cpu(value):
            if isinstance(value, Apple) or is_on("mps", value):
                on_mps.append(value)
                return torch.device("cpu") if is_on("mps", value) else value.as_subclass(Tensor)
            return value

        leaves_it = func is Tensor.cpu or any(is_on("cpu", value) for value in args)
        args, kwargs = tree_map(on_the_cpu, (args, kwargs or {}))
        if on_mps and func == Tensor.device.__get__:
            return MPS
        out = func(*args, **kwargs)
        return tree_map(moved, out) if on_mps and not leaves_it else out


def moved(value):
    if isinstance(value, Tensor) and value.dtype == torch.float64:
        raise RuntimeError("mps has no float64")  # Torch's TypeError an operator would swallow.
    return value.as_subclass(Apple) if isinstance(value, Tensor) else value


class Batch(NamedTuple):
    source: Tensor
    source_lengths: Tensor
    target: Tensor
    references: None = None


class Given(nn.Module):
    """Returns what it was made with, whatever it is given."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, *_):
        return self.logits


def test_the_machine_refuses_what_mps_refuses():
    with Machine():
        x = moved(torch.ones(3))
        assert x.device == MPS and (x + 1).device == MPS and x.cpu().device.type == "cpu"
        assert torch.zeros(2, device=x.device).device == MPS
        assert x.cpu().double().dtype == torch.float64
        for ask in (x.double, lambda: x.to(torch.float64), lambda: torch.ones(3).double() - x):
            with pytest.raises(RuntimeError, match="no float64"):
                ask()


def test_tasks_judge_without_float64():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 7, 3, generator=generator)
    targets = torch.randint(3, (5, 7), generator=generator)
    targets[:2] = logits[:2].argmax(-1)
    for kind, cut in ((SequenceClassification, slice(None)), (Classification, 0)):
        given, wanted = logits[:, cut], targets[:, cut]
        expected = kind(Given(given), num_classes=3)
        expected.evaluate((given, wanted))
        with Machine():
            task = kind(Given(moved(given)), num_classes=3).to("mps")
            task.confusion_matrix.to("mps")
            task.evaluate((moved(given), moved(wanted)))
            found = task.compute()
            table = task.show()
        assert found == pytest.approx(expected.compute(), rel=1e-6) and table
    assert expected.compute()["accuracy"] >= 0.4


class Written(Translation):
    """Finds what it is told to, in place of a search."""

    def search(self, source, source_lengths):
        return moved(torch.tensor([[5, 3], [5, 6]]))


def test_translations_are_judged_without_float64():
    target = torch.tensor([[2, 5, 3, 0], [2, 5, 3, 0]])
    logits = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0))
    with Machine():
        task = Written(Given(moved(logits))).to("mps")
        task.evaluate(Batch(*map(moved, (target, torch.tensor([4, 4]), target))))
        assert task.compute()["sequence_accuracy"] == 0.5


def test_scores_of_a_segmentation_need_none():
    with Machine():
        scores = SegmentationScores(2).to("mps")
        scores.update(moved(torch.tensor([0, 1, 1])), moved(torch.tensor([0, 1, 0])))
        assert scores.compute()["pixel_accuracy"].item() == pytest.approx(2 / 3)


def changes(images, draws):
    """What augmentations compute in double precision, where there is any."""
    small = draws[:, :8]
    yield RandomAffine(degrees=30, translate=0.1, scale=(0.8, 1.2), shear=10)(images, small[:, :5])
    yield RandomErasing(p=1.0, fill=0.0)(images, small[:, :6])
    yield CutMix(10)(images, small[:, : CutMix.num_draws])
    yield ColorPCA(pixel_covariance(images))(images, small[:, :3])
    yield mean_grey(images)
    yield normal(draws)


def test_augmentations_need_none():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (4, 3, 16, 16), generator=generator, dtype=torch.uint8)
    draws = torch.rand(4, 8, generator=generator)
    expected = list(changes(images, draws))
    with Machine():
        found = [x.cpu() for x in changes(moved(images), moved(draws))]
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x.float(), y.float(), rtol=1e-3, atol=1e-2)
