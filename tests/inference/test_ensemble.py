"""Ensembles: what must hold of any, and the numbers of independent and correlated errors."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional as F

from zoo.inference.ensemble import Ensemble, best_weights
from zoo.inference.stacking import Stacking
from zoo.metrics.ensembles import Disagreement, Spread

RULES = ("mean", "vote", "weighted")


def linear(count, outputs=4):
    torch.manual_seed(0)
    return [nn.Linear(3, outputs).double() for _ in range(count)]


def inputs(count=50):
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("copies", [1, 5])
def test_members_that_are_all_one_answer_as_that_one(rule, copies):
    (model,), x = linear(1), inputs()
    ensemble = Ensemble([model] * copies, rule=rule)
    expected, found = model(x), ensemble(x)
    assert torch.equal(found.argmax(1), expected.argmax(1))
    if rule != "vote":
        torch.testing.assert_close(found.softmax(1), expected.softmax(1))
        torch.testing.assert_close(found, expected.log_softmax(1))
    values = Ensemble([model] * copies, kind="values")(x)
    torch.testing.assert_close(values, expected, rtol=0 if copies == 1 else 1e-6, atol=1e-12)


def test_mean_is_the_mean_of_probabilities_and_weights_weigh_it():
    models, x = linear(3), inputs()
    p = torch.stack([model(x).softmax(1) for model in models])
    torch.testing.assert_close(Ensemble(models)(x).exp(), p.mean(0), rtol=1e-6, atol=0)
    weights = torch.tensor([0.5, 0.0, 0.5])
    found = Ensemble(models, rule="weighted", weights=weights)(x).exp()
    torch.testing.assert_close(found, (p[0] + p[2]) / 2)


def test_probabilities_that_underflow_keep_their_logarithms():
    fixed = [nn.Identity(), nn.Identity()]
    found = Ensemble(fixed)(torch.tensor([[0.0, -300.0]]))
    torch.testing.assert_close(found, torch.tensor([[0.0, -300.0]]))


def test_cross_entropy_of_the_mean_is_at_most_the_mean_cross_entropy():
    models, x = linear(6), inputs(200)
    y = torch.randint(4, (200,), generator=torch.Generator().manual_seed(2))
    each = [F.cross_entropy(model(x), y).item() for model in models]
    assert F.cross_entropy(Ensemble(models)(x), y) < sum(each) / 6


def test_squared_error_of_the_mean_is_the_mean_squared_error_minus_the_spread():
    models, x = linear(5, outputs=2), inputs()
    y = torch.randn(50, 2, generator=torch.Generator().manual_seed(3)).double()
    weights = torch.tensor([0.1, 0.2, 0.3, 0.15, 0.25], dtype=torch.float64)
    ensemble, spread = Ensemble(models, kind="values", weights=weights), Spread()
    error = F.mse_loss(ensemble(x), y)
    for part in ensemble.outputs.split(20, dim=1):
        spread.update(part, weights)
    each = torch.stack([F.mse_loss(model(x), y) for model in models])
    assert error.item() == pytest.approx((weights @ each - spread.compute()).item(), rel=1e-12)


@pytest.mark.parametrize(("correlation", "expected"), [(0.0, 1 / 5), (0.4, 0.52)])
def test_error_of_five_members_is_1_of_k_and_what_they_share(correlation, expected):
    torch.manual_seed(0)
    shared, own = torch.randn(200_000, 1), torch.randn(200_000, 5)
    errors = correlation**0.5 * shared + (1 - correlation) ** 0.5 * own
    members = [_Column(number) for number in range(5)]
    found = Ensemble(members, kind="values")(errors).square().mean() / errors.square().mean()
    assert found.item() == pytest.approx(expected, abs=0.005)


class _Column(nn.Module):
    def __init__(self, number):
        super().__init__()
        self.number = number

    def forward(self, x):
        return x[..., self.number]


def test_vote_is_for_the_most_votes_and_of_equally_many_for_the_larger_mean():
    # Two of three say 0 hardly, one says 1 firmly: the vote is 0, the mean is 1.
    outputs = torch.tensor([[[0.1, 0.0, -9]], [[0.1, 0.0, -9]], [[-9, 9.0, -9]]])
    members = [_Column(number) for number in range(3)]
    x = outputs.permute(1, 2, 0)
    vote, mean = (Ensemble(members, rule=rule)(x) for rule in ("vote", "mean"))
    assert (vote.argmax(1).item(), mean.argmax(1).item()) == (0, 1)
    pair = Ensemble(members[1:], rule="vote")(x)  # one vote each
    assert pair.argmax(1).item() == 1
    assert vote.exp().sum().item() == pytest.approx(1)


def test_best_weights_are_those_that_scipy_finds():
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(3, (400,), generator=generator)
    noise = torch.randn(4, 400, 3, generator=generator, dtype=torch.float64)
    signal = F.one_hot(targets, 3) * torch.tensor([0.2, 1.0, 1.5, -1.0]).view(4, 1, 1)
    outputs = noise + signal
    ensemble = Ensemble([nn.Identity()] * 4, rule="weighted")

    def loss(weights):
        return F.cross_entropy(ensemble.joined(outputs, weights), targets)

    found = best_weights(loss, 4)
    p = outputs.softmax(-1)[:, torch.arange(400), targets].numpy()
    theirs = minimize(
        lambda w: -np.log(w @ p).mean(),
        np.full(4, 0.25),
        bounds=[(0, 1)] * 4,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-12},
    )
    np.testing.assert_allclose(found.numpy(), theirs.x, atol=2e-3)
    assert loss(found).item() <= theirs.fun + 1e-8
    assert found[3] < 1e-3 and found.sum().item() == pytest.approx(1)


def test_disagreement_is_the_share_of_pairs_that_differ():
    votes = torch.tensor(
        [[0, 0, 1], [0, 1, 1], [0, 2, 1], [0, 2, 0]]
    )  # four members, three samples
    metric = Disagreement()
    metric.update(F.one_hot(votes, 3).float())
    pairs = [(votes[i] != votes[j]).double().mean() for i in range(4) for j in range(i + 1, 4)]
    assert metric.compute().item() == pytest.approx((sum(pairs) / 6).item())
    metric.reset()
    metric.update(F.one_hot(votes, 3).float(), torch.tensor([True, False, False]))
    assert metric.compute() == 0
    metric.reset()
    metric.update(F.one_hot(votes[:1], 3).float())
    assert metric.compute() == 0


def test_what_makes_no_ensemble_is_refused():
    with pytest.raises(ValueError, match="at least one model"):
        Ensemble([])
    with pytest.raises(
        ValueError, match="rule must be one of mean, vote, weighted, stacking, not 'max'"
    ):
        Ensemble(linear(2), rule="max")
    with pytest.raises(ValueError, match="weights must be 2 numbers from 0 on with sum 1"):
        Ensemble(linear(2), weights=torch.tensor([0.5, 0.6]))
    with pytest.raises(ValueError, match=r"one shape, not \(50, 4\), \(50, 2\)"):
        Ensemble([*linear(1), *linear(1, outputs=2)])(inputs())


def test_normal_members_have_the_moments_of_their_mixture():
    models, x = linear(3, outputs=4), inputs(6)
    weights = torch.tensor([0.5, 0.3, 0.2]).double()
    found = Ensemble(models, rule="weighted", kind="normals", weights=weights)(x)
    outputs = torch.stack([model(x) for model in models])
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(weights),
        torch.distributions.Normal(  # (batch, targets, members)
            outputs[..., 0::2].permute(1, 2, 0), outputs[..., 1::2].exp().permute(1, 2, 0)
        ),
    )
    torch.testing.assert_close(found[:, 0::2], mixture.mean)
    torch.testing.assert_close(found[:, 1::2].exp().square(), mixture.variance)
    alone = Ensemble(models[:1], kind="normals")(x)
    torch.testing.assert_close(alone, models[0](x))


def stacked(kind, classes=3, samples=300):
    """Outputs of three members, and targets."""
    generator = torch.Generator().manual_seed(4)
    targets = torch.randint(classes, (samples,), generator=generator)
    noise = torch.randn(3, samples, classes, generator=generator, dtype=torch.float64)
    if kind == "values":
        targets = torch.randn(samples, classes, generator=generator, dtype=torch.float64)
        return noise * 0.5 + targets * torch.tensor([1.0, -2.0, 0.1]).view(3, 1, 1), targets
    return 2 * noise + F.one_hot(targets, classes) * torch.tensor([1.0, 2, -3]).view(
        3, 1, 1
    ), targets


@pytest.mark.parametrize("classes", [2, 3])
def test_a_stack_of_classifiers_is_logistic_regression_on_their_log_probabilities(classes):
    outputs, targets = stacked("logits", classes)
    stack = Stacking(outputs, targets, kind="logits")
    matrix = np.hstack([F.log_softmax(member, 1).numpy() for member in outputs])
    theirs = LogisticRegression(tol=1e-10, max_iter=10_000).fit(matrix, targets.numpy())
    new, _ = stacked("logits", classes, samples=40)
    found = stack(new).softmax(1).numpy()
    rows = np.hstack([F.log_softmax(member, 1).numpy() for member in new])
    np.testing.assert_allclose(found, theirs.predict_proba(rows), atol=1e-4)
    # and its minimum, by the objective of the docstring, has no slope
    weight, bias = stack.weight.clone(), stack.bias.clone()
    weight.requires_grad_(), bias.requires_grad_()
    logits = torch.from_numpy(matrix) @ weight.T + bias
    (weight.square().sum() / 2 + F.cross_entropy(logits, targets, reduction="sum")).backward()
    slope = weight.grad if classes > 2 else weight.grad[1]
    assert slope.abs().max() < 1e-2 and bias.grad.abs().max() < 1e-2


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 2)])
def test_a_stack_of_regressions_is_ridge_regression_on_their_values(shape):
    generator = torch.Generator().manual_seed(5)
    outputs = torch.randn(3, 60, *shape, generator=generator)
    targets = outputs[0] - outputs[2] + 5
    stack = Stacking(outputs, targets, kind="values")
    found = stack(outputs)
    assert found.shape == targets.shape and found.dtype == torch.float32
    x = outputs.double().reshape(3, 60, -1).movedim(0, 1).flatten(1)
    x, y = x - x.mean(0), targets.double().reshape(60, -1)
    w = torch.linalg.solve(x.T @ x + torch.eye(x.size(1)), x.T @ (y - y.mean(0)))
    torch.testing.assert_close(found, (x @ w + y.mean(0)).reshape(targets.shape).float())


def test_a_stack_knows_whom_to_trust_in_what():
    """Of two members each knows one class from the rest, and neither the mean nor a vote does."""
    targets = torch.arange(3).repeat(100)
    outputs = torch.zeros(2, 300, 3)
    outputs[0, :, 0] = torch.where(targets == 0, 3.0, -3.0)
    outputs[1, :, 1] = torch.where(targets == 1, -3.0, 3.0)  # and wrong about it
    ensemble = Ensemble([nn.Identity()] * 2, rule="stacking")
    ensemble.stack = Stacking(outputs, targets, kind="logits")
    weights = ensemble.weights
    assert (ensemble.joined(outputs, weights).argmax(1) == targets).all()
    mean = Ensemble([nn.Identity()] * 2).joined(outputs, weights).argmax(1)
    assert (mean == targets).double().mean() < 0.7


def test_what_cannot_be_stacked_is_refused():
    outputs, targets = stacked("logits")
    with pytest.raises(ValueError, match="there is none of class 2"):
        Stacking(outputs[:, targets < 2], targets[targets < 2], kind="logits")
    with pytest.raises(ValueError, match="one value for each target"):
        Stacking(outputs, targets.double(), kind="values")
    with pytest.raises(ValueError, match="one value for each target"):
        Stacking(outputs, outputs[0], kind="normals")
    with pytest.raises(RuntimeError, match="set stack first"):
        Ensemble(linear(2), rule="stacking")(inputs())
