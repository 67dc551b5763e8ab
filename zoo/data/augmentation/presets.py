"""Named augmentations of whole batches in memory, one word in a configuration: `data.augment=...`.

| name | what it does |
|---|---|
| none | nothing |
| affine | turns, moves, zooms and shears a little (digits) |
| flip | mirrors half |
| crop_flip | pads by an eighth, crops at random, mirrors half (He et al. 2016, section 4.2) |
| crop_flip_colour | then changes brightness, contrast, saturation and hue |
| alexnet | then shifts colours along their principal components (Krizhevsky et al. 2012, 4.1) |
| randaugment | then two of 14 operations of magnitude 9 of 30 (Cubuk et al. 2020) |
| crop_flip_erase | then fills a rectangle of half the images with noise (Zhong et al. 2020) |
| airbench | moves by up to a sixteenth, mirrors in every second epoch (Jordan 2024) |

What mixes images with one another goes on top of any of them, see `zoo.data.augmentation.mixing`.
"""

from collections.abc import Callable
from typing import Literal, get_args

from torch import Tensor

from zoo.data.augmentation.base import (
    AlternatingFlip,
    Augmentation,
    HorizontalFlip,
    RandomAffine,
    RandomCrop,
)
from zoo.data.augmentation.colour import ColorJitter, ColorPCA, pixel_covariance
from zoo.data.augmentation.erasing import RandomErasing
from zoo.data.augmentation.randaugment import RandAugment

Preset = Literal[
    "none",
    "affine",
    "flip",
    "crop_flip",
    "crop_flip_colour",
    "alexnet",
    "randaugment",
    "crop_flip_erase",
    "airbench",
]
COLOUR = ("crop_flip_colour", "alexnet")


def check_preset(name: object, *, in_channels: int, names: tuple[str, ...] = ()) -> None:
    """Refuses the name of no preset, and one for colour where images are grey.

    Args:
        name: what was given.
        in_channels: of the images.
        names: other names that are allowed.
    """
    allowed = (*get_args(Preset), *names)
    if name not in allowed:
        raise ValueError(f"augment must be one of {', '.join(allowed)}, not {name!r}")
    if name in COLOUR and in_channels != 3:
        raise ValueError(f"augment={name} needs images in colour, with 3 channels")


def preset(name: str, *, image_size: int, pixels: Callable[[], Tensor]) -> tuple[Augmentation, ...]:
    """The augmentations of a preset, in their order.

    Args:
        name: of the preset.
        image_size: height and width of the images.
        pixels: gives training images, uint8 ``(n, 3, height, width)``; called only by presets
            that depend on the data.
    """
    crop_flip = (RandomCrop(max(1, image_size // 8)), HorizontalFlip())
    if name == "none":
        return ()
    if name == "affine":
        return (RandomAffine(10, 0.08, (0.9, 1.1), shear=10),)
    if name == "flip":
        return (HorizontalFlip(),)
    if name == "crop_flip":
        return crop_flip
    if name == "crop_flip_colour":
        return (*crop_flip, ColorJitter(0.4, 0.4, 0.4, 0.1))
    if name == "alexnet":
        return (*crop_flip, ColorPCA(pixel_covariance(pixels())))
    if name == "randaugment":
        return (*crop_flip, RandAugment(2, 9))
    if name == "crop_flip_erase":
        return (*crop_flip, RandomErasing())
    if name == "airbench":
        return (RandomCrop(max(1, image_size // 16), fill="reflect"), AlternatingFlip())
    raise ValueError(f"there is no preset {name!r}")
