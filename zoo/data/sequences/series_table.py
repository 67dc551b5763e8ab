"""Series in a text file, CSV or TSV with a header: a row for each step of time, numbers in columns.

    time,load,temperature
    2024-01-01 00:00,4210.5,-2.1
    2024-01-01 01:00,4098.0,-2.4

Rows are steps of the same length. Where a column of times is named, it is held to that: times must
rise, and every step must be between half and 1.5 times the usual one (the median), which months and
years are. Times are numbers, or dates as ISO 8601 writes them.
"""

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.data.download import DataError
from zoo.data.tables import Line, Table, finite_number, read_table

UNEVEN = 0.5
"""Share of the usual step by which another may be longer or shorter."""


class SeriesTable(NamedTuple):
    """The numbers of a file.

    Attributes:
        values: float64 ``(time, columns)``.
        columns: their names.
        left_out: names of columns without any number.
        times: the first and the last time, if there is a column of them.
    """

    values: Tensor
    columns: tuple[str, ...]
    left_out: tuple[str, ...]
    times: tuple[str, str] | None


def read_series(path: Path, columns: Sequence[str] | None, *, time: str | None) -> SeriesTable:
    """Reads series from a table.

    Args:
        path: the file.
        columns: names of columns; None: all that hold a number, but that of the times.
        time: name of the column of times; None: there is none, or it is not looked at.

    Raises:
        DataError: the file is not such a table, something in a column is not a number, or the times
            do not rise in even steps.
    """
    table = read_table(path, *(columns or ()), *(() if time is None else (time,)))
    if not table.rows:
        raise DataError(f"{path} holds no row below its header")
    times = None
    if time is not None:
        _check_steps(table, time)
        place = table.column(time)
        times = (table.rows[0].fields[place], table.rows[-1].fields[place])
    left_out: tuple[str, ...] = ()
    if columns is None:
        others = [name for name in table.header if name != time]
        columns = [name for name in others if _has_number(table, name)]
        left_out = tuple(name for name in others if name not in columns)
    if not columns:
        raise DataError(f"{path} holds no column of numbers: name another file")
    values = [_numbers(table, name) for name in columns]
    return SeriesTable(torch.tensor(values, dtype=torch.float64).T, tuple(columns), left_out, times)


def _numbers(table: Table, name: str) -> list[float]:
    place = table.column(name)
    fix = "write one, or name the columns to use with data.columns=[...]"
    return [
        finite_number(row.fields[place], f"{_where(table, row)} the column {name!r}", fix)
        for row in table.rows
    ]


def _has_number(table: Table, name: str) -> bool:
    place = table.column(name)
    for row in table.rows:
        try:
            float(row.fields[place])
        except ValueError:
            continue
        return True
    return False


def _check_steps(table: Table, name: str) -> None:
    """Refuses times that do not rise in even steps."""
    place = table.column(name)
    texts = [row.fields[place] for row in table.rows]
    times = [_moment(text, _where(table, row)) for text, row in zip(texts, table.rows, strict=True)]
    steps = [after - before for before, after in pairwise(times)]
    pairs = list(zip(steps, pairwise(texts), pairwise(table.rows), strict=True))
    for step, (before, after), (previous, row) in pairs:
        if step == 0:
            raise DataError(
                f"{_where(table, row)} the time {after!r} is there already, in line "
                f"{previous.line}: remove one of the two rows"
            )
        if step < 0:
            raise DataError(
                f"{_where(table, row)} the time {after!r} is before {before!r} of line "
                f"{previous.line}: sort the rows by {name!r}"
            )
    usual = median(steps) if steps else 0.0
    for step, (before, after), (_, row) in pairs:
        if not 1 - UNEVEN < step / usual < 1 + UNEVEN:
            raise DataError(
                f"{_where(table, row)} from {before!r} to {after!r} it is {step / usual:.3g} times "
                "the usual step: add or remove rows, or set data.time=null if every row is a step "
                "after the one before all the same"
            )


def _moment(text: str, where: str) -> float:
    """A time as a number; dates in seconds, of universal time unless they say otherwise."""
    try:
        value = float(text)
    except ValueError:
        is_month = re.fullmatch(r"\d{4}-\d{2}", text)
        try:
            date = datetime.fromisoformat(f"{text}-01" if is_month else text)
        except ValueError:
            value = math.nan
        else:
            value = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(value):
        raise DataError(
            f"{where} the time {text!r} is neither a number nor a date as 2024-01-31 or "
            "2024-01-31 18:00: write it so, or set data.time=null"
        )
    return value


def _where(table: Table, row: Line) -> str:
    return f"{table.path}, line {row.line}:"
