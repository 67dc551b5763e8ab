"""CIFAR-10 and CIFAR-100: 60,000 colour images of 32x32 pixels in 10 or 100 classes.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
https://www.cs.toronto.edu/~kriz/cifar.html. Both keep their 10,000 test images; of the 50,000
others, 5,000 are set aside for validation (stratified), as by He et al. 2016, section 4.2.
"""

from pathlib import Path
from typing import Any, ClassVar, Unpack

import torch

from zoo.data.augmentation.presets import Preset
from zoo.data.download import DataError, torchvision_download
from zoo.data.files import locate
from zoo.data.images.base import RANGES, Normalize, Scaling, check_scaling
from zoo.data.images.in_memory import ImagesInMemory, MemoryOptions, Split
from zoo.data.images.reading import ImageFiles, class_folders, list_images, load_all

SIZE = 32
# fmt: off
FINE_CLASSES = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle",
    "bottle", "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle",
    "caterpillar", "cattle", "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch",
    "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox",
    "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
    "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom",
    "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
    "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road",
    "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake",
    "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone",
    "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale",
    "willow_tree", "wolf", "woman", "worm",
)
# fmt: on


class CIFAR10(ImagesInMemory):
    """Images of animals and vehicles, 5,000 of each class for training and 1,000 for the test.

    The files are those of torchvision, in ``root/cifar-10-batches-py``; if they are missing or not
    what they were, torchvision downloads them and compares checksums.

    Args:
        folder: read image files ``root/<folder>/{train,test}/<class>/*`` instead of the official
            ones. A copy in JPEG files has lost some detail: say so next to any number. Val and test
            come in a fixed, mixed order, not class by class.
        batch_size: images a batch.
        augment: preset of `zoo.data.augmentation.presets` for training.
        scaling: ``standard``: mean 0 and standard deviation 1 of each channel; ``symmetric``:
            values from -1 to 1; ``unit``: from 0 to 1, as generative models want them.
        val_size: training images set aside for validation.
        options: see :class:`~zoo.data.images.in_memory.ImagesInMemory`.
    """

    dataset: ClassVar[str] = "CIFAR10"  # torchvision's name
    changeable = ("root", "folder")
    image_size = SIZE
    class_names: tuple[str, ...] = (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )
    statistics = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)

    def __init__(
        self,
        *,
        folder: str | None = None,
        batch_size: int = 128,
        augment: Preset = "none",
        scaling: Scaling = "standard",
        val_size: int = 5000,
        **options: Unpack[MemoryOptions],
    ) -> None:
        check_scaling(scaling)
        super().__init__(batch_size=batch_size, augment=augment, val_size=val_size, **options)
        self.folder = folder
        if scaling != "standard":
            mean, std = RANGES[scaling]
            self.normalize = Normalize([mean] * self.in_channels, [std] * self.in_channels)

    def _is_sorted(self) -> bool:
        return self.folder is not None

    def _read(self) -> tuple[Split, Split]:
        if self.folder is not None:
            folder = locate(self.folder, self.root)
            return self._read_folder(folder / "train"), self._read_folder(folder / "test")
        return self._read_official()

    def _read_folder(self, folder: Path) -> Split:
        if not folder.is_dir():
            raise DataError(
                f"{folder} is not a folder: put the images into {folder}/<class>, or omit "
                f"data.folder, so that {self.dataset} is downloaded"
            )
        found = class_folders(folder)
        if missing := [name for name in self.class_names if name not in found]:
            raise DataError(
                f"{folder} lacks the class {missing[0]!r} (it holds {', '.join(found)})"
            )
        files = ImageFiles(list_images(folder, self.class_names), image_size=SIZE, in_channels=3)
        return load_all(files)

    def _read_official(self) -> tuple[Split, Split]:
        with torchvision_download(
            f"{self.dataset} not found in {self.root}",
            folder=self.root,
            source=self._source(),
            advice="unpack that archive there by hand, or name folder=<class folders of images>",
        ):
            from torchvision import datasets

            make: Any = getattr(datasets, self.dataset)
            train, test = (make(self.root, train=part, download=part) for part in (True, False))
        return _tensors(train), _tensors(test)

    def _source(self) -> str:
        from torchvision import datasets

        url: str = getattr(datasets, self.dataset).url
        return url


def _tensors(dataset: Any) -> Split:
    pixels = torch.from_numpy(dataset.data)  # (n, 32, 32, 3)
    return pixels.permute(0, 3, 1, 2), torch.tensor(dataset.targets)


class CIFAR100(CIFAR10):
    """A hundred classes of things, 500 of each for training; everything else as in CIFAR-10."""

    dataset = "CIFAR100"
    class_names = FINE_CLASSES
    statistics = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
