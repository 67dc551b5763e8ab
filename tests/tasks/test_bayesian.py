"""Bayes by Backprop against the closed forms of linear regression, and what its parts say."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo.layers import bayesian
from zoo.layers.bayesian import BayesianLinear, total_kl
from zoo.models.bayesian import BayesianMLP
from zoo.models.mlp import MLP
from zoo.tasks.bayesian_classification import BayesianClassification
from zoo.tasks.bayesian_regression import BayesianRegression
from zoo.tasks.regression_losses import GaussianLoss

NOISE, PRIOR = 0.5, 0.8


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


class Noise:
    """Stands in for the normal numbers of a layer: points whose mean is 0 and covariance 1.

    With d weights these are the 2d points +-sqrt(d) along each of them, over which the mean of any
    quadratic function is its expectation, exactly.
    """

    def __init__(self, size):
        eye = math.sqrt(size) * torch.eye(size).double()
        self.points = torch.cat([eye, -eye])

    def losses(self, task, batch, monkeypatch):
        found = []
        for point in self.points:
            rest = [point]

            def part(like, rest=rest):
                here, rest[0] = rest[0].split([like.numel(), len(rest[0]) - like.numel()])
                return here.view_as(like)

            monkeypatch.setattr(bayesian.torch, "randn_like", part)
            found.append(task.loss(batch)[0])
        monkeypatch.undo()
        return torch.stack(found).mean()


def fitted(inputs, targets, monkeypatch):
    """Means and deviations of all weights where the expected loss of the task is least."""
    count, features = inputs.shape
    model = BayesianLinear(features, 1, prior_scale=PRIOR).double()
    task = BayesianRegression(model, train_samples=count, noise=NOISE)
    noise = Noise(features + 1)
    optimizer = torch.optim.LBFGS(
        model.parameters(),
        max_iter=500,
        tolerance_grad=1e-12,
        tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        loss = noise.losses(task, (inputs, targets), monkeypatch)
        loss.backward()
        return loss

    optimizer.step(closure)
    mean = torch.cat([model.weight_mean.flatten(), model.bias_mean]).detach()
    rho = torch.cat([model.weight_rho.flatten(), model.bias_rho]).detach()
    return mean, F.softplus(rho)


def posterior(inputs, targets):
    """Mean and precision of the weights, the bias last, given the data."""
    x = torch.cat([inputs, torch.ones(len(inputs), 1).double()], 1)
    precision = x.T @ x / NOISE**2 + torch.eye(x.size(1)).double() / PRIOR**2
    return torch.linalg.solve(precision, x.T @ targets[:, 0] / NOISE**2), precision


def test_orthogonal_inputs_have_the_exact_posterior(monkeypatch):
    x = torch.linalg.qr(torch.cat([torch.ones(12, 1), torch.randn(12, 3)], 1).double())[0][:, 1:]
    x = x * torch.tensor([3.0, 1.0, 2.0]).double()
    targets = x @ torch.tensor([[1.0], [-2.0], [0.5]]).double() + 0.3 + NOISE * torch.randn(12, 1)
    mean, deviation = fitted(x, targets, monkeypatch)
    expected, precision = posterior(x, targets)
    assert (precision - precision.diag().diag()).abs().max() < 1e-12
    torch.testing.assert_close(mean, expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(deviation.square(), precision.inverse().diag(), rtol=1e-5, atol=0)


def test_correlated_inputs_have_the_right_means_and_too_small_variances(monkeypatch):
    common = torch.randn(12, 1).double()
    x = common + 0.4 * torch.randn(12, 2).double()
    targets = x @ torch.tensor([[1.0], [-2.0]]).double() + NOISE * torch.randn(12, 1)
    mean, deviation = fitted(x, targets, monkeypatch)
    expected, precision = posterior(x, targets)
    torch.testing.assert_close(mean, expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(deviation.square(), 1 / precision.diag(), rtol=1e-5, atol=0)
    exact = precision.inverse().diag()
    assert (deviation.square()[:2] < 0.6 * exact[:2]).all()


def test_an_epoch_holds_the_divergence_once_whatever_the_batches_are():
    model = BayesianLinear(3, 2, initial_scale=1e-30).double()
    inputs, targets = torch.randn(10, 3).double(), torch.randn(10, 2).double()
    task = BayesianRegression(model, train_samples=10, noise=1.0)
    nll = GaussianLoss().each(torch.stack([model(inputs), torch.zeros(10, 2)], -1), targets)
    for sizes in ([10], [4, 4, 2], [1] * 10):
        total = 0.0
        for part in zip(inputs.split(sizes), targets.split(sizes), strict=True):
            loss, count, terms = task.loss(part)
            torch.testing.assert_close(loss, terms["nll"] + terms["kl"])
            total += loss * count
        torch.testing.assert_close(total, nll.sum() + total_kl(model))


def test_classifier_adds_the_divergence_of_one_sample():
    model = BayesianMLP(3, 4, hidden_sizes=(5,), initial_scale=1e-30)
    task = BayesianClassification(model, num_classes=4, train_samples=50)
    inputs, targets = torch.randn(8, 3), torch.arange(8) % 4
    loss, count, terms = task.loss((inputs, targets))
    expected = F.cross_entropy(model(inputs), targets) + total_kl(model) / 50
    torch.testing.assert_close(loss, expected)
    assert count == 8 and set(terms) == {"nll", "kl"}


def test_classifier_is_judged_and_predicts_by_the_mean_probabilities_of_its_draws():
    model = BayesianMLP(3, 4, hidden_sizes=(5,), initial_scale=0.8)
    task = BayesianClassification(model, num_classes=4, train_samples=50, samples=6)
    inputs, targets = torch.randn(8, 3), torch.arange(8) % 4
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = torch.stack([model(inputs).softmax(1) for _ in range(6)]).mean(0)
    model.eval()
    state = torch.get_rng_state()
    torch.testing.assert_close(task.predict(inputs).probabilities, expected)
    task.evaluate((inputs, targets))
    assert torch.equal(torch.get_rng_state(), state)
    assert task.compute()["loss"] == pytest.approx(F.nll_loss(expected.log(), targets).item())
    assert task.compute()["accuracy"] == (expected.argmax(1) == targets).float().mean()


@pytest.mark.parametrize("noise", [None, 0.6])
def test_regression_has_the_mean_and_the_variance_of_its_mixture(noise):
    numbers = 2 if noise is None else 1
    model = BayesianLinear(3, numbers, initial_scale=0.4).double()
    task = BayesianRegression(model, train_samples=50, noise=noise, samples=7)
    inputs, targets = torch.randn(8, 3).double(), torch.randn(8, 1).double()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        outputs = torch.stack([model(inputs) for _ in range(7)])
    means = outputs[..., 0]
    scales = outputs[..., 1].exp() if noise is None else torch.full_like(means, noise)
    mean = means.mean(0)
    variance = (scales.square() + means.square()).mean(0) - mean.square()
    model.eval()
    values, low, high = task.predict(inputs)
    torch.testing.assert_close(values, mean[:, None])
    torch.testing.assert_close(high - low, 2 * 1.6448536 * variance.sqrt()[:, None])
    task.evaluate((inputs, targets))
    expected = -torch.distributions.Normal(mean, variance.sqrt()).log_prob(targets[:, 0]).mean()
    assert task.compute()["loss"] == pytest.approx(expected.item())


def test_intervals_hold_what_they_should_on_data_with_known_noise(monkeypatch):
    x = torch.randn(400, 2).double()
    targets = x @ torch.tensor([[1.0], [-2.0]]).double() + NOISE * torch.randn(400, 1)
    mean, deviation = fitted(x[:30], targets[:30], monkeypatch)
    model = BayesianLinear(2, 1).double()
    with torch.no_grad():
        model.weight_mean.copy_(mean[None, :2])
        model.bias_mean.copy_(mean[2:])
        model.weight_rho.copy_(deviation[None, :2].expm1().log())
        model.bias_rho.copy_(deviation[2:].expm1().log())
    task = BayesianRegression(model.eval(), train_samples=30, noise=NOISE, samples=200)
    task.evaluate((x[30:], targets[30:]))
    assert task.compute()["coverage"] == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"train_samples": 0}, "train_samples must be at least 1, not 0"),
        ({"samples": 0}, "samples must be at least 1, not 0"),
        ({"noise": 0.0}, "noise must be greater than 0"),
    ],
)
def test_refused_arguments(arguments, said):
    with pytest.raises(ValueError, match=said):
        BayesianRegression(BayesianLinear(2, 1), **{"train_samples": 5} | arguments)


def test_a_model_of_certain_weights_is_refused():
    for model in (MLP(3, 4), nn.Linear(3, 4)):
        with pytest.raises(TypeError, match=r"has no layers of zoo/layers/bayesian\.py"):
            BayesianClassification(model, num_classes=4, train_samples=5)
