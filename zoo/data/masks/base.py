"""What data sets of images with a class for each pixel share.

A batch is ``(images, masks)`` or, where border weights are asked for, ``(images, masks, weights)``:
float32 ``(batch, channels, height, width)``, int64 ``(batch, height, width)`` in which 255 marks
pixels without a class, and float32 ``(batch, height, width)``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.data.augmentation.deformation import NO_CLASS
from zoo.data.download import DataError
from zoo.data.images.base import Normalize
from zoo.data.images.opening import ImageReader, is_turned, opened
from zoo.data.module import DataModule

if TYPE_CHECKING:
    from PIL.Image import Image

UNKNOWN = 254  # stands for values that are not a class
Labelled = tuple[Tensor, Tensor]  # image uint8 (channels, height, width), mask uint8 (h, w)


class NormalizeAnySize(Normalize):
    """Normalisation as elsewhere, for images of many sizes: keeps no table for each of them."""

    def __call__(self, images: Tensor) -> Tensor:
        channels = images.shape[1]
        scale, shift = self._table(channels, 1, False, images.device)
        # Two steps, so that no fused one rounds otherwise: the same numbers as from the tables.
        return (images * scale.view(-1, 1, 1)).add_(shift.view(-1, 1, 1))


class MaskModule(DataModule):
    """A data set of images with a class for each pixel.

    Attributes:
        image_size: height and width of training images (tiles); ``None`` if they are not square.
        in_channels: 1 for grey images, 3 for colour.
        class_names: the name of each class, in the order of the numbers in the masks.
        normalize: applied last to the images of every batch.
        reader: opens images, those to predict for included.
    """

    image_size: int | None
    in_channels: int
    class_names: Sequence[str]
    normalize: Normalize
    reader = ImageReader()

    def facts(self) -> dict[str, Any]:
        facts = {
            "num_classes": len(self.class_names),
            "class_names": list(self.class_names),
            "in_channels": self.in_channels,
        }
        return facts if self.image_size is None else facts | {"image_size": self.image_size}

    def preprocess(self, image: "Image") -> Tensor:
        """Prepares any image for a trained model; it keeps its size.

        Shape:
            - output: ``(channels, height, width)``

        Raises:
            ValueError: it is of a kind that cannot be used.
        """
        pixels = image_tensor(self.reader.convert(image), self.in_channels)
        return self.normalize(self._resized(pixels).unsqueeze(0))[0]

    def _resized(self, pixels: Tensor) -> Tensor:
        """An image in the size in which the data are."""
        return pixels


def image_tensor(image: "Image", in_channels: int) -> Tensor:
    """Turns a grey or RGB image into uint8 ``(channels, height, width)``."""
    import numpy as np

    pixels = np.array(image.convert("L" if in_channels == 1 else "RGB"), dtype=np.uint8)
    height, width = pixels.shape[:2]
    return torch.from_numpy(pixels).view(height, width, in_channels).permute(2, 0, 1)


def read_image(
    path: str | Path,
    in_channels: int,
    reader: ImageReader = ImageReader(),  # noqa: B008 (it never changes)
) -> Tensor:
    """Reads an image file as uint8 ``(channels, height, width)``.

    Raises:
        ImageError: it is not an image that can be used.
    """
    return image_tensor(reader.read(path), in_channels)


def read_mask(path: str | Path) -> tuple[Tensor, bool]:
    """Reads a mask file: what is stored for each pixel, and whether that is a palette's index.

    Indexed PNG files (mode "P") hold class numbers, and 255 for pixels without a class, as in
    Pascal VOC; the numbers, not the colours of the palette, are returned. Grey files hold any
    values, black-and-white ones 0 and 255.

    Returns:
        uint8 ``(height, width)``, and true for indexed files.

    Raises:
        DataError: it is neither indexed nor grey, partly transparent, or has an orientation tag.
    """
    import numpy as np

    with opened(path, "a mask") as image:
        image.load()
        if is_turned(image):
            raise DataError(
                f"{path} has an orientation tag, so that its pixels may not lie as its image's do: "
                "save the mask upright, without one"
            )
        if image.mode in ("RGB", "RGBA", "LA"):  # grey images are often stored as colour
            if (
                image.mode != "RGB"
                and image.getchannel("A").histogram()[255] < image.width * image.height
            ):
                raise DataError(f"{path} is a mask with transparent pixels: save it without")
            colours = np.array(image.convert("RGB"))
            if (colours == colours[..., :1]).all():
                return torch.from_numpy(colours[..., 0].copy()), False
        elif image.mode in ("P", "L", "1"):
            indexed = image.mode == "P"
            values = np.array(image if indexed else image.convert("L"), dtype=np.uint8)
            return torch.from_numpy(values), indexed
        kind = f"an image of mode {image.mode}"
    raise DataError(
        f"{path} is {kind}, not a mask: save it as an indexed (palette) or grey PNG file, with one "
        f"value for each class"
    )


def to_classes(
    path: str | Path, values: Tensor, classes: dict[int, int], *, advice: str = "replace the file"
) -> Tensor:
    """Turns what a mask file holds into class numbers.

    Args:
        path: of the file, for the error.
        values: uint8, what it holds.
        classes: the number of each value that means something; 255 for pixels to be ignored.
        advice: what to do about other values.

    Raises:
        DataError: if there are other values.
    """
    table = [classes.get(value, UNKNOWN) for value in range(256)]
    mask = torch.tensor(table, dtype=torch.uint8)[values.long()]
    if (unknown := values[mask == UNKNOWN]).numel():
        raise DataError(
            f"{path} holds the value {unknown[0]}, but only "
            f"{', '.join(str(value) for value in classes)} have a meaning: {advice}"
        )
    return mask


def check_pair(image: str | Path, mask: str | Path, sample: Labelled) -> None:
    """Refuses a mask that has another size than its image."""
    sizes = ["x".join(str(n) for n in reversed(part.shape[-2:])) for part in sample]
    if sizes[0] != sizes[1]:
        raise DataError(
            f"{mask} has {sizes[1]} pixels, but its image {image} {sizes[0]}: both must have "
            f"one size"
        )


def class_balance(masks: Sequence[Tensor], num_classes: int) -> Tensor:
    r"""The weight of a pixel of each class, :math:`w_c = N / (K n_c)`: rare classes weigh more.

    :math:`N` pixels have a class, :math:`n_c` of them class :math:`c`; :math:`K` classes occur. All
    classes together weigh the same, and the mean over all pixels is 1.

    Args:
        masks: whole numbers; 255 is ignored.
        num_classes: how many classes there are.

    Returns:
        ``(256,)``: one weight for each value in a mask, 0 where there is no such class.
    """
    counts = torch.zeros(256, dtype=torch.float64)
    for mask in masks:
        counts += mask.flatten().long().bincount(minlength=256)
    counts[num_classes:] = 0
    occurs = counts > 0
    weights = counts.sum() / (occurs.sum() * counts)
    return torch.where(occurs, weights, 0.0).float()


def border_weights(
    mask: Tensor, balance: Tensor, *, border: float = 10.0, sigma: float = 5.0
) -> Tensor:
    r"""How much each pixel counts, so that narrow gaps between things are learnt.

    Equation 2 of the U-Net paper (Ronneberger et al. 2015):

    .. math:: w(p) = w_c(p) + w_0 \exp\left(-\frac{(d_1(p) + d_2(p))^2}{2 \sigma^2}\right)

    with the distances :math:`d_1` and :math:`d_2` to the nearest and second nearest thing. Class 0
    is what lies between the things; each connected piece of another class is one. The second
    term is given to pixels of class 0 only, as in the paper's figure 3.

    Args:
        mask: whole numbers ``(height, width)``; 255 (ignored) gets the weight 0.
        balance: the weight :math:`w_c` of each class, see :func:`class_balance`.
        border: :math:`w_0`.
        sigma: :math:`\sigma` in pixels.

    Returns:
        float32 ``(height, width)``.
    """
    import numpy as np
    from scipy import ndimage

    values = mask.numpy()
    nearest = np.full(values.shape, np.inf)
    second = np.full(values.shape, np.inf)
    # Further away, the term is below the resolution of float32: distances are measured only around
    # each piece, which takes a hundredth of the time.
    reach = int(np.ceil(6 * sigma))
    for number in np.unique(values[(values != 0) & (values != NO_CLASS)]):
        pieces, _ = ndimage.label(values == number)
        for piece, box in enumerate(ndimage.find_objects(pieces), start=1):
            part = tuple(slice(max(0, s.start - reach), s.stop + reach) for s in box)
            distance = ndimage.distance_transform_edt(pieces[part] != piece)
            second[part] = np.minimum(second[part], np.maximum(nearest[part], distance))
            nearest[part] = np.minimum(nearest[part], distance)
    term = border * np.exp(-((nearest + second) ** 2) / (2 * sigma**2))
    weights = balance.numpy()[values] + np.where(values == 0, term, 0.0)
    return torch.from_numpy(weights.astype(np.float32))
