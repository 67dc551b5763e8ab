import pytest
import torch

from zoo.data.sequences.synthetic_eeg import (
    BAND,
    CLASS_NAMES,
    ELECTRODES,
    SAMPLING_RATE,
    SOURCES,
    SyntheticEEG,
    make_trials,
)


def everything(module, split, epoch=0):
    return tuple(torch.cat(part) for part in zip(*module.batches(split, epoch), strict=True))


def made(num_samples=56, seed=0, **arguments):
    module = SyntheticEEG(num_samples=num_samples, **arguments)
    module.setup(seed=seed)
    return module


def power(signals, frequency, width=2.0):
    """Power of each signal within some Hz of a frequency: ``(trials, electrodes)``."""
    frequencies = torch.fft.rfftfreq(signals.size(2), 1 / SAMPLING_RATE)
    near = (frequencies - frequency).abs() <= width
    return torch.fft.rfft(signals).abs().square()[..., near].mean(2)


def test_batches_are_signals_of_22_electrodes_and_labels():
    module = made(batch_size=8)
    signals, labels = next(module.batches("train", 0))
    assert signals.shape == (8, 22, 1000) and signals.dtype == torch.float32
    assert labels.shape == (8,) and labels.dtype == torch.int64
    sizes = {"num_classes": 4, "in_channels": 22, "in_features": 22_000}
    assert module.facts() == sizes | {"class_names": list(module.class_names)}
    assert len(ELECTRODES) == len(set(ELECTRODES)) == 22
    assert set(SOURCES) <= set(ELECTRODES) and len(CLASS_NAMES) == 4


def test_splits_are_disjoint_complete_and_balanced():
    module = made(num_samples=80)
    parts = {split: everything(module, split) for split in module.splits}
    assert {k: len(v[1]) for k, v in parts.items()} == {"train": 56, "val": 12, "test": 12}
    firsts = torch.cat([signals[:, 0, 0] for signals, _ in parts.values()])
    assert len(firsts.unique()) == 80
    for _, labels in parts.values():
        counts = labels.bincount(minlength=4)
        assert counts.max() - counts.min() <= 1


def test_fewest_trials_leave_every_class_in_every_split():
    module = made(num_samples=28)
    for split in module.splits:
        assert len(everything(module, split)[1].unique()) == 4


def test_signals_depend_on_data_seed_and_order_on_seed():
    first, same, order, other = made(), made(), made(seed=1), made(data_seed=1)
    assert torch.equal(everything(first, "train")[0], everything(same, "train")[0])
    assert torch.equal(everything(first, "val")[0], everything(order, "val")[0])
    assert not torch.equal(everything(first, "train")[0], everything(order, "train")[0])
    assert not torch.equal(everything(first, "val")[0], everything(other, "val")[0])


def test_background_has_deviation_one_and_lies_in_its_band():
    signals = make_trials(torch.zeros(40, dtype=torch.int64), rhythm=0.0, seed=0)
    assert signals.std().item() == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(signals.std((0, 2)), torch.ones(22), atol=0.1, rtol=0)
    spectrum = torch.fft.rfft(signals).abs().square().mean((0, 1))
    frequencies = torch.fft.rfftfreq(1000, 1 / SAMPLING_RATE)
    inside = (frequencies >= BAND[0]) & (frequencies <= BAND[1])
    assert spectrum[~inside].max() < 1e-6 * spectrum[inside].min()
    assert spectrum[inside][:20].mean() > 3 * spectrum[inside][-20:].mean()


def test_each_movement_weakens_the_rhythm_over_its_own_place():
    labels = torch.arange(400) % 4
    signals = make_trials(labels, rhythm=2.0, seed=0)
    for (place, frequency), movement in zip(
        SOURCES.items(), ("right hand", "left hand", "feet", "tongue"), strict=True
    ):
        at_place = power(signals, frequency)[:, ELECTRODES.index(place)]
        means = torch.stack([at_place[labels == k].mean() for k in range(4)])
        assert CLASS_NAMES[int(means.argmin())] == movement
        others = means[torch.arange(4) != means.argmin()]
        assert means.min() < 0.75 * others.min()


def test_classes_differ_in_nothing_but_power():
    labels = torch.arange(400) % 4
    signals = make_trials(labels, rhythm=2.0, seed=0)
    for k in range(4):  # Means over trials go to zero as they do for noise.
        assert signals[labels == k].mean(0).abs().max() < 6 * signals.std() / 10


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"num_samples": 27}, "num_samples must be at least 28.* not 27"),
        ({"rhythm": -1.0}, "rhythm must not be negative, but is -1.0"),
    ],
)
def test_nonsense_is_refused_with_the_value(settings, message):
    with pytest.raises(ValueError, match=message):
        SyntheticEEG(**settings)
