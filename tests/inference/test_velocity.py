import math

import pytest
import torch

from zoo.inference.velocity import integrate


def end(field, x, **options):
    *_, x = integrate(field, x, **options)
    return x


def growth(x, times):
    """dx/dt = x, which multiplies by e in a unit of time."""
    return x


def rotation(x, times):
    """A field that depends on time: dx/dt = 2 t J x, a turn by one radian in all."""
    return 2 * times[:, None] * torch.stack([-x[:, 1], x[:, 0]], dim=1)


@pytest.mark.parametrize("method", ["euler", "midpoint"])
def test_one_step_of_a_constant_field_is_exact(method):
    x = torch.randn(3, 2, dtype=torch.double)
    found = end(lambda x, t: torch.ones_like(x), x, steps=1, method=method)
    torch.testing.assert_close(found, x + 1)


def test_eulers_steps_are_compound_interest():
    x = torch.ones(1, 1, dtype=torch.double)
    for steps in (1, 4, 10):
        found = end(growth, x, steps=steps, method="euler").item()
        assert found == pytest.approx((1 + 1 / steps) ** steps)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2)])
def test_error_falls_with_the_order_of_the_method(method, order):
    x = torch.tensor([[1.0, 0.0]], dtype=torch.double)
    exact = torch.tensor([[math.cos(1), math.sin(1)]], dtype=torch.double)
    errors = [
        (end(rotation, x, steps=steps, method=method) - exact).norm().item() for steps in (40, 80)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)


def test_backwards_leads_back():
    x = torch.randn(5, 2, dtype=torch.double)
    there = end(rotation, x, steps=200, method="midpoint")
    back = end(rotation, there, steps=200, method="midpoint", backwards=True)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-5)


def test_no_step_is_refused():
    with pytest.raises(ValueError, match="sampling_steps must be at least 1, not 0"):
        end(growth, torch.ones(1, 1), steps=0, method="euler")
