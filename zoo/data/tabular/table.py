r"""Your own table, CSV, TSV or Parquet: features and targets from its columns.

    rooms,area,city,price                python train.py data=table data.path=houses.csv \
    3,71,Leeds,190000                        data.target=price task=regression \
    5,,York,320000                           model=linear_regression

How files are read is in `zoo/data/tabular/frame.py`, what columns are in `kinds.py`, what becomes
of them in `preparation.py`, of targets in `targets.py`. All that is learned from the training rows
is kept in the run folder, `table.json`: a prediction needs nothing else.
"""

import json
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from zoo.data.download import DataError
from zoo.data.files import locate
from zoo.data.loading.order import check_balance
from zoo.data.loading.tensor import TensorLoader
from zoo.data.module import DataModule, Part, check_batch_size
from zoo.data.sampling import Balance
from zoo.data.splits import (
    SPLITS,
    check_folds,
    check_fractions,
    divide,
    divide_or_fold,
    resampled,
)
from zoo.data.tabular.division import (
    by_column,
    by_time,
    check_differ,
    check_ways,
    group_numbers,
)
from zoo.data.tabular.frame import MISSING, Frame, read_frame, take
from zoo.data.tabular.kinds import find_kinds
from zoo.data.tabular.mixed_targets import MixedTargets, restored_targets
from zoo.data.tabular.preparation import Encoding, Preparation
from zoo.data.tabular.targets import MixedKinds, TargetKind, Targets, check_kind, find_kind

ARTIFACT = "table.json"


class TableFile(DataModule):
    """Batches ``(features, targets)``: float32 ``(batch, in_features)``, and what is to be learned.

    Targets are float32 ``(batch, columns)`` of numbers or labels, or of targets of several kinds
    (:mod:`zoo.data.tabular.mixed_targets`); int64 ``(batch,)`` of classes
    (:mod:`zoo.data.tabular.targets`). A row without a target is refused. The rows are divided at
    random, classes in proportion, unless ``group``, ``time``, ``split``, ``fold`` or files of their
    own say otherwise.

    Args:
        path: the table, from where you stand or within ``root``.
        target: the column to predict, or several.
        root: folder of all data.
        val: file of the validation rows; null: taken from ``path``.
        test: file of the test rows; null: taken from ``path`` if ``val`` is too, else there is no
            test split.
        target_kind: ``numbers``, ``classes`` or ``labels`` (several columns of 0 and 1), or of
            several columns a list of ``numbers`` and ``classes``, one for each; ``auto``: by their
            values.
        class_names: of classes, in their order, which matters where they have one (low, middle,
            high); ``auto``: those of the training rows, sorted.
        ignore: columns to leave out.
        categorical: columns whose values are categories, though they are numbers (zip codes) or
            mostly differ.
        numeric: columns whose values are numbers, though they look like identifiers.
        categories: ``one_hot``, or ``codes`` for a model with embeddings.
        components: principal components in place of the columns: how many (2), or the share of the
            variance that they have together (0.9); null: the columns as they are.
        missing: what stands for a gap in text files, besides an empty field.
        standardize: shift and scale every number *and numeric targets* to mean 0 and standard
            deviation 1 over the training rows, so that a mean squared error is the unexplained
            share of the variance. Predictions are written in the targets' own units.
        batch_size: rows a batch; null for the whole split in one batch.
        group: column of which no value is in two splits (a patient, a household).
        time: column by which the rows are divided: the latest are the test.
        split: column that says ``train``, ``val`` or ``test``.
        fold: which fold of a cross-validation is the test; null: there are no folds.
        num_folds: how many there are; as many as rows: one is left out at a time.
        val_fraction: share of val, of folds: outside the test.
        test_fraction: share of the test; 0: there is none.
        split_seed: another seed, another division.
        balance: let every class come equally often in training: ``undersample``, ``oversample`` or
            ``resample`` (:func:`~zoo.data.sampling.balanced_order`).
        bootstrap_seed: draw as many training rows with replacement (bagging,
            :func:`~zoo.data.splits.resampled`), after all has been learned from them; null: all as
            they are.
        drop_last: omit the last training batch of an epoch if it is smaller.

    Raises:
        ValueError: an argument is out of range, or two divide the rows in different ways.
    """

    changeable: ClassVar[tuple[str, ...]] = ("root", "path")
    repeated = ("fold",)
    for_training = (*DataModule.for_training, "balance", "bootstrap_seed")

    def __init__(
        self,
        path: str,
        target: str | tuple[str, ...],
        *,
        root: str = "data",
        val: str | None = None,
        test: str | None = None,
        target_kind: Literal["auto"] | TargetKind | MixedKinds = "auto",
        class_names: Literal["auto"] | tuple[str, ...] = "auto",
        ignore: tuple[str, ...] = (),
        categorical: tuple[str, ...] = (),
        numeric: tuple[str, ...] = (),
        categories: Encoding = "one_hot",
        components: int | float | None = None,
        missing: tuple[str, ...] = MISSING,
        standardize: bool = True,
        batch_size: int | None = 64,
        group: str | None = None,
        time: str | None = None,
        split: str | None = None,
        fold: int | None = None,
        num_folds: int = 10,
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        split_seed: int = 0,
        balance: Balance = "none",
        bootstrap_seed: int | None = None,
        drop_last: bool = False,
    ) -> None:
        super().__init__()
        check_batch_size(batch_size, optional=True)
        check_balance(balance)
        check_folds(fold, num_folds)
        check_fractions(val_fraction, test_fraction)
        self.target_names = (target,) if isinstance(target, str) else tuple(target)
        names = self.target_names
        if not names or len(set(names)) < len(names):
            raise ValueError(f"target must be one column or different ones, not {list(names)}")
        check_kind(target_kind, len(names))
        if categories not in get_args(Encoding):
            raise ValueError(
                f"categories must be one of {', '.join(get_args(Encoding))}, not {categories!r}"
            )
        files = {"val": val, "test": test}
        apart = {"group": group, "time": time, "split": split}
        check_ways(apart | {"fold": fold} | files)
        if components is not None and not (
            components >= 1 if isinstance(components, int) else 0 < components < 1
        ):
            raise ValueError(
                "components must be a number of them from 1 on, a share of the variance between 0 "
                f"and 1, or null, not {components}"
            )
        if components is not None and categories == "codes":
            raise ValueError("components must be null with categories=codes, which are no numbers")
        self.components = components
        self.columns = {"ignore": ignore, "categorical": categorical, "numeric": numeric}
        self.apart = {key: name for key, name in apart.items() if name is not None}
        check_differ(
            {"target": names} | self.columns | {key: (name,) for key, name in self.apart.items()}
        )
        self.path, self.root, self.files = path, root, files
        self.class_names = () if class_names == "auto" else tuple(class_names)
        self.target_kind: TargetKind | MixedKinds | None = (
            None if target_kind == "auto" else target_kind
        )
        self.categories: Encoding = categories
        self.missing = tuple(missing)
        self.standardize = standardize
        self.batch_size = batch_size
        self.fold, self.num_folds = fold, num_folds
        self.shares = {"val": val_fraction} | ({"test": test_fraction} if test_fraction else {})
        self.split_seed = split_seed
        self.balance, self.bootstrap_seed = balance, bootstrap_seed
        self.drop_last = drop_last
        self.preparation: Preparation | None = None
        self.targets: Targets | MixedTargets | None = None
        self.identifiers: list[str] = []

    @property
    def splits(self) -> tuple[str, ...]:
        """Train, val and, where there are rows for it, test."""
        if self.files["test"] is not None or self.fold is not None:
            return SPLITS
        if "split" in self.apart:
            return tuple(by_column(self._frame, self.apart["split"]))
        has_test = self.files["val"] is None and "test" in self.shares
        return SPLITS if has_test else SPLITS[:2]

    @cached_property
    def _frame(self) -> Frame:
        """The table of the training rows."""
        return self._read(self.path)

    def _read(self, path: str) -> Frame:
        names = (*self.target_names, *self.apart.values())
        return read_frame(locate(path, self.root), *names, missing=self.missing)

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        frame = self._frame
        self.target_kind = self.target_kind or find_kind(frame, self.target_names)
        divided = self._divided(frame)
        sizes = ", ".join(f"{len(index):,} {split}" for split, (_, index) in divided.items())
        self.notes = [f"{frame.name}: {len(frame):,} rows; {sizes}"]
        if self.preparation is None or self.targets is None:
            self._learn(frame, divided["train"][1])
        assert self.preparation is not None and self.targets is not None
        for split, (source, index) in divided.items():
            is_train = split == "train"
            rows = take(source, resampled(index, self.bootstrap_seed) if is_train else index)
            features, notes = self.preparation.tensor(rows)
            self.notes += [f"{split}: {note}" for note in notes]
            self.loaders[split] = TensorLoader(
                (features, self.targets.tensor(rows, split)),
                batch_size=self.batch_size,
                shuffle=is_train,
                seed=seed,
                drop_last=self.drop_last and is_train,
                device=device,
                part=part,
                balance=self.balance if is_train else "none",
            )

    def read_inputs(self, path: Path) -> tuple[Tensor, list[dict[str, str]]]:
        """The features of another table's rows, and what each is called: number, identifiers.

        Args:
            path: a table with the columns that the run has learned from; the target is not needed.

        Raises:
            DataError: it cannot be used.
        """
        if self.preparation is None:
            raise DataError(f"this run folder has no {ARTIFACT}: restore it, or train anew")
        frame = read_frame(path, missing=self.missing)
        features, self.notes = self.preparation.tensor(frame)
        known = [name for name in self.identifiers if name in frame.columns.columns]
        texts = {name: frame.texts(name).fill_null("").to_list() for name in known}
        names = [
            {"row": str(row + 1)} | {name: values[row] for name, values in texts.items()}
            for row in range(len(frame))
        ]
        return features, names

    @property
    def value_names(self) -> tuple[str, ...]:
        """What predicted numbers are called."""
        return () if self.targets is None else self.targets.value_names

    def in_units(self, prediction: Any) -> Any:
        """A prediction whose numbers are in the targets' own units."""
        return prediction if self.targets is None else self.targets.restored(prediction)

    def facts(self) -> dict[str, Any]:
        if self.preparation is None or self.targets is None:
            raise RuntimeError("TableFile.setup() must be called before its facts are known")
        inputs: dict[str, Any] = {"in_features": self.preparation.width}
        if self.categories == "codes":
            inputs = {
                "num_numbers": self.preparation.num_numbers,
                "cardinalities": self.preparation.cardinalities,
            }
        return inputs | self.targets.facts()

    def lacks(self) -> dict[str, str]:
        said = {} if self.targets is None else self.targets.lacks()
        if self.categories == "codes":
            codes = "the categories are codes: set model=entity_embeddings, or data.categories="
            return said | {"in_features": f"{codes}one_hot"}
        fix = "the categories are one-hot: set data.categories=codes, or another model"
        return said | dict.fromkeys(("num_numbers", "cardinalities"), fix)

    def resolved(self) -> dict[str, Any]:
        kind = self.target_kind
        return {"target_kind": list(kind) if isinstance(kind, tuple) else kind}

    def artifacts(self) -> dict[str, str]:
        """``table.json``: all that was learned from the training rows."""
        if self.preparation is None or self.targets is None:
            return {}
        content = {
            "columns": self.preparation.to_json(),
            "targets": self.targets.to_json(),
            "identifiers": self.identifiers,
        }
        return {ARTIFACT: json.dumps(content, indent=2) + "\n"}

    def load_artifacts(self, folder: Path) -> None:
        file = folder / ARTIFACT
        if not file.is_file():
            return
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            self.preparation = Preparation.from_json(content["columns"])
            self.targets = restored_targets(content["targets"])
            self.identifiers = content["identifiers"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{file} cannot be read ({reason}); without it this run's columns have no "
                "meaning: restore it"
            ) from error

    def _learn(self, frame: Frame, train: Tensor) -> None:
        """Fits what becomes of columns and targets to the training rows."""
        assert self.target_kind is not None
        apart = (*self.target_names, *self.apart.values())
        kinds = find_kinds(frame, apart=apart, **self.columns)
        self.targets = self._learned_targets(frame, train)
        self.preparation = Preparation.fit(
            frame,
            train,
            kinds,
            encoding=self.categories,
            scale=self.standardize,
            components=self.components,
        )
        self.identifiers = kinds.identifiers
        self.notes += [self.targets.note(take(frame, train)), *kinds.notes()]
        self.notes += self.preparation.notes()

    def _learned_targets(self, frame: Frame, train: Tensor) -> Targets | MixedTargets:
        kind, names, scale = self.target_kind, self.target_names, self.standardize
        assert kind is not None
        if isinstance(kind, str):
            return Targets.fit(frame, train, names, kind, scale=scale, class_names=self.class_names)
        if self.class_names:
            raise DataError(
                f"{frame.name}: data.class_names orders the classes of a single target; of several "
                "kinds leave it auto"
            )
        return MixedTargets.fit(frame, train, names, kind, scale=scale)

    def _divided(self, frame: Frame) -> dict[str, tuple[Frame, Tensor]]:
        """The rows of each split, and the table they are in."""
        others = {split: self._read(file) for split, file in self.files.items() if file}
        parts = self._parts(frame, others)
        whole = {split: (other, torch.arange(len(other))) for split, other in others.items()}
        found = {split: (frame, index) for split, index in parts.items()} | whole
        return {split: found[split] for split in SPLITS if split in found}

    def _parts(self, frame: Frame, others: dict[str, Frame]) -> dict[str, Tensor]:
        """The rows of the first table in each split."""
        if "val" in others:
            return {"train": torch.arange(len(frame))}
        if "split" in self.apart:
            return by_column(frame, self.apart["split"])
        if "time" in self.apart:
            return by_time(frame, self.apart["time"], self.shares)
        labels: int | list[int] = len(frame)
        kinds = [self.target_kind] if isinstance(self.target_kind, str) else self.target_kind or ()
        if "classes" in kinds:  # of several targets the first that has any
            name = self.target_names[kinds.index("classes")]
            texts = frame.texts(name).fill_null("").to_list()
            numbers = {text: number for number, text in enumerate(sorted(set(texts)))}
            labels = [numbers[text] for text in texts]
        groups = group_numbers(frame, self.apart["group"]) if "group" in self.apart else None
        options: dict[str, Any] = {"seed": self.split_seed, "source": frame.name, "groups": groups}
        if others:
            return divide(labels, {"val": self.shares["val"]}, **options)
        return divide_or_fold(
            labels, self.shares, fold=self.fold, num_folds=self.num_folds, **options
        )
