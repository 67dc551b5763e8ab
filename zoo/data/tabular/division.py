"""Which rows of a table are for training, which for val and which for the test, by a column."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.data.download import DataError
from zoo.data.splits import SPLITS
from zoo.data.tabular.frame import Frame
from zoo.data.tabular.kinds import are_numbers, instants


def by_column(frame: Frame, name: str) -> dict[str, Tensor]:
    """The rows of each split, by a column that says train, val, test or nothing.

    Raises:
        DataError: it says something else, or no row is in train or val.
    """
    found: dict[str, list[int]] = {split: [] for split in SPLITS}
    for row, split in enumerate(frame.texts(name).to_list()):
        if split is None:
            continue
        if split not in found:
            raise DataError(
                f"{frame.row(row)}: the column {name!r} has {split!r}: it must say train, val, "
                "test or nothing"
            )
        found[split].append(row)
    for split in SPLITS[:2]:
        if not found[split]:
            raise DataError(
                f"{frame.name}: no row is in {split} by the column {name!r}: write {split} there "
                "for some, or set data.split=null to divide them at random"
            )
    return {split: torch.tensor(rows) for split, rows in found.items() if rows}


def by_time(frame: Frame, name: str, shares: Mapping[str, float]) -> dict[str, Tensor]:
    """The rows of each split, the earliest for training, then val, the latest for the test.

    Rows of one time stay together, so the sizes may differ a little from the shares.

    Args:
        frame: the table.
        name: a column of numbers that rise with time, or of dates (ISO 8601: 2024-05-31).
        shares: split to its share of all rows.

    Raises:
        DataError: a time is missing or none, or nothing is left for a split.
    """
    series = frame.columns[name]
    if are_numbers(frame, name, "take another column as data.time"):
        times = frame.numbers(name, "correct it").to_list()
    else:
        times = instants(series)
    for row, time in enumerate(times):
        if time is None:
            raise DataError(
                f"{frame.row(row)}: the column {name!r} has {series[row]!r}: data.time takes "
                "numbers or dates like 2024-05-31, with no gaps"
            )
    moments = torch.tensor(times, dtype=torch.float64)
    order = moments.argsort(stable=True)
    ordered = moments[order]
    sizes = [1 - sum(shares.values()), *shares.values()]
    # A cut moves to where its time begins.
    cuts = [
        int(torch.searchsorted(ordered, ordered[round(len(ordered) * sum(sizes[:i]))].item()))
        for i in range(1, len(sizes))
    ]
    parts = dict(zip(("train", *shares), order.tensor_split(cuts), strict=True))
    for split, part in parts.items():
        if not len(part):
            raise DataError(
                f"{frame.name}: no row is left for {split} by the column {name!r}: there are "
                f"{len(moments.unique())} different times in {len(moments)} rows"
            )
    return {split: part.sort().values for split, part in parts.items()}


def group_numbers(frame: Frame, name: str) -> Tensor:
    """The group of each row, as a number; a row without one is a group of its own.

    Shape:
        - output: ``(rows,)``
    """
    numbers: dict[str, int] = {}
    texts = frame.texts(name).to_list()
    groups = [
        len(texts) + row if text is None else numbers.setdefault(text, len(numbers))
        for row, text in enumerate(texts)
    ]
    return torch.tensor(groups)


def check_ways(ways: Mapping[str, Any]) -> None:
    """Refuses ways to divide the same rows that exclude each other.

    Args:
        ways: settings by name; None for those that are not given.
    """
    given = [name for name, value in ways.items() if value is not None]
    together = ({"group", "fold"}, {"group", "test"}, {"val", "test"})
    if len(given) > 1 and set(given) not in together:
        raise ValueError(
            f"{given[1]} must be null if {given[0]} is given: each divides the rows in its own way"
        )


def check_differ(columns: Mapping[str, Sequence[str]]) -> None:
    """Refuses a column that two settings name."""
    seen: dict[str, str] = {}
    for key, names in columns.items():
        for name in names:
            if seen.setdefault(name, key) != key:
                raise ValueError(f"{key} must not name {name!r}, which {seen[name]} names")
