"""Black or white: grey pixels as the probabilities of being white.

A Bernoulli likelihood is one of pixels that are 0 or 1. Drawing them anew each time they are seen
(`dynamic`) is what Burda et al. (2016, https://arxiv.org/abs/1509.00519) do in training, drawing
them once (`static`) what Salakhutdinov and Murray (2008) do. Images that a model is judged by are
drawn once in either case, with a seed that no setting changes, so that all figures are of the same
images.
"""

from typing import Literal

import torch
from torch import Tensor

from zoo.data.augmentation.base import Augmentation
from zoo.data.sampling import seeded_generator

Binarization = Literal["none", "dynamic", "static"]


class Binarize(Augmentation):
    """Makes each pixel white with the probability that its brightness is.

    Args:
        num_pixels: values of an image, channels included.
    """

    def __init__(self, num_pixels: int) -> None:
        self.num_draws = num_pixels

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        white = 1.0 if images.is_floating_point() else 255
        chances = images if images.is_floating_point() else images.float().div_(white)
        return (draws.view(images.shape) < chances).to(images.dtype).mul_(white)


def binarize_once(images: Tensor, name: str) -> Tensor:
    """Draws the pixels of some images once and for all.

    Args:
        images: ``(n, channels, height, width)``, uint8 or from 0 to 1.
        name: what the images are; those of another name get other random numbers.
    """
    generator = seeded_generator("binarize", name)
    changed = images.clone()
    for rows in changed.split(4096):  # The random numbers of all together might not fit.
        draws = torch.rand(len(rows), rows[0].numel(), generator=generator)
        rows.copy_(Binarize(rows[0].numel())(rows, draws.to(rows.device)))
    return changed


def settled(images: Tensor, binarize: Binarization, split: str) -> Tensor:
    """The images of a split, drawn once and for all unless that is left to the training."""
    once = binarize == "static" or (binarize == "dynamic" and split != "train")
    return binarize_once(images, split) if once else images


def check_binarization(binarize: str, scaling: str) -> None:
    """Refuses an unknown kind, and a scaling that is not one of black and white pixels."""
    if binarize not in ("none", "dynamic", "static"):
        raise ValueError(f"binarize must be 'none', 'dynamic' or 'static', not {binarize!r}")
    if binarize != "none" and scaling == "standard":
        raise ValueError(
            f"binarize={binarize} goes with scaling=unit (pixels 0 and 1) or symmetric (-1 and 1), "
            "since scaling=standard is that of grey pixels"
        )
