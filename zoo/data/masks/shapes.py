"""Drawn circles, squares and triangles with the class of each pixel: nothing to download.

A small segmentation problem that a network cannot solve by colour: shapes of any colour overlap
one another on a textured ground of any colour, under noise. Images are a function of the seed
alone.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.data.masks.base import Labelled, MaskModule, NormalizeAnySize
from zoo.data.masks.tiles import Flips, Tiling, tiled_loaders
from zoo.data.module import Part
from zoo.data.sampling import seeded_generator

BLOCK = 64  # images drawn at a time
MAX_SHAPES = 4  # in an image; there is at least one
NOISE = 0.08  # standard deviation, where white is 1


class Shapes(MaskModule):
    """Coloured images of one to four shapes; a later one hides what lies below it.

    Args:
        batch_size: images a batch.
        image_size: height and width of an image.
        train_size: images for training.
        val_size: images for validation.
        test_size: images for the test.
        flips: of training images. ``horizontal``: mirror half of them; ``all``: the eight
            symmetries of a square.
        border_weights: add the U-Net paper's weight map to the batches.
        split_seed: another seed, other images.
        drop_last: omit the last training batch of an epoch if it is smaller.
    """

    splits = ("train", "val", "test")
    in_channels = 3
    class_names = ("background", "circle", "square", "triangle")
    palette: Tensor | None = None
    """Colours of the classes, see :func:`draw_shapes`."""

    def __init__(
        self,
        *,
        batch_size: int = 32,
        image_size: int = 64,
        train_size: int = 1000,
        val_size: int = 200,
        test_size: int = 200,
        flips: Flips = "none",
        border_weights: bool = False,
        split_seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        super().__init__()
        if image_size < 16:
            raise ValueError(f"image_size must be at least 16, not {image_size}")
        self.counts = {"train": train_size, "val": val_size, "test": test_size}
        for split, count in self.counts.items():
            if count < 1:
                raise ValueError(f"{split}_size must be at least 1, not {count}")
        self.tiling = Tiling(
            batch_size=batch_size,
            tile_size=None,
            flips=flips,
            border_weights=border_weights,
            drop_last=drop_last,
        )
        self.image_size: int = image_size
        self.split_seed = split_seed
        self.normalize = NormalizeAnySize([0.5] * 3, [0.25] * 3)

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        splits = {split: self._draw(split, count) for split, count in self.counts.items()}
        self.loaders = tiled_loaders(
            splits,
            self.tiling,
            num_classes=len(self.class_names),
            normalize=self.normalize,
            seed=seed,
            device=device,
            part=part,
        )

    def _draw(self, split: str, count: int) -> list[Labelled]:
        samples: list[Labelled] = []
        for block in range(math.ceil(count / BLOCK)):
            generator = seeded_generator("shapes", split, self.split_seed, block)
            drawn = draw_shapes(BLOCK, self.image_size, generator, self.palette)
            samples += zip(*drawn, strict=True)
        return samples[:count]


def draw_shapes(
    count: int, size: int, generator: torch.Generator, palette: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Draws images and their masks.

    Args:
        count: how many.
        size: height and width.
        generator: of the random numbers.
        palette: colours of the ground and the three kinds of shapes, float32 ``(4, 3)`` from 0 to
            1; None: any colours, another for each.

    Returns:
        uint8 ``(count, 3, size, size)`` and uint8 ``(count, size, size)``.
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator)

    # The ground: a colour, a coarse pattern of light and shade, and stripes.
    coarse = F.interpolate(uniform(3, 5, 5) - 0.5, size=(size, size), mode="bicubic")
    line = torch.arange(size) / size
    x, y = line.view(1, 1, size), line.view(1, size, 1)
    angle, frequency, phase = 2 * math.pi * uniform(3).view(3, count, 1, 1)
    stripes = (2 * frequency * (x * angle.cos() + y * angle.sin()) + phase).sin()
    ground = uniform(3, 1, 1)
    if palette is not None:
        ground = palette[0].view(1, 3, 1, 1)
    images = ground + 0.3 * coarse + 0.1 * stripes.unsqueeze(1)
    masks = torch.zeros(count, size, size, dtype=torch.uint8)
    number = (uniform() * MAX_SHAPES).long() + 1
    for layer in range(MAX_SHAPES):
        kind = (uniform() * 3).long().view(-1, 1, 1)
        centre_x, centre_y, radius, turn = uniform(4).T.view(4, count, 1, 1)
        colour = uniform(3, 1, 1)
        colour = (ground + 0.25 + 0.5 * colour) % 1  # apart from the ground in each channel
        if palette is not None:
            colour = palette[kind.flatten() + 1].view(-1, 3, 1, 1)
        radius = 0.1 + 0.15 * radius
        turn = 2 * math.pi * turn
        u, v = x - (0.1 + 0.8 * centre_x), y - (0.1 + 0.8 * centre_y)
        u, v = u * turn.cos() + v * turn.sin(), v * turn.cos() - u * turn.sin()
        circle = (u * u + v * v).sqrt()
        square = torch.maximum(u.abs(), v.abs()) * 1.13  # all three have about the same area
        triangle = torch.maximum(-v, v / 2 + math.sqrt(0.75) * u.abs()) * 1.29
        distance = torch.stack((circle, square, triangle), 1).gather(
            1, kind.unsqueeze(1).expand(-1, 1, size, size)
        )
        covered = (distance.squeeze(1) < radius) & (layer < number).view(-1, 1, 1)
        masks = torch.where(covered, (kind + 1).to(torch.uint8), masks)
        images = torch.where(covered.unsqueeze(1), colour + 0.2 * coarse, images)
    images = images + NOISE * torch.randn(images.shape, generator=generator)
    return (images.clamp(0, 1) * 255).round().to(torch.uint8), masks
