"""Handwritten digits of 8x8 pixels that come with scikit-learn: nothing to download.

1,797 images from the test set of "Optical Recognition of Handwritten Digits" (Alpaydin and
Kaynak, 1998), https://archive.ics.uci.edu/dataset/80. Divided 70/15/15 or into folds, stratified.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.data.augmentation.base import Augmentation, RandomAffine
from zoo.data.augmentation.binarization import (
    Binarization,
    Binarize,
    binarize_once,
    check_binarization,
    settled,
)
from zoo.data.images.base import (
    RANGES,
    ImageModule,
    Normalize,
    Scaling,
    check_scaling,
    fit_square,
)
from zoo.data.loading.partly_labelled import PartlyLabelled
from zoo.data.loading.tensor import TensorLoader
from zoo.data.module import Loader, Part, check_batch_size
from zoo.data.splits import check_folds, divide_or_fold, resampled

if TYPE_CHECKING:
    from PIL.Image import Image

GRID = 8  # pixels a side, as the digits come
MEAN, STD = 0.3053, 0.3760  # over all 1,797 images, values 0 to 1


class Digits(ImageModule):
    """Grey digits, white on black, scaled up (bilinear) and framed in black.

    Args:
        batch_size: images a batch.
        image_size: height and width of an image, frame included.
        padding: width of the black frame; ``None`` for an eighth of ``image_size`` (LeNet's 32
            pixels show a digit of 24), or none where ``image_size`` is 8, as the digits come.
        augment: turn, move, zoom and shear each training image a little, differently each epoch.
        scaling: ``standard``: mean 0 and standard deviation 1 (of unframed images); ``symmetric``:
            values from -1 to 1; ``unit``: from 0 to 1, as generative models want them.
        binarize: make the pixels black or white at random, in training ``dynamic``, anew each time
            they are seen, or ``static``, once; in val and test once (see
            `zoo.data.augmentation.binarization`).
        split_seed: another seed, another division into train, val and test.
        drop_last: omit the last training batch of an epoch if it is smaller.
        fold: which fold of a cross-validation is the test; None: there are no folds.
        num_folds: how many there are.
        labelled: so many training images keep their labels; the training batches then have as
            many images without one besides (see `zoo.data.loading.partly_labelled`). ``None``:
            all.
        bootstrap_seed: draw as many training images with replacement (bagging,
            :func:`~zoo.data.splits.resampled`); ``None``: all as they are.
    """

    splits = ("train", "val", "test")
    repeated = ("fold",)
    in_channels = 1
    raw_size = GRID
    class_names = tuple("0123456789")
    for_training = (*ImageModule.for_training, "labelled", "bootstrap_seed")

    def __init__(
        self,
        *,
        batch_size: int = 64,
        image_size: int = 32,
        padding: int | None = None,
        augment: bool = False,
        scaling: Scaling = "standard",
        binarize: Binarization = "none",
        split_seed: int = 0,
        drop_last: bool = False,
        fold: int | None = None,
        num_folds: int = 10,
        labelled: int | None = None,
        bootstrap_seed: int | None = None,
    ) -> None:
        super().__init__()
        check_batch_size(batch_size)
        check_folds(fold, num_folds)
        self.fold, self.num_folds = fold, num_folds
        check_scaling(scaling)
        check_binarization(binarize, scaling)
        if image_size < GRID:
            raise ValueError(f"image_size must be at least {GRID}, not {image_size}")
        if padding is None:
            padding = 0 if image_size == GRID else image_size // 8
        if not 0 <= padding <= (image_size - GRID) // 2:
            raise ValueError(
                f"padding must leave at least {GRID} of image_size {image_size} pixels for the "
                f"digit, so be from 0 to {(image_size - GRID) // 2}, not {padding}"
            )
        self.batch_size = batch_size
        self.image_size = image_size
        self.padding = padding
        self.augment = augment
        self.split_seed = split_seed
        self.drop_last = drop_last
        self.labelled, self.bootstrap_seed = labelled, bootstrap_seed
        self.binarize = binarize
        mean, std = RANGES.get(scaling, (MEAN, STD))
        self.normalize = Normalize([mean], [std], max_value=1.0)

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        from sklearn.datasets import load_digits  # here, because importing it takes a second

        table, classes = load_digits(return_X_y=True)
        images = torch.from_numpy(table).float().view(-1, GRID, GRID)
        labels = torch.from_numpy(classes).long()
        images = self.framed(images.unsqueeze(1) / 16)  # (n, 1, image_size, image_size)
        divided = divide_or_fold(
            labels, fold=self.fold, num_folds=self.num_folds, seed=self.split_seed
        )
        for split, index in divided.items():
            if split == "train":
                index = resampled(index, self.bootstrap_seed)
            pixels = settled(images[index], self.binarize, split)
            augment = self._augmentations() if split == "train" else ()
            make: Callable[..., Loader] = TensorLoader
            if split == "train" and self.labelled is not None:
                make = partial(PartlyLabelled, labelled=self.labelled, split_seed=self.split_seed)
            self.loaders[split] = make(
                (pixels if augment else self.normalize(pixels), labels[index]),
                batch_size=self.batch_size,
                shuffle=split == "train",
                seed=seed,
                augment=augment,
                transform=self.normalize if augment else None,
                drop_last=self.drop_last and split == "train",
                device=device,
                part=part,
            )

    def _augmentations(self) -> tuple[Augmentation, ...]:
        changes: tuple[Augmentation, ...] = ()
        if self.augment:
            changes = (RandomAffine(10, 0.08, (0.9, 1.1), shear=10),)
        if self.binarize == "dynamic":
            changes = (*changes, Binarize(self.image_size**2))
        return changes

    def _prepare(self, image: "Image") -> Tensor:
        """Prepares an image of one digit, white on black (a black one on white is not guessed).

        It goes through the same 8x8 grid as the data, so it becomes as coarse as they are.
        """
        grid = fit_square(image, GRID, in_channels=1, crop=False)  # (8, 8, 1)
        images = self.framed(grid.permute(2, 0, 1).unsqueeze(0) / 255)
        if self.binarize != "none":
            images = binarize_once(images, "image")
        return self.normalize(images)[0]  # (1, image_size, image_size)

    def framed(self, images: Tensor) -> Tensor:
        """Digits as they come, ``(batch, 1, 8, 8)`` from 0 to 1, of the size of these images."""
        size = self.image_size - 2 * self.padding
        if size != GRID:
            images = F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
        return F.pad(images, (self.padding,) * 4)
