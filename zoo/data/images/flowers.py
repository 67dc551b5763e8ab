"""Oxford Flowers-102: 8,189 photographs of 102 kinds of flowers.

Nilsback and Zisserman, "Automated Flower Classification over a Large Number of Classes", 2008,
https://www.robots.ox.ac.uk/~vgg/data/flowers/102. The published split: 1,020 for training, 1,020
for validation (ten of each class) and 6,149 for the test.
"""

from pathlib import Path
from typing import Any

from zoo.data.download import torchvision_download
from zoo.data.images.from_files import ImagesFromFiles
from zoo.data.images.reading import Sample


class Flowers102(ImagesFromFiles):
    """Photographs of flowers, streamed from their files or in memory.

    The files are those of torchvision, in ``root/flowers-102``; if they are missing, torchvision
    downloads them and compares checksums.

    The arguments are those of :class:`~zoo.data.images.from_files.ImagesFromFiles`.
    """

    splits = ("train", "val", "test")

    def _samples(self) -> dict[str, list[Sample]]:
        folder = Path(self.root) / "flowers-102"
        with torchvision_download(
            f"Flowers-102 not found in {folder}",
            folder=folder,
            source="https://www.robots.ox.ac.uk/~vgg/data/flowers/102",
            advice="put 102flowers.tgz (unpacked), imagelabels.mat and setid.mat there by hand",
        ):
            from torchvision import datasets

            parts: dict[str, Any] = {
                split: datasets.Flowers102(self.root, split=split, download=True)
                for split in self.splits
            }
        self.class_names = self.class_names or tuple(parts["train"].classes)
        return {
            split: [
                (str(path), label)
                for path, label in zip(part._image_files, part._labels, strict=True)
            ]
            for split, part in parts.items()
        }
