import math

import pytest
import torch

from zoo.data.tabular.rare_class import RareClass
from zoo.metrics.ranking import Ranking


def points(split, **options):
    data = RareClass(**options)
    data.setup()
    return [torch.cat(part) for part in zip(*data.batches(split, 0), strict=True)]


def test_one_point_in_a_hundred_is_rare_in_every_split():
    for split in ("train", "val", "test"):
        _, y = points(split)
        assert len(y) == 10_000 and y.sum() == 100


def test_the_best_score_has_the_stated_area():
    x, y = points("test", share=0.5, eval_samples=40_000, batch_size=40_000)
    metric = Ranking()
    metric.update(x[:, 0], y)
    area = 0.5 * (1 + math.erf(2 / math.sqrt(2) / math.sqrt(2)))
    assert metric.compute()["auc"].item() == pytest.approx(area, abs=0.005)
    other = Ranking()
    other.update(x[:, 1], y)
    assert other.compute()["auc"].item() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("balance", "count"), [("undersample", 40), ("oversample", 3_960)])
def test_classes_come_equally_often_in_training_and_as_they_are_elsewhere(balance, count):
    words = {"num_samples": 2_000, "balance": balance}
    _, y = points("train", **words)
    assert len(y) == count and y.sum() == count / 2
    _, y = points("val", **words)
    assert len(y) == 10_000 and y.sum() == 100


def test_resampling_keeps_the_number_of_samples():
    _, y = points("train", balance="resample")
    assert len(y) == 10_000 and y.double().mean().item() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0.0}, "share must be between 0 and 1"),
        ({"num_features": 0}, "num_features must be at least 1"),
        ({"distance": -1.0}, "distance must be at least 0"),
        ({"balance": "equal"}, "balance must be one of none, undersample"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RareClass(**options)
