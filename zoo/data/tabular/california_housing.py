"""Median house values of 20,640 districts of California in 1990: a table to download (440 kB).

Pace and Barry, 1997, "Sparse spatial autoregressions",
https://doi.org/10.1016/S0167-7152(96)00140-X. The archive is the one that scikit-learn's
``fetch_california_housing`` loads, and the columns are those that it makes of it.
"""

import tarfile
from pathlib import Path
from typing import Any, ClassVar

import polars as pl

from zoo.data.download import DataError, download
from zoo.data.tabular.frame import Frame
from zoo.data.tabular.table import TableFile

URL = "https://ndownloader.figshare.com/files/5976036"
SHA256 = "aaa5c9a6afe2225cc2aed2723682ae403280c4a3695a2ddda4ffb5d8215ea681"
ARCHIVE, MEMBER = "cal_housing.tgz", "CaliforniaHousing/cal_housing.data"
COUNTS = (
    *("Longitude", "Latitude", "HouseAge", "rooms", "bedrooms", "Population", "households"),
    *("MedInc", "value"),
)
"""Columns of the archive."""
FEATURES = (
    *("MedInc", "HouseAge", "AveRooms", "AveBedrms", "Population", "AveOccup"),
    *("Latitude", "Longitude"),
)


class CaliforniaHousing(TableFile):
    """Eight numbers of a district and its median house value, in units of 100,000 dollars.

    Rooms, bedrooms and people are per household. Batches are those of `TableFile`.

    Args:
        root: folder of all downloads; the archive is there as ``cal_housing.tgz``.
        standardize: see `TableFile`.
        batch_size: districts a batch; null for the whole split in one batch.
        fold: which fold of a cross-validation is the test; null: there are no folds.
        num_folds: how many there are.
        split_seed: another seed, another division.
        drop_last: omit the last training batch of an epoch if it is smaller.

    Raises:
        ValueError: an argument is out of range.
    """

    changeable: ClassVar[tuple[str, ...]] = ("root",)

    def __init__(
        self,
        *,
        root: str = "data",
        standardize: bool = True,
        batch_size: int | None = 64,
        fold: int | None = None,
        num_folds: int = 10,
        split_seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        super().__init__(
            ARCHIVE,
            "MedHouseVal",
            root=root,
            target_kind="numbers",
            standardize=standardize,
            batch_size=batch_size,
            fold=fold,
            num_folds=num_folds,
            split_seed=split_seed,
            drop_last=drop_last,
        )

    def _read(self, path: str) -> Frame:
        file = download(URL, Path(self.root) / path, sha256=SHA256)
        try:
            with tarfile.open(file) as archive, archive.extractfile(MEMBER) as member:  # type: ignore[union-attr]
                raw = pl.read_csv(member.read(), has_header=False, new_columns=list(COUNTS))
        except (OSError, tarfile.TarError, KeyError, pl.exceptions.PolarsError) as error:
            raise DataError(f"{file} holds no {MEMBER} ({error}): delete it") from error
        made = raw.cast(pl.Float64).with_columns(
            AveRooms=pl.col("rooms") / pl.col("households"),
            AveBedrms=pl.col("bedrooms") / pl.col("households"),
            AveOccup=pl.col("Population") / pl.col("households"),
            MedHouseVal=pl.col("value") / 100_000,
        )
        return Frame(str(file), made.select(*FEATURES, "MedHouseVal"))

    def resolved(self) -> dict[str, Any]:
        return {}
