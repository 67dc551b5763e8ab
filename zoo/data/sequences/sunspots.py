"""Sunspots of every year from 1700 to 2008: a series to forecast, nothing to download.

Yearly means of the international sunspot number, as it was before its revision of 2015. National
Geophysical Data Center, http://www.ngdc.noaa.gov/stp/solar/solarda3.html; the file is that of
statsmodels (https://www.statsmodels.org/stable/datasets/generated/sunspots.html, which states "This
data is public domain"), with other names in its header. The number of spots rises and falls in
cycles of some 11 years (Schwabe, 1844), of unequal length and height.
"""

from pathlib import Path
from typing import Unpack

from zoo.data.sequences.series import Series, SeriesOptions


class Sunspots(Series):
    """See :class:`~zoo.data.sequences.series.Series`; a batch has one column and one target.

    Args:
        context: years given.
        horizon: years to be forecast.
        period: years of a cycle, with which the seasonal naive forecast repeats; null: none.
        options: see :class:`~zoo.data.sequences.series.Series`.
    """

    changeable = ("period",)

    def __init__(
        self,
        *,
        context: int = 12,
        horizon: int = 1,
        period: int | None = 11,
        **options: Unpack[SeriesOptions],
    ) -> None:
        super().__init__(
            path=str(Path(__file__).with_name("sunspots.csv")),
            root=".",
            columns=("sunspots",),
            targets=("sunspots",),
            time="year",
            context=context,
            horizon=horizon,
            period=period,
            **options,
        )
