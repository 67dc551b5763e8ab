"""Linear models of fixed features: random cosines and monomials."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import PolynomialFeatures

from zoo.models.kernel_machine import KernelMachine
from zoo.models.polynomial import PolynomialRegression


def test_inner_products_of_the_cosines_approach_the_kernel():
    torch.manual_seed(0)
    x = torch.randn(20, 5)
    expected = torch.from_numpy(rbf_kernel(x.numpy(), gamma=0.3))
    errors = []
    for number in (100, 10_000):
        features = KernelMachine(5, 1, num_features=number, gamma=0.3).forward_features(x)
        errors.append((features @ features.mT - expected).square().mean().sqrt().item())
    assert errors[1] < 0.02 and errors[1] < errors[0] / 5  # as 1 / sqrt(D)


def test_kernel_of_two_samples_at_a_distance_of_two():
    torch.manual_seed(0)
    machine = KernelMachine(2, 1, num_features=200_000, gamma=1.0)
    first, second = machine.forward_features(torch.tensor([[0.0, 0.0], [0.0, 2.0]]))
    assert (first @ second).item() == pytest.approx(math.exp(-4), abs=5e-3)
    assert (first @ first).item() == pytest.approx(1, abs=5e-3)


def test_random_features_are_no_parameters_and_are_kept():
    machine = KernelMachine(64, 10)
    assert sum(p.numel() for p in machine.parameters()) == 10_010
    other = KernelMachine(64, 10)
    assert not torch.equal(other.frequencies, machine.frequencies)
    other.load_state_dict(machine.state_dict())
    assert torch.equal(other.frequencies, machine.frequencies)


@pytest.mark.parametrize(("features", "degree"), [(1, 9), (3, 1), (3, 4), (10, 2)])
def test_monomials_are_scikit_learns(features, degree):
    x = torch.randn(6, features, dtype=torch.float64)
    model = PolynomialRegression(features, degree=degree).double()
    expected = PolynomialFeatures(degree, include_bias=False).fit_transform(x.numpy())
    np.testing.assert_allclose(model.forward_features(x).numpy(), expected)
    assert model.linear.in_features == expected.shape[1]


def test_degree_n_minus_one_goes_through_n_points():
    x = torch.linspace(-1, 1, 6, dtype=torch.float64).unsqueeze(1)
    y = torch.randn(6, 1, dtype=torch.float64)
    losses = []
    for degree in range(1, 6):
        model = PolynomialRegression(1, degree=degree).double()
        design = torch.cat([model.forward_features(x), torch.ones_like(x)], dim=1)
        found = torch.linalg.lstsq(design, y).solution
        with torch.no_grad():
            model.linear.weight.copy_(found[:-1].mT)
            model.linear.bias.copy_(found[-1])
        losses.append((model(x) - y).square().mean().item())
    assert losses == sorted(losses, reverse=True) and losses[-1] < 1e-20


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: KernelMachine(3, 2, gamma=0.0), "gamma must be greater than 0"),
        (lambda: KernelMachine(3, 2, num_features=0), "num_features must be at least 1"),
        (lambda: PolynomialRegression(3, degree=0), "degree must be at least 1"),
        (lambda: PolynomialRegression(784, degree=3), "lower degree"),
    ],
)
def test_wrong_arguments_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
