"""What tasks look at once where their model says of every pixel how likely it is to be on."""

import warnings
from collections.abc import Iterable

import torch
from torch import Tensor


def bernoulli_means(batches: Iterable[Tensor]) -> Tensor:
    """The mean of every element over all samples, which must be such as a Bernoulli unit takes.

    One success and one failure are added to what is seen, so that no mean is 0 or 1 and all of
    them have a logit.

    Args:
        batches: samples ``(batch, *)``, at least one.

    Returns:
        ``(*,)``.

    Raises:
        ValueError: if a value is below 0 or above 1.
    """
    total, count = torch.zeros(()), 0
    low, high, is_binary = 0.0, 1.0, True
    for inputs in batches:
        total = total.to(inputs.device) + inputs.sum(0, dtype=torch.float64)
        count += len(inputs)
        low, high = min(low, inputs.min().item()), max(high, inputs.max().item())
        is_binary = is_binary and bool(((inputs == 0) | (inputs == 1)).all())
    if low < 0 or high > 1:
        raise ValueError(
            f"a Bernoulli likelihood is of values from 0 to 1, and these data have {low:.4g} to "
            f"{high:.4g}: set data.scaling=unit data.binarize=dynamic"
        )
    if not is_binary:
        warnings.warn(
            "the data have values between 0 and 1, of which a Bernoulli likelihood is none: its "
            "nats compare with nothing (data.binarize=dynamic makes the pixels binary)",
            stacklevel=2,
        )
    return (total + 1) / (count + 2)
