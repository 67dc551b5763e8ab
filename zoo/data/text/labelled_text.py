"""Texts of one's own with a label each, for sequence classification."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from zoo.data.download import DataError
from zoo.data.files import locate
from zoo.data.module import Part, check_batch_size
from zoo.data.sequences.batches import SequenceBatch, sequence_loader
from zoo.data.splits import SPLITS, check_folds, check_fractions, divide_or_fold
from zoo.data.text.base import TextModule
from zoo.data.text.text_tables import Row, TextTables
from zoo.data.text.vocabularies import learn_vocabulary
from zoo.data.text.vocabulary import VocabularyKind


class LabelledTextOptions(TypedDict, total=False):
    """See :class:`LabelledText`: what goes with texts from anywhere."""

    vocabulary: VocabularyKind
    vocab_size: int | None
    min_frequency: int
    lower_case: bool
    max_length: int | None
    split_seed: int
    drop_last: bool


class LabelledText(TextModule):
    """Batches of tokens and classes, see :class:`~zoo.data.sequences.batches.SequenceBatch`.

    Files are tables with a header and one text per row, see :mod:`zoo.data.text.text_tables`.

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
        fold: which fold of the training file is the test (`zoo.data.splits.cross_validation`);
            ``val_fraction`` is then a share of the others, and ``test_fraction`` has no effect.
            Null: there are no folds.
        num_folds: how many there are.
        split_seed: determines how the training file is divided; classes keep their proportions.
        drop_last: omit a smaller batch at the end of a training epoch.

    Raises:
        ValueError: an argument is out of range.
    """

    changeable = ("root",)
    repeated = ("fold",)

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
        fold: int | None = None,
        num_folds: int = 10,
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
        check_folds(fold, num_folds)
        if fold is not None and val is not None:
            raise ValueError(f"fold must be null where val names a file, not {fold}")
        if text_column == label_column:
            raise ValueError(f"label_column must not be the text_column {text_column!r}")
        self.files = {"train": train, "val": val, "test": test}
        self.root = root
        self.tables = TextTables(text_column, label_column, quoting)
        self.batch_size = batch_size
        self.vocabulary: VocabularyKind = vocabulary
        self.vocab_size = vocab_size
        self.min_frequency = min_frequency
        self.lower_case = lower_case
        self.max_length = max_length
        self.shares = {"val": val_fraction} | ({"test": test_fraction} if test_fraction else {})
        self.fold, self.num_folds = fold, num_folds
        self.split_seed = split_seed
        self.drop_last = drop_last
        self.class_names: tuple[str, ...] | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        has_test = self.files["test"] is not None if self.files["val"] else "test" in self.shares
        has_test = has_test or self.fold is not None
        return SPLITS if has_test else SPLITS[:2]

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        rows = self.rows()
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
            self.loaders[split] = sequence_loader(
                self._tokens(texts, file),
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

    def read_inputs(self, path: Path) -> Iterator[tuple[SequenceBatch, list[dict[str, str]]]]:
        """Other texts in batches, in their order, each text with its name: itself.

        Args:
            path: a table that has the column of texts, or a `.txt` file of one text a line.

        Raises:
            DataError: something is wrong with the file.
        """
        rows = self.tables.read_unlabelled(path)
        for start in range(0, len(rows), self.batch_size):
            some = rows[start : start + self.batch_size]
            tokens = self._tokens(some, path)
            lengths = torch.tensor([len(sequence) for sequence in tokens])
            inputs = pad_sequence(tokens, batch_first=True)  # (batch, time)
            batch = SequenceBatch(inputs, torch.zeros_like(lengths), lengths)
            yield batch, [{"text": row.text} for row in some]

    def texts(self) -> dict[str, tuple[list[str], Tensor]]:
        """The texts of each split and their classes ``(texts,)``, for models that read no tokens.

        Raises:
            DataError: something is wrong with a file.
        """
        names = self.facts()["class_names"]
        return {
            split: ([row.text for row in rows], torch.tensor([names.index(r.label) for r in rows]))
            for split, rows in self.rows().items()
        }

    def rows(self) -> dict[str, list[Row]]:
        """The texts of each split and their labels, read anew.

        Raises:
            DataError: something is wrong with a file.
        """
        rows, self.notes = {}, []
        for split, file in self.files.items():
            if file is not None:
                path = locate(file, self.root)
                rows[split] = self.tables.read(path)
                self.notes.append(self.tables.note(path, rows[split]))
        if self.files["val"] is not None:
            return rows
        whole = rows["train"]
        names = sorted({row.label for row in whole})
        labels = [names.index(row.label) for row in whole]
        parts = divide_or_fold(
            labels,
            self.shares,
            fold=self.fold,
            num_folds=self.num_folds,
            seed=self.split_seed,
            source=self.files["train"],
        )
        return {split: [whole[i] for i in indices.tolist()] for split, indices in parts.items()}

    def _tokens(self, rows: Sequence[Row], file: object) -> list[Tensor]:
        """The tokens of each text, int64 ``(time,)``."""
        encoded = self.vocabularies["vocabulary"].encode_batch([row.text for row in rows])
        for row, tokens in zip(rows, encoded, strict=True):
            if not tokens:
                raise DataError(f"{file}, line {row.line}: the text {row.text!r} has no tokens")
        return [torch.tensor(tokens[: self.max_length]) for tokens in encoded]
