"""STL-10: 13,000 labelled colour images of 96x96 pixels in ten classes, few for training.

Coates, Lee and Ng, "An Analysis of Single-Layer Networks in Unsupervised Feature Learning", 2011,
https://cs.stanford.edu/~acoates/stl10. The 8,000 test images are kept; of the 5,000 for training,
500 are set aside for validation (stratified). The 100,000 images without labels are not used, and
neither are the published folds of 1,000.
"""

from pathlib import Path
from typing import Any, Unpack

import torch

from zoo.data.augmentation.presets import Preset
from zoo.data.download import torchvision_download
from zoo.data.images.in_memory import ImagesInMemory, MemoryOptions, Split


class STL10(ImagesInMemory):
    """Images of animals and vehicles, 500 of each class for training and 800 for the test.

    The files are those of torchvision, in ``root/stl10_binary`` (3 GB with those without labels,
    which it wants there too); if they are missing or not what they were, torchvision downloads
    them and compares checksums.

    Args:
        batch_size: images a batch.
        augment: preset of `zoo.data.augmentation.presets` for training.
        val_size: training images set aside for validation.
        options: see :class:`~zoo.data.images.in_memory.ImagesInMemory`.
    """

    image_size = 96
    class_names = (
        "airplane",
        "bird",
        "car",
        "cat",
        "deer",
        "dog",
        "horse",
        "monkey",
        "ship",
        "truck",
    )
    statistics = (0.4467, 0.4398, 0.4066), (0.2603, 0.2566, 0.2713)

    def __init__(
        self,
        *,
        batch_size: int = 128,
        augment: Preset = "none",
        val_size: int = 500,
        **options: Unpack[MemoryOptions],
    ) -> None:
        super().__init__(batch_size=batch_size, augment=augment, val_size=val_size, **options)

    def _read(self) -> tuple[Split, Split]:
        with torchvision_download(
            f"STL-10 not found in {Path(self.root) / 'stl10_binary'}",
            folder=self.root,
            source="http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
            advice=f"unpack that archive in {self.root} by hand",
        ):
            from torchvision import datasets

            train = datasets.STL10(self.root, split="train", download=True)

            class Compared(datasets.STL10):
                """The checksums of the same 3 GB are not compared again."""

                def _check_integrity(self) -> bool:
                    return True

            test = Compared(self.root, split="test")
        return _tensors(train), _tensors(test)


def _tensors(dataset: Any) -> Split:
    return torch.from_numpy(dataset.data), torch.from_numpy(dataset.labels).long()
