"""What models check of their arguments and of their input, in one sentence each.

Where `torch.fx` traces a network, an input is a stand-in without a shape, and nothing is checked.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.fx import Proxy


def check_at_least_one(**sizes: int | Iterable[int]) -> None:
    """Refuses sizes (of a layer, of several layers, numbers of layers) below 1.

    Raises:
        ValueError: naming the argument and its value.
    """
    for name, size in sizes.items():
        if any(value < 1 for value in ((size,) if isinstance(size, int) else size)):
            raise ValueError(f"{name} must be at least 1, not {size}")


def check_probability(**values: float) -> None:
    """Refuses probabilities of dropping something that are not in [0, 1).

    Raises:
        ValueError: naming the argument and its value.
    """
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name} must be in [0, 1), not {value}")


def check_lengths(
    lengths: Tensor, *, batch: int, time: int, least: int = 1, name: str = "lengths"
) -> None:
    """Refuses lengths that are not those of a padded batch.

    Args:
        lengths: of each sequence; off the CPU, where a look at them would wait for the device, and
            where a network is compiled, exported or transformed, only their number is checked.
        batch: sequences.
        time: steps of the longest.
        least: 0 where a sequence may be empty.
        name: what the argument is called.

    Raises:
        ValueError: naming the lengths and what is allowed.
    """
    fits = lengths.shape == (batch,) and not lengths.is_floating_point()
    unknown = torch.compiler.is_compiling() or needs_plain_operations()
    if fits and not unknown and batch and lengths.device.type == "cpu":
        fits = bool(lengths.min() >= least and lengths.max() <= time)
    if not fits:
        raise ValueError(
            f"{name} must be {batch} whole numbers from {least} to {time}, not {lengths.tolist()}"
        )


def is_traced(x: object) -> bool:
    """Whether an input is `torch.fx`'s stand-in for one."""
    return isinstance(x, Proxy)


def needs_plain_operations() -> bool:
    """Whether `torch.func` transforms, or `torch.export` records, what is being computed.

    They see through neither a function with a gradient by hand that works in place or gathers over
    a loop, nor sparse tensors.
    """
    # torch's own code asks the first of these, too: there is no public name for it.
    return torch._C._are_functorch_transforms_active() or torch.compiler.is_exporting()


def check_shape(x: Tensor, *expected: int) -> None:
    """Refuses samples that have not just this shape.

    Raises:
        ValueError: naming the shape and what is allowed.
    """
    if not is_traced(x) and tuple(x.shape[1:]) != expected:
        raise ValueError(f"x must be (batch, {', '.join(map(str, expected))}), not {(*x.shape,)}")


def check_images(x: Tensor, *, in_channels: int, smallest: int = 1) -> None:
    """Refuses images that a network cannot work on.

    Args:
        x: what should be ``(batch, in_channels, height, width)``.
        in_channels: channels that the first layer takes.
        smallest: least height and width from which something is left after every layer.

    Raises:
        ValueError: naming the shape and what is allowed.
    """
    if is_traced(x):
        return
    if x.ndim != 4 or x.size(1) != in_channels:
        raise ValueError(f"x must be (batch, {in_channels}, height, width), not {tuple(x.shape)}")
    if min(x.shape[2:]) < smallest:
        raise ValueError(
            f"x must be at least {smallest}x{smallest} pixels for this network, not "
            f"{x.size(2)}x{x.size(3)}: raise the data's image_size"
        )
