"""Series of one's own, to be forecast: windows of the past, and the values that come next."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypedDict

import torch
from torch import Tensor

from zoo.data.download import DataError
from zoo.data.files import locate
from zoo.data.loading.tensor import TensorLoader
from zoo.data.module import DataModule, Part, check_batch_size
from zoo.data.sequences.series_table import SeriesTable, read_series
from zoo.data.splits import check_fractions

SCALE = "scale.json"
"""File of a run folder: the mean and the standard deviation of each column."""


class SeriesOptions(TypedDict, total=False):
    """Arguments of :class:`Series` that are the same for any file."""

    batch_size: int | None
    flatten: bool
    val_fraction: float
    test_fraction: float
    drop_last: bool


class Series(DataModule):
    r"""The ``horizon`` next values of some columns, from the ``context`` last rows of all.

    .. math:: (x_{t-c+1}, \dots, x_t) \mapsto (y_{t+1}, \dots, y_{t+h})

    The format of the file is in `zoo/data/sequences/series_table.py`. It is divided by time: the
    last rows are test, those before them val, all others train. A window belongs to the split in
    which all of its targets lie, so that no target is in two splits; what val and test are given
    may reach back into the rows before theirs, as it would in use. Columns are shifted and scaled
    to mean 0 and standard deviation 1 over the training rows (``scale.json`` of a run folder), and
    so losses and metrics are in standard deviations. Predictions are in the columns' own units.

    A batch is ``(inputs, targets)``, float32: ``(batch, context, columns)``, the targets' columns
    first, and ``(batch, horizon)`` or, of several targets, ``(batch, horizon, targets)``. Windows
    overlap in memory: there is one copy of the series.

    Args:
        path: the file, from where you stand or within ``root``.
        root: folder of all data.
        columns: names of the columns that are given; ``auto``: all that hold a number, but that of
            the times.
        targets: which of them are to be forecast; ``auto``: all.
        time: name of the column of times, which must rise in even steps; null: rows are such steps.
        context: rows given.
        horizon: rows to be forecast.
        period: steps of a season, with which the seasonal naive forecast repeats; null: none. It
            changes no batch.
        batch_size: windows a batch; null: all in one batch.
        flatten: give the windows as vectors ``(batch, context * columns)``, for models that take no
            sequences.
        val_fraction: share of the rows for val.
        test_fraction: share for test, the last; 0: there is no test split.
        drop_last: omit the last training batch of an epoch if it is smaller.

    Raises:
        ValueError: an argument is out of range.
    """

    changeable: ClassVar[tuple[str, ...]] = ("root", "path", "period")

    def __init__(
        self,
        path: str,
        *,
        root: str = "data",
        columns: Literal["auto"] | tuple[str, ...] = "auto",
        targets: Literal["auto"] | tuple[str, ...] = "auto",
        time: str | None = None,
        context: int = 48,
        horizon: int = 24,
        period: int | None = None,
        batch_size: int | None = 64,
        flatten: bool = False,
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        drop_last: bool = False,
    ) -> None:
        super().__init__()
        check_batch_size(batch_size, optional=True)
        check_fractions(val_fraction, test_fraction)
        for name, value in (("context", context), ("horizon", horizon)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if period is not None and not 1 <= period <= context:
            raise ValueError(f"period must be from 1 to the context {context}, not {period}")
        self.columns = None if columns == "auto" else tuple(columns)
        self.targets = None if targets == "auto" else tuple(targets)
        self._open = [name for name in ("columns", "targets") if getattr(self, name) is None]
        for name, names in (("columns", self.columns), ("targets", self.targets)):
            if names is not None and not 0 < len(names) == len(set(names)):
                raise ValueError(f"{name} must be different names, not {list(names)}")
        if time in (*(self.columns or ()), *(self.targets or ())):
            raise ValueError(f"time must be no column that is given or forecast, not {time!r}")
        for target in self.targets or ():
            if target not in (self.columns or self.targets or ()):
                raise ValueError(f"targets must be among the columns, not {target!r}")
        self.path = locate(path, root)
        self.time = time
        self.context, self.horizon, self.period = context, horizon, period
        self.batch_size = batch_size
        self.flatten = flatten
        self.shares = {"val": val_fraction} | ({"test": test_fraction} if test_fraction else {})
        self.drop_last = drop_last
        self.scale: dict[str, list[float]] = {}

    @property
    def splits(self) -> tuple[str, ...]:
        return ("train", *self.shares)

    @property
    def value_names(self) -> tuple[str, ...]:
        """What is forecast, as the columns of a table of predictions."""
        if self.columns is None:
            raise RuntimeError(f"{type(self).__name__} needs setup() before its facts are known")
        return self.targets or self.columns

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        table = self._read(self.path)
        starts = self._starts(len(table.values))
        if not all(starts.values()):
            enough = next(
                n for n in itertools.count(len(table.values)) if all(self._starts(n).values())
            )
            raise DataError(
                f"{self.path} holds {len(table.values):,} rows, and windows of {self.context} and "
                f"the {self.horizon} that follow need {enough:,} to be in {', '.join(starts)}: add "
                "rows, or lower data.context or data.horizon"
            )
        self._learn(table, starts["train"].stop + self.horizon - 1)
        series = self._standardized(table).to(device)
        targets = series[:, : len(self.value_names)].contiguous()  # (time, targets)
        given = series.unfold(0, self.context, 1).transpose(1, 2)  # (windows, context, columns)
        wanted = targets.unfold(0, self.horizon, 1).transpose(1, 2)  # (windows, horizon, targets)
        for split, rows in starts.items():
            inputs = given[rows.start - self.context : rows.stop - self.context]
            self.loaders[split] = TensorLoader(
                (
                    inputs.flatten(1) if self.flatten else inputs,
                    wanted[rows.start : rows.stop].squeeze(2),
                ),
                batch_size=self.batch_size,
                shuffle=split == "train",
                seed=seed,
                drop_last=self.drop_last and split == "train",
                device=device,
                part=part,
            )
        self.notes = [self._summary(table, starts)]

    def facts(self) -> dict[str, Any]:
        out_features = self.horizon * len(self.value_names)
        in_features = len(self.columns or ()) * (self.context if self.flatten else 1)
        return {"in_features": in_features, "out_features": out_features}

    def lacks(self) -> dict[str, str]:
        numbers = self.facts()["out_features"]
        return {"num_classes": f"what is forecast are numbers and no classes: set it to {numbers}"}

    def resolved(self) -> dict[str, Any]:
        if self.columns is None:
            return {}
        found = {"columns": self.columns, "targets": self.value_names}
        return {name: list(found[name]) for name in self._open}

    def artifacts(self) -> dict[str, str]:
        if not self.scale:
            return {}
        content = {name: {"mean": mean, "std": std} for name, (mean, std) in self.scale.items()}
        return {SCALE: json.dumps(content, indent=2) + "\n"}

    def load_artifacts(self, folder: Path) -> None:
        file = folder / SCALE
        if not file.exists():
            return
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            self.scale = {name: [float(x["mean"]), float(x["std"])] for name, x in content.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{file} cannot be read ({' '.join(str(error).split())}); without it this run's "
                "numbers have no unit: restore it"
            ) from error

    def naive_forecasts(self, inputs: Tensor) -> dict[str, Tensor]:
        """Forecasts for which nothing is learned.

        ``naive`` says the last value for all steps; ``seasonal_naive``, where there is a
        ``period``, the value of a whole number of periods before.

        Args:
            inputs: windows as batches have them, or each as a vector.

        Shape:
            - each: as the targets of a batch
        """
        past = inputs.reshape(len(inputs), self.context, -1)[..., : len(self.value_names)]
        periods = {"naive": 1, "seasonal_naive": self.period}
        return {
            name: past[:, torch.arange(self.horizon) % period - period].squeeze(2)
            for name, period in periods.items()
            if period is not None
        }

    def read_inputs(self, path: Path) -> tuple[Tensor, list[dict[str, str]]]:
        """The last window of another file, and the steps after it.

        Args:
            path: a file like that of the training, as short as a window.

        Raises:
            DataError: something is wrong with the file, or the run folder lacks ``scale.json``.
        """
        if not self.scale:
            raise DataError(f"the run folder has no {SCALE}, without which numbers have no unit")
        series = self._standardized(self._read(path))
        if len(series) < self.context:
            raise DataError(
                f"{path} holds {len(series)} rows, and a forecast needs the last {self.context}: "
                "add those before"
            )
        window = series[-self.context :].unsqueeze(0)  # (1, context, columns)
        steps = [{"step": str(step)} for step in range(1, self.horizon + 1)]
        return window.flatten(1) if self.flatten else window, steps

    def in_units(self, prediction: Any) -> Any:
        """A prediction for a window in the columns' own units, a row for each step.

        Args:
            prediction: named tuple of tensors of ``horizon * targets`` elements, or None.

        Returns:
            The same of tensors ``(horizon, targets)``.
        """
        mean, std = self._scales(self.value_names)
        rows = (
            None if x is None else x.cpu().double().reshape(self.horizon, -1) * std + mean
            for x in prediction
        )
        return type(prediction)(*rows)

    def _read(self, path: Path) -> SeriesTable:
        return read_series(path, self.columns, time=self.time)

    def _targets_first(self, columns: tuple[str, ...]) -> tuple[str, ...]:
        targets = columns if self.targets is None else self.targets
        for target in targets:
            if target not in columns:
                raise DataError(
                    f"{self.path} holds no column of numbers {target!r} (data.targets): there are "
                    f"{', '.join(map(repr, columns))}"
                )
        return (*targets, *(name for name in columns if name not in targets))

    def _starts(self, count: int) -> dict[str, range]:
        """The row of the first target of each window, by split."""
        shares = (1 - sum(self.shares.values()), *self.shares.values())
        ends = [round(count * sum(shares[: i + 1])) for i in range(len(shares))]
        begins = [max(self.context, end) for end in (0, *ends)]
        rows = zip(begins, ends, strict=False)
        return {
            split: range(begin, max(begin, end - self.horizon + 1))
            for split, (begin, end) in zip(self.splits, rows, strict=True)
        }

    def _learn(self, table: SeriesTable, num_train: int) -> None:
        """Finds out what is not given, by the training rows alone."""
        self.columns = self._targets_first(table.columns)
        if self.scale:
            return
        train = table.values[:num_train]
        std = train.std(0, correction=0)
        pairs = torch.stack([train.mean(0), std.where(std > 0, 1)], 1)  # what never changes: 0
        self.scale = dict(zip(table.columns, pairs.tolist(), strict=True))

    def _standardized(self, table: SeriesTable) -> Tensor:
        """Float32 ``(time, columns)``, in the order of the columns."""
        assert self.columns is not None
        values = table.values[:, [table.columns.index(name) for name in self.columns]]
        mean, std = self._scales(self.columns)
        return ((values - mean) / std).float()

    def _scales(self, names: Sequence[str]) -> Tensor:
        """Float64 ``(2, columns)``: means, and standard deviations."""
        return torch.tensor([self.scale[name] for name in names], dtype=torch.float64).T

    def _summary(self, table: SeriesTable, starts: dict[str, range]) -> str:
        """What was read, and what becomes of it."""
        rows = f"{len(table.values):,} rows"
        if table.times is not None:
            rows += f" from {table.times[0]} to {table.times[1]}"
        windows = ", ".join(f"{len(found):,} {split}" for split, found in starts.items())
        given = [name for name in self.columns or () if name not in self.value_names]
        note = f"series of {self.path.name}: {rows}, windows: {windows}; "
        note += f"forecast: {', '.join(self.value_names)}"
        note += f"; also given: {', '.join(given)}" if given else ""
        return note + (f"; without numbers: {', '.join(table.left_out)}" if table.left_out else "")
