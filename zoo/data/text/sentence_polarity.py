"""Sentence polarity: 5,331 positive and 5,331 negative sentences of film reviews.

Pang and Lee, 2005, "Seeing stars: exploiting class relationships for sentiment categorization with
respect to rating scales", https://aclanthology.org/P05-1015; the sentence polarity dataset 1.0 of
https://www.cs.cornell.edu/people/pabo/movie-review-data. They are in lower case, with spaces
between words and punctuation.
"""

import csv
import hashlib
import io
import tarfile
import zlib
from pathlib import Path
from typing import Unpack

from zoo.data.download import DataError, download, verify
from zoo.data.files import whole_file
from zoo.data.text.labelled_text import LabelledText, LabelledTextOptions
from zoo.data.text.text_tables import Row

LABELS = ("pos", "neg")


class SentencePolarity(LabelledText):
    """Sentences and whether they praise a film (``pos``) or not (``neg``).

    The data come without splits. They are divided into stratified folds: one is the test, and val
    is taken from the others; results are means over all folds::

        python train.py -m experiment=textcnn_sentence_polarity "data.fold=range(10)"

    The authors' archive is downloaded and made into a table in which positive and negative
    sentences alternate: ``root/sentence_polarity/sentence_polarity.csv``.

    Args:
        root: folder of all downloads.
        fold: which fold is the test.
        num_folds: how many there are.
        val_fraction: share of val among the sentences outside the test.
        batch_size: sentences in a batch.
        options: see :class:`~zoo.data.text.labelled_text.LabelledText`.
    """

    url = "https://www.cs.cornell.edu/people/pabo/movie-review-data/rt-polaritydata.tar.gz"
    sha256 = "0f0368573c30f3ef77c6973357f83a5deb9903d5098574ba9b764e8225b66829"
    """Of the table; none is published for the archive."""

    def __init__(
        self,
        *,
        root: str = "data",
        fold: int = 0,
        num_folds: int = 10,
        val_fraction: float = 0.1,
        batch_size: int = 50,
        **options: Unpack[LabelledTextOptions],
    ) -> None:
        self.path = Path(root) / "sentence_polarity" / "sentence_polarity.csv"
        super().__init__(
            train=str(self.path),
            val=None,
            test=None,
            root=root,
            quoting="auto",
            text_column="text",
            label_column="label",
            test_fraction=0.0,  # the folds have the test
            batch_size=batch_size,
            fold=fold,
            num_folds=num_folds,
            val_fraction=val_fraction,
            **options,
        )

    def rows(self) -> dict[str, list[Row]]:
        if not self.path.is_file():
            archive = download(self.url, self.path.with_name("rt-polaritydata.tar.gz"))
            table = _table(archive)
            if hashlib.sha256(table).hexdigest() != self.sha256:
                raise _damaged(archive, "it has other sentences")
            with whole_file(self.path) as new:
                new.write_bytes(table)
        verify(self.path, sha256=self.sha256)
        return super().rows()


def _table(archive: Path) -> bytes:
    """The sentences of the archive as CSV, a positive and a negative one in turn."""
    columns = []
    try:
        with tarfile.open(archive, "r:gz") as content:
            for label in LABELS:
                file = content.extractfile(f"rt-polaritydata/rt-polarity.{label}")
                text = file.read().decode("cp1252") if file else ""
                # Only line feeds end a line; str.splitlines() also splits at others.
                columns.append([line.strip() for line in text.removesuffix("\n").split("\n")])
        rows = [*zip(*columns, strict=True)]
    except (tarfile.TarError, OSError, EOFError, zlib.error, KeyError, ValueError) as error:
        raise _damaged(archive, str(error)) from error
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["text", "label"])
    for row in rows:
        writer.writerows(zip(row, LABELS, strict=True))
    return table.getvalue().encode()


def _damaged(archive: Path, reason: str) -> DataError:
    return DataError(
        f"{archive} is damaged or another file ({reason}): delete it, so that it is downloaded "
        "again"
    )
