"""Thresholds, costs and priors: against scikit-learn, by hand, and by worked numbers."""

import pytest
import torch
from sklearn import metrics as sklearn

from zoo.metrics.decisions import best_threshold, least_cost, threshold_metric, with_prior

SCORERS = {
    "accuracy": sklearn.accuracy_score,
    "balanced_accuracy": sklearn.balanced_accuracy_score,
    "f1": sklearn.f1_score,
    "f2": lambda y, p: sklearn.fbeta_score(y, p, beta=2),
    "f0.5": lambda y, p: sklearn.fbeta_score(y, p, beta=0.5),
}


def samples(count=200, ties=False):
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(count, generator=generator)
    targets = (torch.rand(count, generator=generator) < scores**3).long()
    return (10 * scores).round() / 10 if ties else scores, targets


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("name", SCORERS)
def test_no_threshold_is_better_than_the_one_found(name, ties):
    scores, targets = samples(ties=ties)
    threshold, value = best_threshold(scores, targets, threshold_metric(name))
    score = SCORERS[name]
    assert score(targets, scores >= threshold) == pytest.approx(value)
    # Some sample is called positive: with none, F is not even defined.
    tried = [score(targets, scores >= t) for t in scores.unique()]
    assert max(tried) == pytest.approx(value)


def test_recall_never_rises_with_the_threshold():
    scores, targets = samples()
    recalls = [
        sklearn.recall_score(targets, scores >= threshold) for threshold in torch.linspace(0, 1, 21)
    ]
    assert recalls == sorted(recalls, reverse=True) and recalls[0] > recalls[-1]


def test_a_thousandfold_cost_of_a_miss_decides_from_one_in_a_thousand_and_one():
    costs = torch.tensor([[0.0, 1], [1000, 0]], dtype=torch.float64)
    p = torch.tensor([1 / 1001 - 1e-6, 1 / 1001 + 1e-6], dtype=torch.float64)
    assert least_cost(torch.stack([1 - p, p], dim=1), costs).tolist() == [0, 1]


def test_equal_costs_of_mistakes_take_the_most_probable_class():
    p = torch.rand(50, 4, generator=torch.Generator().manual_seed(0)).softmax(1)
    assert torch.equal(least_cost(p, 1 - torch.eye(4)), p.argmax(1))


def test_trained_on_halves_and_used_at_one_in_a_hundred_the_threshold_is_99():
    half = torch.tensor([0.5, 0.5], dtype=torch.float64)
    prior = torch.tensor([0.99, 0.01], dtype=torch.float64)
    p = torch.tensor([0.99 - 1e-6, 0.99 + 1e-6], dtype=torch.float64)
    shifted = with_prior(torch.stack([1 - p, p], dim=1), half, prior)
    assert shifted.argmax(1).tolist() == [0, 1]
    torch.testing.assert_close(shifted.sum(1), torch.ones(2, dtype=torch.float64))


def test_shift_there_and_back_changes_nothing_and_is_bayes_theorem():
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(20, 3, generator=generator, dtype=torch.float64).softmax(1)
    first, second = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]], dtype=torch.float64)
    there = with_prior(p, first, second)
    torch.testing.assert_close(with_prior(there, second, first), p)
    likelihood = p / first  # up to a factor of each sample
    joint = likelihood * second
    torch.testing.assert_close(there, joint / joint.sum(1, keepdim=True))


@pytest.mark.parametrize("name", ["f", "f0", "recall", "F1", "f1.2.3"])
def test_unknown_metrics_are_refused(name):
    with pytest.raises(ValueError, match="metric must be accuracy, balanced_accuracy or f<beta>"):
        threshold_metric(name)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_has_no_threshold(label):
    with pytest.raises(ValueError, match="samples of both classes"):
        best_threshold(torch.rand(5), torch.full((5,), label), threshold_metric("f1"))
