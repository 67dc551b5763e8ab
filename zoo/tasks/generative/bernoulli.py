"""What tasks look at once where their model says of every pixel how likely it is to be on."""

import warnings
from collections.abc import Iterable

import torch
from torch import Tensor

from zoo.metrics.sums import float64_on


def mean_sample(batches: Iterable[Tensor], *, is_bernoulli: bool) -> tuple[Tensor, int]:
    """The mean of every element over all samples, and how many samples there are.

    Args:
        batches: samples ``(batch, *)``, at least one.
        is_bernoulli: whether they must be such as a Bernoulli unit takes.

    Returns:
        ``(*,)``, on the CPU in double precision, and the number.

    Raises:
        ValueError: if a value is below 0 or above 1 and must not be.
    """
    total, count = torch.zeros(()), 0
    low, high, is_binary = 0.0, 1.0, True
    for inputs in batches:
        total = total + inputs.to(float64_on(inputs.device)).sum(0).cpu().double()
        count += len(inputs)
        low, high = min(low, inputs.min().item()), max(high, inputs.max().item())
        is_binary = is_binary and bool(((inputs == 0) | (inputs == 1)).all())
    if is_bernoulli and (low < 0 or high > 1):
        raise ValueError(
            f"a Bernoulli likelihood is of values from 0 to 1, and these data have {low:.4g} to "
            f"{high:.4g}: set data.scaling=unit data.binarize=dynamic"
        )
    if is_bernoulli and not is_binary:
        warnings.warn(
            "the data have values between 0 and 1, of which a Bernoulli likelihood is none: its "
            "nats compare with nothing (data.binarize=dynamic makes the pixels binary)",
            stacklevel=2,
        )
    return total / count, count


def bernoulli_means(batches: Iterable[Tensor]) -> Tensor:
    """The probability of every element to be on, none of them 0 or 1: each has a logit.

    One success and one failure are added to what is seen.

    Raises:
        ValueError: as :func:`mean_sample`.
    """
    mean, count = mean_sample(batches, is_bernoulli=True)
    return (mean * count + 1) / (count + 2)
