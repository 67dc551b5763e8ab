import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo.tasks.generative.adversarial_losses import LOSSES, gradient_penalty, pack


def test_an_undecided_discriminator_costs_what_theory_says():
    undecided = torch.zeros(7, dtype=torch.double)
    found = {
        name: (loss.discriminator(undecided, undecided).item(), loss.generator(undecided).item())
        for name, loss in LOSSES.items()
    }
    assert found == {
        "non_saturating": pytest.approx((2 * math.log(2), math.log(2))),
        "minimax": pytest.approx((2 * math.log(2), -math.log(2))),
        "least_squares": (0.5, 0.5),
        "hinge": (2.0, 0.0),
        "wasserstein": (0.0, 0.0),
    }


def test_losses_are_the_formulas_of_their_papers():
    torch.manual_seed(0)
    real, fake = torch.randn(2, 9, dtype=torch.double) * 2
    pairs = list(zip(real.tolist(), fake.tolist(), strict=True))
    count = len(pairs)
    expected = {
        "least_squares": sum((r - 1) ** 2 / 2 + f**2 / 2 for r, f in pairs) / count,
        "hinge": sum(max(0, 1 - r) + max(0, 1 + f) for r, f in pairs) / count,
        "wasserstein": sum(f - r for r, f in pairs) / count,
        "non_saturating": -sum(
            math.log(1 / (1 + math.exp(-r))) + math.log(1 - 1 / (1 + math.exp(-f)))
            for r, f in pairs
        )
        / count,
    }
    for name, value in expected.items():
        assert LOSSES[name].discriminator(real, fake).item() == pytest.approx(value), name
    generator = {
        "least_squares": sum((f - 1) ** 2 / 2 for _, f in pairs) / count,
        "hinge": -sum(f for _, f in pairs) / count,
        "wasserstein": -sum(f for _, f in pairs) / count,
    }
    for name, value in generator.items():
        assert LOSSES[name].generator(fake).item() == pytest.approx(value), name


@pytest.mark.parametrize("shape", [(2,), (1, 1, 2), (3, 4, 5)])
def test_penalty_of_a_linear_critic_is_the_square_of_its_norm_less_one(shape):
    weight = torch.zeros(math.prod(shape), dtype=torch.double)
    weight[0], weight[-1] = 3, 4  # a norm of 5, over whichever dimensions they lie
    real, fake = torch.randn(2, 6, *shape, dtype=torch.double)
    penalty = gradient_penalty(lambda x: x.flatten(1) @ weight, real, fake)
    assert penalty.item() == 16.0


def test_each_sample_lies_at_a_place_of_its_own_between_real_and_generated():
    seen = []

    def critic(x):
        seen.append(x.detach())
        return x.flatten(1).sum(1)

    gradient_penalty(critic, torch.zeros(50, 3, 2, 2), torch.ones(50, 3, 2, 2))
    (places,) = (x.flatten(1) for x in seen)
    assert torch.equal(places, places[:, :1].expand_as(places))
    assert len(places[:, 0].unique()) == 50
    assert places.min() >= 0 and places.max() <= 1


def test_gradient_of_the_penalty_is_the_numerical_one():
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    names = [name for name, _ in critic.named_parameters()]
    real, fake = torch.randn(2, 4, 3, dtype=torch.double)

    def penalty(*parameters):
        torch.manual_seed(1)
        state = dict(zip(names, parameters, strict=True))
        return gradient_penalty(
            lambda x: torch.func.functional_call(critic, state, (x,)), real, fake
        )

    assert torch.autograd.gradcheck(penalty, tuple(critic.parameters()))


def test_penalty_of_a_flat_critic_is_one_and_its_gradient_finite():
    weight = torch.zeros(2, requires_grad=True)
    penalty = gradient_penalty(lambda x: x @ weight, torch.randn(3, 2), torch.randn(3, 2))
    penalty.backward()
    assert penalty.item() == 1.0 and weight.grad.isfinite().all()


def test_packs_are_neighbours_joined_along_their_channels():
    points, images = torch.randn(7, 2), torch.randn(6, 3, 4, 4)
    packed = pack(points, 3)
    assert packed.shape == (2, 6)
    assert torch.equal(packed[1], torch.cat([points[3], points[4], points[5]]))
    assert torch.equal(pack(images, 2)[2], torch.cat([images[4], images[5]]))
    assert pack(points, 1) is points


def test_the_two_cross_entropies_are_those_of_torch():
    logits = torch.tensor([-200.0, 0.3, 200.0])
    criterion = nn.BCEWithLogitsLoss()
    expected = criterion(logits, torch.ones(3)) + criterion(logits, torch.zeros(3))
    assert torch.equal(LOSSES["non_saturating"].discriminator(logits, logits), expected)
    assert torch.equal(LOSSES["non_saturating"].generator(logits), F.softplus(-logits).mean())


@pytest.mark.parametrize(("loss", "slope"), [("minimax", 0.0066929), ("non_saturating", 0.9933071)])
def test_what_a_rejected_generator_learns_from(loss, slope):
    logits = torch.tensor([-5.0], requires_grad=True)
    LOSSES[loss].generator(logits).backward()
    assert -logits.grad.item() == pytest.approx(slope, abs=1e-7)
