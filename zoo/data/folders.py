"""Folders of your own files: which are splits, which files are read, what is skipped.

A folder is a split if its name is one of the usual ones (``train``, ``Training``, ``train_set``,
``val2017``, ...). What looks like a split where it cannot be one is refused, since its files would
become classes, or be trained on and tested on at once.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from zoo.data.download import DataError
from zoo.data.splits import SPLITS, divide

T = TypeVar("T")

SplitFolders = Literal["auto"] | dict[str, str]
"""``auto``: by their names; or the folder of each split, ``.`` for the whole."""
NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "development"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
ENDINGS = ("set", "data", "images", "imgs", "split", "folder")  # train_set, val_images, ...
CLUTTER = frozenset(
    {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
    | {"Thumbs.db", "desktop.ini"}
)  # what systems leave behind without hiding it
HIDDEN = "hidden"  # key of what was skipped for its name


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of the user's own: ``.git``, ``._x.png``, ``Thumbs.db``."""
    return name.startswith(".") or name in CLUTTER


def split_of(name: str) -> str | None:
    """The split that a folder of this name usually is: ``Validation_Set`` is ``val``."""
    word = re.sub(r"[\W\d_]+", "", name.lower())
    for ending in ENDINGS:
        word = word.removesuffix(ending)
    return NAMES.get(word)


def subfolders(folder: Path) -> list[str]:
    """The sorted names of the folders in a folder, hidden ones omitted."""
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not is_hidden(p.name))


def list_files(
    folder: Path,
    suffixes: Collection[str],
    *,
    skipped: Counter[str] | None = None,
    enter: Callable[[Path], bool] = lambda folder: True,
) -> list[str]:
    """All files below a folder with one of the suffixes, in the order of folder and name.

    Args:
        folder: where to begin.
        suffixes: in lower case, with their dots.
        skipped: counts what is not read: ``hidden``, or the suffix.
        enter: whether to look into a folder below.
    """
    skipped = Counter() if skipped is None else skipped
    found: list[str] = []
    for place, folders, files in os.walk(folder):
        seen = [name for name in folders if not is_hidden(name)]
        skipped[HIDDEN] += len(folders) - len(seen)
        folders[:] = [name for name in seen if enter(Path(place, name))]
        for name in files:
            suffix = os.path.splitext(name)[1].lower()
            if is_hidden(name):
                skipped[HIDDEN] += 1
            elif suffix in suffixes:
                found.append(os.path.join(place, name))
            else:
                skipped[suffix or "without suffix"] += 1
    return sorted(found, key=lambda path: path.split(os.sep))  # as paths are sorted


def skipped_note(skipped: Counter[str]) -> str:
    """What was not read, for people: ``not read: 3 hidden, 2 .txt``; empty if there is nothing."""
    parts = [f"{count:,} {kind}" for kind, count in skipped.most_common(6) if count]
    return f"not read: {', '.join(parts)}" if parts else ""


def split_folders(
    folder: Path, given: SplitFolders = "auto", *, not_splits: Collection[str] = ()
) -> dict[str, Path]:
    """The folder of each split; none if the whole folder is to be divided.

    Args:
        folder: the folder.
        given: what the user says.
        not_splits: names that are known to be something else.

    Raises:
        DataError: it is not certain which are meant.
    """
    if given != "auto":
        for key, name in given.items():
            if not (folder / name).is_dir():
                raise DataError(f"{folder / name} is not a folder, but splits.{key} names it")
        return {split: folder / given[split] for split in SPLITS if split in given}
    if not folder.is_dir():
        return {}
    found: dict[str, Path] = {}
    for name in subfolders(folder):
        split = split_of(name)
        if split is None or name in not_splits:
            continue
        if split in found:
            raise DataError(
                f"{folder} holds {found[split].name} and {name}, which could both be {split}: "
                f"{_advice(split, name)}"
            )
        found[split] = folder / name
    if found and "train" not in found:
        odd, place = next(iter(found.items()))
        raise DataError(
            f"{folder} holds {place.name}, which looks like a split, but no folder train: "
            f"{_advice(odd, place.name)}"
        )
    return {split: found[split] for split in SPLITS if split in found}


def _advice(split: str, name: str) -> str:
    others = "train: <folder>" if split != "train" else "val: <folder>"
    return (
        f"rename it, or say which folders are meant: 'data.splits={{{others}, {split}: {name}}}', "
        "or data.class_names=[...] with all classes if it is one"
    )


def check_splits(splits: SplitFolders) -> None:
    """Refuses folders of splits that leave out train or name another."""
    if splits != "auto" and ("train" not in splits or not set(splits) <= set(SPLITS)):
        raise ValueError(
            f"splits must be auto or name a folder for train and, if there are any, val and test, "
            f"not {splits}"
        )


def check_beside(folder: Path, splits: Mapping[str, Path], suffixes: Collection[str]) -> None:
    """Refuses files beside the folders of the splits, which could be classes.

    Raises:
        DataError: there are some.
    """
    for name in subfolders(folder):
        if folder / name not in splits.values() and list_files(folder / name, suffixes):
            split, place = next(iter(splits.items()))
            raise DataError(
                f"{folder} holds {place.name}, which looks like a split, and beside it images in "
                f"{name}: {_advice(split, place.name)}"
            )


def splits_of(found: Mapping[str, Path], test_fraction: float) -> tuple[str, ...]:
    """Train, val and, if there is a folder or a share of it, test.

    Args:
        found: the folders of the splits, if any.
        test_fraction: share of the test where there are none.
    """
    has_test = "test" in found if found else test_fraction > 0
    return SPLITS if has_test else SPLITS[:2]


def divide_folder(
    folder: Path,
    found: Mapping[str, Path],
    find: Callable[[Path], list[T]],
    *,
    val_fraction: float,
    test_fraction: float,
    label: Callable[[T], int] | None = None,
    seed: int,
) -> dict[str, list[T]]:
    """The samples of each split of a folder of your own.

    Either there are folders of splits (a missing ``val`` is taken from ``train``; a missing
    ``test`` stays missing), or the whole folder is divided.

    Args:
        folder: the folder.
        found: the folders of the splits, if any, see :func:`split_folders`.
        find: gives the samples below a folder.
        val_fraction: share of val where it has no folder.
        test_fraction: share of the test where there are no folders of splits at all.
        label: the class of a sample, to keep the classes in proportion.
        seed: another seed, another division.

    Raises:
        DataError: there are too few samples to divide.
    """
    places = found or {"train": folder}
    samples = {split: find(place) for split, place in places.items()}
    if "val" not in samples:
        shares = {"val": val_fraction}
        if not found and test_fraction > 0:
            shares["test"] = test_fraction
        whole = samples["train"]
        labels: int | Sequence[int]
        labels = len(whole) if label is None else [label(sample) for sample in whole]
        for split, part in divide(labels, shares, seed=seed, source=folder).items():
            samples[split] = [whole[i] for i in part.tolist()]
    return {split: samples[split] for split in splits_of(found, test_fraction)}
