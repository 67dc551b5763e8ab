"""The wrongly classified images that a classifier was surest of."""

from typing import NamedTuple, Self

import torch
from torch import Tensor


class Mistakes(NamedTuple):
    """Wrongly classified images, the most confident first."""

    images: Tensor  # (mistakes, channels, height, width)
    predicted: Tensor  # (mistakes,)
    targets: Tensor  # (mistakes,)
    confidence: Tensor  # (mistakes,)


class ConfidentMistakes:
    """Keeps the wrongly classified images with the highest predicted probability.

    Candidates are merged on the device, and a correct answer is a candidate with negative
    confidence: nothing depends on how many mistakes there are, so no batch waits for the device.

    Args:
        size: how many to keep.
    """

    def __init__(self, size: int = 16) -> None:
        self.size = size
        self.kept: Mistakes | None = None

    def update(self, images: Tensor, logits: Tensor, targets: Tensor) -> None:
        predicted = logits.argmax(1)
        confidence = logits.softmax(1, dtype=torch.float32).amax(1)
        confidence = confidence.masked_fill(predicted == targets, -1.0)
        self._add(self._leading(Mistakes(images, predicted, targets, confidence)))

    def merge(self, other: "ConfidentMistakes") -> None:
        """Takes in what another one has kept."""
        if other.kept is not None:
            self._add(other.kept)

    def _add(self, candidates: Mistakes) -> None:
        if self.kept is not None:
            pairs = zip(self.kept, candidates, strict=True)
            candidates = self._leading(
                Mistakes(*(torch.cat((kept, new.to(kept.device))) for kept, new in pairs))
            )
        self.kept = candidates

    def _leading(self, mistakes: Mistakes) -> Mistakes:
        size = min(self.size, len(mistakes.confidence))
        best = mistakes.confidence.topk(size).indices
        return Mistakes(*(entry[best] for entry in mistakes))

    def compute(self) -> Mistakes | None:
        """The mistakes kept, or None without any."""
        if self.kept is None or not (wrong := self.kept.confidence >= 0).any():
            return None
        return Mistakes(*(entry[wrong] for entry in self.kept))

    def reset(self) -> None:
        self.kept = None

    def to(self, device: torch.device | str) -> Self:
        if self.kept is not None:
            self.kept = Mistakes(*(entry.to(device) for entry in self.kept))
        return self
