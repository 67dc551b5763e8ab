"""Pairs of a mask in colour and the drawn image that it belongs to: nothing to download.

The way back from segmentation, for image-to-image translation. A mask says where something is and
of what colour, and nothing of light, shade and grain, so many images belong to each of them.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.data.images.base import RANGES
from zoo.data.masks.base import NormalizeAnySize, image_tensor
from zoo.data.masks.shapes import Shapes
from zoo.data.masks.tiles import Flips
from zoo.data.module import Part

if TYPE_CHECKING:
    from PIL.Image import Image

PALETTE = ((0.5, 0.5, 0.5), (0.85, 0.25, 0.2), (0.25, 0.7, 0.3), (0.25, 0.35, 0.85))
"""What the classes look like: a grey ground, red circles, green squares, blue triangles."""
COLOURS = ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
"""Of the classes in masks, as Pascal VOC and the masks that are predicted here have them."""


class PairedShapes(Shapes):
    """Batches ``(masks, images)``, both in colour and from -1 to 1.

    The masks are those of :class:`~zoo.data.masks.shapes.Shapes`, and so are the images, except for
    their colours, which are :data:`PALETTE`.

    Args:
        batch_size: pairs a batch.
        image_size: height and width of an image.
        train_size: pairs for training.
        val_size: pairs for validation.
        test_size: pairs for the test.
        flips: of training pairs. ``horizontal``: mirror half of them; ``all``: the eight
            symmetries of a square.
        split_seed: another seed, other pairs.
        drop_last: omit the last training batch of an epoch if it is smaller.

    Shape:
        - masks, images: float32 ``(batch, 3, height, width)``
    """

    def __init__(
        self,
        *,
        batch_size: int = 1,
        image_size: int = 64,
        train_size: int = 1000,
        val_size: int = 200,
        test_size: int = 200,
        flips: Flips = "none",
        split_seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            image_size=image_size,
            train_size=train_size,
            val_size=val_size,
            test_size=test_size,
            flips=flips,
            split_seed=split_seed,
            drop_last=drop_last,
        )
        self.palette = torch.tensor(PALETTE)
        mean, std = RANGES["symmetric"]
        self.normalize = NormalizeAnySize([mean] * 3, [std] * 3)
        colours = self.normalize(torch.tensor(COLOURS, dtype=torch.float32).view(-1, 3, 1, 1))
        self._colours = colours.flatten(1)  # (classes, 3), from -1 to 1

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        super().setup(seed=seed, device=device, part=part)
        self._colours = self._colours.to(device)

    def facts(self) -> dict[str, Any]:
        return {"in_channels": 3, "out_channels": 3, "image_size": self.image_size}

    def batches(self, split: str, epoch: int, start: int = 0) -> Iterator[Any]:
        for batch in super().batches(split, epoch, start):
            yield None if batch is None else (self._coloured(batch[1]), batch[0])

    def preprocess(self, image: "Image") -> Tensor:
        """Prepares a mask: in the colours of the classes, or grey with their numbers.

        Shape:
            - output: ``(3, height, width)``

        Raises:
            ValueError: it has other colours or numbers, or a size that does not fit.
        """
        image = self.reader.convert(image)
        if any(side % self.image_size for side in image.size):
            raise ValueError(
                f"it has {image.width}x{image.height} pixels, and a mask for this run must have "
                f"{self.image_size}x{self.image_size} or multiples of it"
            )
        pixels = image_tensor(image, 1 if image.mode == "L" else 3).movedim(0, -1)
        known = torch.tensor(COLOURS if image.mode != "L" else [[i] for i in range(len(COLOURS))])
        found = (pixels.unsqueeze(-2) == known).all(-1)  # (height, width, classes)
        if (unknown := pixels[~found.any(-1)]).numel():
            allowed = ", ".join(
                f"{name} {values}"
                for name, values in zip(self.class_names, known.tolist(), strict=True)
            )
            raise ValueError(
                f"it is no mask of shapes: a pixel is {unknown[0].tolist()}, and the classes are "
                f"{allowed}"
            )
        return self._coloured(found.int().argmax(-1).unsqueeze(0))[0]

    def _coloured(self, masks: Tensor) -> Tensor:
        """Masks of class numbers ``(batch, height, width)`` in colour, from -1 to 1."""
        colours = self._colours.to(masks.device)[masks]  # (batch, height, width, 3)
        return colours.movedim(-1, 1).contiguous()  # (batch, 3, height, width)
