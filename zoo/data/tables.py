"""Tables with a header in text files, CSV or TSV: what is wrong is told with file, line and fix."""

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from zoo.data.download import DataError

TABS = (".tsv", ".tab")
"""Suffixes of files whose columns are separated by tabs."""
LARGEST_FIELD = 1 << 30
"""Characters of the longest field; Python's own limit is 131,072."""
OTHER_SEPARATORS = (";", "\t", "|", ",")


class Line(NamedTuple):
    """The fields of a row, stripped of blanks, and the lines where it begins and ends."""

    fields: list[str]
    line: int
    end: int


class Table(NamedTuple):
    """A file's header and its rows, all of which are as long."""

    path: Path
    header: list[str]
    rows: list[Line]

    def column(self, name: str) -> int:
        """The place of a column.

        Raises:
            DataError: there is none of this name, or more than one.
        """
        return column(self.path, self.header, name)


def separator_of(path: Path) -> str:
    """A tab in files whose name says so, else a comma."""
    return "\t" if path.suffix.lower() in TABS else ","


def column(path: Path, header: list[str], name: str) -> int:
    """The place of a column in a header.

    Raises:
        DataError: there is none of this name, or more than one.
    """
    if header.count(name) == 1:
        return header.index(name)
    separator = separator_of(path)
    hint = ""
    for other in OTHER_SEPARATORS:
        if other != separator and any(other in field for field in header):
            hint = (
                f"; they look separated by {other!r}: separate them by {separator!r} (or by tabs, "
                "in a file that ends in .tsv)"
            )
            break
    raise DataError(
        f"{path}, line 1: there must be one column {name!r}, not {header.count(name)}; the "
        f"columns are {', '.join(map(repr, header)) or 'none'}{hint}"
    )


def finite_number(text: str, where: str, fix: str) -> float:
    """The number that a field holds.

    Args:
        text: the field.
        where: file, line and column, for the message.
        fix: what to do about it, likewise.

    Raises:
        DataError: it is not a finite number.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where} has {text!r}, which is not a finite number: {fix}")
    return value


def read_table(path: Path, *columns: str, quoted: bool = True, unquote: str = "") -> Table:
    """Reads a table in UTF-8.

    Args:
        path: the file.
        columns: names that the header must have.
        quoted: whether quotation marks stand around fields that hold separators or line breaks
            (RFC 4180); else they are characters like any other.
        unquote: what else helps against a quotation mark without its other half.

    Raises:
        DataError: it is not such a table, or cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header: list[str] = []
            rows = list(_rows(path, file, header, columns, quoted=quoted, unquote=unquote))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): name another file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not in UTF-8 ({error.reason}): convert it") from error
    return Table(path, header, rows)


def _rows(
    path: Path,
    file: Iterator[str],
    header: list[str],
    columns: tuple[str, ...],
    *,
    quoted: bool,
    unquote: str,
) -> Iterator[Line]:
    csv.field_size_limit(LARGEST_FIELD)
    reader = csv.reader(
        file,
        delimiter=separator_of(path),
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        strict=True,
    )
    begins = 1
    try:
        header += [name.strip() for name in next(reader, [])]
        for name in columns:
            column(path, header, name)
        begins = reader.line_num + 1
        for fields in reader:
            line, begins = begins, reader.line_num + 1
            if not fields:  # an empty line
                continue
            if len(fields) != len(header):
                raise DataError(
                    f"{path}, line {line}: there are {len(fields)} columns, but "
                    f"{len(header)} in the header"
                )
            yield Line([field.strip() for field in fields], line, reader.line_num)
    except csv.Error as error:
        raise DataError(
            f"{path}, line {begins}: not a valid table ({error}): close the quotation mark "
            f"and double those within{unquote}"
        ) from error
