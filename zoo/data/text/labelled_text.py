"""Labelled texts from tables of comma- or tab-separated values, for sequence classification.

    text,label
    "A fine film, and funny.",positive

A file with a header and one text per row, in UTF-8. Files that end in ``.tsv`` or ``.tab`` are
separated by tabs, and quotation marks in them are characters like any other; all others are quoted
as in CSV (RFC 4180).
"""

from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from zoo.data.download import DataError
from zoo.data.files import locate
from zoo.data.module import Part, check_batch_size
from zoo.data.sequences.batches import sequence_loader
from zoo.data.splits import SPLITS, check_fractions, divide
from zoo.data.tables import TABS, read_table
from zoo.data.text.base import TextModule
from zoo.data.text.vocabularies import learn_vocabulary
from zoo.data.text.vocabulary import VocabularyKind


class Row(NamedTuple):
    """A text, its label, and the lines where it begins and ends."""

    text: str
    label: str
    line: int
    end: int


class LabelledText(TextModule):
    """Batches of tokens and classes, see :class:`~zoo.data.sequences.batches.SequenceBatch`.

    The classes are the labels of the training texts, sorted; the vocabulary is learned from the
    training texts alone. Texts of similar length are batched together.

    Args:
        train: file of the training texts, from where you stand or within ``root``.
        val: file of the validation texts; null: taken from the training file.
        test: file of the test texts; null: taken from the training file, if ``val`` is too, else
            there is no test split.
        root: folder of all data.
        quoting: whether quotation marks stand around texts that hold separators or line breaks;
            ``auto``: in files separated by commas.
        text_column: name of the column of texts.
        label_column: name of the column of labels.
        batch_size: texts in a batch.
        vocabulary: ``words`` (and punctuation), ``bpe`` (frequent parts of words), ``characters``
            or ``bytes``; see :mod:`zoo.data.text.vocabulary`.
        vocab_size: maximum number of tokens, special ones included; required for bpe, null for all
            words.
        min_frequency: rarer words have no token.
        lower_case: for words: ignore the difference between upper and lower case.
        max_length: longer texts are cut after so many tokens; null for no limit.
        val_fraction: share of the training file for val, if it has no file.
        test_fraction: share for test, if neither has a file; 0: there is no test split.
        split_seed: determines how the training file is divided; classes keep their proportions.
        drop_last: omit a smaller batch at the end of a training epoch.

    Raises:
        ValueError: an argument is out of range.
    """

    changeable = ("root",)

    def __init__(
        self,
        *,
        train: str,
        val: str | None = None,
        test: str | None = None,
        root: str = "data",
        quoting: Literal["auto"] | bool = "auto",
        text_column: str = "text",
        label_column: str = "label",
        batch_size: int = 32,
        vocabulary: VocabularyKind = "words",
        vocab_size: int | None = None,
        min_frequency: int = 1,
        lower_case: bool = True,
        max_length: int | None = None,
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        split_seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        super().__init__()
        check_batch_size(batch_size)
        if max_length is not None and max_length < 1:
            raise ValueError(f"max_length must be at least 1 or null, not {max_length}")
        check_fractions(val_fraction, test_fraction)
        if test is not None and val is None:
            raise ValueError("test must be null unless val names a file too")
        if text_column == label_column:
            raise ValueError(f"label_column must not be the text_column {text_column!r}")
        self.files = {"train": train, "val": val, "test": test}
        self.root = root
        self.quoting = quoting
        self.text_column, self.label_column = text_column, label_column
        self.batch_size = batch_size
        self.vocabulary: VocabularyKind = vocabulary
        self.vocab_size = vocab_size
        self.min_frequency = min_frequency
        self.lower_case = lower_case
        self.max_length = max_length
        self.shares = {"val": val_fraction} | ({"test": test_fraction} if test_fraction else {})
        self.split_seed = split_seed
        self.drop_last = drop_last
        self.class_names: tuple[str, ...] | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        has_test = self.files["test"] is not None if self.files["val"] else "test" in self.shares
        return SPLITS if has_test else SPLITS[:2]

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        self.notes = []
        rows = self._rows()
        self.class_names = tuple(sorted({row.label for row in rows["train"]}))
        if len(self.class_names) < 2:
            raise DataError(
                f"{self.files['train']}: all training texts have the label "
                f"{self.class_names[0]!r}: at least 2 classes are needed"
            )
        if not self.vocabularies:
            learned = learn_vocabulary(
                self.vocabulary,
                [row.text for row in rows["train"]],
                special=True,
                vocab_size=self.vocab_size,
                min_frequency=self.min_frequency,
                lower_case=self.lower_case and self.vocabulary == "words",
            )
            self.vocabularies = {"vocabulary": learned}
        numbers = {name: number for number, name in enumerate(self.class_names)}
        for split, texts in rows.items():
            file = self.files[split] or self.files["train"]
            for row in texts:
                if row.label not in numbers:
                    raise DataError(
                        f"{file}, line {row.line}: the label {row.label!r} of this {split} text is "
                        f"not one of the training texts' ({', '.join(self.class_names[:20])})"
                    )
            encoded = self.vocabularies["vocabulary"].encode_batch([row.text for row in texts])
            for row, tokens in zip(texts, encoded, strict=True):
                if not tokens:
                    raise DataError(f"{file}, line {row.line}: the text {row.text!r} has no tokens")
            self.loaders[split] = sequence_loader(
                [torch.tensor(tokens[: self.max_length]) for tokens in encoded],
                [numbers[row.label] for row in texts],
                batch_size=self.batch_size,
                shuffle=split == "train",
                seed=seed,
                drop_last=split == "train" and self.drop_last,
                device=device,
                part=part,
            )

    def facts(self) -> dict[str, Any]:
        if self.class_names is None or not self.vocabularies:
            raise RuntimeError("LabelledText needs setup() before its facts are known")
        return {
            "num_classes": len(self.class_names),
            "class_names": list(self.class_names),
            "vocab_size": len(self.vocabularies["vocabulary"]),
        }

    def _rows(self) -> dict[str, list[Row]]:
        """The rows of each split."""
        files = {split: file for split, file in self.files.items() if file is not None}
        rows = {split: self._read(locate(file, self.root)) for split, file in files.items()}
        if self.files["val"] is not None:
            return rows
        whole = rows["train"]
        names = sorted({row.label for row in whole})
        labels = [names.index(row.label) for row in whole]
        parts = divide(labels, self.shares, seed=self.split_seed, source=self.files["train"])
        return {split: [whole[i] for i in indices.tolist()] for split, indices in parts.items()}

    def _read(self, path: Path) -> list[Row]:
        table = read_table(
            path,
            self.text_column,
            self.label_column,
            quoted=self._is_quoted(path),
            unquote=", or set data.quoting=false if they mean nothing",
        )
        places = [table.column(name) for name in (self.text_column, self.label_column)]
        rows = []
        for fields, line, end in table.rows:
            text, label = (fields[place] for place in places)
            if not text or not label:
                name = self.label_column if text else self.text_column
                raise DataError(f"{path}, line {line}: the column {name!r} is empty")
            rows.append(Row(text, label, line, end))
        if not rows:
            raise DataError(f"{path} holds no text below its header")
        self.notes.append(self._summary(path, rows))
        return rows

    def _is_quoted(self, path: Path) -> bool:
        return path.suffix.lower() not in TABS if self.quoting == "auto" else self.quoting

    def _summary(self, path: Path, rows: list[Row]) -> str:
        """How many rows were read, and what quotation marks may have done to them."""
        note = f"{path}: {len(rows):,} {'row' if len(rows) == 1 else 'rows'}"
        if long := [row for row in rows if row.end > row.line]:
            count = f"{len(long):,} of them over several lines"
            note += f", {count} (first: lines {long[0].line} to {long[0].end})"
        quoted = [row for row in rows if len(row.text) > 1 and row.text[0] == row.text[-1] == '"']
        if quoted and not self._is_quoted(path):
            note += f", {len(quoted):,} in quotation marks, which stay (unless data.quoting=true)"
        return note
