"""Two halves of a data set, merged, are the whole: for every metric."""

import math

import pytest
import torch

from zoo.metrics.bleu import Bleu
from zoo.metrics.calibration import CalibrationError
from zoo.metrics.first_samples import FirstSamples
from zoo.metrics.frechet import FrechetDistance
from zoo.metrics.labels import LabelScores
from zoo.metrics.mistakes import ConfidentMistakes
from zoo.metrics.modes import ModeCoverage, ModeScores
from zoo.metrics.ordinal import OrdinalScores
from zoo.metrics.perplexity import Perplexity
from zoo.metrics.ranking import Ranking
from zoo.metrics.segmentation import SegmentationScores
from zoo.metrics.sums import R2, Accuracy, ConfusionMatrix, Intervals, Mean, Residuals
from zoo.tasks.sequence_classification import SequenceAccuracy

TEXTS = ["a dog runs fast today", "the man sleeps", "a man runs", "the dog sleeps", "so it is"]


def _scores(part):
    """Scores of three classes and targets of 12 samples, so many of which are a part."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(12, 3, generator=generator)
    targets = torch.randint(3, (12,), generator=generator)
    return scores[part], targets[part]


def _update(name, metric, part):
    scores, targets = _scores(part)
    if name in ("mean", "perplexity"):
        metric.update(torch.nn.functional.cross_entropy(scores, targets), len(targets))
    elif name == "intervals":
        metric.update(scores - 0.3, scores + targets.unsqueeze(1), scores.roll(1, 1))
    elif name in ("r2", "residuals"):
        metric.update(scores, scores.roll(1, 1) + 0.1 * targets.unsqueeze(1))
    elif name in ("labels", "ranking"):
        metric.update(scores > 0 if name == "labels" else scores, scores.roll(1, 1) > 0)
    elif name == "modes":
        metric.update(scores)
    elif name == "mode scores":
        metric.update(scores, scores.roll(1, 1) * 0.3)
    elif name == "frechet":
        metric.update(scores, 2 * scores.roll(1, 1) + 1)
    elif name == "mistakes":
        metric.update(scores.view(-1, 1, 1, 3).expand(-1, 1, 3, 3), scores, targets)
    elif name == "bleu":
        metric.update([TEXTS[t] for t in targets], [TEXTS[t + 2] for t in targets])
    elif name == "segmentation":
        metric.update(scores.argmax(1).view(-1, 1, 1), targets.view(-1, 1, 1))
    elif name == "samples":
        metric.update(scores.view(-1, 1, 1, 3), scores.view(-1, 1, 3), scores.view(-1, 1, 3))
    elif name == "sequence accuracy":
        metric.update(scores.view(-1, 1, 3).expand(-1, 2, 3), targets.view(-1, 1).expand(-1, 2))
    else:
        metric.update(scores, targets)


METRICS = {
    "mean": Mean,
    "perplexity": Perplexity,
    "accuracy": lambda: Accuracy(2),
    "calibration": CalibrationError,
    "confusion matrix": lambda: ConfusionMatrix(3),
    "ordinal": lambda: OrdinalScores(3),
    "labels": lambda: LabelScores(3),
    "ranking": Ranking,
    "sequence accuracy": SequenceAccuracy,
    "r2": R2,
    "residuals": Residuals,
    "intervals": Intervals,
    "frechet": FrechetDistance,
    "segmentation": lambda: SegmentationScores(3),
    "mistakes": lambda: ConfidentMistakes(4),
    "bleu": Bleu,
    "samples": lambda: FirstSamples(7),
    "modes": lambda: ModeCoverage(torch.eye(3), 0.5),
    "mode scores": lambda: ModeScores(torch.eye(3), 0.5),
}


def _assert_equal(found, expected):
    if isinstance(expected, dict):
        assert {name: float(v) for name, v in found.items()} == pytest.approx(
            {name: float(v) for name, v in expected.items()}, nan_ok=True
        )
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for pair in zip(found, expected, strict=True):
            _assert_equal(*pair)
    else:
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", METRICS)
def test_two_parts_merged_are_the_whole(name):
    whole, first, second, empty = (METRICS[name]() for _ in range(4))
    _update(name, whole, slice(0, 12))
    _update(name, first, slice(0, 5))
    _update(name, second, slice(5, 12))
    alone = first.compute()
    first.merge(empty)
    _assert_equal(first.compute(), alone)
    first.merge(second)
    _assert_equal(first.compute(), whole.compute())
    empty.merge(whole)
    _assert_equal(empty.compute(), whole.compute())
    first.reset()
    first.merge(whole)
    _assert_equal(first.compute(), whole.compute())


def test_perplexity_is_the_exponential_of_the_mean_and_may_be_infinite():
    metric = Perplexity()
    metric.update(torch.tensor(1.0), 3)
    metric.update(torch.tensor(2.0), 1)
    assert metric.compute() == pytest.approx({"loss": 1.25, "perplexity": math.exp(1.25)})
    metric.update(1e6)
    assert metric.compute()["perplexity"] == math.inf
