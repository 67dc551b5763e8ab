import pytest
import torch

from zoo.inference.denoising import ancestral, ddim, evenly_spaced
from zoo.layers.noise_schedule import NoiseSchedule, linear_betas

SCHEDULE = NoiseSchedule(linear_betas(1000))


def last(states):
    *_, x = states
    return x


def of_normal_data(mean, deviation):
    """The best guess of data that are normal: their posterior mean."""

    def guess(x, t):
        share = SCHEDULE.share(t, x)
        gain = deviation**2 * share.sqrt() / (deviation**2 * share + 1 - share)
        return mean + gain * (x - share.sqrt() * mean)

    return guess


def test_steps_are_all_of_them_or_evenly_spaced():
    assert evenly_spaced(4, 4) == [4, 3, 2, 1, 0]
    assert evenly_spaced(1000, 4) == [1000, 750, 500, 250, 0]
    assert evenly_spaced(10, 3) == [10, 7, 3, 0]
    for count in (0, 11):
        with pytest.raises(ValueError, match=f"sampling_steps must be from 1 to 10, not {count}"):
            evenly_spaced(10, count)


def test_ddim_with_all_the_noise_is_ancestral_sampling():
    x, guess = torch.randn(3, 2, dtype=torch.double), of_normal_data(0.3, 0.5)
    steps = evenly_spaced(1000, 30)
    by_ddim = ddim(
        guess, x, SCHEDULE, steps=steps, eta=1.0, generator=torch.Generator().manual_seed(1)
    )
    by_posterior = ancestral(
        guess,
        x,
        SCHEDULE,
        steps=steps,
        variance="posterior",
        generator=torch.Generator().manual_seed(1),
    )
    for ours, theirs in zip(by_ddim, by_posterior, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_best_guess_of_normal_data_carries_noise_to_their_quantiles():
    """Without new noise the way is the probability flow, which keeps every point's quantile."""
    x = torch.linspace(-2, 2, 9, dtype=torch.double)[:, None]
    found = last(ddim(of_normal_data(0.4, 0.3), x, SCHEDULE, steps=evenly_spaced(1000, 1000)))
    torch.testing.assert_close(found, 0.4 + 0.3 * x, rtol=0, atol=0.01)


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_ancestral_samples_of_the_best_guess_have_the_datas_moments(variance):
    torch.manual_seed(0)
    noise = torch.randn(5_000, 1, dtype=torch.double)
    states = ancestral(
        of_normal_data(0.4, 0.3),
        noise,
        SCHEDULE,
        steps=evenly_spaced(1000, 500),
        variance=variance,
        generator=torch.Generator().manual_seed(1),
    )
    x = last(states)
    assert x.mean().item() == pytest.approx(0.4, abs=0.02)
    assert x.std().item() == pytest.approx(0.3, abs=0.01)


def test_known_data_are_reached_whatever_the_way():
    x0 = torch.randn(4, 3, dtype=torch.double)
    options = {"steps": evenly_spaced(1000, 7), "generator": torch.Generator().manual_seed(0)}
    ways = [
        ddim(lambda x, t: x0, torch.randn_like(x0), SCHEDULE, eta=0.5, **options),
        ancestral(lambda x, t: x0, torch.randn_like(x0), SCHEDULE, variance="beta", **options),
    ]
    for states in ways:
        torch.testing.assert_close(last(states), x0)


def test_noise_without_a_generator_is_refused():
    with pytest.raises(ValueError, match=r"eta=0\.5 needs a generator"):
        last(ddim(lambda x, t: x, torch.zeros(1, 1), SCHEDULE, steps=[1000, 500, 0], eta=0.5))
