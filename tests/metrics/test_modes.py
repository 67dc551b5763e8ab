import math

import pytest
import torch

from zoo.metrics.modes import ModeCoverage, ModeScores

MODES = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 4.0]])


def of(samples, std=0.1):
    metric = ModeCoverage(MODES, std)
    metric.update(torch.as_tensor(samples))
    return {name: float(value) for name, value in metric.compute().items()}


def test_counts_by_hand():
    found = of([[0.0, 0.29], [0.0, 0.31], [4.0, 0.0], [3.0, 3.0]])
    # Near the first and second mode, near none twice; nearest to modes 0, 0, 1 and 3.
    assert found["modes_covered"] == 2 and found["high_quality"] == 0.5
    shares = (0.5, 0.25, 0.25)
    assert found["reverse_kl"] == pytest.approx(sum(p * math.log(4 * p) for p in shares))
    real = 1 - math.exp(-4.5)  # within three deviations in the plane
    expected = 2 * 0.25 * math.log(0.25 / (real / 4)) + 0.5 * math.log(0.5 / (1 - real))
    assert found["mode_divergence"] == pytest.approx(expected)


def test_one_mode_alone_has_the_largest_divergence_there_is():
    found = of([[4.0, 0.0]] * 5)
    assert found["reverse_kl"] == pytest.approx(math.log(4))
    assert found["modes_covered"] == 1 and found["high_quality"] == 1


def test_divergence_is_that_of_torch_distributions():
    torch.manual_seed(0)
    samples = MODES[torch.randint(3, (200,))] + 0.15 * torch.randn(200, 2)
    nearest = torch.cdist(samples, MODES).argmin(1)
    p = torch.distributions.Categorical(torch.bincount(nearest, minlength=4) / 200)
    q = torch.distributions.Categorical(torch.ones(4))
    expected = torch.distributions.kl_divergence(p, q).item()
    assert of(samples)["reverse_kl"] == pytest.approx(expected, abs=1e-4)


def test_samples_of_the_mixture_have_the_share_that_theory_says():
    generator = torch.Generator().manual_seed(0)
    modes = torch.randint(4, (50_000,), generator=generator)
    samples = MODES[modes] + 0.1 * torch.randn(50_000, 2, generator=generator)
    found = of(samples)
    assert found["high_quality"] == pytest.approx(1 - math.exp(-4.5), abs=0.002)
    assert found["mode_divergence"] < 1e-3


def test_none_at_all_is_not_a_number():
    assert all(
        math.isnan(value) for value in map(float, ModeCoverage(MODES, 1.0).compute().values())
    )


def test_scores_are_those_of_generated_and_of_real_samples_side_by_side():
    real, generated = MODES.repeat(5, 1) + 0.01, MODES[:2].repeat(10, 1)
    scores = ModeScores(MODES, 0.1)
    for part in (slice(0, 8), slice(8, 20)):
        scores.update(real[part], generated[part])
    found = {name: float(value) for name, value in scores.compute().items()}
    expected = of(generated) | {f"real_{name}": value for name, value in of(real).items()}
    assert found == expected and found["modes_covered"] == 2 and found["real_modes_covered"] == 4
    assert set(scores.higher_is_better) == set(of(real))
    assert scores.updates == 2
    scores.reset()
    assert scores.updates == 0 and math.isnan(scores.compute()["real_reverse_kl"])
