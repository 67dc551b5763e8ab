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
        chosen: the class of each sample, ``(batch,)``; the most probable one if None.
    """

    probabilities: Tensor
    class_names: Sequence[str] | None = None
    chosen: Tensor | None = None

    def best(self) -> list[tuple[str, float]]:
        """The class chosen for each sample by name, with its probability.

        Raises:
            ValueError: there is a class for each step.
        """
        if self.probabilities.ndim != 2:
            raise ValueError(
                f"probabilities must be (batch, classes), not {tuple(self.probabilities.shape)}"
            )
        probabilities = self.probabilities.float()
        indices = probabilities.argmax(1) if self.chosen is None else self.chosen  # (batch,)
        found = probabilities.gather(1, indices.unsqueeze(1)).squeeze(1)
        names = [
            str(i) if self.class_names is None else self.class_names[i] for i in indices.tolist()
        ]
        return list(zip(names, found.tolist(), strict=True))


class Labels(NamedTuple):
    """Any number of labels for each sample.

    Attributes:
        probabilities: ``(batch, labels)``.
        chosen: which of them a sample is said to have, bool ``(batch, labels)``.
        label_names: their names; the label numbers if None.
    """

    probabilities: Tensor
    chosen: Tensor
    label_names: Sequence[str] | None = None

    def rows(self) -> list[dict[str, str | float]]:
        """For each sample the names of its labels, and the probability of every label."""
        count = self.probabilities.size(1)
        names = list(self.label_names or map(str, range(count)))
        return [
            {
                "labels": "; ".join(name for name, has in zip(names, chosen, strict=True) if has),
                **dict(zip(names, values, strict=True)),
            }
            for values, chosen in zip(
                self.probabilities.float().tolist(), self.chosen.tolist(), strict=True
            )
        ]


class Values(NamedTuple):
    """Real numbers for each sample: ``(batch, *)``.

    Attributes:
        values: the numbers.
        low: below which a target should hardly lie, of the same shape; None: nothing is said.
        high: above which.
    """

    values: Tensor
    low: Tensor | None = None
    high: Tensor | None = None


class Masks(NamedTuple):
    """A class for each pixel: int64 ``(batch, height, width)``."""

    masks: Tensor


class Images(NamedTuple):
    """An image for each image: ``(batch, 1 or 3, height, width)`` in [0, 1]."""

    images: Tensor


class Texts(NamedTuple):
    """A text for each sample."""

    texts: list[str]


class Samples(NamedTuple):
    """Samples like those of the data: ``(batch, *)``."""

    samples: Tensor


class Table(NamedTuple):
    """Rows by column name; every row has the same columns."""

    rows: list[dict[str, str | float]]

    def markdown(self) -> str:
        """The rows as a table that is aligned on a terminal and laid out by Markdown readers."""

        def written(value: str | float) -> str:
            text = f"{value:.4f}" if isinstance(value, float) else str(value)
            return text.replace("|", "\\|")

        names = list(self.rows[0])
        cells = [names, *([written(row[name]) for name in names] for row in self.rows)]
        widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
        left = [isinstance(self.rows[0][name], str) for name in names]
        rule = [
            f":{'-' * (w - 1)}" if to else f"{'-' * (w - 1)}:"
            for w, to in zip(widths, left, strict=True)
        ]
        lines = [
            [
                cell.ljust(w) if to else cell.rjust(w)
                for cell, w, to in zip(line, widths, left, strict=True)
            ]
            for line in cells
        ]
        return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], rule, *lines[1:]])


class Several(NamedTuple):
    """What is predicted of each of several targets, by the target's name."""

    parts: dict[str, Classes | Values]


Prediction = Classes | Labels | Values | Masks | Images | Texts | Samples | Table | Several
