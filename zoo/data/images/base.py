"""What all data sets of labelled images share: normalisation, facts, preparing an image.

Those that keep a few large files in memory go on in `zoo.data.images.in_memory`, those with a file
for each image in `zoo.data.images.from_files`.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from zoo.data.images.opening import ImageReader
from zoo.data.module import DataModule

if TYPE_CHECKING:
    from PIL.Image import Image

Scaling = Literal["standard", "symmetric", "unit"]
RANGES: dict[str, tuple[float, float]] = {"symmetric": (0.5, 0.5), "unit": (0.0, 1.0)}
"""Mean and standard deviation that make values -1 to 1, or leave them 0 to 1."""


class Normalize:
    r"""Per-channel standardisation, :math:`y = (x / m - \mathrm{mean}) / \mathrm{std}`.

    Done as one multiplication and one addition over whole batches, in whatever order the pixels
    lie in memory (which is kept), with float32 results also for uint8 images.

    Args:
        mean: of each channel, for values from 0 to 1.
        std: of each channel, likewise.
        max_value: :math:`m`, the value of white in the images: 255, or 1.

    Shape:
        - input: ``(batch, channels, height, width)``
        - output: the same
    """

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], *, max_value: float = 255.0
    ) -> None:
        if len(mean) != len(std):
            raise ValueError(f"mean and std must be equally long, not {len(mean)} and {len(std)}")
        if any(value <= 0 for value in std):
            raise ValueError(f"std must be greater than 0, not {list(std)}")
        self.mean = tuple(float(value) for value in mean)
        self.std = tuple(float(value) for value in std)
        self._scale = torch.tensor([1 / (max_value * s) for s in self.std])
        self._shift = torch.tensor([-m / s for m, s in zip(self.mean, self.std, strict=True)])
        self._tables: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}

    def __call__(self, images: Tensor) -> Tensor:
        batch, channels, height, width = images.shape
        pixels_last = channels > 1 and not images.is_contiguous()
        if pixels_last:
            images = images.permute(0, 2, 3, 1)  # (batch, height, width, channels)
        scale, shift = self._table(channels, height * width, pixels_last, images.device)
        flat = images.reshape(batch, -1)  # (batch, pixels)
        flat = flat * scale if flat.dtype == torch.float32 else flat.float().mul_(scale)
        # Not addcmul: a fused multiply-add rounds otherwise than the two steps, and whether a value
        # is computed with it may depend on its place in the batch.
        images = flat.add_(shift).view(images.shape)
        return images.permute(0, 3, 1, 2) if pixels_last else images

    def _table(
        self, channels: int, pixels: int, pixels_last: bool, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Scale and shift of every value of an image: one long row is fast, a short one slow."""
        key = (channels, pixels, pixels_last, device)
        if key not in self._tables:
            if channels != len(self.mean):
                raise ValueError(
                    f"images must have {len(self.mean)} channels, as many as mean, not {channels}"
                )
            scale, shift = self._scale.to(device), self._shift.to(device)
            self._tables[key] = (
                (scale.repeat(pixels), shift.repeat(pixels))
                if pixels_last
                else (scale.repeat_interleave(pixels), shift.repeat_interleave(pixels))
            )
        return self._tables[key]


class ImageModule(DataModule):
    """A data set of labelled images.

    Attributes:
        image_size: height and width.
        in_channels: 1 for grey images, 3 for colour.
        class_names: the name of each class, in the order of the labels.
        normalize: applied last to every batch.
        raw_size: height and width of the images as they come, where :meth:`framed` takes such.
        reader: opens image files, those to predict for included.
    """

    image_size: int
    in_channels: int
    class_names: Sequence[str]
    normalize: Normalize
    raw_size: int | None = None
    reader = ImageReader()
    for_training = (*DataModule.for_training, "augment", "mixup", "cutmix")

    def facts(self) -> dict[str, Any]:
        return {
            "num_classes": len(self.class_names),
            "class_names": list(self.class_names),
            "in_channels": self.in_channels,
            "image_size": self.image_size,
            "in_features": self.in_channels * self.image_size**2,
            "pixel_mean": list(self.normalize.mean),
            "pixel_std": list(self.normalize.std),
        }

    def converter(self, other: "ImageModule") -> Callable[[Tensor], Tensor]:
        """What makes of images that this module has normalised such as another one gives.

        Where an image holds several of the other's, these come one after the other.

        Raises:
            ValueError: their channels or sizes do not allow it.
        """
        if other.in_channels != self.in_channels:
            raise ValueError(
                f"its images have {other.in_channels} channels, and these {self.in_channels}"
            )
        is_framed = other.image_size != self.image_size
        if is_framed and (type(other) is not type(self) or self.raw_size != self.image_size):
            raise ValueError(
                f"its images have {other.image_size} pixels a side, and these {self.image_size}"
            )
        normalize = Normalize(other.normalize.mean, other.normalize.std, max_value=1.0)
        mean, std = (
            torch.tensor(values).view(-1, 1, 1)
            for values in (self.normalize.mean, self.normalize.std)
        )

        def convert(images: Tensor) -> Tensor:
            x = (images.float() * std.to(images.device) + mean.to(images.device)).clamp(0, 1)
            return normalize(other.framed(x) if is_framed else x)

        return convert

    def framed(self, images: Tensor) -> Tensor:
        """Images as they come, not normalised, enlarged or framed to `image_size`."""
        raise NotImplementedError(f"{type(self).__name__} takes no images of another size")

    def preprocess(self, image: "Image") -> Tensor:
        """Prepares any image for a trained model, just as the images of the test split.

        Shape:
            - output: ``(channels, height, width)``

        Raises:
            ValueError: it is of a kind that cannot be used.
        """
        return self._prepare(self.reader.convert(image))

    @abstractmethod
    def _prepare(self, image: "Image") -> Tensor:
        """Prepares an upright image of mode ``L`` or ``RGB``."""


def check_scaling(scaling: str) -> None:
    """Refuses an unknown scaling."""
    if scaling not in ("standard", *RANGES):
        raise ValueError(f"scaling must be 'standard', 'symmetric' or 'unit', not {scaling!r}")


def fit_square(
    image: "Image", size: int, *, in_channels: int, crop: bool, resize: int | None = None
) -> Tensor:
    """Turns an image into a square one, keeping its proportions.

    Args:
        image: grey or RGB; made what ``in_channels`` asks.
        size: height and width of the result.
        in_channels: 1 or 3.
        crop: cut the longer side off evenly; else the whole image stays, on black.
        resize: bring the shorter side to this length and cut the square out of the middle, as
            torchvision's evaluation does; ``None``: the square is as large as possible.

    Returns:
        uint8 ``(height, width, channels)``.
    """
    import numpy as np
    from PIL import Image, ImageOps

    mode = "L" if in_channels == 1 else "RGB"
    if image.mode != mode:  # which would be another copy, of thousands of small images
        image = image.convert(mode)
    if resize is not None:
        short, (width, height) = min(image.size), image.size
        width, height = resize * width // short, resize * height // short
        left, top = round((width - size) / 2), round((height - size) / 2)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        image = image.crop((left, top, left + size, top + size))
    elif image.size != (size, size):
        method = Image.Resampling.BILINEAR
        if crop:
            image = ImageOps.fit(image, (size, size), method=method)
        else:
            image = ImageOps.pad(image, (size, size), method=method, color=0)
    return torch.from_numpy(np.array(image, dtype=np.uint8)).view(size, size, in_channels)
