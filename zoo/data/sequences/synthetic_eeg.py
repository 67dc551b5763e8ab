"""Synthetic brain signals of imagined movements: nothing to download.

Like data set 2a of BCI competition IV (Brunner et al., 2008,
https://www.bbci.de/competition/iv/desc_2a.pdf) in shape: 22 electrodes, four seconds at 250 Hz,
four classes. And in its principle: imagining moving a limb weakens the rhythm over the part of the
brain that moves it, on the other side of the head; the exact places and strengths here are
invented. The background's power falls with the frequency, from 4 to 38 Hz, the band that is left of
true signals before they are decoded. Each rhythm has another phase and another course in each
trial, so that nothing but its power at its electrodes tells the classes apart.
"""

from typing import Any

import torch
from torch import Tensor

from zoo.data.loading.tensor import TensorLoader
from zoo.data.module import DataModule, Part, check_batch_size
from zoo.data.sampling import seeded_generator
from zoo.data.splits import SHARES, divide

SAMPLING_RATE = 250  # Hz
LENGTH = 1000  # samples a trial, 4 s
BAND = (4.0, 38.0)  # Hz
WIDTH = 1.5  # Hz, standard deviation of a rhythm about its frequency
CLASS_NAMES = ("left hand", "right hand", "feet", "tongue")

# Electrodes in rows from front to back: (row, number in the row counted from the middle).
ROWS = ((0, 0), (1, 2), (2, 3), (3, 2), (4, 1), (5, 0))
ELECTRODES = tuple((row, column) for row, reach in ROWS for column in range(-reach, reach + 1))

# Where the rhythms come from, and at what frequency in Hz.
SOURCES = {(2, -2): 11.0, (2, 2): 11.0, (2, 0): 20.0, (3, 0): 11.0}
# How strong each source is (a row a class). The hands' are on the other side of the head.
GAINS = (
    (1.0, 0.3, 1.0, 1.0),
    (0.3, 1.0, 1.0, 1.0),
    (1.0, 1.0, 0.3, 1.0),
    (1.0, 1.0, 1.0, 0.3),
)


class SyntheticEEG(DataModule):
    """Trials of 22 signals and the movement that was imagined in each.

    A batch is ``(signals, labels)`` with float32 signals ``(batch, 22, 1000)``, whose background
    has standard deviation 1, and int64 labels ``(batch,)``.

    Args:
        batch_size: trials a batch.
        num_samples: trials in all, divided 70/15/15; of each class equally many, up to one.
        rhythm: strength of the rhythms against the background; the smaller, the harder. At 2,
            band power at all electrodes and a linear classifier reach 0.97.
        data_seed: another seed, other signals.
        drop_last: omit the last training batch of an epoch if it is smaller.
    """

    splits = ("train", "val", "test")
    class_names = CLASS_NAMES

    def __init__(
        self,
        *,
        batch_size: int = 16,
        num_samples: int = 576,
        rhythm: float = 2.0,
        data_seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        super().__init__()
        check_batch_size(batch_size)
        if num_samples < 28:
            raise ValueError(
                f"num_samples must be at least 28, so that each split has every class, "
                f"not {num_samples}"
            )
        if not rhythm >= 0:
            raise ValueError(f"rhythm must not be negative, but is {rhythm}")
        self.batch_size = batch_size
        self.num_samples = num_samples
        self.rhythm = rhythm
        self.data_seed = data_seed
        self.drop_last = drop_last

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        labels = torch.arange(self.num_samples) % len(CLASS_NAMES)
        signals = make_trials(labels, rhythm=self.rhythm, seed=self.data_seed)
        for split, index in divide(labels, SHARES, seed=self.data_seed).items():
            self.loaders[split] = TensorLoader(
                (signals[index], labels[index]),
                batch_size=self.batch_size,
                shuffle=split == "train",
                seed=seed,
                drop_last=self.drop_last and split == "train",
                device=device,
                part=part,
            )

    def facts(self) -> dict[str, Any]:
        electrodes = len(ELECTRODES)
        return {
            "num_classes": len(CLASS_NAMES),
            "class_names": list(CLASS_NAMES),
            "in_channels": electrodes,
            "in_features": electrodes * LENGTH,
        }


def make_trials(labels: Tensor, *, rhythm: float, seed: int) -> Tensor:
    """Draws a trial for each label: float32 ``(trials, 22, 1000)``.

    Everything is drawn as a spectrum, whose phases are random and whose amplitudes say how much
    power there is at which frequency.
    """
    generator = seeded_generator("synthetic eeg", seed)
    frequencies = torch.fft.rfftfreq(LENGTH, 1 / SAMPLING_RATE)  # (bins,)
    bins = len(frequencies)

    def noise(channels: int) -> Tensor:
        shape = (len(labels), channels, bins)
        return torch.randn(shape, generator=generator, dtype=torch.complex64)

    low, high = BAND
    passed = (frequencies >= low) & (frequencies <= high)
    background = passed * frequencies.clamp_min(low).rsqrt()  # (bins,): power falls as 1 / f
    places = torch.tensor(ELECTRODES, dtype=torch.float32)
    # Neighbouring electrodes see much the same.
    blur = _nearness(places, places, reach=1.0)  # (electrodes, electrodes)
    blur = blur / blur.square().sum(1, keepdim=True).sqrt()
    spectrum = torch.einsum("ij,njf->nif", blur.to(torch.complex64), noise(len(places)))
    spectrum = spectrum * background

    sources = torch.tensor(list(SOURCES), dtype=torch.float32)
    peaks = torch.tensor(list(SOURCES.values()))[:, None]  # (sources, 1)
    bands = torch.exp(-(((frequencies - peaks) / WIDTH) ** 2) / 2)  # (sources, bins)
    bands = bands * peaks.rsqrt()
    gains = rhythm * torch.tensor(GAINS)[labels]  # (trials, sources)
    seen = _nearness(places, sources, reach=1.0)  # (electrodes, sources)
    rhythms = noise(len(sources)) * (gains[:, :, None] * bands)
    spectrum += torch.einsum("is,nsf->nif", seen.to(torch.complex64), rhythms)

    signals = torch.fft.irfft(spectrum, LENGTH)  # (trials, electrodes, time)
    return signals / (background.square().mean() / LENGTH).sqrt()


def _nearness(places: Tensor, others: Tensor, *, reach: float) -> Tensor:
    """How much of what happens at the others is seen at the places."""
    return torch.exp(-(torch.cdist(places, others) ** 2) / (2 * reach**2))
