"""Stacked MNIST: three digits as the channels of one image, which makes a thousand modes.

L. Metz, B. Poole, D. Pfau and J. Sohl-Dickstein, "Unrolled generative adversarial networks", 2017,
https://arxiv.org/abs/1611.02163; with as many images as in A. Srivastava et al., "VEEGAN", 2017,
https://arxiv.org/abs/1705.07761, and Z. Lin et al., "PacGAN", 2018,
https://arxiv.org/abs/1712.04086: how many of the thousand does a generator find?

The digits are drawn at random, with replacement, from a seed of their own. Unlike in the papers,
val and test have digits of their own, which no training image holds.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from zoo.data.images.base import ImageModule, Normalize, Scaling, fit_square
from zoo.data.images.mnist import MNIST, SIZE
from zoo.data.loading.tensor import TensorLoader
from zoo.data.module import Part, check_batch_size
from zoo.data.sampling import seeded_generator

if TYPE_CHECKING:
    from PIL.Image import Image

DIGITS = 3
"""Of an image."""


class StackedMNIST(ImageModule):
    """Batches ``(images, labels)``: ``(batch, 3, 28, 28)``, and the number that the digits spell.

    What is kept are the digits of :class:`~zoo.data.images.mnist.MNIST` as bytes, and which three
    of them an image consists of.

    Args:
        root: folder of all downloads.
        batch_size: images a batch.
        scaling: of the pixels, see :class:`~zoo.data.images.mnist.MNIST`.
        num_samples: images to train on; each epoch has the same.
        val_samples: images of val.
        test_samples: images of test; scores of generated images take half as many.
        val_digits: digits of MNIST's training split that are set aside for val.
        data_seed: another seed, other images.
        mirror: see :class:`~zoo.data.images.mnist.MNIST`.
        drop_last: omit the last training batch of an epoch if it is smaller.
    """

    splits = ("train", "val", "test")
    changeable: ClassVar[tuple[str, ...]] = ("root",)
    image_size = raw_size = SIZE
    in_channels = DIGITS
    class_names = tuple(f"{number:0{DIGITS}}" for number in range(10**DIGITS))

    def __init__(
        self,
        *,
        root: str = "data",
        batch_size: int = 64,
        scaling: Scaling = "standard",
        num_samples: int = 128_000,
        val_samples: int = 10_000,
        test_samples: int = 52_000,
        val_digits: int = 5000,
        data_seed: int = 0,
        mirror: str | None = None,
        drop_last: bool = False,
    ) -> None:
        super().__init__()
        check_batch_size(batch_size)
        given = {
            "num_samples": num_samples,
            "val_samples": val_samples,
            "test_samples": test_samples,
            "val_digits": val_digits,
        }
        for name, value in given.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        self.digits = MNIST(root=root, scaling=scaling, val_size=val_digits, mirror=mirror)
        self.batch_size = batch_size
        self.counts = {"train": num_samples, "val": val_samples, "test": test_samples}
        self.data_seed = data_seed
        self.drop_last = drop_last
        one = self.digits.normalize
        self.normalize = Normalize(one.mean * DIGITS, one.std * DIGITS)

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        for split, (images, labels) in self.digits.parts().items():
            generator = seeded_generator("stacked mnist", self.data_seed, split)
            shape = (self.counts[split], DIGITS)
            chosen = torch.randint(len(images), shape, generator=generator)
            places = 10 ** torch.arange(DIGITS).flip(0)  # hundreds first
            self.loaders[split] = TensorLoader(
                (chosen, (labels[chosen] * places).sum(1)),
                batch_size=self.batch_size,
                shuffle=split == "train",
                seed=seed,
                transform=self._stacker(images.squeeze(1).contiguous().to(device)),
                drop_last=self.drop_last and split == "train",
                device=device,
                part=part,
            )

    def _stacker(self, digits: Tensor) -> Callable[[Tensor], Tensor]:
        """What lays chosen digits, ``(batch, 3)``, over one another."""

        def stack(chosen: Tensor) -> Tensor:
            images = digits.index_select(0, chosen.flatten())  # (batch * digits, height, width)
            return self.normalize(images.unflatten(0, chosen.shape))

        return stack

    def converter(self, other: ImageModule) -> Callable[[Tensor], Tensor]:
        """As for all images; or one digit after the other, if the other's images are digits."""
        if other.in_channels != 1:
            return super().converter(other)
        convert = self.digits.converter(other)
        # (batch, digits, height, width) -> (batch * digits, 1, height, width)
        return lambda images: convert(images.flatten(0, 1).unsqueeze(1))

    def _prepare(self, image: "Image") -> Tensor:
        """Prepares an image whose red, green and blue are the digits (nothing is guessed)."""
        pixels = fit_square(image, SIZE, in_channels=DIGITS, crop=False)  # (28, 28, 3)
        return self.normalize(pixels.permute(2, 0, 1).unsqueeze(0))[0]  # (3, height, width)
