"""Texts from tables of comma- or tab-separated values, with a label each or without, or from lines.

    text,label
    "A fine film, and funny.",positive

A file with a header and one text per row, in UTF-8. Files that end in ``.tsv`` or ``.tab`` are
separated by tabs, and quotation marks in them are characters like any other; all others are quoted
as in CSV (RFC 4180).
"""

from pathlib import Path
from typing import Literal, NamedTuple

from zoo.data.download import DataError
from zoo.data.tables import TABS, read_table
from zoo.data.text.parallel_text import read_lines


class Row(NamedTuple):
    """A text, its label, and the lines where it begins and ends."""

    text: str
    label: str
    line: int
    end: int


class TextTables(NamedTuple):
    """How tables of texts are laid out.

    Attributes:
        text_column: name of the column of texts.
        label_column: name of the column of labels.
        quoting: whether quotation marks stand around texts that hold separators or line breaks;
            ``auto``: in files separated by commas.
    """

    text_column: str
    label_column: str
    quoting: Literal["auto"] | bool

    def read(self, path: Path) -> list[Row]:
        """The rows of a table.

        Raises:
            DataError: something is wrong with the file.
        """
        return self._read(path, (self.text_column, self.label_column))

    def read_unlabelled(self, path: Path) -> list[Row]:
        """The rows of a table that need have no labels, or the lines of a ``.txt`` file.

        Lines without a text are omitted; a label is the empty one.

        Raises:
            DataError: something is wrong with the file.
        """
        if path.suffix.lower() != ".txt":
            return self._read(path, (self.text_column,))
        lines = enumerate(read_lines(path), 1)
        rows = [Row(line.strip(), "", number, number) for number, line in lines if line.strip()]
        if not rows:
            raise DataError(f"{path} holds no text")
        return rows

    def note(self, path: Path, rows: list[Row]) -> str:
        """How many rows were read, and what quotation marks may have done to them."""
        note = f"{path}: {len(rows):,} {'row' if len(rows) == 1 else 'rows'}"
        if long := [row for row in rows if row.end > row.line]:
            count = f"{len(long):,} of them over several lines"
            note += f", {count} (first: lines {long[0].line} to {long[0].end})"
        quoted = [row for row in rows if len(row.text) > 1 and row.text[0] == row.text[-1] == '"']
        if quoted and not self._is_quoted(path):
            note += f", {len(quoted):,} in quotation marks, which stay (unless data.quoting=true)"
        return note

    def _read(self, path: Path, names: tuple[str, ...]) -> list[Row]:
        table = read_table(
            path,
            *names,
            quoted=self._is_quoted(path),
            unquote=", or set data.quoting=false if they mean nothing",
        )
        places = [table.column(name) for name in names]
        rows = []
        for fields, line, end in table.rows:
            found = [fields[place] for place in places]
            if not all(found):
                name = names[found.index("")]
                raise DataError(f"{path}, line {line}: the column {name!r} is empty")
            text, label = (*found, "")[:2]
            rows.append(Row(text, label, line, end))
        if not rows:
            raise DataError(f"{path} holds no text below its header")
        return rows

    def _is_quoted(self, path: Path) -> bool:
        return path.suffix.lower() not in TABS if self.quoting == "auto" else self.quoting
