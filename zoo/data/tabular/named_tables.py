"""Small tables that need no download: breast cancer, iris and wine from scikit-learn, penguins.

| name | rows | columns | classes | source |
|---|---|---|---|---|
| ``breast_cancer`` | 569 | 30 numbers | 2 | Street, Wolberg and Mangasarian, 1993, \
https://doi.org/10.24432/C5DW2B |
| ``iris`` | 150 | 4 numbers | 3 | Fisher, 1936, https://doi.org/10.24432/C56C76 |
| ``wine`` | 178 | 13 numbers | 3 | Aeberhard and Forina, 1992, \
https://doi.org/10.24432/C5PC7J |
| ``penguins`` | 344 | 5 numbers, 2 of text; 19 gaps | 3 | Gorman, Williams and Fraser, 2014, \
https://doi.org/10.1371/journal.pone.0090081 |

The penguins of Palmer Station are in the public domain (CC0). ``penguins.csv`` beside this file is
that of Horst, Hill and Gorman's palmerpenguins, https://allisonhorst.github.io/palmerpenguins.
"""

from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import polars as pl

from zoo.data.tabular.frame import Frame, read_frame, take
from zoo.data.tabular.preparation import Encoding
from zoo.data.tabular.table import TableFile

TableName = Literal["breast_cancer", "iris", "wine", "penguins"]
PENGUINS = Path(__file__).with_name("penguins.csv")


class NamedTable(TableFile):
    """A table by its name; batches are those of `TableFile`.

    Args:
        name: ``breast_cancer``, ``iris``, ``wine`` or ``penguins``.
        target: the column to predict, or several, whose kinds are found by their values; rows
            without one are left out. None: the classes.
        categories: see `TableFile`; the penguins alone have any.
        standardize: shift and scale every number to mean 0 and standard deviation 1 over the
            training rows.
        batch_size: rows a batch; null for the whole split in one batch.
        fold: which fold of a cross-validation is the test; null: there are no folds.
        num_folds: how many there are.
        split_seed: another seed, another division.
        drop_last: omit the last training batch of an epoch if it is smaller.

    Raises:
        ValueError: there is no such table, or an argument is out of range.
    """

    changeable: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        name: TableName,
        *,
        target: str | tuple[str, ...] | None = None,
        categories: Encoding = "one_hot",
        standardize: bool = True,
        batch_size: int | None = 64,
        fold: int | None = None,
        num_folds: int = 10,
        split_seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        if name not in get_args(TableName):
            raise ValueError(f"name must be one of {', '.join(get_args(TableName))}, not {name!r}")
        super().__init__(
            name,
            target or ("species" if name == "penguins" else "class"),
            target_kind="auto" if target else "classes",
            categories=categories,
            standardize=standardize,
            batch_size=batch_size,
            fold=fold,
            num_folds=num_folds,
            split_seed=split_seed,
            drop_last=drop_last,
        )

    def _read(self, path: str) -> Frame:
        frame = self._whole(path)
        for name in self.target_names:
            frame.column(name, "data.target")
        known = frame.columns.select(self.target_names).select(
            pl.all_horizontal(pl.all().is_not_null())
        )
        return take(frame, known.to_series().to_torch().nonzero().squeeze(1))

    def _whole(self, name: str) -> Frame:
        """All rows of the table."""
        if name == "penguins":
            found = read_frame(PENGUINS)
            return Frame(name, found.columns, found.lines)
        from sklearn import datasets  # here, because importing it takes a second

        stored = getattr(datasets, f"load_{name}")()
        columns = {
            str(feature): pl.Series(values)
            for feature, values in zip(stored.feature_names, stored.data.T, strict=True)
        }
        classes = [str(stored.target_names[number]) for number in stored.target]
        return Frame(name, pl.DataFrame(columns | {"class": classes}))

    def resolved(self) -> dict[str, Any]:
        return {}
