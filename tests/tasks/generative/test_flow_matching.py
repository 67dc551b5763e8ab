import copy

import pytest
import torch
from torch import nn

from tests.tasks.seen import images_of
from zoo.models.generative.diffusion import ddpm_digits
from zoo.models.generative.flow_matching import VelocityMLP
from zoo.tasks.generative.flow_matching import FlowMatching

MEAN, DEVIATION = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 0.2])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


class Exact(nn.Module):
    """The field that carries a standard normal distribution to another normal one."""

    def __init__(self):
        super().__init__()
        self.sample_shape = (2,)
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, x, times):
        # The mean of x1 - x0 given that (1 - t) x0 + t x1 is x: both are normal.
        t = times[:, None]
        gain = (t * DEVIATION**2 - (1 - t)) / (t**2 * DEVIATION**2 + (1 - t) ** 2)
        return MEAN + gain * (x - t * MEAN)


def energy_distance(a, b):
    """Szekely's: 2 E|a - b| - E|a - a'| - E|b - b'|, 0 where the distributions are equal."""

    def within(x):
        return torch.cdist(x, x).sum() / (len(x) * (len(x) - 1))

    return (2 * torch.cdist(a, b).mean() - within(a) - within(b)).item()


def target(count):
    return MEAN + DEVIATION * torch.randn(count, 2)


def test_training_is_the_papers_objective_written_by_hand_bit_for_bit():
    model = VelocityMLP(2, hidden_sizes=(16,))
    by_hand = copy.deepcopy(model)
    data = [target(32) for _ in range(20)]
    task = FlowMatching(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    torch.manual_seed(3)
    for batch in data:
        loss, count = task.loss((batch, None))
        assert count == 32
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    optimizer = torch.optim.Adam(by_hand.parameters(), lr=1e-2)
    torch.manual_seed(3)
    for x1 in data:
        t, x0 = torch.rand(32), torch.randn(32, 2)
        x = (1 - t[:, None]) * x0 + t[:, None] * x1
        loss = (by_hand(x, t) - (x1 - x0)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for ours, theirs in zip(model.parameters(), by_hand.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("sigma_min", [0.0, 0.1])
def test_velocity_is_the_slope_of_the_line_from_noise_to_the_sample(sigma_min):
    task = FlowMatching(Exact(), sigma_min=sigma_min)
    x0, x1 = torch.randn(2, 5, 2)
    begin, velocity = task.line(x0, x1, torch.zeros(5))
    end, same = task.line(x0, x1, torch.ones(5))
    assert torch.equal(velocity, same)
    torch.testing.assert_close(begin, x0)
    torch.testing.assert_close(end, x1 + sigma_min * x0)
    torch.testing.assert_close(velocity, end - begin)
    if not sigma_min:
        assert torch.equal(velocity, x1 - x0)


def test_exact_field_carries_every_point_to_its_quantile():
    task = FlowMatching(Exact(), method="midpoint", sampling_steps=400)
    x = task.draw_latents(500, torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = task.decode(x)
    torch.testing.assert_close(found, MEAN + DEVIATION * x, rtol=0, atol=2e-3)


def test_no_field_has_a_smaller_loss_than_the_exact_one():
    losses = []
    for shift in (0.0, 0.2):

        class Shifted(Exact):
            def forward(self, x, times, shift=shift):
                return super().forward(x, times) + shift

        task = FlowMatching(Shifted())
        torch.manual_seed(1)
        task.evaluate(target(20_000))
        losses.append(task.compute()["loss"])
    assert losses[1] - losses[0] == pytest.approx(0.2**2, abs=0.01)


@pytest.mark.slow
def test_learned_field_carries_one_normal_distribution_to_another_and_is_nearly_the_exact_one():
    task = FlowMatching(VelocityMLP(2, hidden_sizes=(64, 64)), method="midpoint", sampling_steps=20)
    optimizer = torch.optim.Adam(task.model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1500)
    for _ in range(1500):
        loss, _ = task.loss(target(256))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    real, fake, noise = target(2000), task.sample(2000).samples, torch.randn(2000, 2)
    assert energy_distance(noise, real) > 1
    assert energy_distance(fake, real) < 0.02
    times = torch.rand(2000)
    x, _ = task.line(noise, real, times)
    with torch.no_grad():
        apart = (task.model(x, times) - Exact()(x, times)).square().mean()
    assert apart < 0.05  # of velocities whose squares are 2.5 on average


def test_energy_distance_is_zero_of_a_distribution_to_itself():
    assert abs(energy_distance(target(2000), target(2000))) < 0.01


def test_evaluation_depends_on_the_random_state_alone():
    task = FlowMatching(Exact())
    values = []
    x1 = target(7)
    for seed in (5, 5, 6):
        task.reset()
        torch.manual_seed(seed)
        task.evaluate(x1)
        values.append(task.compute())
    assert values[0] == values[1] != values[2]
    assert task.directions() == {"loss": "min"}


def test_images_are_learned_and_drawn_by_the_network_of_diffusion():
    model = ddpm_digits(channels=(8, 8), num_classes=3, time_scale=1000.0)
    task = FlowMatching(model, sampling_steps=3, guidance=2.0)
    labels = torch.tensor([0, 1, 2, 0])
    loss, count = task.loss((torch.rand(4, 1, 8, 8), labels))
    assert loss.isfinite() and count == 4
    assert task.sample(5).samples.shape == (5, 1, 8, 8)
    assert set(images_of(task)) == {"samples", "from_noise"}
    assert [x.shape for x in task.example_inputs((torch.rand(4, 1, 8, 8), labels))] == [
        (4, 1, 8, 8),
        (4,),
        (4,),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigma_min": 1.0}, r"sigma_min must be in \[0, 1\), not 1.0"),
        ({"method": "heun"}, "method must be 'euler' or 'midpoint', not 'heun'"),
        ({"sampling_steps": 0}, "sampling_steps must be at least 1, not 0"),
    ],
)
def test_bad_argument_is_refused_with_its_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        FlowMatching(Exact(), **arguments)
