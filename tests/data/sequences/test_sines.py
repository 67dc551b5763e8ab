import math

import pytest
import torch

from zoo.data.sequences.sines import NoisySine, SineSynthesis


def made(kind, *, seed=0, **arguments):
    module = kind(**{"num_samples": 300, "eval_samples": 50, **arguments})
    module.setup(seed=seed)
    return module


def everything(module, split, epoch=0):
    return tuple(torch.cat(part) for part in zip(*module.batches(split, epoch), strict=True))


def unexplained(waves, period):
    """What is left of each wave once a sine of the best of many periods is taken away."""
    steps = torch.arange(waves.size(1), dtype=torch.double)
    left = []
    for p in period:
        basis = torch.stack([(2 * math.pi * steps / p).sin(), (2 * math.pi * steps / p).cos()], 1)
        fit = torch.linalg.lstsq(basis, waves.double().T).solution
        left.append((waves.double().T - basis @ fit).square().mean(0))
    return torch.stack(left).amin(0)


def test_target_goes_on_with_the_very_sine_of_the_window():
    module = made(NoisySine, noise=0.0, num_samples=40)
    inputs, targets = everything(module, "train")
    assert inputs.shape == (40, 50, 1) and targets.shape == (40, 10)
    waves = torch.cat([inputs[..., 0], targets], dim=1)
    assert waves.abs().max() <= 1.5
    left = unexplained(waves, torch.linspace(10, 40, 1500).tolist())
    assert (left < 1e-3 * waves.var(1)).all()


def test_noise_has_the_stated_deviation_in_the_window_and_in_the_target():
    clean = everything(made(NoisySine, noise=0.0), "val")
    noisy = everything(made(NoisySine, noise=0.3), "val")
    for before, after in zip(clean, noisy, strict=True):
        assert (after - before).std().item() == pytest.approx(0.3, rel=0.1)


def test_always_saying_zero_has_the_stated_error():
    _, targets = everything(made(NoisySine, num_samples=20_000, noise=0.1), "train")
    assert targets.square().mean().item() == pytest.approx(13 / 24 + 0.01, rel=0.02)
    _, targets = everything(made(SineSynthesis, num_samples=20_000), "train")
    assert targets.square().mean().item() == pytest.approx(13 / 24, rel=0.02)


def test_wave_is_what_its_vector_describes():
    inputs, targets = everything(made(SineSynthesis, length=40), "test")
    assert inputs.shape == (50, 4) and targets.shape == (50, 40, 1)
    for (amplitude, periods, cosine, sine), wave in zip(inputs.tolist(), targets, strict=True):
        phase = math.atan2(sine, cosine)
        times = [2 * math.pi * periods * t / 40 + phase for t in range(40)]
        expected = torch.tensor([amplitude * math.sin(time) for time in times])
        torch.testing.assert_close(wave[:, 0], expected, atol=1e-4, rtol=0)
        assert 0.5 <= amplitude <= 1.5 and 0.5 <= periods <= 3


def test_sizes_are_those_of_the_batches():
    assert made(NoisySine, horizon=3).facts() == {"in_features": 1, "out_features": 3}
    sizes = {"in_features": 4, "out_features": 1, "sequence_length": 40}
    assert made(SineSynthesis, length=40).facts() == sizes


@pytest.mark.parametrize("kind", [NoisySine, SineSynthesis])
def test_waves_depend_on_data_seed_and_their_order_on_seed(kind):
    first, same, order, other = (
        made(kind, **arguments) for arguments in ({}, {}, {"seed": 1}, {"data_seed": 1})
    )
    assert torch.equal(everything(first, "train")[0], everything(same, "train")[0])
    assert torch.equal(everything(first, "val")[0], everything(order, "val")[0])
    assert not torch.equal(everything(first, "train")[0], everything(order, "train")[0])
    assert not torch.equal(everything(first, "val")[0], everything(other, "val")[0])
    splits = [everything(first, split)[1].flatten(1) for split in first.splits]
    assert len(torch.cat(splits).unique(dim=0)) == 400


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (NoisySine, {"window": 0}, "window must be at least 1, not 0"),
        (NoisySine, {"horizon": 0}, "horizon must be at least 1, not 0"),
        (NoisySine, {"min_period": 2.0}, "min_period must be greater than 2.* not 2.0"),
        (NoisySine, {"max_period": 9.0}, "max_period must be at least min_period 10.0, not 9.0"),
        (NoisySine, {"noise": -1.0}, "noise must be at least 0, not -1.0"),
        (SineSynthesis, {"length": 1}, "length must be at least 2, not 1"),
        (SineSynthesis, {"max_periods": 25.0}, "max_periods must be .* length 50, not 25.0"),
        (SineSynthesis, {"num_samples": 0}, "num_samples must be at least 1, not 0"),
    ],
)
def test_nonsense_is_refused_with_the_value(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        kind(**arguments)
