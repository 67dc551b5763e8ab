import pytest
import torch

from zoo.data.tabular.noisy_curve import NoisyCurve, deviation, mean


def points(split="test", **options):
    module = NoisyCurve(**{"batch_size": 20_000, "eval_samples": 20_000} | options)
    module.setup()
    ((x, y),) = module.batches(split, 0)
    return x, y


@pytest.mark.parametrize(
    ("noise", "fourth"), [("normal", 3), ("laplace", 6)]
)  # moments of a variable of variance 1
def test_noise_has_the_stated_deviation_and_kind(noise, fourth):
    x, y = points(noise=noise)
    assert x.shape == y.shape == (20_000, 1) and x.min() >= 0 and x.max() < 1
    errors = (y - mean(x)) / deviation(x)
    assert errors.mean().abs() < 0.02
    assert errors.square().mean() == pytest.approx(1, abs=0.04)
    assert errors.pow(4).mean() == pytest.approx(fourth, rel=0.15)
    low, high = x < 0.1, x > 0.9
    spread = [(y - mean(x))[part].std().item() for part in (low, high)]
    assert spread == pytest.approx([0.12, 0.48], rel=0.1)


def test_points_are_a_function_of_their_own_seed():
    again = NoisyCurve(num_samples=10, batch_size=10)
    again.setup(seed=3)
    ((x, _),) = again.batches("train", 0)
    first, other = points("train", num_samples=10), points("train", num_samples=10, data_seed=1)
    assert sorted(x.flatten().tolist()) == sorted(first[0].flatten().tolist())
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": "cauchy"}, "noise must be normal or laplace, not 'cauchy'"),
        ({"num_samples": 0}, "num_samples must be at least 1, not 0"),
        ({"eval_samples": -1}, "eval_samples must be at least 1, not -1"),
    ],
)
def test_nonsense_is_refused_with_the_value(options, message):
    with pytest.raises(ValueError, match=message):
        NoisyCurve(**options)
