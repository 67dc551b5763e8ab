"""How much one kind of run differs from another, and whether chance alone might do that."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

LEVEL = 0.95


class Difference(NamedTuple):
    """The mean of b minus that of a.

    Attributes:
        mean: the difference.
        low: lower bound of its 95 % confidence interval.
        high: upper bound.
        p: two-sided, of the t-test that goes with the interval.
        wilcoxon: two-sided, of the signed-rank test; None where nothing is paired.
    """

    mean: float
    low: float
    high: float
    p: float
    wilcoxon: float | None = None

    @property
    def is_more_than_noise(self) -> bool:
        """Whether the interval is on one side of 0."""
        return self.low > 0 or self.high < 0


def paired(a: Sequence[float], b: Sequence[float], *, overlap: float = 0.0) -> Difference:
    r"""Of runs that belong together: the same seed, or the same fold.

    .. math:: \bar d \pm t_{n-1} \, s_d \sqrt{\frac{1}{n} + \frac{n_\text{test}}{n_\text{train}}}

    The second term is for folds, whose training sets share samples, so that the runs are not
    independent: Nadeau and Bengio, 2003, "Inference for the generalization error",
    https://doi.org/10.1023/A:1024068626366, section 3.

    Args:
        a: a metric of each run.
        b: that of the runs they are compared with, in the same order.
        overlap: n_test / n_train of folds; 0 for seeds.
    """
    differences = [y - x for x, y in zip(a, b, strict=True)]
    mean, n = statistics.fmean(differences), len(differences)
    error = statistics.stdev(differences) * math.sqrt(1 / n + overlap)
    from scipy.stats import wilcoxon

    ranks = float(wilcoxon(differences).pvalue) if any(differences) else 1.0
    return _of(mean, error, n - 1)._replace(wilcoxon=ranks)


def unpaired(a: Sequence[float], b: Sequence[float]) -> Difference:
    """Of independent runs: Welch, 1947, which lets each kind have its own deviation."""
    parts = [statistics.variance(values) / len(values) for values in (a, b)]
    total = sum(parts)
    weights = sum(v**2 / (len(x) - 1) for v, x in zip(parts, (a, b), strict=True))
    freedom = total**2 / weights if weights else 1.0
    return _of(statistics.fmean(b) - statistics.fmean(a), math.sqrt(total), freedom)


def _of(mean: float, error: float, freedom: float) -> Difference:
    from scipy.stats import t

    reach = float(t.ppf((1 + LEVEL) / 2, freedom)) * error
    p = float(2 * t.sf(abs(mean) / error, freedom)) if error else float(mean == 0)
    return Difference(mean, mean - reach, mean + reach, p)
