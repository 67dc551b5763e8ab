"""Small images that are kept in memory: what MNIST, CIFAR, SVHN and STL-10 share.

Their originals come in a few large files, unlike those of `zoo.data.images.from_files`.
"""

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, TypedDict

import torch
from torch import Tensor

from zoo.data.augmentation.base import Augmentation
from zoo.data.augmentation.mixing import check_mixing, mixing
from zoo.data.augmentation.presets import Preset, check_preset, preset
from zoo.data.images.base import ImageModule, Normalize, fit_square
from zoo.data.loading.order import check_balance
from zoo.data.loading.tensor import TensorLoader
from zoo.data.module import Part, check_batch_size
from zoo.data.sampling import Balance, evaluation_order
from zoo.data.splits import hold_out, resampled

if TYPE_CHECKING:
    from PIL.Image import Image

Split = tuple[Tensor, Tensor]  # uint8 images (n, channels, height, width), int64 labels (n,)


class MemoryOptions(TypedDict, total=False):
    """Arguments of :class:`ImagesInMemory` whose defaults are the same for all data sets."""

    root: str
    mixup: float
    cutmix: float
    split_seed: int
    balance: Balance
    bootstrap_seed: int | None
    drop_last: bool


class ImagesInMemory(ImageModule):
    """Images with a published train and test split; val is taken from train, stratified.

    The images lie on the training device as bytes, pixels last, which is how a crop is cut out
    fastest and what convolutions want.

    Args:
        root: folder of all downloads.
        batch_size: images a batch.
        augment: preset of `zoo.data.augmentation.presets` for training.
        mixup: alpha of mixup in training; 0: none. With both, half the samples have either.
        cutmix: alpha of CutMix in training; 0: none.
        val_size: training images set aside for validation.
        split_seed: another seed, another choice of validation images.
        balance: let every class come equally often in training: ``undersample``, ``oversample`` or
            ``resample`` (:func:`~zoo.data.sampling.balanced_order`).
        bootstrap_seed: draw as many training images with replacement (bagging,
            :func:`~zoo.data.splits.resampled`); ``None``: all as they are.
        drop_last: omit the last training batch of an epoch if it is smaller.

    Attributes:
        statistics: mean and standard deviation of each channel, for values from 0 to 1.
        keeps_normalized: keep images that are not augmented as normalised floats: four times the
            memory, but in small batches of small images a gather alone is the faster way.
    """

    splits = ("train", "val", "test")
    changeable: ClassVar[tuple[str, ...]] = ("root",)
    for_training = (*ImageModule.for_training, "balance", "bootstrap_seed")
    in_channels = 3
    statistics: ClassVar[tuple[tuple[float, ...], tuple[float, ...]]]
    keeps_normalized: ClassVar[bool] = False

    def __init__(
        self,
        *,
        root: str = "data",
        batch_size: int,
        augment: Preset,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        val_size: int,
        split_seed: int = 0,
        balance: Balance = "none",
        bootstrap_seed: int | None = None,
        drop_last: bool = False,
    ) -> None:
        super().__init__()
        check_batch_size(batch_size)
        check_balance(balance)
        check_preset(augment, in_channels=self.in_channels)
        check_mixing(mixup, cutmix)
        if val_size < 1:
            raise ValueError(f"val_size must be at least 1, not {val_size}")
        self.root = root
        self.batch_size = batch_size
        self.augment = augment
        self.mixup = mixup
        self.cutmix = cutmix
        self.val_size = val_size
        self.split_seed = split_seed
        self.balance, self.bootstrap_seed = balance, bootstrap_seed
        self.drop_last = drop_last
        self.normalize = Normalize(*self.statistics)

    @abstractmethod
    def _read(self) -> tuple[Split, Split]:
        """Reads (and downloads) the published train and test splits."""

    def _is_sorted(self) -> bool:
        """Whether the images come class by class.

        Then val and test are put into a fixed, mixed order: the first batches of a sorted split
        show one class, and a limited evaluation would reward a model that always names it.
        """
        return False

    def parts(self) -> dict[str, Split]:
        """Reads (and downloads) the images and labels of each split, as they are kept."""
        (images, labels), test = self._read()
        index = hold_out(labels, self.val_size, seed=self.split_seed)
        index["train"] = resampled(index["train"], self.bootstrap_seed)
        if self._is_sorted():
            index["val"] = index["val"][evaluation_order(len(index["val"]))]
            order = evaluation_order(len(test[1]))
            test = test[0][order], test[1][order]
        images = images.permute(0, 2, 3, 1)  # (n, height, width, channels): a gather of whole rows
        parts = {
            split: (images[rows].permute(0, 3, 1, 2), labels[rows]) for split, rows in index.items()
        }
        parts["test"] = test
        return parts

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        for split, (pixels, targets) in self.parts().items():
            train = split == "train"
            pixels = self._settled(pixels, split).to(device, memory_format=torch.channels_last)
            augment = self._augmentations(pixels) if train else ()
            is_ready = self.keeps_normalized and not augment
            self.loaders[split] = TensorLoader(
                (self.normalize(pixels) if is_ready else pixels, targets),
                batch_size=self.batch_size,
                shuffle=train,
                seed=seed,
                augment=augment,
                transform=None if is_ready else self.normalize,
                drop_last=self.drop_last and train,
                device=device,
                part=part,
                balance=self.balance if train else "none",
            )

    def _settled(self, images: Tensor, split: str) -> Tensor:
        """Changes the images of a split once and for all."""
        return images

    def _augmentations(self, images: Tensor) -> tuple[Augmentation, ...]:
        changes = preset(self.augment, image_size=self.image_size, pixels=lambda: images)
        return changes + mixing(len(self.class_names), mixup=self.mixup, cutmix=self.cutmix)

    def _prepare(self, image: "Image") -> Tensor:
        """Prepares any image: its largest centred square, resized and normalised."""
        pixels = fit_square(image, self.image_size, in_channels=3, crop=True)
        return self.normalize(pixels.permute(2, 0, 1).unsqueeze(0))[0]  # (3, height, width)
