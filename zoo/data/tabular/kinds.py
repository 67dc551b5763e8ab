"""What the columns of a table are: numbers, truth values, categories, or nothing to learn from.

| a column | is |
|---|---|
| numbers (of Parquet: what it says are numbers) | ``number`` |
| yes and no, true and false | ``boolean``: a number, 1 or 0 |
| text | ``category`` |
| text of which more than half of the values differ from all others | left out |
| whole numbers, all different, in a column called ``id``, ``user_id`` or so | left out |
| dates, lists, nothing at all | left out |
| numbers and, in less than half of the rows, text | refused: a slip, or a word for a gap |

Judged on all rows of the training file, without their targets. What is left out is named; the user
may say otherwise.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple, get_args

import polars as pl

from zoo.data.download import DataError
from zoo.data.tabular.frame import Frame, is_truth

MOST_NAMES = 12
"""How many of a kind are named in a note."""
ColumnKind = Literal["number", "boolean", "category"]
IDENTIFIER = re.compile(r"(?i:(.*[_\W])?(id|index|key|uuid|unnamed: 0))|.*[a-z]I[dD]|")
"""Names of identifiers; no name is one: a program that counts rows leaves their column without."""


class Kinds(NamedTuple):
    """The columns to learn from by name, and why others are left out.

    Attributes:
        kinds: of the columns that are used, in the order of the file.
        left_out: reason by name.
        identifiers: those left out that tell rows apart.
    """

    kinds: dict[str, ColumnKind]
    left_out: dict[str, str]
    identifiers: list[str]

    def notes(self) -> list[str]:
        """What was found, in words."""
        lines = []
        for kind in get_args(ColumnKind):
            names = [name for name, found in self.kinds.items() if found == kind]
            lines += [f"{kind}: {listed(names)}"] if names else []
        if self.left_out:
            lines.append(
                f"left out: {listed([f'{n} ({why})' for n, why in self.left_out.items()])}"
            )
        return lines


def listed(names: Sequence[str]) -> str:
    """Names in a line, of many the first."""
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def find_kinds(
    frame: Frame,
    *,
    apart: Sequence[str],
    ignore: Sequence[str],
    categorical: Sequence[str],
    numeric: Sequence[str],
) -> Kinds:
    """Tells what each column is.

    Args:
        frame: the table.
        apart: columns that are no features: targets and what divides the rows.
        ignore: columns that the user leaves out.
        categorical: columns whose values the user calls categories.
        numeric: columns whose values the user calls numbers.

    Raises:
        DataError: one of these names is not in the table, or a column is numbers and text.
    """
    for key, names in (("ignore", ignore), ("categorical", categorical), ("numeric", numeric)):
        for name in names:
            frame.column(name, f"data.{key}")
    found = Kinds({}, {}, [])
    for name in frame.columns.columns:
        if name in apart:
            continue
        if name in ignore:
            found.left_out[name] = "data.ignore"
        elif name in categorical:
            found.kinds[name] = "category"
        elif name in numeric:
            frame.numbers(name, "correct it, or take the column out of data.numeric")
            found.kinds[name] = "number"
        else:
            _judge(frame, name, found)
    return found


def _judge(frame: Frame, name: str, found: Kinds) -> None:
    """Adds what a column is by its values."""
    series = frame.columns[name]
    present = series.drop_nulls()
    if not len(present):
        found.left_out[name] = "empty"
    elif is_truth(series):
        found.kinds[name] = "boolean"
    elif are_numbers(frame, name, f"set data.categorical or data.ignore to [{name}]"):
        values = frame.numbers(name, f"correct it, or set data.ignore=[{name}]")
        whole, differing = (values % 1 == 0).all(), values.n_unique() == len(values) > 2
        if whole and differing and IDENTIFIER.fullmatch(name):
            found.left_out[name] = "an identifier"
            found.identifiers.append(name)
        else:
            found.kinds[name] = "number"
    elif series.dtype.is_temporal() or (series.dtype == pl.String and _are_dates(present)):
        found.left_out[name] = "a date"
    elif series.dtype not in (pl.String, pl.Categorical, pl.Enum):
        found.left_out[name] = f"of type {series.dtype}"
    elif 2 * present.n_unique() > len(present):
        found.left_out[name] = "text that differs from row to row"
        if present.n_unique() == len(series):
            found.identifiers.append(name)
    else:
        found.kinds[name] = "category"


def are_numbers(frame: Frame, name: str, fix: str) -> bool:
    """Whether the values of a column are numbers, or numbers written as text.

    Args:
        frame: the table.
        name: the column.
        fix: what else the user may do about text among numbers.

    Raises:
        DataError: most values are numbers, but not all.
    """
    series = frame.columns[name]
    if series.dtype != pl.String or not frame.is_text:
        return series.dtype.is_numeric()
    wrong = series.is_not_null() & series.cast(pl.Float64, strict=False).is_null()
    if not wrong.any():
        return True
    if 2 * wrong.sum() > series.count():
        return False
    index = wrong.arg_max() or 0
    raise DataError(
        f"{frame.row(index)}: the column {name!r} has {series[index]!r}, but numbers in most rows: "
        f"correct it, add it to data.missing if it stands for a gap, or {fix}"
    )


def instants(series: pl.Series) -> list[float | None]:
    """Dates and times as numbers that rise with time: of polars' own types, or of ISO 8601.

    Returns:
        None for what is no date.
    """
    if series.dtype.is_temporal():
        return series.to_physical().cast(pl.Float64).to_list()
    found: list[float | None] = []
    for text in series.cast(pl.String).to_list():
        try:
            date = datetime.fromisoformat(text)
            found.append((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp())
        except (TypeError, ValueError):
            found.append(None)
    return found


def _are_dates(present: pl.Series) -> bool:
    return instants(present.head(1))[0] is not None and None not in instants(present)
