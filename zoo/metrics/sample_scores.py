"""Generated images as a trained classifier sees them, and real ones beside them.

The Fréchet distance of features (Heusel et al., 2017, https://arxiv.org/abs/1706.08500), the scores
of :mod:`zoo.metrics.sample_quality`, and what the classifier recognises. Such figures compare with
others of the same classifier, the same images and the same number of samples alone: so each
stands beside that of real images in the place of generated ones, as many of them.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from zoo.metrics.frechet import FrechetDistance
from zoo.metrics.sample_quality import SampleQuality
from zoo.metrics.sums import SumMetric, zero

SURE = 0.9
"""A sample is recognised if the classifier gives a class a higher probability."""
REAL = "real_"
"""Begins the names of the figures of real images."""


class _Seen(NamedTuple):
    """What the classifier makes of images.

    Attributes:
        features: ``(batch, features)``.
        probabilities: of the classes, ``(batch, classes)``.
    """

    features: Tensor
    probabilities: Tensor


class _Scores(SumMetric):
    """The scores of one kind of images against the same real ones."""

    def __init__(self) -> None:
        super().__init__(
            count=zero(), sure=zero(), classes=zero(), real=zero(), asked=zero(), agreed=zero()
        )
        self.distance, self.quality = FrechetDistance(), SampleQuality()

    def update(self, real: _Seen, seen: _Seen, asked: Tensor | None = None) -> None:
        if not len(real.features):  # A batch of one image.
            return
        self.distance.update(real.features, seen.features)
        self.quality.update(real.features, seen.features)
        confidence, named = seen.probabilities.max(1)  # (batch,)
        size = seen.probabilities.size(1)
        self.add(
            count=len(named),
            sure=(confidence > SURE).sum(),
            classes=named.bincount(minlength=size),
            real=real.probabilities.argmax(1).bincount(minlength=size),
            asked=0 if asked is None else len(asked),
            agreed=0 if asked is None else (named == asked).sum(),
        )

    def compute(self) -> dict[str, float]:
        sums = {name: value.cpu() for name, value in self.sums.items()}
        if not sums["count"]:
            return {}
        scores = {
            "feature_distance": self.distance.compute().item(),
            **self.quality.compute(),
            "recognised": (sums["sure"] / sums["count"]).item(),
            "modes_covered": (sums["classes"] > 0).sum().item(),
            "reverse_kl": _divergence(sums["classes"], torch.ones_like(sums["classes"])),
            "class_divergence": _divergence(sums["classes"], sums["real"]),
        }
        if sums["asked"]:
            scores["class_agreement"] = (sums["agreed"] / sums["asked"]).item()
        return scores

    def merge(self, other: "SumMetric") -> None:
        assert isinstance(other, _Scores)
        super().merge(other)
        self.distance.merge(other.distance)
        self.quality.merge(other.quality)

    def reset(self) -> None:
        super().reset()
        self.distance.reset()
        self.quality.reset()

    def to(self, device: torch.device | str) -> Self:
        self.distance.to(device)
        self.quality.to(device)
        return super().to(device)


def _joint(probabilities: Tensor) -> Tensor:
    """Of all combinations of the classes of an image's parts, the last of which changes fastest.

    Shape:
        - probabilities: ``(batch, parts, classes)``
        - output: ``(batch, classes ** parts)``
    """
    joint, *others = probabilities.unbind(1)
    for part in others:
        joint = (joint.unsqueeze(2) * part.unsqueeze(1)).flatten(1)
    return joint


def _divergence(classes: Tensor, real: Tensor) -> float:
    """Of one distribution of counts from another, in nats; infinite where the other has none."""
    p, q = classes / classes.sum(), real / real.sum()
    return torch.where(p > 0, p * (p / q).log(), 0.0).sum().item()


class SampleScores:
    """Scores of generated images on the features of a classifier.

    Real images are divided in two: one half is what generated images are compared with, the other
    takes their place in the scores named ``real_...``.

    - ``feature_distance``: Fréchet distance of the features;
    - ``kernel_distance``, ``precision``, ``recall``, ``density``, ``coverage``: see
      :class:`~zoo.metrics.sample_quality.SampleQuality`;
    - ``recognised``: share of images in which the classifier is sure of a class;
    - ``modes_covered``: classes that it names at least once, and ``reverse_kl``: Kullback-Leibler
      divergence, in nats, of the classes that it names from equal shares, both as papers on mode
      collapse count them (Lin et al., 2018, https://arxiv.org/abs/1712.04086);
    - ``class_divergence``: Kullback-Leibler divergence, in nats, of the classes that it names from
      those that it names in the real images;
    - ``class_agreement``: how often it names the class that was asked for, where one was.

    If an image holds several of the classifier's, as the three digits of stacked MNIST, its
    features are theirs together, and its class is the number that theirs are the digits of.

    Args:
        classifier: has ``forward_features`` and gives logits; it is frozen.
        convert: makes of images as they are generated such as the classifier takes: as many, or,
            one after the other, several of each.

    Attributes:
        updates: batches since the last reset.

    Shape:
        - real, generated: ``(batch, channels, height, width)``
        - asked: ``(batch,)``
    """

    def __init__(self, classifier: nn.Module, convert: Callable[[Tensor], Tensor]) -> None:
        self.classifier = classifier.eval().requires_grad_(False)
        self.convert = convert
        self._scores = {"": _Scores(), REAL: _Scores()}
        self.updates = 0

    @property
    def higher_is_better(self) -> Mapping[str, bool]:
        directions = {
            "feature_distance": False,
            **SampleQuality.higher_is_better,
            "recognised": True,
            "modes_covered": True,
            "reverse_kl": False,
            "class_divergence": False,
            "class_agreement": True,
        }
        return directions  # Those of real images are nobody's aim.

    @torch.no_grad()
    def update(self, real: Tensor, generated: Tensor, asked: Tensor | None = None) -> None:
        self.updates += 1
        seen = self._seen(real)
        one, other = (_Seen(*(part[first::2] for part in seen)) for first in (0, 1))
        count = len(one.features)
        asked = None if asked is None else asked[:count]
        self._scores[REAL].update(other, one)
        self._scores[""].update(other, self._seen(generated[:count]), asked)

    def _seen(self, images: Tensor) -> "_Seen":
        x = self.convert(images)
        features = self.classifier.forward_features(x)  # type: ignore[operator]
        if features.ndim > 2:
            features = features.flatten(2).mean(2)  # (batch, features)
        probabilities = self.classifier(x).softmax(1)
        each = probabilities.unflatten(0, (len(images), -1))  # (batch, parts, classes)
        return _Seen(features.reshape(len(images), -1), _joint(each))

    def compute(self) -> dict[str, float]:
        return {
            prefix + name: value
            for prefix, scores in self._scores.items()
            for name, value in scores.compute().items()
        }

    def merge(self, other: "SampleScores") -> None:
        """Adds what another metric of the same kind has seen."""
        for prefix, scores in self._scores.items():
            scores.merge(other._scores[prefix])

    def reset(self) -> None:
        self.updates = 0
        for scores in self._scores.values():
            scores.reset()

    def to(self, device: torch.device | str) -> Self:
        self.classifier.to(device)
        for scores in self._scores.values():
            scores.to(device)
        return self
