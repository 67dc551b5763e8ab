import pytest
import torch

from zoo.metrics.ranking import Ranking


def samples(kind, count=300):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(count, generator=generator)
    if kind == "ties":
        scores = (2 * scores).round()
    if kind == "equal":
        scores = torch.zeros(count)
    labels = (torch.rand(count, generator=generator) < torch.sigmoid(scores)).float()
    return scores, labels


@pytest.mark.parametrize("kind", ["different", "ties", "equal"])
def test_both_numbers_are_scikit_learns_whatever_the_batches(kind):
    sklearn = pytest.importorskip("sklearn.metrics")
    scores, labels = samples(kind)
    expected = {
        "auc": sklearn.roc_auc_score(labels, scores),
        "average_precision": sklearn.average_precision_score(labels, scores),
    }
    for size in (300, 7):
        metric = Ranking()
        for part in zip(scores.split(size), labels.split(size), strict=True):
            metric.update(*part)
        found = {name: value.item() for name, value in metric.compute().items()}
        assert found == pytest.approx(expected, abs=1e-12)


def test_two_halves_merged_are_the_whole_and_a_reset_forgets():
    scores, labels = samples("ties")
    whole, first, second = Ranking(), Ranking(), Ranking()
    whole.update(scores, labels)
    first.update(scores[:120], labels[:120])
    second.update(scores[120:], labels[120:])
    first.merge(second)
    assert first.compute() == whole.compute()
    first.reset()
    assert all(value.isnan() for value in first.compute().values())


def test_right_order_is_one_and_the_reverse_nothing():
    labels = torch.tensor([0.0, 0, 1, 1])
    for sign, area in ((1, 1.0), (-1, 0.0)):
        metric = Ranking()
        metric.update(sign * torch.arange(4.0), labels)
        assert metric.compute()["auc"] == area
    assert metric.compute()["average_precision"] == pytest.approx((1 / 3 + 2 / 4) / 2)
