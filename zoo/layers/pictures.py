"""What networks for pictures check of their input."""

from torch import Tensor


def check_pictures(x: Tensor, *, in_channels: int, smallest: int) -> None:
    """Refuses pictures that a network cannot work on, in one sentence.

    Args:
        x: what should be ``(batch, in_channels, height, width)``.
        in_channels: channels that the first layer takes.
        smallest: least height and width from which something is left after every layer.

    Raises:
        ValueError: naming the shape and what is allowed.
    """
    if x.ndim != 4 or x.size(1) != in_channels:
        raise ValueError(f"x must be (batch, {in_channels}, height, width), not {tuple(x.shape)}")
    if min(x.shape[2:]) < smallest:
        raise ValueError(
            f"x must be at least {smallest}x{smallest} pixels for this network, not "
            f"{x.size(2)}x{x.size(3)}: raise the data's image_size"
        )
