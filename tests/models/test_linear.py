import math

import pytest
import torch
import torch.nn.functional as F

from zoo.models.linear import LinearRegression, SoftmaxRegression


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_parameter_counts_are_the_docstrings():
    assert count(LinearRegression(10)) == 11
    assert count(SoftmaxRegression(784, 10)) == 7_850


def test_gradient_vanishes_at_the_closed_form_solution():
    torch.manual_seed(0)
    x, y = torch.randn(20, 3, dtype=torch.double), torch.randn(20, 2, dtype=torch.double)
    design = torch.cat([x, torch.ones(20, 1, dtype=torch.double)], dim=1)
    solution = torch.linalg.inv(design.T @ design) @ design.T @ y
    model = LinearRegression(3, 2).double()
    with torch.no_grad():
        model.linear.weight.copy_(solution[:3].T)
        model.linear.bias.copy_(solution[3])
    F.mse_loss(model(x), y).backward()
    assert all(p.grad.abs().max() < 1e-12 for p in model.parameters())


def test_gradient_descent_arrives_at_the_least_squares_solution():
    torch.manual_seed(0)
    x, y = torch.randn(30, 3, dtype=torch.double), torch.randn(30, 1, dtype=torch.double)
    model = LinearRegression(3).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(500):
        optimizer.zero_grad()
        F.mse_loss(model(x), y).backward()
        optimizer.step()
    design = torch.cat([x, torch.ones(30, 1, dtype=torch.double)], dim=1)
    solution = torch.linalg.lstsq(design, y).solution
    found = torch.cat([model.linear.weight[0], model.linear.bias])
    torch.testing.assert_close(found.detach(), solution[:, 0])


def test_softmax_regression_starts_undecided():
    model = SoftmaxRegression(8, 5)
    loss = F.cross_entropy(model(torch.randn(4, 8)), torch.tensor([0, 1, 2, 4]))
    assert loss.item() == pytest.approx(math.log(5), rel=1e-6)


def test_softmax_regression_cannot_learn_exclusive_or():
    x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    y = torch.tensor([0, 1, 1, 0])
    model = SoftmaxRegression(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for _ in range(300):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    assert loss.item() == pytest.approx(math.log(2), abs=1e-4)


def test_output_keeps_a_column_for_each_number_even_for_one():
    assert LinearRegression(6)(torch.zeros(4, 6)).shape == (4, 1)
    assert SoftmaxRegression(12, 3)(torch.zeros(4, 3, 2, 2)).shape == (4, 3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LinearRegression(0), "in_features must be at least 1, not 0"),
        (lambda: LinearRegression(3, 0), "out_features must be at least 1, not 0"),
        (lambda: SoftmaxRegression(3, -1), "num_classes must be at least 1, not -1"),
    ],
)
def test_sizes_below_one_are_refused_with_the_value(build, message):
    with pytest.raises(ValueError, match=message):
        build()
