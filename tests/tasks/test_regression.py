import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo.tasks.regression import Regression
from zoo.training.optimizers import make_optimizer


def data(n=30, features=4, outputs=1):
    torch.manual_seed(0)
    x = torch.randn(n, features, dtype=torch.double)
    y = x @ torch.randn(features, outputs, dtype=torch.double) + 3
    return x, y + torch.randn(n, outputs, dtype=torch.double)


def test_loss_is_the_mean_over_samples_and_outputs():
    task = Regression(nn.Identity())
    x, y = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0.0, 2.0], [3.0, 1.0]])
    loss, count = task.loss((x, y))
    assert loss == (1 + 9) / 4 and count == 4


def test_metrics_over_uneven_batches_are_those_of_the_whole():
    x, y = data()
    model = nn.Linear(4, 1).double()
    task = Regression(model)
    for part in (slice(0, 20), slice(20, 30)):
        task.evaluate((x[part], y[part]))
    residuals = model(x) - y
    mse = residuals.square().mean().item()
    assert task.compute() == {
        "loss": pytest.approx(mse),
        "rmse": pytest.approx(math.sqrt(mse)),
        "mae": pytest.approx(residuals.abs().mean().item()),
        "bias": pytest.approx(residuals.mean().item()),
        "r2": pytest.approx(1 - mse / y.var(correction=0).item()),
    }
    assert (task.monitor, task.mode) == ("loss", "min")


def test_one_output_is_compared_with_its_own_target_and_not_with_all():
    x, y = data()
    task = Regression(nn.Linear(4, 1).double())
    assert torch.equal(task.loss((x, y.squeeze(1)))[0], task.loss((x, y))[0])
    with pytest.raises(ValueError, match=r"targets' shape \(30,\), not \(30, 2\)"):
        Regression(nn.Linear(4, 2).double()).loss((x, y.squeeze(1)))
    with pytest.raises(ValueError, match=r"targets' shape \(30, 1\), not \(30, 2\)"):
        Regression(nn.Linear(4, 2).double()).evaluate((x, y))


def test_vectors_are_compared_with_targets_of_more_dimensions_number_by_number():
    x, y = data(outputs=6)
    model = nn.Linear(4, 6).double()
    flat, folded = (Regression(model).loss((x, t)) for t in (y, y.unflatten(1, (3, 2))))
    assert torch.equal(flat[0], folded[0]) and flat[1] == folded[1] == 180
    model = nn.Linear(4, 12).double()
    tasks = [Regression(model, loss="gaussian_nll") for _ in range(2)]
    for task, targets in zip(tasks, (y, y.unflatten(1, (3, 2))), strict=True):
        task.evaluate((x, targets))
    assert tasks[0].compute() == tasks[1].compute()
    with pytest.raises(ValueError, match=r"targets' shape \(30, 2, 3\).* not \(30, 12\)"):
        Regression(model).loss((x, y.unflatten(1, (2, 3))))


@pytest.mark.parametrize("outputs", [1, 3])
def test_weight_decay_is_ridge_with_alpha_n_p_lambda_over_two(outputs):
    x, y = data(outputs=outputs)
    weight_decay = 0.2
    alpha = len(x) * outputs * weight_decay / 2
    model = nn.Linear(4, outputs).double()
    task = Regression(model)
    optimizer = torch.optim.SGD(
        [{"params": [model.weight], "weight_decay": weight_decay}, {"params": [model.bias]}],
        lr=0.2,
    )
    for _ in range(600):
        for objective in task.objectives((x, y)):
            optimizer.zero_grad()
            objective.loss.backward()
            optimizer.step()
    centred = x - x.mean(0)
    gram = centred.T @ centred + alpha * torch.eye(4, dtype=torch.double)
    closed = torch.linalg.solve(gram, centred.T @ y).T
    torch.testing.assert_close(model.weight.detach(), closed)

    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is missing")
    ridge = linear_model.Ridge(alpha=alpha).fit(x.numpy(), y.numpy())
    torch.testing.assert_close(model.weight.detach(), torch.tensor(ridge.coef_).view_as(closed))
    torch.testing.assert_close(model.bias.detach(), torch.tensor(ridge.intercept_))


def test_handful_of_samples_is_learned_by_heart():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 1))
    task = Regression(model)
    batch = (torch.randn(8, 3), torch.randn(8))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(400):
        for objective in task.objectives(batch):
            optimizer.zero_grad()
            objective.loss.backward()
            optimizer.step()
    task.evaluate(batch)
    assert task.compute()["loss"] < 1e-3 and task.compute()["r2"] > 0.999


def test_predictions_need_no_targets():
    model = nn.Linear(3, 1)
    x = torch.randn(2, 3)
    assert torch.equal(Regression(model).predict(x).values, model(x))


def four_points():
    """Numbers to compute by hand, and a line that begins at 5 x + 1."""
    line = nn.Linear(1, 1)
    with torch.no_grad():
        line.weight.fill_(5)
        line.bias.fill_(1)
    x, y = torch.tensor([1.0, 3, 6, 5])[:, None], torch.tensor([4.0, 8, 14, 13])[:, None]
    return line, Regression(line), (x, y)


def losses_of(rate, steps):
    """Of gradient descent on half the squared error; the half is not in the task's loss."""
    line, task, batch = four_points()
    optimizer = make_optimizer(torch.optim.SGD, line, lr=rate / 2)
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss, _ = task.loss(batch)
        loss.backward()
        found.append((loss.item() / 2, line.weight.item(), line.bias.item()))
        optimizer.step()
    return found


def test_gradient_descent_on_four_points_is_what_a_hand_computes():
    line, task, (x, y) = four_points()
    assert line(x).flatten().tolist() == [6, 16, 31, 26]
    assert (line(x) - y).flatten().tolist() == [2, 8, 17, 13]
    task.loss((x, y))[0].backward()
    assert (line.weight.grad.item() / 2, line.bias.grad.item() / 2) == (48.25, 10)
    losses, weights, biases = zip(*losses_of(0.01, 5), strict=True)
    assert losses == pytest.approx((65.75, 43.7215, 29.1076, 19.4127, 12.9808), abs=5e-5)
    assert (weights[1], biases[1]) == pytest.approx((4.5175, 0.9))
    least = torch.linalg.lstsq(torch.cat([x, torch.ones_like(x)], 1).double(), y.double())
    assert least.solution.flatten().tolist() == pytest.approx([123 / 59, 114 / 59])


def test_it_diverges_just_above_two_over_the_largest_curvature():
    below, above = (losses_of(rate, 3) for rate in (0.107, 0.11))
    assert [loss for loss, *_ in above] == pytest.approx([65.75, 71.17, 77.03], abs=0.005)
    assert below[0][0] > below[1][0] > below[2][0]


def test_weights_of_targets_weigh_tasks_that_share_a_model():
    x, y = torch.randn(9, 3), torch.randn(9, 2)
    model = nn.Linear(3, 2)

    def gradient(weights, targets=y):
        task = Regression(model, target_weights=weights)
        loss, count = task.loss((x, targets))
        assert count == 18
        return loss, torch.autograd.grad(loss, model.weight)[0]

    plain, equal = gradient(None), gradient((3.0, 3.0))
    for found, expected in zip(equal, plain, strict=True):
        torch.testing.assert_close(found, expected)
    # One weight alone is that task alone, whatever the other's targets are.
    alone, changed = gradient((1.0, 0.0)), gradient((1.0, 0.0), y + torch.tensor([0.0, 5.0]))
    single = F.mse_loss(model(x)[:, :1], y[:, :1])
    torch.testing.assert_close(alone[0], single)
    assert all(torch.equal(a, b) for a, b in zip(alone, changed, strict=True))
    weighed = (2 * F.mse_loss(model(x)[:, 0], y[:, 0]) + F.mse_loss(model(x)[:, 1], y[:, 1])) / 3
    torch.testing.assert_close(gradient((2.0, 1.0))[0], weighed)
    task = Regression(model, target_weights=(2.0, 1.0))
    task.evaluate((x, y))
    assert task.compute()["loss"] == pytest.approx(weighed.item())


@pytest.mark.parametrize("weights", [(0.0, 0.0), (-1.0, 1.0)])
def test_weights_of_targets_that_are_none_are_refused(weights):
    with pytest.raises(ValueError, match="target_weights must be numbers from 0 on"):
        Regression(nn.Linear(3, 2), target_weights=weights)
    with pytest.raises(ValueError, match="target_weights must be one for each target"):
        Regression(nn.Linear(3, 2), target_weights=(1.0,)).loss(
            (torch.ones(2, 3), torch.ones(2, 2))
        )
