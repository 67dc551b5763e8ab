"""SVHN: house numbers photographed from the street, one digit of 32x32 pixels in the middle.

Netzer et al., "Reading Digits in Natural Images with Unsupervised Feature Learning", 2011,
http://ufldl.stanford.edu/housenumbers. The 26,032 test images are kept; of the 73,257 for
training, 5,000 are set aside for validation (stratified). 531,131 easier ones may join training.
"""

from typing import Any, Unpack

import torch

from zoo.data.augmentation.presets import Preset
from zoo.data.download import torchvision_download
from zoo.data.images.in_memory import ImagesInMemory, MemoryOptions, Split


class SVHN(ImagesInMemory):
    """Digits from house numbers, in colour.

    The files are those of torchvision, ``root/{train,test,extra}_32x32.mat``; if one is missing or
    not what it was, torchvision downloads it and compares checksums.

    Args:
        extra: add the 531,131 easier images to those for training (1.6 GB in memory).
        batch_size: images a batch.
        augment: preset of `zoo.data.augmentation.presets` for training.
        val_size: training images set aside for validation.
        options: see :class:`~zoo.data.images.in_memory.ImagesInMemory`.
    """

    image_size = 32
    class_names = tuple("0123456789")
    statistics = (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)

    def __init__(
        self,
        *,
        extra: bool = False,
        batch_size: int = 128,
        augment: Preset = "none",
        val_size: int = 5000,
        **options: Unpack[MemoryOptions],
    ) -> None:
        super().__init__(batch_size=batch_size, augment=augment, val_size=val_size, **options)
        self.extra = extra

    def _read(self) -> tuple[Split, Split]:
        (images, labels), test = self._read_part("train"), self._read_part("test")
        if self.extra:
            more_images, more_labels = self._read_part("extra")
            images, labels = torch.cat((images, more_images)), torch.cat((labels, more_labels))
        return (images, labels), test

    def _read_part(self, part: str) -> Split:
        with torchvision_download(
            f"{part}_32x32.mat not found in {self.root}",
            folder=self.root,
            source="http://ufldl.stanford.edu/housenumbers",
            advice="put that file there by hand",
        ):
            from torchvision import datasets

            dataset: Any = datasets.SVHN(self.root, split=part, download=True)
        return torch.from_numpy(dataset.data), torch.from_numpy(dataset.labels)
