import math
from collections import Counter

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
    assert found["modes_covered"] == 1 and found["real_modes_covered"] == 3
    assert found["reverse_kl"] == pytest.approx(math.log(3))
    assert found["real_reverse_kl"] == pytest.approx(0, abs=1e-6)
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


def triples(count, seed):
    """Images of three rows of the classifier's, as three channels."""
    return torch.rand(count, 3, 1, 3, generator=torch.Generator().manual_seed(seed))


def rows_of(images):
    return images.flatten(0, 1).unsqueeze(1)  # (batch * channels, 1, height, width)


def test_an_image_of_several_parts_is_of_the_class_that_they_spell():
    real, generated = triples(400, 0), triples(400, 1)
    generated[:, 0, 0] = torch.tensor([0.9, 0.2, 0.1])  # always the first class
    found = SampleScores(Brightest(), rows_of)
    for batch in zip(real.split(64), generated.split(64), strict=True):
        found.update(*batch)
    values = found.compute()

    def named(images):
        return [tuple(part.flatten().argmax().item() for part in image) for image in images]

    ours = [x for batch in generated.split(64) for x in named(batch[: len(batch) // 2])]
    theirs = [x for batch in real.split(64) for x in named(batch[1::2])]
    counts, others = Counter(ours), Counter(theirs)
    assert values["modes_covered"] == len(counts) == 9
    shares = {key: count / len(ours) for key, count in counts.items()}
    reverse = sum(p * math.log(27 * p) for p in shares.values())
    divergence = sum(p * math.log(p * len(theirs) / others[key]) for key, p in shares.items())
    assert values["reverse_kl"] == pytest.approx(reverse)
    assert values["class_divergence"] == pytest.approx(divergence)
    assert values["real_modes_covered"] == 27 and values["real_reverse_kl"] < reverse
    confidence = torch.cat([batch[: len(batch) // 2] for batch in generated.split(64)])
    sure = (10 * confidence).softmax(3).amax(3).prod(1) > 0.9  # all three at once
    assert values["recognised"] == pytest.approx(sure.float().mean().item())


def test_features_of_the_parts_stand_side_by_side():
    real, generated = triples(64, 0), triples(64, 1)
    found = SampleScores(Brightest(), rows_of)
    found.update(real, generated)
    distance = FrechetDistance()
    distance.update(real[1::2].flatten(1), generated[:32].flatten(1))
    assert found.compute()["feature_distance"] == pytest.approx(distance.compute().item())


def test_asked_numbers_are_those_that_the_parts_spell():
    digits = torch.tensor([[0, 1, 2], [2, 0, 1], [1, 1, 0], [2, 2, 2]]).repeat(4, 1)
    images = torch.nn.functional.one_hot(digits, 3).float().unsqueeze(2)  # (16, 3, 1, 3)
    asked = (digits * torch.tensor([9, 3, 1])).sum(1)
    found = SampleScores(Brightest(), rows_of)
    found.update(images, images, asked)
    assert found.compute()["class_agreement"] == 1
    found.reset()
    found.update(images, images, asked.roll(1))
    assert found.compute()["class_agreement"] == 0
