"""What is to be predicted of a table: numbers, a class, or several labels that are there or not.

| kind | a target of | ``auto`` takes it for |
|---|---|---|
| ``numbers`` | float32 ``(rows, columns)``, standardised on request | columns of numbers |
| ``classes`` | int64 ``(rows,)``, one column | text, yes and no; whole numbers, no more than 10 \
different ones and a fifth of the rows |
| ``labels`` | float32 ``(rows, columns)`` of 0 and 1 | several columns of 0 and 1, or yes and no |

Several columns of different kinds are in `mixed_targets.py`. Classes are those of the training
rows, sorted; whatever belongs to a row has no gaps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import polars as pl
import torch
from torch import Tensor

from zoo.data.download import DataError
from zoo.data.tabular.frame import Frame, as_numbers, is_truth
from zoo.data.tabular.kinds import are_numbers, listed

TargetKind = Literal["numbers", "classes", "labels"]
MixedKinds = tuple[Literal["numbers", "classes"], ...]
"""A kind for each of several targets."""
MOST_CLASSES = 10
ROWS_A_CLASS = 5
TASKS = {
    "numbers": "task=regression",
    "classes": "task=classification",
    "labels": "task=multi_label_classification",
}


def check_kind(kind: str | MixedKinds, targets: int) -> None:
    """Refuses what is neither a kind of all targets, nor auto, nor a kind for each of them."""
    allowed = ("auto", *get_args(TargetKind))
    if isinstance(kind, str) and kind not in allowed:
        raise ValueError(f"target_kind must be one of {', '.join(allowed)}, not {kind!r}")
    if not isinstance(kind, str) and (
        len(kind) != targets or not set(kind) <= {"numbers", "classes"}
    ):
        raise ValueError(
            f"target_kind must be numbers or classes for each of {targets} targets, or one kind "
            f"of all, not {list(kind)}"
        )


def find_kind(frame: Frame, names: Sequence[str]) -> TargetKind | MixedKinds:
    """The kind of the columns that are to be predicted, by their values.

    Returns:
        The kind, or a kind for each of several columns, if one of them is text, or yes and no, and
        they are not all labels.

    Raises:
        DataError: a column is numbers and text.
    """
    if len(names) == 1:
        return _kind_of_one(frame, names[0])
    columns = [frame.columns[name] for name in names]
    numbers = [as_numbers(column) for column in columns]
    gaps = [
        found.null_count() > column.null_count()
        for found, column in zip(numbers, columns, strict=True)
    ]
    if not any(gaps) and all(found.is_in([0.0, 1.0]).all() for found in numbers):
        return "labels"
    if not any(gaps) and not any(map(is_truth, columns)):
        return "numbers"
    return tuple(_kind_of_one(frame, name) for name in names)


def _kind_of_one(frame: Frame, name: str) -> Literal["numbers", "classes"]:
    column = frame.columns[name]
    if is_truth(column) or not are_numbers(frame, name, "set data.target_kind=classes"):
        return "classes"
    values = as_numbers(column)
    most = min(MOST_CLASSES, len(values) // ROWS_A_CLASS)
    is_few = (values % 1 == 0).all() and values.n_unique() <= most
    return "classes" if is_few else "numbers"


@dataclass
class Targets:
    """What the targets of the training rows say, and with it the targets of any rows.

    Attributes:
        kind: see above.
        names: the columns.
        class_names: of classes.
        mean: what is subtracted from each column of numbers.
        std: what it is divided by.
    """

    kind: TargetKind
    names: list[str]
    class_names: list[str]
    mean: list[float]
    std: list[float]

    @classmethod
    def fit(
        cls,
        frame: Frame,
        train: Tensor,
        names: Sequence[str],
        kind: TargetKind,
        *,
        scale: bool,
        class_names: Sequence[str] = (),
    ) -> "Targets":
        """Looks at the training rows.

        Args:
            frame: all rows.
            train: those for training.
            names: the columns.
            kind: of the targets.
            scale: whether to standardise numbers.
            class_names: of classes, in their order; none: those of the training rows, sorted.

        Raises:
            DataError: a row has no target, there is but one class, a name is of none, or all
                numbers are the same.
        """
        found = cls(kind, list(names), [], [0.0] * len(names), [1.0] * len(names))
        for name in names:
            _check_whole(frame, name)
        if kind == "classes":
            if len(names) > 1:
                raise DataError(
                    f"{frame.name}: data.target_kind=classes predicts one column, not "
                    f"{', '.join(names)}"
                )
            there = _sorted(frame.texts(names[0])[train.tolist()])
            if class_names and (odd := sorted(set(class_names) ^ set(there))):
                raise DataError(
                    f"{frame.name}: data.class_names must be the {names[0]} of the training rows "
                    f"in their order ({', '.join(there[:20])}), which {odd[0]!r} does not fit"
                )
            found.class_names = list(class_names) or there
            if len(found.class_names) < 2:
                raise DataError(
                    f"{frame.name}: all training rows have the {names[0]} "
                    f"{found.class_names[0]!r}: there must be two or more to tell apart"
                )
            return found
        values = found._numbers(frame)
        if kind == "numbers" and scale:
            for place, name in enumerate(names):
                column = values[train, place]
                found.mean[place] = column.mean().item()
                found.std[place] = column.std(correction=0).item()
                if not found.std[place]:
                    raise DataError(
                        f"{frame.name}: all training rows have the {name} {found.mean[place]:g}: "
                        "there is nothing to learn"
                    )
        return found

    def tensor(self, frame: Frame, split: str) -> Tensor:
        """The targets of rows.

        Args:
            frame: the rows.
            split: which split they are.

        Raises:
            DataError: one is missing, or of a class that no training row has.
        """
        for name in self.names:
            _check_whole(frame, name)
        if self.kind == "classes":
            return self._classes(frame, split)
        values = self._numbers(frame)
        if self.kind == "labels":
            return values.float()
        mean, std = (torch.tensor(v, dtype=torch.float64) for v in (self.mean, self.std))
        return ((values - mean) / std).float()

    @property
    def task(self) -> str:
        """The task that they are for."""
        return TASKS[self.kind]

    @property
    def value_names(self) -> tuple[str, ...]:
        """What predicted numbers are called."""
        return tuple(self.names) if self.kind == "numbers" else ()

    def restored(self, prediction: Any) -> Any:
        """A prediction whose numbers are in the targets' own units."""
        if self.kind != "numbers":
            return prediction
        return type(prediction)(*(None if x is None else self.in_units(x) for x in prediction))

    def to_json(self) -> dict[str, Any]:
        """All of it as plain Python."""
        return vars(self)

    def in_units(self, values: Tensor) -> Tensor:
        """Numbers as they were before they were standardised: ``(rows, columns)``."""
        mean, std = (torch.tensor(v, dtype=torch.float64) for v in (self.mean, self.std))
        return (values.double().cpu() * std + mean).to(values)

    def facts(self) -> dict[str, Any]:
        """What they say to a model and a task."""
        if self.kind == "numbers":
            return {"out_features": len(self.names), "target_names": self.names}
        names = self.class_names if self.kind == "classes" else self.names
        return {"num_classes": len(names), "class_names": list(names)}

    def lacks(self) -> dict[str, str]:
        """Which task these targets are for, by the fact that another one asks for."""
        what = ", ".join(map(repr, self.names))
        if self.kind == "numbers":
            many = len(self.names)
            said = (
                f"the target {what} is a number: set task=regression and "
                f"model=linear_regression, or model.num_classes={many} of another model "
                "(data.target_kind=classes if its values are classes)"
            )
            return dict.fromkeys(("num_classes", "class_names"), said)
        is_many = self.kind == "labels"
        count = f"{len(self.names)} labels" if is_many else f"{len(self.class_names)} classes"
        said = (
            f"the target {what} has {count}: set {self.task} and a model of classes, such "
            "as softmax_regression or mlp (data.target_kind=numbers if it means numbers)"
        )
        return {"out_features": said}

    def note(self, train: Frame) -> str:
        """The targets of the training rows in words, with the task that they are for."""
        what = ", ".join(self.names)
        if self.kind == "classes":
            counts = self.tensor(train, "train").bincount().tolist()
            counted = [f"{n} {count:,}" for n, count in zip(self.class_names, counts, strict=True)]
            what += f", in training {listed(counted)}"
        elif self.std != [1.0] * len(self.names):
            what += ", standardised"
        return f"target, {self.kind} ({self.task}): {what}"

    def _numbers(self, frame: Frame) -> Tensor:
        """Columns of numbers as they are, float64 ``(rows, columns)``."""
        fix = "correct it, or set data.target_kind=classes"
        columns = [frame.numbers(name, fix).to_list() for name in self.names]
        values = torch.tensor(columns, dtype=torch.float64).T  # (rows, columns)
        if self.kind == "labels":
            wrong = ((values != 0) & (values != 1)).nonzero()
            if len(wrong):
                row, place = wrong[0].tolist()
                raise DataError(
                    f"{frame.row(row)}: the label {self.names[place]!r} is "
                    f"{values[row, place]:g}: it must be 0 or 1"
                )
        return values

    def _classes(self, frame: Frame, split: str) -> Tensor:
        texts = frame.texts(self.names[0]).to_list()
        numbers = {name: number for number, name in enumerate(self.class_names)}
        for row, text in enumerate(texts):
            if text not in numbers:
                raise DataError(
                    f"{frame.row(row)}: the {self.names[0]} {text!r} of this {split} row is not "
                    f"one of the training rows' ({', '.join(self.class_names[:20])}): add rows "
                    "that have it, or remove this one"
                )
        return torch.tensor([numbers[text] for text in texts])


def _check_whole(frame: Frame, name: str) -> None:
    """Refuses a row without a target."""
    missing = frame.columns[name].is_null()
    if missing.any():
        index = missing.arg_max() or 0
        raise DataError(
            f"{frame.row(index)}: the target {name!r} is missing, as in {missing.sum():,} rows "
            "altogether: write it or remove the row"
        )


def _sorted(texts: pl.Series) -> list[str]:
    """Different texts in order, that of their values where they are numbers."""
    names = texts.unique().to_list()
    if texts.cast(pl.Float64, strict=False).null_count() == 0:
        return sorted(names, key=float)
    return sorted(names)
