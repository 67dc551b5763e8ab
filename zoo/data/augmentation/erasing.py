"""Random erasing of whole batches: a rectangle of noise in each image, another in each."""

import torch
from torch import Tensor

from zoo.data.augmentation.base import Augmentation, float64_on


class RandomErasing(Augmentation):
    """Fills a rectangle of each image with random pixels, with probability ``p``.

    Zhong et al., "Random Erasing Data Augmentation", 2020, https://arxiv.org/abs/1708.04896. The
    paper draws rectangles until one fits into the image; here the aspect ratio is drawn, as the
    paper does uniformly, from those that fit.

    Args:
        p: probability of erasing.
        area: least and greatest share of the image that is erased.
        ratio: least and greatest ratio of height to width.
        fill: a value, in the units of the images; ``None``: every pixel at random (the paper's
            "RE-R"; from 0 to 255).
    """

    num_draws = 6

    def __init__(
        self,
        p: float = 0.5,
        area: tuple[float, float] = (0.02, 0.4),
        ratio: tuple[float, float] = (0.3, 1 / 0.3),
        *,
        fill: float | None = None,
    ) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"p must be in [0, 1], not {p}")
        if not 0 < area[0] <= area[1] <= 1:
            raise ValueError(f"area must be two numbers, 0 < least <= greatest <= 1, not {area}")
        if not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f"ratio must be two numbers, 0 < least <= greatest, not {ratio}")
        self.p = p
        self.area = area
        self.ratio = ratio
        self.fill = fill

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        top, left, height, width = self.rectangles(draws, *images.shape[-2:]).unbind(1)
        inside = within(images, top, left, height, width)
        if self.fill is not None:
            return images.masked_fill(inside, self.fill)
        return torch.where(inside, _noise(images, draws[:, 5]), images)

    def rectangles(self, draws: Tensor, rows: int, columns: int) -> Tensor:
        """Top, left, height and width of each rectangle; no height where nothing is erased.

        Shape:
            - output: ``(batch, 4)``, int64
        """
        precision = float64_on(draws.device)
        chance, size, aspect, y, x, _ = draws.to(precision).unbind(1)
        area = (self.area[0] + (self.area[1] - self.area[0]) * size) * (rows * columns)
        least = (area / columns**2).clamp(*self.ratio)  # a lower one is wider than the image
        greatest = (rows**2 / area).clamp(*self.ratio)
        ratio = least + (greatest - least) * aspect
        height = (area * ratio).sqrt().round().long().clamp(1, rows)
        width = (area / ratio).sqrt().round().long().clamp(1, columns)
        top = (y * (rows - height + 1)).long()
        left = (x * (columns - width + 1)).long()
        return torch.stack((top, left, height * (chance < self.p), width), 1)


def within(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Which pixels lie in each image's rectangle: bool ``(batch, 1, height, width)``."""
    y = torch.arange(images.shape[-2], device=images.device).unsqueeze(1)
    x = torch.arange(images.shape[-1], device=images.device)
    top, left, height, width = (n.view(-1, 1, 1) for n in (top, left, height, width))
    rows = (y >= top) & (y < top + height)  # (batch, rows, 1)
    columns = (x >= left) & (x < left + width)  # (batch, 1, columns)
    return (rows & columns).unsqueeze(1)  # (batch, 1, rows, columns)


def _noise(images: Tensor, draws: Tensor) -> Tensor:
    """Bytes that look random and are a function of each image's draw and the pixel's number.

    One draw for each pixel would be as much to make and to keep as the data set itself. These are
    the upper bits of a few rounds of multiplying and folding (Steele et al. 2014, "SplitMix").
    """
    number = torch.arange(images[0].numel(), device=images.device)
    number = number.view(1, *images.shape[1:])
    state = (draws * 2**24).long().view(-1, 1, 1, 1) * 0x2545F4914F6CDD1D
    state = (state + number) * 0x1E3779B97F4A7C15  # whole numbers that wrap around, anywhere alike
    for shift, factor in ((30, 0x3F58476D1CE4E5B9), (27, 0x14D049BB133111EB)):
        state = (state ^ (state >> shift)) * factor
    return ((state >> 31) & 0xFF).to(images.dtype)
