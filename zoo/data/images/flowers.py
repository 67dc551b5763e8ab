"""Oxford Flowers-102: 8,189 photographs of 102 kinds of flowers.

Nilsback and Zisserman, "Automated Flower Classification over a Large Number of Classes", 2008,
https://www.robots.ox.ac.uk/~vgg/data/flowers/102. The published split: 1,020 for training, 1,020
for validation (ten of each class) and 6,149 for the test.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from zoo.data.download import torchvision_download
from zoo.data.images.from_files import FilePreset, ImagesFromFiles
from zoo.data.images.reading import Sample


class Flowers102(ImagesFromFiles):
    """Photographs of flowers, streamed from their files or in memory.

    The files are those of torchvision, in ``root/flowers-102``; if they are missing, torchvision
    downloads them and compares checksums.

    Args:
        root: folder of all downloads.
        batch_size: images a batch.
        image_size: height and width that images are resized to.
        resize: length of the shorter side from whose middle an image is cut; ``None``: the largest
            centred square is resized.
        augment: as for :class:`~zoo.data.images.image_folder.ImageFolder`.
        mixup: alpha of mixup in training; 0: none. With both, half the samples have either.
        cutmix: alpha of CutMix in training; 0: none.
        mean: of each channel, for values from 0 to 1; ``None``: ImageNet's.
        std: of each channel, likewise.
        class_names: ``auto``: the names that torchvision gives.
        in_memory: ``auto``: if all images together take at most 2 GiB and a quarter of the free
            memory of the device.
        num_workers: processes that read files while streaming.
    """

    splits = ("train", "val", "test")

    def __init__(
        self,
        *,
        root: str = "data",
        batch_size: int = 64,
        image_size: int = 224,
        resize: int | None = 256,
        augment: FilePreset = "none",
        mixup: float = 0.0,
        cutmix: float = 0.0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        class_names: Literal["auto"] | Sequence[str] = "auto",
        in_memory: Literal["auto"] | bool = "auto",
        num_workers: int = 2,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            image_size=image_size,
            resize=resize,
            in_channels=3,
            augment=augment,
            mixup=mixup,
            cutmix=cutmix,
            mean=mean,
            std=std,
            in_memory=in_memory,
            num_workers=num_workers,
        )
        self.root = root
        self.class_names = () if class_names == "auto" else tuple(class_names)

    def _samples(self) -> dict[str, list[Sample]]:
        with torchvision_download(
            f"Flowers-102 not found in {Path(self.root) / 'flowers-102'}",
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
