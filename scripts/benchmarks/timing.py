"""Two sides of a comparison that run in turns, and their ratios."""

import statistics
from collections.abc import Callable
from typing import Any


class Skipped(Exception):
    """What a benchmark compares with is not installed; the message says what to do."""


def interleave(sides: dict[str, Callable[[], float]], blocks: int) -> dict[str, list[float]]:
    """Runs every side once a block, in turns; returns the seconds that each reported."""
    for side in sides.values():
        side()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(blocks):
        for name, side in sides.items():
            times[name].append(side())
    return times


def ratio(
    times: dict[str, list[float]], ours: str, theirs: str, bar: float | None = None
) -> dict[str, Any]:
    """The two ratios of two sides, and the spread of the second; without a bar for information."""
    by_block = sorted(a / b for a, b in zip(times[ours], times[theirs], strict=True))
    result: dict[str, Any] = {
        "ours": ours,
        "theirs": theirs,
        "of_minima": round(min(times[ours]) / min(times[theirs]), 4),
        "median_of_blocks": round(statistics.median(by_block), 4),
        "spread_of_blocks": [round(by_block[0], 4), round(by_block[-1], 4)],
        "ours_ms": round(1e3 * min(times[ours]), 4),
        "theirs_ms": round(1e3 * min(times[theirs]), 4),
        "bar": bar,
    }
    verdict = ""
    if bar is not None:
        worse = max(result["of_minima"], result["median_of_blocks"])
        verdict = f"; bar {bar}: {'met' if worse <= bar else 'MISSED'}"
    print(
        f"{ours} / {theirs}: {result['of_minima']:.3f} (minima), "
        f"{result['median_of_blocks']:.3f} (median of {len(by_block)} blocks, "
        f"{by_block[0]:.3f} to {by_block[-1]:.3f}){verdict}",
        flush=True,
    )
    return result
