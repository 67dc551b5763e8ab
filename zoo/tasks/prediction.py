"""What a task predicts: the kinds of answer that a user may get for a batch.

A program that writes predictions knows these kinds and no task, so a new task is written by the
program that there is.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Classes(NamedTuple):
    """A class for each sample, or for each of its steps.

    Attributes:
        probabilities: ``(batch, classes)``, or ``(batch, time, classes)``.
        class_names: their names; the class numbers if None.
    """

    probabilities: Tensor
    class_names: Sequence[str] | None = None

    def best(self) -> list[tuple[str, float]]:
        """The most probable class of each sample by name, with its probability.

        Raises:
            ValueError: there is a class for each step.
        """
        if self.probabilities.ndim != 2:
            raise ValueError(
                f"probabilities must be (batch, classes), not {tuple(self.probabilities.shape)}"
            )
        highest, indices = self.probabilities.float().max(1)  # (batch,)
        names = [
            str(i) if self.class_names is None else self.class_names[i] for i in indices.tolist()
        ]
        return list(zip(names, highest.tolist(), strict=True))


class Values(NamedTuple):
    """Real numbers for each sample: ``(batch, *)``."""

    values: Tensor


class Masks(NamedTuple):
    """A class for each pixel: int64 ``(batch, height, width)``."""

    masks: Tensor


class Texts(NamedTuple):
    """A text for each sample."""

    texts: list[str]


class Samples(NamedTuple):
    """Samples like those of the data: ``(batch, *)``."""

    samples: Tensor


class Table(NamedTuple):
    """Rows by column name; every row has the same columns."""

    rows: list[dict[str, str | float]]


Prediction = Classes | Values | Masks | Texts | Samples | Table
