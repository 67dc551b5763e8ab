"""Losses besides cross-entropy against the numbers of textbooks, scikit-learn and torch."""

import pytest
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import nn
from torch.nn import functional as F

from zoo.tasks.classification import Classification
from zoo.tasks.classification_losses import focal_loss, hinge_loss


def test_hinge_of_known_scores():
    scores = torch.tensor([[3.2, 5.1, -1.7], [0.0, 0.0, 0.0], [2.0, 1.0, 0.0]])
    assert hinge_loss(scores, torch.tensor([0, 2, 0])).tolist() == pytest.approx([2.9, 2, 0])
    # Margins of a binary problem, 2, 1, 0 and -2: the logit of the other class is 0.
    margins = torch.tensor([2.0, 1.0, 0.0, -2.0])
    scores = torch.stack([torch.zeros(4), margins], 1)
    ones = torch.ones(4, dtype=torch.long)
    assert hinge_loss(scores, ones).tolist() == [0, 0, 1, 3]
    assert hinge_loss(scores, ones, squared=True).tolist() == [0, 0, 1, 9]


@pytest.mark.parametrize("power", [1, 2])
def test_hinge_is_torchs_times_the_number_of_classes(power):
    torch.manual_seed(0)
    scores, targets = torch.randn(20, 5).double(), torch.randint(5, (20,))
    theirs = F.multi_margin_loss(scores, targets, p=power, reduction="none") * 5
    torch.testing.assert_close(hinge_loss(scores, targets, squared=power == 2), theirs)


def test_focal_loss_is_its_equation_and_without_gamma_cross_entropy():
    torch.manual_seed(0)
    scores, targets = torch.randn(20, 5).double(), torch.randint(5, (20,))
    p = scores.softmax(1)[torch.arange(20), targets]
    torch.testing.assert_close(focal_loss(scores, targets, 2.0), -((1 - p) ** 2) * p.log())
    torch.testing.assert_close(
        focal_loss(scores, targets, 0.0), F.cross_entropy(scores, targets, reduction="none")
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_loss_has_a_slope_where_it_is_quite_sure(gamma):
    scores = torch.tensor([[200.0, 0.0]], requires_grad=True)
    focal_loss(scores, torch.tensor([0]), gamma).sum().backward()
    assert scores.grad.isfinite().all() and scores.grad.abs().max() < 1e-6


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge", "focal"])
def test_a_class_weight_of_three_is_three_samples(loss):
    torch.manual_seed(0)
    scores, targets = torch.randn(6, 2), torch.tensor([0, 1, 0, 0, 1, 0])
    often = torch.cat([scores, scores[targets == 1].repeat(2, 1)])
    more = torch.cat([targets, torch.ones(4, dtype=torch.long)])
    weighted = Classification(nn.Identity(), num_classes=2, loss=loss, class_weights=(1.0, 3.0))
    plain = Classification(nn.Identity(), num_classes=2, loss=loss)
    expected, count = plain.loss((often, more))
    found, weight = weighted.loss((scores, targets))
    torch.testing.assert_close(found, expected)
    assert count == 10 and weight.item() == pytest.approx(10 / 2)  # weights have mean 1


def test_a_linear_model_reaches_the_objective_of_scikit_learns_support_vector_machine():
    r"""Of two logits, and weight decay on their difference."""
    features, labels = load_breast_cancer(return_X_y=True)
    x = torch.from_numpy(StandardScaler().fit_transform(features))
    x = torch.cat([x, torch.ones(len(x), 1)], 1)  # the intercept is penalised, as liblinear does
    y = torch.from_numpy(labels).long()
    cost = 0.01
    theirs = LinearSVC(C=cost, loss="squared_hinge", fit_intercept=False, tol=1e-8, max_iter=10**5)
    weights = torch.from_numpy(theirs.fit(x.numpy(), labels).coef_[0])

    def objective(w):
        scores = torch.stack([torch.zeros(len(x)).double(), x @ w], 1)
        task = Classification(nn.Identity(), num_classes=2, loss="squared_hinge")
        return 0.5 * w.square().sum() + cost * len(x) * task.loss((scores, y))[0]

    w = torch.zeros(x.size(1)).double().requires_grad_()
    optimizer = torch.optim.LBFGS([w], max_iter=500, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = objective(w)
        value.backward()
        return value

    for _ in range(5):
        optimizer.step(closure)
    assert objective(w).item() == pytest.approx(objective(weights).item(), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "svm"}, "loss must be one of cross_entropy, hinge, .*, not 'svm'"),
        ({"gamma": -1.0}, "gamma must be at least 0, not -1.0"),
        ({"loss": "hinge", "label_smoothing": 0.1}, "label_smoothing must be 0 with loss=hinge"),
    ],
)
def test_nonsense_is_refused_with_the_value(options, message):
    with pytest.raises(ValueError, match=message):
        Classification(nn.Identity(), num_classes=3, **options)


def test_mixed_images_have_no_hinge():
    task = Classification(nn.Identity(), num_classes=2, loss="hinge")
    with pytest.raises(ValueError, match=r"loss=hinge takes one class .* set loss=cross_entropy"):
        task.loss((torch.randn(4, 2), torch.rand(4, 2)))
