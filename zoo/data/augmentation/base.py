"""Augmentation of whole batches of images, different for each image in the batch.

An augmentation is a function of the images and of uniform random numbers that it is given: it
draws none itself. The loaders make those numbers a pure function of (seed, epoch, sample index), so
neither batch size nor order nor device nor resuming changes what happens to a sample.

Augmentation comes before normalisation: values are in the units of the data (0 to 255, or 0 to 1),
where 0 is black, and so is what is filled in from outside the image.
"""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.data.sampling import seeded_generator


def float64_on(device: torch.device) -> torch.dtype:
    """Double precision, or single on Apple's mps, which has no other."""
    return torch.float32 if device.type == "mps" else torch.float64


class Augmentation(ABC):
    """A random change of images.

    Attributes:
        num_draws: how many uniform random numbers it needs for each image.
        reach: how many of the samples that follow in the batch it mixes into each.
        alternates: whether a sample keeps the numbers of the first epoch, moved by one half (and
            from 1 on to 0 again) in every second one, so that what is done to a share of one half
            in one epoch is done to the other half in the next.

    Shape:
        - images: ``(batch, channels, height, width)``, uint8 or float
        - draws: ``(batch, num_draws)``, uniform in [0, 1)
        - output: as the images; uint8 stays uint8 where pixels are only moved, else float32
    """

    num_draws: int
    reach: ClassVar[int] = 0
    alternates: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, images: Tensor, draws: Tensor) -> Tensor: ...

    def apply(self, batch: tuple[Tensor, ...], draws: Tensor) -> tuple[Tensor, ...]:
        """Changes a batch ``(images, *targets)``: the images alone, unless a subclass says more.

        What moves pixels moves those of masks (targets with height and width) too; what mixes
        images mixes their targets.
        """
        return (self(batch[0], draws), *batch[1:])


class RandomCrop(Augmentation):
    """Pads the image on all sides and cuts a window of the original size out at random.

    The usual augmentation of CIFAR (He et al. 2016, section 4.2). Pixels are kept in rows of
    (width, channels), so that every row of a window is one contiguous piece of memory: cutting a
    batch out is one gather of rows. What comes out is in ``channels_last`` memory format.

    :class:`~zoo.data.loading.tensor.TensorLoader` pads the whole data set once and calls
    :meth:`gather`; calling the object on a batch does both steps and gives the same images.

    Args:
        padding: pixels on each side.
        fill: their value, in the units of the images; ``"reflect"``: the image is mirrored at its
            border.
    """

    num_draws = 2

    def __init__(self, padding: int = 4, *, fill: float | Literal["reflect"] = 0.0) -> None:
        if padding < 1:
            raise ValueError(f"padding must be at least 1, not {padding}")
        self.padding = padding
        self.fill = fill

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        index = torch.arange(len(images), device=images.device)
        return self.gather(self.pad(images), index, draws)

    def pad(self, images: Tensor) -> Tensor:
        """Pads images and puts channels last: ``(n, c, h, w) -> (n, h + 2p, w + 2p, c)``."""
        n, channels, height, width = images.shape
        p = self.padding
        if self.fill == "reflect":
            rows, columns = (reflected(size, p, images.device) for size in (height, width))
            return images.permute(0, 2, 3, 1).index_select(1, rows).index_select(2, columns)
        shape = (n, height + 2 * p, width + 2 * p, channels)
        padded = torch.full(shape, self.fill, dtype=images.dtype, device=images.device)
        padded[:, p : p + height, p : p + width] = images.permute(0, 2, 3, 1)
        return padded

    def gather(self, padded: Tensor, index: Tensor, draws: Tensor) -> Tensor:
        """Cuts a window out of each of the images ``index`` of the padded data set.

        Shape:
            - padded: ``(n, h + 2p, w + 2p, c)``, from :meth:`pad`
            - index: ``(batch,)``
            - output: ``(batch, c, h, w)``
        """
        _, rows, columns, channels = padded.shape
        height, width = rows - 2 * self.padding, columns - 2 * self.padding
        corner = (draws * (2 * self.padding + 1)).long()  # (batch, 2)
        first = (index * rows + corner[:, 0]) * columns + corner[:, 1]  # pixel at the upper left
        row = torch.arange(0, height * columns, columns, device=padded.device)
        start = (first.unsqueeze(1) + row).view(-1)  # (batch * height,)
        # Every run of `width` pixels, wherever it begins: overlapping rows of one strided view.
        length = width * channels
        num_runs = (padded.numel() - length) // channels + 1
        runs = padded.view(-1).as_strided((num_runs, length), (channels, 1))
        windows = runs.index_select(0, start).view(-1, height, width, channels)
        return windows.permute(0, 3, 1, 2)  # (batch, channels, height, width)


def reflected(size: int, padding: int, device: torch.device) -> Tensor:
    """Which of ``size`` pixels in a row stand in its padded form, mirrored at both ends.

    Raises:
        ValueError: there are not more than ``padding``.
    """
    if padding >= size:
        raise ValueError(f"padding={padding} is too much to mirror images of {size} pixels")
    place = torch.arange(-padding, size + padding, device=device).abs()
    return (size - 1) - (size - 1 - place).abs()  # (size + 2 * padding,)


class HorizontalFlip(Augmentation):
    """Mirrors each image left to right with probability ``p``."""

    num_draws = 1

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"p must be in [0, 1], not {p}")
        self.p = p

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        flipped = draws[:, 0] < self.p
        if images.device.type == "cpu":
            # Only the mirrored half is moved: half the time of `where` over both versions. On a GPU
            # the list of indices would have to be waited for.
            index = flipped.nonzero().squeeze(1)
            if images.is_contiguous():
                return images.index_copy(0, index, images.index_select(0, index).flip(3))
            pixels = images.permute(0, 2, 3, 1)  # (batch, height, width, channels)
            pixels = pixels.index_copy(0, index, pixels.index_select(0, index).flip(2))
            return pixels.permute(0, 3, 1, 2)  # (batch, channels, height, width)
        return torch.where(flipped.view(-1, 1, 1, 1), images.flip(3), images)

    def apply(self, batch: tuple[Tensor, ...], draws: Tensor) -> tuple[Tensor, ...]:
        targets = [
            self(target.unsqueeze(1), draws).squeeze(1) if target.ndim == 3 else target
            for target in batch[1:]
        ]
        return (self(batch[0], draws), *targets)


class AlternatingFlip(HorizontalFlip):
    """Mirrors each image in every second epoch, a random half of them in the first of the two.

    In two epochs a network sees each image from both sides, where coin flips show half of them
    from one side twice (Jordan, 2024, https://arxiv.org/abs/2404.00498).
    """

    alternates = True

    def __init__(self) -> None:
        super().__init__(0.5)


class RandomAffine(Augmentation):
    r"""Turns, moves, zooms and shears each image about its centre, with bilinear interpolation.

    With :math:`u` uniform in its range for each image, an output pixel :math:`p` (from the
    centre) shows the input at

    .. math:: \frac{1}{s} \begin{pmatrix} 1 & -\tan\varphi \\ 0 & 1 \end{pmatrix} R(-\theta) (p - t)

    Args:
        degrees: the angle :math:`\theta` is within plus and minus this.
        translate: the shift :math:`t` is within plus and minus this share of width and height.
        scale: least and greatest zoom :math:`s`; above 1 makes things larger.
        shear: the shear angle :math:`\varphi` (horizontal), within plus and minus this, in degrees.
        fill: value from outside the image, in the units of the images.
    """

    num_draws = 5

    def __init__(
        self,
        degrees: float = 0.0,
        translate: float = 0.0,
        scale: Sequence[float] = (1.0, 1.0),
        *,
        shear: float = 0.0,
        fill: float = 0.0,
    ) -> None:
        if degrees < 0:
            raise ValueError(f"degrees must not be negative, not {degrees}")
        if not 0 <= translate <= 1:
            raise ValueError(f"translate must be in [0, 1], not {translate}")
        if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
            raise ValueError(f"scale must be two numbers, 0 < least <= greatest, not {scale}")
        if not 0 <= shear < 90:
            raise ValueError(f"shear must be in [0, 90), not {shear}")
        self.degrees = degrees
        self.translate = translate
        self.scale = (float(scale[0]), float(scale[1]))
        self.shear = shear
        self.fill = fill

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        # In double precision where there is any: the last bit of a vectorised sine may depend on
        # the position in the batch, and the same sample must come out the same in any batch.
        draws = draws.to(float64_on(draws.device))
        angle, shift_x, shift_y, _, shear = (2 * draws - 1).unbind(1)
        least, greatest = self.scale
        zoom = least + (greatest - least) * draws[:, 3]
        angle = angle * math.radians(self.degrees)
        tan = (shear * math.radians(self.shear)).tan()
        cos, sin = angle.cos() / zoom, angle.sin() / zoom
        shift_x, shift_y = shift_x * (self.translate * width), shift_y * (self.translate * height)
        xx, xy, yx, yy = cos + tan * sin, sin - tan * cos, -sin, cos
        x0, y0 = -(xx * shift_x + xy * shift_y), -(yx * shift_x + yy * shift_y)
        coefficients = torch.stack((xx, xy, x0, yx, yy, y0), 1).float()[..., None, None]
        xx, xy, x0, yx, yy, y0 = coefficients.unbind(1)  # each (batch, 1, 1)
        x = torch.arange(width, device=images.device) - (width - 1) / 2
        y = (torch.arange(height, device=images.device) - (height - 1) / 2).unsqueeze(1)
        grid_x = (xx * x + xy * y + x0) * (2 / width)
        grid_y = (yx * x + yy * y + y0) * (2 / height)
        grid = torch.stack((grid_x, grid_y), -1)  # (batch, height, width, 2)
        images = images.float() if self.fill == 0 else images.float() - self.fill
        moved = F.grid_sample(images, grid, mode="bilinear", align_corners=False)
        return moved if self.fill == 0 else moved + self.fill


class AugmentationSequence:
    """Applies augmentations one after the other, each with its own columns of random numbers.

    Args:
        augmentations: what is applied, in this order.
        num_samples: images in the data set.
        seed: together with the epoch and the index of a sample, all that the numbers depend on.
        device: where the images are.
    """

    def __init__(
        self,
        augmentations: Sequence[Augmentation],
        num_samples: int,
        *,
        seed: int,
        device: torch.device | str,
    ) -> None:
        self.augmentations = tuple(augmentations)
        self.reach = sum(augmentation.reach for augmentation in self.augmentations)
        self._num_samples = num_samples
        self._seed = seed
        self._device = device

    def draws(self, epoch: int) -> Tensor:
        """The random numbers of an epoch: row ``i`` is for sample ``i``."""
        draws, first = self._drawn(epoch), None
        widths = [augmentation.num_draws for augmentation in self.augmentations]
        ends = list(itertools.accumulate(widths))
        for augmentation, width, end in zip(self.augmentations, widths, ends, strict=True):
            if augmentation.alternates:
                first = self._drawn(0) if first is None else first
                own = slice(end - width, end)
                draws[:, own] = (first[:, own] + (epoch % 2) / 2) % 1
        return draws.to(self._device)

    def _drawn(self, epoch: int) -> Tensor:
        width = sum(augmentation.num_draws for augmentation in self.augmentations)
        generator = seeded_generator("augmentation", self._seed, epoch)
        return torch.rand(self._num_samples, width, generator=generator)

    def __call__(
        self, batch: tuple[Tensor, ...], draws: Tensor, *, first: int = 0
    ) -> tuple[Tensor, ...]:
        """Applies all augmentations from number ``first`` on to a batch with these draws."""
        widths = [augmentation.num_draws for augmentation in self.augmentations]
        columns = draws.split(widths, 1)
        for augmentation, numbers in list(zip(self.augmentations, columns, strict=True))[first:]:
            batch = augmentation.apply(batch, numbers)
        return batch
