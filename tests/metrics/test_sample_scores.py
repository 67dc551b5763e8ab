import math

import pytest
import torch
from torch import nn

from zoo.metrics.frechet import FrechetDistance
from zoo.metrics.sample_quality import SampleQuality
from zoo.metrics.sample_scores import SampleScores


class Brightest(nn.Module):
    """Names the brightest of three pixels, the surer the brighter."""

    def forward_features(self, images):
        return images.flatten(1)

    def forward(self, images):
        return 10 * self.forward_features(images)


def images(count, seed=0):
    return torch.rand(count, 1, 1, 3, generator=torch.Generator().manual_seed(seed))


def scores(real, generated, asked=None, parts=1):
    found = SampleScores(Brightest(), lambda x: x)
    pieces = [real.chunk(parts), generated.chunk(parts)]
    labels = [None] * parts if asked is None else asked.chunk(parts)
    for batch in zip(*pieces, labels, strict=True):
        found.update(*batch)
    return found


def test_both_kinds_are_compared_with_the_same_real_images():
    real, generated = images(64), images(64, seed=1)
    found = scores(real, generated).compute()
    for prefix, other in (("", generated[:32]), ("real_", real[::2])):
        distance, quality = FrechetDistance(), SampleQuality()
        for metric in (distance, quality):
            metric.update(real[1::2].flatten(1), other.flatten(1))
        expected = {"feature_distance": distance.compute().item(), **quality.compute()}
        assert {n: found[prefix + n] for n in expected} == pytest.approx(expected)


def test_classes_are_counted():
    one = torch.tensor([1.0, 0, 0]).view(1, 1, 1, 3)
    unsure = torch.tensor([0.5, 0.45, 0]).view(1, 1, 1, 3)
    real = torch.eye(3).view(3, 1, 1, 3).repeat(20, 1, 1, 1)
    generated = torch.cat([one.repeat(45, 1, 1, 1), unsure.repeat(15, 1, 1, 1)])[
        torch.arange(60) // 2
    ]
    asked = torch.zeros(60, dtype=torch.long)
    asked[1::2] = 1
    found = scores(real, generated.contiguous(), asked).compute()
    assert found["recognised"] == 1 and found["real_recognised"] == 1
    assert found["class_divergence"] == pytest.approx(math.log(3))
    assert found["real_class_divergence"] == pytest.approx(0, abs=1e-6)
    assert found["class_agreement"] == pytest.approx(0.5)
    assert "real_class_agreement" not in found
    assert scores(real, unsure.repeat(60, 1, 1, 1)).compute()["recognised"] == 0


def test_parts_merge_and_are_forgotten():
    real, generated = images(40), images(40, seed=1)
    whole = scores(real, generated, parts=2)
    first, second = scores(real[:20], generated[:20]), scores(real[20:], generated[20:])
    first.merge(second)
    assert first.compute() == pytest.approx(whole.compute())
    first.reset()
    assert first.compute() == {}


def test_names_say_what_is_better():
    found = scores(images(40), images(40, seed=1), torch.zeros(40, dtype=torch.long))
    names = {name for name in found.compute() if not name.startswith("real_")}
    assert names == set(found.higher_is_better)


def test_the_classifier_is_frozen():
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(3, 2), nn.Dropout())
    SampleScores(classifier, lambda x: x)
    assert not classifier.training
    assert not any(p.requires_grad for p in classifier.parameters())
