"""From the columns of a table to the numbers that a network takes, fitted to the training rows.

- **Numbers** and truth values are shifted and scaled to mean 0 and standard deviation 1, if that is
  asked for. A gap becomes the median of the training rows; a column that has gaps among these is
  followed by another behind all numbers, which is 1 where there is a gap, else 0.
- **Categories** become a column for each, 1 where it is the row's, else 0 (one-hot); or all of a
  column's a code from 1 on, for a network with embeddings. Where training rows have gaps, a gap is
  a category too. A category that they do not have, or a gap where they have none, is all zeros, or
  code 0.
- A column that is the same in all training rows is left out.
- **Principal components** of all these columns take their place on request: those with the largest
  variances over the training rows, in falling order (Hotelling, 1933).
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from zoo.data.download import DataError
from zoo.data.tabular.frame import Frame, take
from zoo.data.tabular.kinds import Kinds, listed

Encoding = Literal["one_hot", "codes"]
NUMBER_FIX = "correct it, or leave the field empty"


@dataclass
class NumberColumn:
    """A column of numbers.

    Attributes:
        name: the column's.
        median: of the training rows, for gaps.
        has_gaps: whether they have any.
        mean: what is subtracted.
        std: what it is divided by.
    """

    name: str
    median: float
    has_gaps: bool
    mean: float = 0.0
    std: float = 1.0


@dataclass
class CategoryColumn:
    """A column of categories: those of the training rows, in order; None where they have gaps."""

    name: str
    values: list[str | None]


@dataclass
class Preparation:
    """What was learned from the training rows, and with it the inputs for any rows.

    Attributes:
        numbers: columns of numbers.
        categories: columns of categories.
        encoding: how categories are written.
        components: unit vectors in the columns, one each; none: the columns stay.
        centre: means of the columns, where there are components.
    """

    numbers: list[NumberColumn]
    categories: list[CategoryColumn]
    encoding: Encoding
    components: list[list[float]] = field(default_factory=list)
    centre: list[float] = field(default_factory=list)

    @classmethod
    def fit(
        cls,
        frame: Frame,
        train: Tensor,
        kinds: Kinds,
        *,
        encoding: Encoding,
        scale: bool,
        components: int | float | None = None,
    ) -> "Preparation":
        """Looks at the training rows; what is the same in all of them is left out of ``kinds``.

        Args:
            frame: all rows.
            train: those for training.
            kinds: of the columns.
            encoding: how categories are written.
            scale: whether to standardise numbers.
            components: how many principal components, or the share of the variance that they have.

        Raises:
            DataError: no column is left, or there are fewer than so many components.
        """
        found = cls([], [], encoding)
        rows = train.tolist()
        for name, kind in list(kinds.kinds.items()):
            if frame.columns[name][rows].n_unique() == 1:
                del kinds.kinds[name]
                kinds.left_out[name] = "the same in all training rows"
            elif kind == "category":
                texts = frame.texts(name)[rows].unique().to_list()
                values = sorted(text for text in texts if text is not None)
                found.categories.append(
                    CategoryColumn(name, [*values, *([None] if None in texts else [])])
                )
            else:
                series = frame.numbers(name, NUMBER_FIX)[rows]
                median = float(np.median(series.drop_nulls().to_numpy()))
                found.numbers.append(NumberColumn(name, median, series.null_count() > 0))
        if not found.numbers and not found.categories:
            raise DataError(f"{frame.name}: no column is left to learn from ({kinds.left_out})")
        if scale and found.numbers:
            filled = found._filled(frame)[0][train]
            mean, std = filled.mean(0), filled.std(0, correction=0)
            for place, column in enumerate(found.numbers):
                column.mean = mean[place].item()
                column.std = std[place].item() or 1.0
        if components is not None:
            found._find_components(take(frame, train), components)
        return found

    def _find_components(self, frame: Frame, wanted: int | float) -> None:
        columns = self.tensor(frame)[0].double()  # (rows, width)
        centre = columns.mean(0)
        _, scales, directions = torch.linalg.svd(columns - centre, full_matrices=False)
        shares = (scales.square() / scales.square().sum()).cumsum(0)
        count = wanted if isinstance(wanted, int) else int((shares < wanted - 1e-12).sum()) + 1
        if count > len(directions):
            raise DataError(
                f"{frame.name}: data.components={wanted} are more than the {len(directions)} that "
                f"{len(columns)} training rows of {columns.size(1)} columns have: lower it"
            )
        directions = directions[:count]
        # Their signs are arbitrary: the largest element is positive.
        largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
        self.components = (directions * largest.sign()).tolist()
        self.centre = centre.tolist()

    def tensor(self, frame: Frame) -> tuple[Tensor, list[str]]:
        """The inputs for rows, and what there is to say of them.

        Returns:
            float32 ``(rows, width)``, and a line for each thing that the training rows do not have.

        Raises:
            DataError: a column is missing, or has text where there should be a number.
        """
        notes: list[str] = []
        for name in (*(c.name for c in self.numbers), *(c.name for c in self.categories)):
            if name not in frame.columns.columns:
                raise DataError(
                    f"{frame.name} has no column {name!r}, which this run has learned from: add "
                    "it, with empty fields if nothing is known"
                )
        parts = [torch.empty(len(frame), 0)]
        if self.numbers:
            values, gaps = self._filled(frame)
            mean, std = (
                torch.tensor([getattr(column, name) for column in self.numbers], dtype=values.dtype)
                for name in ("mean", "std")
            )
            indicated = torch.tensor([column.has_gaps for column in self.numbers])
            parts += [((values - mean) / std).float(), gaps[:, indicated].float()]
            for place, column in enumerate(self.numbers):
                if not column.has_gaps and (count := int(gaps[:, place].sum())):
                    notes.append(
                        f"{frame.name}: {count:,} gaps in {column.name!r}, which has none in "
                        f"training: filled with the median, {column.median:g}"
                    )
        parts += [self._coded(frame, column, notes) for column in self.categories]
        columns = torch.cat(parts, 1)
        if not self.components:
            return columns, notes
        centre, axes = (torch.tensor(v).double() for v in (self.centre, self.components))
        return ((columns.double() - centre) @ axes.mT).float(), notes  # (rows, components)

    @property
    def cardinalities(self) -> list[int]:
        """How many codes each column of categories has, the unknown one included."""
        return [len(column.values) + 1 for column in self.categories]

    @property
    def num_numbers(self) -> int:
        """Columns of numbers, with those that say where the gaps are."""
        return len(self.numbers) + sum(column.has_gaps for column in self.numbers)

    @property
    def width(self) -> int:
        """Columns altogether."""
        if self.components:
            return len(self.components)
        if self.encoding == "codes":
            return self.num_numbers + len(self.categories)
        return self.num_numbers + sum(len(column.values) for column in self.categories)

    def notes(self) -> list[str]:
        """What becomes of gaps and categories, in words."""
        filled = [f"{c.name} ({c.median:g})" for c in self.numbers if c.has_gaps]
        counts = [f"{c.name} {len(c.values)}" for c in self.categories]
        lines = [f"gaps filled with the median, and indicated: {listed(filled)}"]
        reduced = f"in their place {len(self.components)} principal components"
        return (
            (lines if filled else [])
            + ([f"categories in training, {self.encoding}: {listed(counts)}"] if counts else [])
            + ([reduced] if self.components else [])
        )

    def to_json(self) -> dict[str, Any]:
        """All of it as plain Python."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Preparation":
        """What :meth:`to_json` gave."""
        return cls(
            [NumberColumn(**column) for column in stored["numbers"]],
            [CategoryColumn(**column) for column in stored["categories"]],
            stored["encoding"],
            stored.get("components", []),  # of versions that had none
            stored.get("centre", []),
        )

    def _filled(self, frame: Frame) -> tuple[Tensor, Tensor]:
        """The numbers without gaps, float64, and where there were any: ``(rows, numbers)``."""
        columns: list[Sequence[float | None]] = [
            frame.numbers(column.name, NUMBER_FIX).to_list() for column in self.numbers
        ]
        values = torch.tensor(
            [[math.nan if v is None else v for v in column] for column in columns],
            dtype=torch.float64,
        ).T.contiguous()  # (rows, numbers)
        gaps = values.isnan()
        medians = torch.tensor([column.median for column in self.numbers], dtype=torch.float64)
        return torch.where(gaps, medians, values), gaps

    def _coded(self, frame: Frame, column: CategoryColumn, notes: list[str]) -> Tensor:
        """A column of categories: ``(rows, categories)``, or ``(rows, 1)`` of codes."""
        texts = frame.texts(column.name).to_list()
        numbers = {value: number for number, value in enumerate(column.values, start=1)}
        codes = torch.tensor([numbers.get(text, 0) for text in texts])
        unknown = {text for text in texts if text not in numbers}
        if unknown:
            shown = sorted("a gap" if text is None else repr(text) for text in unknown)
            how = "all zeros" if self.encoding == "one_hot" else "code 0"
            notes.append(
                f"{frame.name}: {int((codes == 0).sum()):,} rows have a {column.name!r} that no "
                f"training row has ({', '.join(shown[:5])}{', ...' if shown[5:] else ''}): {how}"
            )
        if self.encoding == "codes":
            return codes.unsqueeze(1).float()
        return (codes.unsqueeze(1) == torch.arange(1, len(numbers) + 1)).float()
