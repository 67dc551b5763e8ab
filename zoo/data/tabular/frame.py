"""Tables of a user's: CSV, TSV or Parquet, and where in them a value stands.

Parquet is read by polars, which also does the arithmetic on columns: of what reads Parquet it is
the smallest (one package without dependencies; pandas needs pyarrow besides), and it mixes no types
in a column. Text files go through `zoo.data.tables`, which knows the line of every field and says
what is wrong with it; polars would fill a row that is too short with gaps. That takes some seconds
for a million rows. Their columns are text here, whatever stands in them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from polars.exceptions import PolarsError

from zoo.data.download import DataError
from zoo.data.tables import TABS, read_table

PARQUET = (".parquet", ".pq")
MISSING = ("NA", "N/A", "NaN", "nan", "null", "NULL", "?")
"""What stands for a missing value in text files, besides nothing at all."""
TRUTH = {"true": 1.0, "t": 1.0, "yes": 1.0, "y": 1.0, "false": 0.0, "f": 0.0, "no": 0.0, "n": 0.0}


@dataclass(frozen=True)
class Frame:
    """The columns of a table, all of one length.

    Attributes:
        name: what the table is called.
        columns: text, numbers, truth values, dates.
        lines: of a text file, the line that each row begins in.
    """

    name: str
    columns: pl.DataFrame
    lines: Sequence[int] | None = None

    def __len__(self) -> int:
        return self.columns.height

    @property
    def is_text(self) -> bool:
        """Whether it is from a text file, in which all columns are text."""
        return self.lines is not None

    def row(self, index: int) -> str:
        """Where a row stands."""
        if self.lines is None:
            return f"{self.name}, row {index + 1}"
        return f"{self.name}, line {self.lines[index]}"

    def column(self, name: str, key: str) -> pl.Series:
        """A column.

        Args:
            name: which one.
            key: the setting that names it.

        Raises:
            DataError: there is none of this name.
        """
        if name not in self.columns.columns:
            known = ", ".join(map(repr, self.columns.columns))
            raise DataError(
                f"{self.name} has no column {name!r}, which {key} names; its columns are {known}"
            )
        return self.columns[name]

    def numbers(self, name: str, fix: str) -> pl.Series:
        """A column as finite numbers, float64, truth values as 1 and 0; gaps stay gaps.

        Args:
            name: the column.
            fix: what the user may do about a value that is no number.

        Raises:
            DataError: a value is no finite number.
        """
        series = self.columns[name]
        found = as_numbers(series)
        wrong = series.is_not_null() & ~found.is_finite().fill_null(False)
        if wrong.any():
            index = wrong.arg_max() or 0
            raise DataError(
                f"{self.row(index)}: the column {name!r} has {str(series[index])!r}, which is not "
                f"a finite number: {fix}"
            )
        return found

    def texts(self, name: str) -> pl.Series:
        """A column as text, with gaps; whole numbers without a decimal point."""
        series = self.columns[name]
        if series.dtype.is_float() and ((series % 1 == 0) | series.is_null()).all():
            series = series.cast(pl.Int64)
        return series.cast(pl.String)


def as_numbers(series: pl.Series) -> pl.Series:
    """A column as float64, with null for what is no number.

    Words count where there is no number: yes and no, true and false, or their first letters.
    """
    found = series.cast(pl.Float64, strict=False)
    if series.dtype == pl.String and not found.count():
        words = series.str.to_lowercase()
        return words.replace_strict(TRUTH, default=None, return_dtype=pl.Float64)
    return found


def is_truth(series: pl.Series) -> bool:
    """Whether a column has truth values alone."""
    if series.dtype != pl.String:
        return series.dtype == pl.Boolean
    present = series.drop_nulls().str.to_lowercase()
    return len(present) > 0 and present.is_in(list(TRUTH)).all()


def take(frame: Frame, index: torch.Tensor) -> Frame:
    """Some of the rows."""
    rows = index.tolist()
    lines = None if frame.lines is None else [frame.lines[i] for i in rows]
    return Frame(frame.name, frame.columns[rows], lines)


def read_frame(path: Path, *columns: str, missing: Sequence[str] = MISSING) -> Frame:
    """Reads a table.

    Args:
        path: a file; tabs separate the fields where it ends in .tsv or .tab, commas where it ends
            in anything else but .parquet or .pq.
        columns: names that there must be.
        missing: what stands for a missing value in text files.

    Raises:
        DataError: it is not such a table, has no row, two columns of one name, or lacks one.
    """
    if path.suffix.lower() in PARQUET:
        try:
            whole = pl.read_parquet(path, use_pyarrow=False)
        except (PolarsError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{path} cannot be read as Parquet ({reason})") from error
        frame = Frame(str(path), whole.with_columns(pl.selectors.float().fill_nan(None)))
    else:
        table = read_table(path, *columns, unquote=_unquote(path))
        for name in table.header:
            table.column(name)  # refuses two of one name
        gaps = {"", *missing}
        fields = zip(*(row.fields for row in table.rows), strict=True)
        texts = {
            name: pl.Series([None if field in gaps else field for field in column], dtype=pl.String)
            for name, column in zip(table.header, fields, strict=False)
        }
        frame = Frame(str(path), pl.DataFrame(texts), [row.line for row in table.rows])
    if not len(frame):
        raise DataError(f"{path} holds no row below its header")
    for name in columns:
        frame.column(name, "the configuration")
    return frame


def _unquote(path: Path) -> str:
    return ", or save it as Parquet" if path.suffix.lower() in TABS else ""
