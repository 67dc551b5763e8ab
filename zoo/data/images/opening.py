"""Opens an image file, for everybody: for training, as a mask, and for prediction.

Only formats that are meant are opened (Pillow would hand a file of EPS content to Ghostscript), and
whatever is wrong with a file is one sentence. What an :class:`ImageReader` makes of each kind of
image is in the table of `docs/images.md`.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.data.download import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
"""Pillow's names of the formats that are opened, whatever a file is called."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
"""Endings of the files that are read as images, for training and for prediction."""
DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")  # of Pillow: more than 8 bits a value
COLOUR_MODES = ("P", "CMYK", "YCbCr", "RGBX", "HSV")  # of Pillow, without alpha
SIXTEEN_BITS = 65_535
ORIENTATION = 0x0112  # EXIF tag
NOTED = frozenset(
    {"transparency", "exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}
)  # in Pillow's info: what may ask for more than the plain pixels
LOOKED_AT = 16  # files whose largest value stands for that of all


class ImageError(DataError):
    """A file is not an image that can be used, in one sentence."""


@dataclass(frozen=True)
class ImageReader:
    """Turns any image into an upright one of 8 bits a value, grey (``L``) or colour (``RGB``).

    Args:
        max_value: what is white in images of more than 8 bits a value; ``None``: 65,535, or 1.0 in
            floating-point images.
        background: the colour behind transparent pixels: a name, or ``#rrggbb``.

    Raises:
        ValueError: an argument is out of range.
    """

    max_value: int | None = None
    background: str = "white"

    def __post_init__(self) -> None:
        if self.max_value is not None and self.max_value < 1:
            raise ValueError(f"max_value must be at least 1 or null, not {self.max_value}")
        if self.background != "white":
            from PIL import ImageColor

            try:
                ImageColor.getrgb(self.background)
            except ValueError as error:
                raise ValueError(
                    f"background must be the name of a colour or #rrggbb, not {self.background!r}"
                ) from error

    def read(self, path: str | os.PathLike[str]) -> "Image":
        """Reads a file.

        Raises:
            ImageError: it cannot be read, or its values have no certain meaning.
        """
        with opened(path) as image:
            return self.convert(image)

    def convert(self, image: "Image") -> "Image":
        """Turns an image of any mode into an upright grey or colour one; a plain one is kept.

        Raises:
            ValueError: its values have no certain meaning.
        """
        if self.max_value is not None:
            self._check_depth(image)
        image.load()  # A PNG file may have its orientation behind the pixels.
        if image.mode in ("L", "RGB") and NOTED.isdisjoint(image.info):
            return image
        image = upright(image)
        if image.mode in DEEP_MODES:
            return self._to_bytes(image)
        if image.has_transparency_data:
            return self._on_background(image)
        if image.mode in ("L", "RGB"):
            return image
        if image.mode == "1":
            return image.convert("L")
        if image.mode in COLOUR_MODES:
            return image.convert("RGB")
        raise ValueError(f"it is of mode {image.mode}: save it as grey or RGB")

    def _check_depth(self, image: "Image") -> None:
        """Refuses colours of 16 bits, of which Pillow keeps the upper 8."""
        layers = getattr(image, "tile", ())  # as it is in the file, until it is loaded
        if image.mode not in DEEP_MODES and any(";16" in str(layer[3]) for layer in layers):
            raise ValueError(
                f"max_value={self.max_value} cannot be applied to colours of 16 bits a value: "
                "save it with 8, or grey"
            )

    def _to_bytes(self, image: "Image") -> "Image":
        import numpy as np
        from PIL import Image

        if "transparency" in image.info:
            raise ValueError("it has 16 bits a value and a transparent one: save it without")
        values = np.asarray(image).astype(np.float64)
        white: float = self.max_value or (1 if image.mode == "F" else SIXTEEN_BITS)
        least, most = values.min(), values.max()
        # Whole numbers of 32 bits have no usual white; those of PGM files are brought to 16.
        vague = image.mode == "I" and image.format not in ("PNG", "PPM") and self.max_value is None
        if vague or not (least >= 0 and most <= white):  # NaN is refused too
            limit = "of 32 bits" if vague else f"outside of 0 to {white:,}"
            raise ValueError(
                f"its values, from {least:,g} to {most:,g}, are {limit}: set max_value to the "
                "value of white, or save it with 8 bits a value"
            )
        return Image.fromarray(np.rint(values * (255 / white)).astype(np.uint8))

    def _on_background(self, image: "Image") -> "Image":
        from PIL import Image

        if image.mode == "La":  # multiplied by its alpha, which has no way to RGBA of its own
            image = image.convert("LA")
        canvas = Image.new("RGBA", image.size, self.background)
        canvas.alpha_composite(image.convert("RGBA"))
        return canvas.convert("RGB")


def prepared(data: Any, path: str | os.PathLike[str]) -> Any:
    """An image file as the model of a run wants it, read as the run's own data are.

    Args:
        data: the run's data set; has ``preprocess`` and, where it reads files itself, ``reader``.
        path: of the file.

    Raises:
        ImageError: it cannot be read.
        ValueError: it does not suit the run.
    """
    return data.preprocess(getattr(data, "reader", ImageReader()).read(path))


def upright(image: "Image") -> "Image":
    """The image as its orientation tag wants it to be shown."""
    from PIL import ImageOps

    return ImageOps.exif_transpose(image) if is_turned(image) else image


def is_turned(image: "Image") -> bool:
    """Whether a loaded image has a tag that says to turn or mirror it."""
    return not NOTED.isdisjoint(image.info) and image.getexif().get(ORIENTATION, 1) in range(2, 9)


@contextmanager
def opened(path: str | os.PathLike[str], kind: str = "an image") -> Iterator["Image"]:
    """An image file, open; whatever its reading raises becomes one sentence.

    Args:
        path: of the file.
        kind: what it is to be, for the sentence.

    Raises:
        ImageError: it cannot be read.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=FORMATS) as image:
            yield image
    except (DataError, MemoryError):
        raise
    except Exception as error:  # Pillow raises almost anything for a damaged file
        reason: Any = error
        if isinstance(error, UnidentifiedImageError):
            reason = f"it is none of {', '.join(FORMATS)}"
        elif isinstance(error, Image.DecompressionBombError):
            reason = f"it has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels"
        elif isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        raise ImageError(
            f"{shown(path)} cannot be read as {kind} ({reason}): replace or remove it"
        ) from error


def shown(path: str | os.PathLike[str]) -> str:
    r"""A path for people and UTF-8 files: bytes of its name that are not UTF-8 as ``\xff``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def depth_note(paths: Sequence[str | Path], reader: ImageReader) -> str | None:
    """What to say if images use a small part of their 16 bits, as 12-bit cameras' do.

    Args:
        paths: of training images, of which some, evenly spread, are looked at.
        reader: whose ``max_value`` there is nothing to say about once it is set.
    """
    import numpy as np

    if reader.max_value is not None:
        return None
    most = 0
    for path in paths[:: -(-len(paths) // LOOKED_AT)]:
        with opened(path) as image:
            if image.mode in DEEP_MODES and image.mode != "F":
                most = max(most, int(np.asarray(image).max()))
    usual = next((2**bits - 1 for bits in (10, 12, 14) if most < 2**bits), None)
    if not most or usual is None:
        return None
    return (
        f"16-bit images: white is {SIXTEEN_BITS:,}, but the largest value seen is {most:,}; if "
        f"they are of fewer bits, set data.max_value={usual}"
    )
