"""Sentences and their translations, in pairs of text files with one sentence per line.

Line n of one file is the translation of line n of the other, as in all corpora of WMT and OPUS.
"""

import gzip
import warnings
import zlib
from abc import abstractmethod
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, get_args

import torch

from zoo.data.download import DataError
from zoo.data.files import locate
from zoo.data.loading.bucketing import BucketLoader, check_sizes
from zoo.data.module import Part
from zoo.data.sequences.pairs import pair_loader
from zoo.data.splits import check_fractions, divide
from zoo.data.text.base import TextModule
from zoo.data.text.vocabularies import learn_vocabulary
from zoo.data.text.vocabulary import Vocabulary

PairVocabularyKind = Literal["words", "bpe", "characters"]
SOURCE, TARGET = "source_vocabulary", "target_vocabulary"


class PairOptions(TypedDict, total=False):
    """Arguments of all sentence pairs, which :class:`SentencePairs` describes."""

    batch_size: int | None
    tokens_per_batch: int | None
    vocabulary: PairVocabularyKind
    min_frequency: int
    vocab_size: int | None
    shared: bool
    max_length: int | None
    limit: int | None
    drop_last: bool


class SentencePairs(TextModule):
    """Batches of sentence pairs of similar length, see :mod:`zoo.data.loading.bucketing`.

    The vocabularies are learned from the training pairs alone. Those of the other splits are all
    kept, whatever their length, and their references are the text exactly as in the file.

    Args:
        lower_case: for words: ignore the difference between upper and lower case.
        batch_size: pairs in a batch; null with ``tokens_per_batch``.
        tokens_per_batch: instead, maximum number of tokens in a batch: pairs times the longest of
            their sentences.
        vocabulary: ``words`` (and punctuation), ``bpe`` (frequent parts of words) or
            ``characters``; see :mod:`zoo.data.text.vocabulary`.
        min_frequency: rarer words have no token.
        vocab_size: maximum number of tokens of each language, special ones included; required for
            bpe, null for all words.
        shared: one vocabulary for both languages, as models with shared embeddings need.
        max_length: training pairs with more tokens on either side are omitted; null for no limit.
        limit: use only the first so many training pairs; null for all.
        drop_last: omit a smaller batch at the end of a training epoch.
    """

    changeable = ("root",)

    def __init__(
        self,
        *,
        lower_case: bool,
        batch_size: int | None = 128,
        tokens_per_batch: int | None = None,
        vocabulary: PairVocabularyKind = "words",
        min_frequency: int = 2,
        vocab_size: int | None = None,
        shared: bool = False,
        max_length: int | None = None,
        limit: int | None = None,
        drop_last: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(batch_size, tokens_per_batch)
        if vocabulary not in get_args(PairVocabularyKind):
            known = ", ".join(get_args(PairVocabularyKind))
            raise ValueError(f"vocabulary must be one of {known}, not {vocabulary!r}")
        for name, value in (("max_length", max_length), ("limit", limit)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1 or null, not {value}")
        self.batch_size = batch_size
        self.tokens_per_batch = tokens_per_batch
        self.vocabulary: PairVocabularyKind = vocabulary
        self.lower_case = lower_case
        self.min_frequency = min_frequency
        self.vocab_size = vocab_size
        self.shared = shared
        self.max_length = max_length
        self.limit = limit
        self.drop_last = drop_last

    @abstractmethod
    def texts(self) -> dict[str, tuple[list[str], list[str]]]:
        """Reads the sources and targets of each split."""

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        texts = self.texts()
        sources, targets = texts["train"]
        texts["train"] = sources[: self.limit], targets[: self.limit]
        if not self.vocabularies:
            self._learn(*texts["train"])
        for split, pairs in texts.items():
            self.loaders[split] = self._pair_loader(
                *pairs, is_training=split == "train", seed=seed, device=device, part=part
            )

    def _learn(self, sources: list[str], targets: list[str]) -> None:
        def learn(texts: list[str]) -> Vocabulary:
            return learn_vocabulary(
                self.vocabulary,
                texts,
                special=True,
                vocab_size=self.vocab_size,
                min_frequency=self.min_frequency,
                lower_case=self.lower_case,
            )

        if self.shared:
            self.vocabularies = dict.fromkeys((SOURCE, TARGET), learn([*sources, *targets]))
        else:
            self.vocabularies = {SOURCE: learn(sources), TARGET: learn(targets)}

    def _pair_loader(
        self,
        sources: list[str],
        targets: list[str],
        *,
        is_training: bool,
        seed: int,
        device: torch.device | str,
        part: Part,
    ) -> BucketLoader:
        pairs = list(
            zip(
                self.vocabularies[SOURCE].encode_batch(sources),
                self.vocabularies[TARGET].encode_batch(targets),
                targets,
                strict=True,
            )
        )
        most = self.max_length
        if is_training and most is not None:
            count = len(pairs)
            pairs = [pair for pair in pairs if max(map(len, pair[:2])) <= most]
            if not pairs:
                raise ValueError(f"max_length must leave a training pair, and {most} leaves none")
            if len(pairs) < count:
                warnings.warn(
                    f"{count - len(pairs):,} of {count:,} training pairs are omitted: they have "
                    f"more than max_length={most} tokens",
                    stacklevel=2,
                )
        return pair_loader(
            [source for source, _, _ in pairs],
            [target for _, target, _ in pairs],
            [reference for _, _, reference in pairs],
            batch_size=self.batch_size,
            tokens_per_batch=self.tokens_per_batch,
            shuffle=is_training,
            seed=seed,
            drop_last=is_training and self.drop_last,
            device=device,
            part=part,
        )

    def facts(self) -> dict[str, Any]:
        if not self.vocabularies:
            raise RuntimeError(f"{type(self).__name__} needs setup() before it has vocabularies")
        return {
            "source_vocab_size": len(self.vocabularies[SOURCE]),
            "target_vocab_size": len(self.vocabularies[TARGET]),
        }


class ParallelText(SentencePairs):
    """Your own pairs of files, plain text in UTF-8 or compressed with gzip (``.gz``).

    Args:
        train: the source's and the target's file, from where you stand or within ``root``.
        val: likewise; null: ``val_fraction`` of the training pairs are set aside.
        test: likewise; null: there is no test split.
        root: folder of all data.
        val_fraction: share for validation if there are no files for it.
        split_seed: determines which pairs are set aside for validation.
        lower_case: see :class:`SentencePairs`.
        options: see :class:`PairOptions`.
    """

    def __init__(
        self,
        train: tuple[str, str],
        *,
        val: tuple[str, str] | None = None,
        test: tuple[str, str] | None = None,
        root: str = "data",
        val_fraction: float = 0.1,
        split_seed: int = 0,
        lower_case: bool = False,
        **options: Unpack[PairOptions],
    ) -> None:
        super().__init__(lower_case=lower_case, **options)
        check_fractions(val_fraction)
        given = {"train": train, "val": val, "test": test}
        self.files = {split: files for split, files in given.items() if files is not None}
        self.root = Path(root)
        self.val_fraction = val_fraction
        self.split_seed = split_seed

    @property
    def splits(self) -> tuple[str, ...]:
        """Train, val and, where files are named for it, test."""
        return ("train", "val", "test") if "test" in self.files else ("train", "val")

    def texts(self) -> dict[str, tuple[list[str], list[str]]]:
        texts = {
            split: read_pairs(*(locate(file, self.root) for file in files))
            for split, files in self.files.items()
        }
        if "val" not in texts:
            sources, targets = texts["train"]
            shares = {"val": self.val_fraction}
            parts = divide(
                len(sources), shares, seed=self.split_seed, source=self.files["train"][0]
            )
            for split, part in parts.items():
                rows = part.tolist()
                texts[split] = [sources[i] for i in rows], [targets[i] for i in rows]
        return texts


def read_pairs(source: Path, target: Path) -> tuple[list[str], list[str]]:
    """The lines of two files that belong together.

    Raises:
        DataError: one of them cannot be read, has an empty line, or has more lines than the other.
    """
    sources, targets = read_lines(source), read_lines(target)
    if len(sources) != len(targets):
        raise DataError(
            f"{source} has {len(sources):,} lines and {target} {len(targets):,}: line n of one "
            "must be the translation of line n of the other"
        )
    for path, lines in ((source, sources), (target, targets)):
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                raise DataError(f"{path}, line {number:,} is empty: remove it and its translation")
    return sources, targets


def read_lines(path: Path) -> list[str]:
    """The lines of a text file in UTF-8, plain or compressed (``.gz``).

    Raises:
        DataError: naming the file and the line.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path} cannot be read ({reason})") from error
    if not content:
        raise DataError(f"{path} is empty: name a file with one sentence per line")
    # Only line feeds end a line; str.splitlines() also splits at others, which sentences may hold.
    lines = content.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n").split(b"\n")
    texts = []
    for number, line in enumerate(lines, start=1):
        try:
            texts.append(line.removesuffix(b"\r").decode())
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}, line {number:,} is not UTF-8 (byte {error.start + 1}: "
                f"0x{line[error.start]:02x}): convert the file"
            ) from error
    return texts
