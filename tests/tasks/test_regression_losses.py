"""Losses of a regression against textbooks, scikit-learn and the distributions of torch."""

import math

import pytest
import torch
from sklearn.linear_model import QuantileRegressor
from sklearn.metrics import mean_pinball_loss
from torch import distributions, nn

from zoo.tasks.regression import Regression
from zoo.tasks.regression_losses import regression_loss


def residuals(name, *values, dtype=torch.double, **options):
    output = torch.tensor(values, dtype=dtype)
    return regression_loss(name, **options).each(output, torch.zeros_like(output)).tolist()


def test_of_known_residuals():
    assert residuals("mse", -2, 3) == [4, 9]
    assert residuals("mae", -2, 3) == [2, 3]
    assert residuals("huber", 0.5, 1, 2, -3) == [0.125, 0.5, 1.5, 2.5]
    assert residuals("huber", 3, delta=2.0) == [4]
    assert residuals("log_cosh", 0.1, -10) == pytest.approx([0.00499169, 9.306852821], rel=1e-6)


def test_log_cosh_of_large_residuals_is_finite_in_single_precision():
    assert residuals("log_cosh", 100, 1e6, dtype=torch.float) == pytest.approx([99.30685, 1e6])


@pytest.mark.parametrize(("quantile", "over", "under"), [(0.25, 0.75, 0.25), (0.5, 0.5, 0.5)])
def test_a_quantile_asks_more_of_one_side_than_of_the_other(quantile, over, under):
    assert residuals("quantile", 1, -1, quantiles=(quantile,)) == [over, under]


def test_several_quantiles_are_the_mean_of_scikit_learns():
    torch.manual_seed(0)
    quantiles = (0.1, 0.5, 0.8)
    y, output = torch.randn(50).double(), torch.randn(50, 3).double()
    ours = regression_loss("quantile", quantiles=quantiles).each(output, y).mean()
    theirs = [mean_pinball_loss(y, output[:, i], alpha=q) for i, q in enumerate(quantiles)]
    assert ours.item() == pytest.approx(sum(theirs) / 3)


@pytest.mark.parametrize(
    ("name", "family"),
    [("gaussian_nll", distributions.Normal), ("laplace_nll", distributions.Laplace)],
)
def test_likelihoods_and_intervals_are_those_of_torchs_distributions(name, family):
    torch.manual_seed(0)
    y, output = torch.randn(20, 2).double(), torch.randn(20, 2, 2).double()
    loss, theirs = regression_loss(name, coverage=0.8), family(output[..., 0], output[..., 1].exp())
    torch.testing.assert_close(loss.each(output, y), -theirs.log_prob(y))
    low, high = loss.interval(output)
    torch.testing.assert_close(theirs.cdf(low), torch.full_like(low, 0.1))
    torch.testing.assert_close(theirs.cdf(high), torch.full_like(low, 0.9))
    assert torch.equal(loss.value(output), output[..., 0])


@pytest.mark.parametrize(
    ("name", "best"),
    [
        ("mse", lambda y: [y.mean()]),
        ("mae", lambda y: [y.median()]),
        ("quantile", lambda y: y.quantile(torch.tensor([0.05, 0.5, 0.95]).double())),
        ("gaussian_nll", lambda y: [y.mean(), y.std(correction=0).log()]),
        ("laplace_nll", lambda y: [y.median(), (y - y.median()).abs().mean().log()]),
    ],
)
def test_the_best_constant_is_what_the_table_says(name, best):
    torch.manual_seed(0)
    y = torch.randn(101).double().exp()  # skewed, so that mean and median differ
    loss = regression_loss(name)
    constant = torch.zeros(loss.outputs).double().requires_grad_()
    optimizer = torch.optim.LBFGS([constant], max_iter=500, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        output = constant.expand(len(y), -1)
        value = loss.each(output if loss.outputs > 1 else output.squeeze(1), y).mean()
        value.backward()
        return value

    for _ in range(20):
        optimizer.step(closure)
    found, expected = constant.detach(), torch.tensor([float(b) for b in best(y)]).double()
    spread = y.sort().values.diff().max()  # a quantile is anywhere between two of the values
    assert (found - expected).abs().max() < (1e-4 if name in ("mse", "gaussian_nll") else spread)


def test_a_linear_model_of_quantiles_reaches_the_objective_of_scikit_learns():
    torch.manual_seed(0)
    x = torch.rand(200, 2).double()
    y = x @ torch.tensor([1.0, -2.0]).double() + x[:, 0] * torch.randn(200).double()
    quantiles = (0.1, 0.5, 0.9)
    task = Regression(nn.Linear(2, 3).double(), loss="quantile", quantiles=quantiles)
    optimizer = torch.optim.Adam(task.model.parameters(), lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3_000)
    for _ in range(3_000):
        optimizer.zero_grad()
        task.loss((x, y))[0].backward()
        optimizer.step()
        schedule.step()
    theirs = [
        QuantileRegressor(quantile=q, alpha=0, solver="highs").fit(x, y).predict(x)
        for q in quantiles
    ]
    best = sum(mean_pinball_loss(y, f, alpha=q) for f, q in zip(theirs, quantiles, strict=True)) / 3
    ours = task.loss((x, y))[0].item()
    assert best <= ours < best * (1 + 1e-4)


def test_coverage_and_width_of_the_true_intervals():
    torch.manual_seed(0)
    scale = torch.rand(20_000) + 0.1
    y = scale * torch.randn(20_000)
    task = Regression(nn.Identity(), loss="gaussian_nll")
    task.evaluate((torch.stack([torch.zeros_like(scale), scale.log()], 1), y))
    found = task.compute()
    assert found["coverage"] == pytest.approx(0.9, abs=0.01)
    assert found["width"] == pytest.approx(2 * 1.6448536 * scale.mean().item(), rel=1e-5)
    assert found["rmse"] == pytest.approx(y.square().mean().sqrt().item(), rel=1e-5)
    assert "coverage" not in Regression(nn.Identity()).compute()


@pytest.mark.parametrize("targets", [(8,), (8, 1), (8, 2), (8, 5, 2)])
@pytest.mark.parametrize(("name", "numbers"), [("quantile", 3), ("laplace_nll", 2)])
def test_numbers_of_a_target_lie_side_by_side_or_in_a_dimension_of_their_own(
    name, numbers, targets
):
    torch.manual_seed(0)
    y = torch.randn(targets)
    apart = torch.randn(*targets, numbers)
    beside = apart if len(targets) == 1 else apart.flatten(-2)
    task = Regression(nn.Identity(), loss=name)
    assert torch.equal(task.loss((apart, y))[0], task.loss((beside, y))[0])
    predicted = task.predict((beside, y))
    low, high = task.criterion.interval(apart)
    shape = targets if len(targets) > 1 else (8, 1)
    assert torch.equal(predicted.low, low.view(shape))
    assert torch.equal(predicted.high, high.view(shape))
    assert torch.equal(predicted.values, task.criterion.value(apart).view(shape))


def test_too_few_outputs_are_refused_with_the_key_and_the_number():
    task = Regression(nn.Linear(4, 1), loss="quantile")
    with pytest.raises(ValueError, match=r"wants 3 numbers .* returns 1: give it 3 .*out_features"):
        task.loss((torch.randn(5, 4), torch.randn(5, 1)))
    with pytest.raises(ValueError, match=r"\(5, 2\) times 2 numbers of the loss, not \(5, 3, 2\)"):
        Regression(nn.Linear(4, 6), loss="gaussian_nll").loss(
            (torch.randn(5, 4), torch.randn(5, 2))
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "l2"}, "loss must be one of mse, mae, .*, not 'l2'"),
        ({"delta": 0.0}, "delta must be greater than 0, not 0.0"),
        ({"delta": math.nan}, "delta must be greater than 0, not nan"),
        ({"quantiles": (0.5, 0.1)}, r"quantiles must be rising .*, not \[0.5, 0.1\]"),
        ({"quantiles": ()}, "quantiles must be rising"),
        ({"quantiles": (0.5, 1.0)}, "quantiles must be rising numbers between 0 and 1"),
        ({"coverage": 1.0}, "coverage must be between 0 and 1, not 1.0"),
    ],
)
def test_nonsense_is_refused_with_the_value(options, message):
    with pytest.raises(ValueError, match=message):
        Regression(nn.Identity(), **options)
