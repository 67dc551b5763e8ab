"""Random changes of the colours of whole batches, different for each image in the batch.

The functions take bytes, ``(batch, channels, height, width)`` with one number for each image, and
give bytes, with torchvision's arithmetic (a result is cut off at 0 and 255 and its fraction
dropped), so that either can stand for the other. Multiplication and addition stay two steps, since
whether a fused one is used may depend on an image's place in the batch. torchvision fuses them
where the processor can, so that a blend which is a whole number but for rounding may be one level
apart.
"""

import math

import torch
from torch import Tensor

from zoo.data.augmentation.base import Augmentation, float64_on

WHITE = 255.0


def to_bytes(values: Tensor) -> Tensor:
    """Cuts off at 0 and 255 and drops the fraction."""
    return values.clamp(0, WHITE).to(torch.uint8)


def grey(images: Tensor) -> Tensor:
    """Brightness as the eye weights it, a whole number: ``(b, c, h, w) -> (b, 1, h, w)``, float."""
    if images.shape[1] == 1:
        return images.float()
    red, green, blue = images.to(torch.int32).unbind(1)
    # In whole numbers, so that it is exact everywhere: 0.2989 R + 0.587 G + 0.114 B, rounded down.
    total = (2989 * red + 5870 * green + 1140 * blue).div(10_000, rounding_mode="floor")
    return total.unsqueeze(1).float()  # (batch, 1, height, width)


def mean_grey(images: Tensor) -> Tensor:
    """The mean of :func:`grey` over each image, ``(batch, 1, 1, 1)``."""
    brightness = grey(images)
    # A sum of whole numbers is the same in any order.
    total = brightness.to(torch.int64).sum((1, 2, 3), keepdim=True)  # (batch, 1, 1, 1)
    return total.to(float64_on(total.device)).div(brightness[0].numel()).float()


def blend(images: Tensor, others: Tensor | float, factor: Tensor) -> Tensor:
    """``factor * images + (1 - factor) * others`` as bytes; 1 leaves the images as they are.

    Shape:
        - images: ``(batch, channels, height, width)``
        - others: what can be broadcast to it
        - factor: ``(batch,)``; above 1 it leads away from ``others``
    """
    factor = factor.float().view(-1, 1, 1, 1)
    return to_bytes(images.float() * factor + others * (1 - factor))


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """0 gives black, 1 the image, 2 twice its brightness."""
    return to_bytes(images.float() * factor.float().view(-1, 1, 1, 1))


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """0 gives the mean grey, 1 the image."""
    return blend(images, mean_grey(images), factor)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """0 gives the image in shades of grey, 1 the image."""
    return blend(images, grey(images), factor) if images.shape[1] == 3 else images


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    r"""Turns all hues by a share of the circle; brightest and darkest channel keep their values.

    With the hue :math:`h` in sixths of the circle, :math:`M` and :math:`m` the greatest and the
    least of the three channels, the channel :math:`n = 5, 3, 1` for red, green and blue is

    .. math:: M - (M - m) \min(\max(\min(k, 4 - k), 0), 1), \quad k = (n + h) \bmod 6
    """
    if images.shape[1] != 3:
        return images
    red, green, blue = images.float().unbind(1)  # each (batch, height, width)
    most, least = (f(f(red, green), blue) for f in (torch.maximum, torch.minimum))
    chroma = most - least
    divisor = chroma.clamp(min=1)  # grey has no hue: whatever comes out, it is multiplied by 0
    hue = torch.where(
        most == red,
        (green - blue) / divisor,
        torch.where(most == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    hue = hue + 6 * shift.float().view(-1, 1, 1)
    ramp = (hue + torch.tensor([5.0, 3.0, 1.0], device=images.device).view(3, 1, 1, 1)) % 6
    ramp = torch.minimum(ramp, 4 - ramp).clamp(0, 1)  # (3, batch, height, width)
    # torchvision scales to bytes by a little less than 256; its fraction is dropped.
    turned = (most - chroma * ramp) * (255.999 / WHITE)
    return to_bytes(turned).movedim(0, 1)  # (batch, 3, height, width)


class ColorJitter(Augmentation):
    """Changes brightness, contrast, saturation and hue, in this order, each by chance.

    torchvision's transform of that name draws the order too. Grey images keep saturation and hue.

    Args:
        brightness: the factor is uniform within 1 minus and plus this.
        contrast: likewise.
        saturation: likewise.
        hue: the hue is turned by at most this share of the circle, either way.
    """

    num_draws = 4

    def __init__(
        self,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
    ) -> None:
        ranges = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
        for name, value in ranges.items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be in [0, 1], not {value}")
        if not 0 <= hue <= 0.5:
            raise ValueError(f"hue must be in [0, 0.5], not {hue}")
        self.ranges = (brightness, contrast, saturation, hue)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        changes = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
        columns = (2 * draws - 1).unbind(1)  # each (batch,), uniform in [-1, 1)
        for change, width, column in zip(changes, self.ranges, columns, strict=True):
            if width > 0:
                neutral = 0 if change is adjust_hue else 1
                images = change(images, neutral + width * column)
        return images


class ColorPCA(Augmentation):
    r"""Shifts each image's colour along the principal components of the training pixels.

    .. math:: [r, g, b] + [p_1, p_2, p_3] [\alpha_1 \lambda_1, \alpha_2 \lambda_2, \alpha_3
        \lambda_3]^\top, \quad \alpha_i \sim \mathcal{N}(0, 0.1^2)

    is added to every pixel, where :math:`p_i` and :math:`\lambda_i` are eigenvectors and
    eigenvalues of the covariance of the pixels, for values from 0 to 1. From Krizhevsky et al.
    2012, section 4.1. The result is float32, neither rounded nor cut off.

    Args:
        covariance: 3x3, of pixels with values from 0 to 1; see :func:`pixel_covariance`.
        std: of :math:`\alpha`.
    """

    num_draws = 3

    def __init__(self, covariance: Tensor, *, std: float = 0.1) -> None:
        if covariance.shape != (3, 3):
            raise ValueError(f"covariance must be 3x3, not {tuple(covariance.shape)}")
        if std < 0:
            raise ValueError(f"std must not be negative, not {std}")
        values, vectors = torch.linalg.eigh(covariance.cpu().double())
        # The sign of an eigenvector is arbitrary: fixed here, whatever computed it.
        vectors = vectors * vectors.sum(0).sign().where(vectors.sum(0) != 0, torch.ones(3).double())
        self.std = std
        self.directions = vectors * values  # (3, 3), a column for each component

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        precision = float64_on(draws.device)
        # A draw may be 0, where the normal distribution's inverse is infinite.
        uniform = draws.to(precision).clamp(min=2**-25)
        alpha = torch.erfinv(2 * uniform - 1) * (math.sqrt(2) * self.std)  # (batch, 3)
        directions = self.directions.to(draws.device, precision)
        # Not a matrix product: how it adds up may depend on the size of the batch.
        shift = sum(alpha[:, i : i + 1] * directions[:, i] for i in range(3))  # (batch, 3)
        assert isinstance(shift, Tensor)
        return images.float() + (WHITE * shift).float()[:, :, None, None]


def pixel_covariance(images: Tensor) -> Tensor:
    """The covariance of the channels over all pixels, for values from 0 to 1.

    Shape:
        - images: ``(n, 3, height, width)``, uint8
        - output: ``(3, 3)``, float64 (float32 on mps)
    """
    precision = float64_on(images.device)
    total = torch.zeros(3, dtype=precision, device=images.device)
    products = torch.zeros(3, 3, dtype=precision, device=images.device)
    chunk = max(1, 2**20 // images[0, 0].numel())  # bounds the memory that the numbers take
    for part in images.split(chunk):
        pixels = part.permute(0, 2, 3, 1).reshape(-1, 3).to(precision)  # (pixels, 3)
        total += pixels.sum(0)
        products += pixels.T @ pixels  # of whole numbers: exact in double precision
    count = images.numel() // 3
    mean = total / count
    return (products / count - torch.outer(mean, mean)) / WHITE**2
