"""Attacks against closed forms: what a step does to a linear model is known."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo.data.images.base import Normalize
from zoo.inference.attacks import Attack, Pixels, margins

MEAN, STD = (0.4, 0.5, 0.3), (0.2, 0.25, 0.5)
PIXELS = Pixels(MEAN, STD)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def network():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 36, 4)
    ).eval()


def batch(dtype=torch.float32, count=16):
    """Images with black and white pixels among them, normalised as data modules do it."""
    raw = torch.rand(count, 3, 8, 8).mul(1.4).sub(0.2).clamp(0, 1)
    return Normalize(MEAN, STD, max_value=1.0)(raw).to(dtype), torch.arange(count) % 4


def as_pixels(x):
    return x.double() * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)


def test_margin_of_a_linear_model_falls_by_eps_times_the_sum_of_its_weights_sizes():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2)).double()
    pixels = Pixels([0.0] * 3, [1.0] * 3)
    images, classes = torch.rand(5, 3, 8, 8).double() * 0.5 + 0.25, torch.tensor([0, 1, 0, 1, 1])
    weights = model[1].weight[0] - model[1].weight[1]
    for kind in ("fgsm", "bim", "pgd"):
        attacked = Attack(kind, 0.1, steps=40)(model, images, classes, pixels)
        fall = margins(model(images), classes) - margins(model(attacked), classes)
        expected = (0.1 * weights.abs().sum()).expand(5)
        torch.testing.assert_close(fall, expected, rtol=1e-12, atol=0)


def test_margin_has_the_cross_entropys_directions_and_still_has_them_where_that_has_none():
    logits, classes = torch.randn(6, 5, dtype=torch.float64) * 3, torch.arange(6) % 5
    losses = F.cross_entropy(logits, classes, reduction="none")
    torch.testing.assert_close(losses, F.softplus(-margins(logits, classes)))
    model, (images, _) = network(), batch()
    with torch.no_grad():
        model[4].weight.mul_(1000)  # as sure as can be
    classes = model(images).argmax(1)
    x = images.clone().requires_grad_()
    F.cross_entropy(model(x), classes, reduction="sum").backward()
    assert (x.grad == 0).flatten(1).all(1).any()
    attacked = Attack("fgsm", 0.05)(model, images, classes, PIXELS)
    assert (attacked != images).flatten(1).any(1).all()
    assert (margins(model(attacked), classes) < margins(model(images), classes)).all()


def test_fgsm_follows_the_sign_of_the_cross_entropys_gradient():
    model, (images, classes) = network(), batch()
    x = images.clone().requires_grad_()
    F.cross_entropy(model(x), classes).backward()
    expected = images + 0.03 / torch.tensor(STD).view(3, 1, 1) * x.grad.sign()
    black, white = PIXELS(0, images), PIXELS(1, images)
    expected = expected.clamp(black, white)
    attacked = Attack("fgsm", 0.03)(model, images, classes, PIXELS)
    torch.testing.assert_close(attacked, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("goal", [None, "least_likely"])
@pytest.mark.parametrize("kind", ["fgsm", "bim", "pgd"])
def test_no_pixel_moves_further_than_eps_or_leaves_its_range(kind, goal):
    model, (images, classes) = network(), batch()
    attacked = Attack(kind, 0.1, steps=7, goal=goal)(model, images, classes, PIXELS)
    pixels, moved = as_pixels(attacked), as_pixels(attacked) - as_pixels(images)
    assert moved.abs().flatten(1).amax(1) == pytest.approx(0.1, abs=1e-6)
    assert pixels.min() > -1e-6 and pixels.max() < 1 + 1e-6
    assert attacked.dtype == images.dtype and not attacked.requires_grad


def test_bim_stays_at_eps_once_it_is_there():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2)).double()
    pixels = Pixels([0.0] * 3, [1.0] * 3)
    images, classes = torch.full((2, 3, 8, 8), 0.5).double(), torch.tensor([0, 1])
    for steps in (2, 5, 20):
        attack = Attack("bim", 0.1, steps=steps, step_size=0.05)
        moved = (attack(model, images, classes, pixels) - images).abs()
        torch.testing.assert_close(moved, torch.full_like(moved, 0.1), rtol=0, atol=1e-15)


def test_one_step_of_eps_from_the_image_is_fgsm_and_eps_0_the_image_bit_for_bit():
    model, (images, classes) = network(), batch()
    once = Attack("bim", 0.1, steps=1, step_size=0.1)(model, images, classes, PIXELS)
    assert torch.equal(once, Attack("fgsm", 0.1)(model, images, classes, PIXELS))
    state = torch.get_rng_state()
    for kind in ("fgsm", "bim", "pgd"):
        attacked = Attack(kind, 0.0)(model, images, classes, PIXELS)
        assert torch.equal(attacked, images)
    assert torch.equal(torch.get_rng_state(), state)


def test_attack_with_a_goal_makes_the_least_likely_class_likelier():
    model, (images, classes) = network(), batch()
    least = model(images).argmin(1)
    attacked = Attack("bim", 0.05, goal="least_likely")(model, images, classes, PIXELS)
    assert (margins(model(attacked), least) > margins(model(images), least) + 0.1).all()


def test_start_of_pgd_is_drawn_within_eps():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2)).double()
    with torch.no_grad():
        flat[1].weight.zero_()  # a slope of 0: the start is all there is
    images, classes = batch(torch.float64)
    classes = classes % 2

    def start(seed):
        torch.manual_seed(seed)
        return Attack("pgd", 0.2)(flat, images, classes, PIXELS)

    assert torch.equal(start(1), start(1)) and not torch.equal(start(1), start(2))
    moved = as_pixels(start(1)) - as_pixels(images)
    assert 0.19 < moved.abs().max() <= 0.2 + 1e-6
    assert moved[as_pixels(images) < 1e-6].min() > -1e-6


def test_network_is_left_as_it_was():
    model, (images, classes) = network(), batch()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():  # as in every evaluation
        Attack("pgd", 0.1)(model, images, classes, PIXELS)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"kind": "cw"}, "attack must be one of fgsm, bim, pgd, not cw"),
        ({"eps": 8.0}, "eps must be between 0 and 1"),
        ({"eps": float("nan")}, "eps must be between 0 and 1"),
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"step_size": 0.0}, "step_size must be greater than 0"),
        ({"goal": "7"}, "target must be least_likely, not 7"),
    ],
)
def test_refused_arguments(arguments, said):
    with pytest.raises(ValueError, match=said):
        Attack(**{"kind": "pgd", "eps": 0.1} | arguments)
