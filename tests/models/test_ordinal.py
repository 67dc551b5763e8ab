"""The proportional odds model: by its definition, by logistic regression, and by its fit."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score, mean_absolute_error
from torch.nn import functional as F

from zoo.metrics.ordinal import OrdinalScores
from zoo.models.ordinal import OrdinalRegression
from zoo.tasks.classification import Classification


def samples(count=300, classes=4):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    noise = torch.rand(count, generator=generator, dtype=torch.float64).logit()
    scale = x @ torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64) + noise
    cuts = torch.tensor([-1.5, 0.0, 2.0], dtype=torch.float64)[: classes - 1]
    return x, torch.bucketize(scale, cuts)


def fitted(x, y, classes):
    model = OrdinalRegression(3, classes).double()
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    optimizer.step(closure)
    return model


def test_output_is_the_definition_and_sums_to_one():
    model = OrdinalRegression(3, 5).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64))
    x = torch.randn(7, 3, dtype=torch.float64)
    below = (model.thresholds - model.linear(x)).sigmoid()
    zero, one = torch.zeros(7, 1).double(), torch.ones(7, 1).double()
    expected = torch.cat([zero, below, one], dim=1).diff(dim=1)
    torch.testing.assert_close(model(x).exp(), expected)
    torch.testing.assert_close(model(x).log_softmax(1), model(x))


def test_far_from_all_thresholds_nothing_is_infinite():
    model = OrdinalRegression(1, 4)
    torch.nn.init.constant_(model.linear.weight, 1.0)
    x = torch.tensor([[-200.0], [200.0]])
    loss = F.cross_entropy(model(x), torch.tensor([2, 1]))
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in model.parameters())


def test_every_class_has_an_equal_share_at_the_start():
    torch.testing.assert_close(
        OrdinalRegression(2, 5)(torch.randn(3, 2)).exp(), torch.full((3, 5), 0.2)
    )


def test_two_classes_are_logistic_regression():
    x, y = samples(classes=2)
    model = fitted(x, y, 2)
    twin = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1_000).fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(model.linear.weight.detach().numpy(), twin.coef_, rtol=1e-4)
    np.testing.assert_allclose(-model.first.detach().numpy(), twin.intercept_, rtol=1e-4)


def test_fit_is_the_maximum_that_another_optimizer_finds():
    x, y = samples()
    model = fitted(x, y, 4)
    table, classes = x.numpy(), y.numpy()

    def negative_log_likelihood(p):
        cuts = np.concatenate([[-np.inf], np.sort(p[3:]), [np.inf]])
        scale = table @ p[:3]
        upper, lower = cuts[classes + 1] - scale, cuts[classes] - scale
        return -np.log(1 / (1 + np.exp(-upper)) - 1 / (1 + np.exp(-lower))).mean()

    found = minimize(negative_log_likelihood, np.array([0, 0, 0, -1.0, 0, 1]), method="BFGS")
    assert F.cross_entropy(model(x), y).item() == pytest.approx(found.fun, rel=1e-6)
    np.testing.assert_allclose(model.linear.weight[0].detach().numpy(), found.x[:3], rtol=1e-2)


def test_scores_are_scikit_learns():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(60, 4, generator=generator)
    y = torch.randint(4, (60,), generator=generator)
    guesses = logits.argmax(1)
    task = Classification(torch.nn.Identity(), num_classes=4, ordinal=True)
    for part in (slice(0, 25), slice(25, 60)):
        task.evaluate((logits[part], y[part]))
    values = task.compute()
    assert values["class_mae"] == pytest.approx(mean_absolute_error(y, guesses))
    assert values["quadratic_kappa"] == pytest.approx(
        cohen_kappa_score(y, guesses, weights="quadratic")
    )
    assert task.directions()["class_mae"] == "min"
    assert "class_mae" not in Classification(torch.nn.Identity(), num_classes=4).compute()


def test_no_mistake_is_one():
    scores = OrdinalScores(3)
    scores.update(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2]))
    assert {name: float(v) for name, v in scores.compute().items()} == {
        "class_mae": 0,
        "quadratic_kappa": 1,
    }


def test_one_class_is_no_scale():
    with pytest.raises(ValueError, match="num_classes must be at least 2, not 1"):
        OrdinalRegression(3, 1)
