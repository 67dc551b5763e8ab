"""The colours of classes, as Pascal VOC has them."""

import torch
from torch import Tensor


def voc_colours() -> Tensor:
    """The colour of each of 256 classes, uint8 ``(256, 3)``: 0 is black, 255 (ignored) cream.

    Bits 0, 3 and 6 of the class number are the leading bits of red, 1, 4 and 7 those of green, and
    2 and 5 those of blue, so neighbouring classes differ most.
    """
    classes = torch.arange(256)
    channels = []
    for first in range(3):
        bits = ((classes >> first + 3 * place & 1) << 7 - place for place in range(3))
        channels.append(torch.stack(list(bits)).sum(0))
    return torch.stack(channels, dim=1).to(torch.uint8)  # (256, 3)
