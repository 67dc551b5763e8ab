"""Test-time augmentation: a classifier that looks at several views of an image."""

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.figures.grids import are_images

Views = Literal["flip", "flip_shift", "ten_crop"]


class AveragedViews(nn.Module):
    r"""The mean of a classifier's probabilities over views of each image.

    .. math:: p(x) = \sum_v w_v\, \mathrm{softmax}(f(x_v)), \quad \sum_v w_v = 1

    It returns :math:`\log p`, whose softmax is :math:`p`, so it stands in for the model in a task.

    Args:
        model: images to logits.
        views: ``flip``: the image and its mirror image; ``flip_shift``: these with half the
            weight, and both moved by one pixel up and left, and down and right, mirrored at the
            border (Jordan, 2024, https://arxiv.org/abs/2404.00498, who averages logits);
            ``ten_crop``: the four corners and the centre, and their mirror images (Krizhevsky et
            al., 2012, section 4.1).
        crop: height and width of the crops; None for 7/8 of the image's (224 of 256).

    Shape:
        - input: ``(batch, 1 or 3, height, width)``
        - output: ``(batch, classes)``
    """

    def __init__(self, model: nn.Module, views: Views, *, crop: int | None = None) -> None:
        super().__init__()
        if views not in get_args(Views):
            raise ValueError(f"tta={views}: must be one of {', '.join(get_args(Views))}")
        if crop is not None and views != "ten_crop":
            raise ValueError(f"crop={crop}: goes with tta=ten_crop")
        if crop is not None and crop < 1:
            raise ValueError(f"crop={crop}: must be at least 1")
        self.model = model
        self.views = views
        self.crop = crop

    def forward(self, x: Tensor) -> Tensor:
        if not are_images(x):
            raise ValueError(f"tta={self.views}: these data are not images")
        total: Tensor | None = None
        views = self._views(x)
        for weight, view in views:
            for seen in (view, view.flip(3)):
                p = weight * self._logits(seen).softmax(1, dtype=torch.float32)
                total = p if total is None else total + p
        assert total is not None
        mean = total / (2 * sum(weight for weight, _ in views))
        return mean.clamp_min(torch.finfo(mean.dtype).tiny).log()

    def _views(self, x: Tensor) -> list[tuple[int, Tensor]]:
        """The views and their weights, without the mirror images."""
        if self.views == "ten_crop":
            return [(1, view) for view in self._crops(x)]
        if self.views == "flip":
            return [(1, x)]
        height, width = x.shape[2:]
        padded = F.pad(x, (1, 1, 1, 1), "reflect")  # (batch, channels, height + 2, width + 2)
        return [(2, x), (1, padded[:, :, :height, :width]), (1, padded[:, :, 2:, 2:])]

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a view of images of a size."""
        if self.views != "ten_crop":
            return height, width
        crop = self.crop
        size = (round(height * 7 / 8), round(width * 7 / 8)) if crop is None else (crop, crop)
        if size[0] > height or size[1] > width:
            raise ValueError(f"crop={crop}: must be at most the images' {height}x{width}")
        return size

    def _crops(self, x: Tensor) -> list[Tensor]:
        return [x[:, :, top:bottom, left:right] for top, bottom, left, right in self._places(x)]

    def _places(self, x: Tensor) -> Iterator[tuple[int, int, int, int]]:
        height, width = x.shape[2:]
        rows, columns = self.size(height, width)
        down, right = height - rows, width - columns
        corners = [
            (0, 0),
            (0, right),
            (down, 0),
            (down, right),
            (round(down / 2), round(right / 2)),
        ]
        for top, left in corners:
            yield top, top + rows, left, left + columns

    def _logits(self, view: Tensor) -> Tensor:
        try:
            logits: Tensor = self.model(view)
        except torch.OutOfMemoryError:
            raise
        except (ValueError, RuntimeError) as error:
            size = "x".join(map(str, view.shape[2:]))
            raise ValueError(
                f"tta={self.views}: the model does not take images of {size} pixels ({error})"
            ) from error
        return logits
