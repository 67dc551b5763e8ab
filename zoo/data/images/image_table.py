"""Images that a table names, with what it says of them: a class, labels or numbers.

    file,label                  file,dog,cat,snow           file,age
    a/001.jpg,rust              001.jpg,1,0,1               001.jpg,31.5

A CSV or TSV file with a header and a row for each image. Where there are folders for classes, see
`zoo/data/images/image_folder.py`.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, Unpack, get_args

from zoo.data.download import DataError
from zoo.data.files import locate
from zoo.data.images.from_files import ImagesFromFiles, ReadingOptions
from zoo.data.images.opening import ImageReader
from zoo.data.images.reading import Sample
from zoo.data.splits import SPLITS, check_folds, check_fractions, divide_or_fold
from zoo.data.tables import Line, finite_number, read_table

TargetKind = Literal["classes", "labels", "numbers"]
MOST_CLASSES = 10  # different whole numbers that are taken for classes
TASKS = {
    "classes": "task=classification",
    "labels": "task=multi_label_classification",
    "numbers": "task=regression",
}


class ImageTable(ImagesFromFiles):
    """Batches of images, cut to a centred square and resized, and of what a table says of them.

    Targets are int64 ``(batch,)`` of classes, and float32 ``(batch, columns)`` of labels (0 or 1)
    and of numbers, which are left in their own units.

    Args:
        path: the table, from where you stand or within ``root``.
        target: the column to predict, or several.
        file: the column of the images' files, from the table's folder or ``folder`` on.
        folder: where the files are; null: where the table is.
        target_kind: ``classes``, ``labels`` (columns of 0 and 1) or ``numbers``; ``auto``: several
            columns of 0 and 1 are labels; one with text, or with no more than ten different whole
            numbers, is of classes; all others are numbers.
        split: column that says ``train``, ``val`` or ``test``; null: divided at random, classes in
            proportion.
        batch_size: images a batch.
        image_size: height and width that images are resized to.
        resize: see :class:`~zoo.data.images.image_folder.ImageFolder`.
        in_channels: 3 (RGB) or 1 (grey), whatever the files hold.
        max_value: see :class:`~zoo.data.images.opening.ImageReader`.
        background: likewise.
        val_fraction: share of val, of folds: outside the test.
        test_fraction: share of the test.
        fold: which fold of a cross-validation is the test; null: there are no folds.
        num_folds: how many there are.
        split_seed: another seed, another division.
        options: see :class:`~zoo.data.images.from_files.ImagesFromFiles`. mixup and cutmix are for
            classes.

    Raises:
        ValueError: an argument is out of range, or two do not go together.
    """

    changeable = ("root", "path", "folder", "cache", "num_workers")
    repeated = ("fold",)

    def __init__(
        self,
        path: str,
        target: str | tuple[str, ...] = "label",
        *,
        file: str = "file",
        folder: str | None = None,
        target_kind: Literal["auto"] | TargetKind = "auto",
        split: str | None = None,
        batch_size: int = 128,
        image_size: int = 32,
        resize: int | None = None,
        in_channels: int = 3,
        max_value: int | None = None,
        background: str = "white",
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        fold: int | None = None,
        num_folds: int = 10,
        split_seed: int = 0,
        **options: Unpack[ReadingOptions],
    ) -> None:
        if in_channels not in (1, 3):
            raise ValueError(f"in_channels must be 1 or 3, not {in_channels}")
        self.in_channels = in_channels
        super().__init__(batch_size=batch_size, image_size=image_size, resize=resize, **options)
        check_fractions(val_fraction, test_fraction)
        check_folds(fold, num_folds)
        self.target_names = (target,) if isinstance(target, str) else tuple(target)
        names = [*self.target_names, file, *([] if split is None else [split])]
        if not self.target_names or len(set(names)) < len(names):
            raise ValueError(f"target, file and split must be different columns, not {names}")
        if target_kind != "auto" and target_kind not in get_args(TargetKind):
            raise ValueError(
                f"target_kind must be auto, classes, labels or numbers, not {target_kind!r}"
            )
        if split is not None and fold is not None:
            raise ValueError(f"fold must be null where the column {split!r} divides, not {fold}")
        self.reader = ImageReader(max_value, background)
        self.path = locate(path, self.root)
        self.folder = self.path.parent if folder is None else locate(folder, self.root)
        self.target_kind = None if target_kind == "auto" else target_kind
        self.file, self.split = file, split
        self.shares = {"val": val_fraction, "test": test_fraction}
        self.fold, self.num_folds, self.split_seed = fold, num_folds, split_seed

    @property
    def splits(self) -> tuple[str, ...]:
        """Train, val and, if the table or a share has some for it, test."""
        if self.split is not None:
            table = read_table(self.path, self.split)
            found = {row.fields[table.column(self.split)] for row in table.rows}
            return SPLITS if "test" in found else SPLITS[:2]
        return SPLITS if self.fold is not None or self.shares["test"] else SPLITS[:2]

    def _samples(self) -> dict[str, list[Sample]]:
        apart = () if self.split is None else (self.split,)
        table = read_table(self.path, self.file, *self.target_names, *apart)
        if not table.rows:
            raise DataError(f"{self.path} holds no row below its header")
        columns = [
            [row.fields[table.column(name)] for row in table.rows] for name in self.target_names
        ]
        self.target_kind = self.target_kind or self._kind(columns)
        if self.target_kind == "classes" and len(columns) > 1:
            raise DataError(
                f"{self.path}: classes are told by one column, and data.target names "
                f"{', '.join(self.target_names)}: name one"
            )
        if self.target_kind != "classes" and (self.mixup or self.cutmix):
            raise DataError(
                f"{self.path} holds {self.target_kind}, of which images cannot be mixed: set "
                "data.mixup=0 data.cutmix=0"
            )
        targets = self._targets(columns, table.rows)
        place = table.column(self.file)
        files = [self._file(row, place) for row in table.rows]
        parts = self._parts(table.rows, table.header, targets)
        samples = {split: [(files[i], targets[i]) for i in index] for split, index in parts.items()}
        sizes = ", ".join(f"{len(found):,} {split}" for split, found in samples.items())
        self.notes.append(f"images of {self.path}: {sizes}; {self._summary(samples['train'])}")
        return samples

    def _kind(self, columns: Sequence[Sequence[str]]) -> TargetKind:
        values = [_number(text) for column in columns for text in column]
        if len(columns) > 1:
            return "labels" if set(values) <= {0.0, 1.0} else "numbers"
        if None in values:
            return "classes"
        whole = all(value is not None and value == int(value) for value in values)
        return "classes" if whole and len(set(values)) <= MOST_CLASSES else "numbers"

    def _targets(
        self, columns: Sequence[Sequence[str]], rows: Sequence[Line]
    ) -> list[int] | list[tuple[float, ...]]:
        """What is to be learned of each image."""
        for name, column in zip(self.target_names, columns, strict=True):
            if "" in column:
                line = rows[column.index("")].line
                raise DataError(f"{self.path}, line {line}: the column {name!r} is empty: fill it")
        if self.target_kind == "classes":
            self.class_names = self.class_names or tuple(sorted(set(columns[0])))
            if len(self.class_names) < 2:
                (only,) = self.class_names
                raise DataError(
                    f"{self.path}: all images have the {self.target_names[0]} {only!r}: there must "
                    "be two or more to tell apart"
                )
            places = {name: place for place, name in enumerate(self.class_names)}
            for text, row in zip(columns[0], rows, strict=True):
                if text not in places:
                    raise DataError(
                        f"{self.path}, line {row.line}: the {self.target_names[0]} {text!r} is "
                        f"not among data.class_names ({', '.join(self.class_names)})"
                    )
            return [places[text] for text in columns[0]]
        self.class_names = self.target_names
        values = [
            [
                finite_number(
                    text,
                    f"{self.path}, line {row.line}: the column {name!r}",
                    "write one, or name other columns with data.target",
                )
                for text, row in zip(column, rows, strict=True)
            ]
            for name, column in zip(self.target_names, columns, strict=True)
        ]
        if self.target_kind == "labels":
            for name, numbers in zip(self.target_names, values, strict=True):
                for number, row in zip(numbers, rows, strict=True):
                    if number not in (0, 1):
                        raise DataError(
                            f"{self.path}, line {row.line}: the label {name!r} must be 0 or 1, not "
                            f"{number:g}"
                        )
        return list(zip(*values, strict=True))

    def _file(self, row: Line, place: int) -> str:
        path = self.folder / row.fields[place]
        if not row.fields[place] or not path.is_file():
            raise DataError(
                f"{self.path}, line {row.line}: there is no image {path}: correct the column "
                f"{self.file!r}, or name their folder with data.folder"
            )
        return str(path)

    def _parts(
        self, rows: Sequence[Line], header: Sequence[str], targets: Sequence[Any]
    ) -> dict[str, list[int]]:
        """The rows of each split."""
        if self.split is None:
            labels = list(targets) if self.target_kind == "classes" else len(rows)
            shares = {name: share for name, share in self.shares.items() if share}
            divided = divide_or_fold(
                labels,
                shares,
                fold=self.fold,
                num_folds=self.num_folds,
                seed=self.split_seed,
                source=self.path,
            )
            return {split: index.tolist() for split, index in divided.items()}
        place = list(header).index(self.split)
        found: dict[str, list[int]] = {split: [] for split in SPLITS}
        for number, row in enumerate(rows):
            if row.fields[place] not in found:
                raise DataError(
                    f"{self.path}, line {row.line}: the column {self.split!r} has "
                    f"{row.fields[place]!r}: it must say train, val or test"
                )
            found[row.fields[place]].append(number)
        for split in SPLITS[:2]:
            if not found[split]:
                raise DataError(f"{self.path}: no row is in {split} by the column {self.split!r}")
        return {split: index for split, index in found.items() if index}

    def _summary(self, train: Sequence[Sample]) -> str:
        if self.target_kind == "numbers":
            return f"numbers: {', '.join(self.target_names)}"
        if self.target_kind == "labels":
            rows = [label for _, label in train]
            counts = [int(sum(column)) for column in zip(*rows, strict=True)]
        else:
            by_class = Counter(label for _, label in train)
            counts = [by_class[number] for number in range(len(self.class_names))]
        shown = [f"{n} {c:,}" for n, c in zip(self.class_names, counts, strict=True)][:12]
        more = len(counts) - len(shown)
        return f"{self.target_kind} in train: {', '.join(shown)}" + (f", {more} more" * (more > 0))

    def facts(self) -> dict[str, Any]:
        found = super().facts()
        if self.target_kind != "numbers":
            return found
        kept = {k: v for k, v in found.items() if k not in ("num_classes", "class_names")}
        return kept | {
            "out_features": len(self.target_names),
            "target_names": list(self.target_names),
        }

    def lacks(self) -> dict[str, str]:
        if self.target_kind is None:
            return {}
        fits = f"the targets are {self.target_kind}: set {TASKS[self.target_kind]}"
        if self.target_kind == "numbers":
            fits += " and model.num_classes to how many there are"
            return dict.fromkeys(("num_classes", "class_names"), fits)
        return {"out_features": fits}

    def resolved(self) -> dict[str, Any]:
        names = {} if self.target_kind == "numbers" else super().resolved()
        return {"target_kind": self.target_kind, **names} if self.target_kind else {}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
