"""MNIST and Fashion-MNIST: 70,000 grey images of 28x28 pixels in ten classes.

LeCun, Cortes and Burges, 1998, http://yann.lecun.com/exdb/mnist; Xiao, Rasul and Vollgraf, 2017,
"Fashion-MNIST", https://arxiv.org/abs/1708.07747. Both keep their 10,000 test images; of the
60,000 others, 5,000 are set aside for validation (stratified).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.data.augmentation.base import Augmentation, HorizontalFlip, RandomCrop
from zoo.data.augmentation.binarization import (
    Binarization,
    Binarize,
    binarize_once,
    check_binarization,
    settled,
)
from zoo.data.augmentation.presets import Preset, preset
from zoo.data.download import DataError, import_torchvision, torchvision_download, verify
from zoo.data.images.base import RANGES, Normalize, Scaling, check_scaling, fit_square
from zoo.data.images.in_memory import ImagesInMemory, MemoryOptions, Split

if TYPE_CHECKING:
    from PIL.Image import Image

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
SIZE = 28


class MNIST(ImagesInMemory):
    """Handwritten digits, white on black.

    Files lie where torchvision keeps them, in ``root/MNIST/raw``. If one is missing, torchvision
    downloads them (and checks what it loads); files that are there are read without torchvision,
    whose import takes longer, after a comparison with their checksums.

    Args:
        batch_size: images a batch.
        padding: width of a black frame; 2 makes the 32 pixels a side of LeNet.
        augment: change each training image a little, differently each epoch; ``true``: digits
            are turned, moved and zoomed, clothes are moved and mirrored; or a preset of
            `zoo.data.augmentation.presets` (``false`` is ``none``).
        scaling: ``standard``: mean 0 and standard deviation 1 (of unframed images); ``symmetric``:
            values from -1 to 1; ``unit``: from 0 to 1, as generative models want them.
        binarize: make the pixels black or white at random, in training ``dynamic``, anew each time
            they are seen, or ``static``, once; in val and test once (see
            `zoo.data.augmentation.binarization`).
        val_size: training images set aside for validation.
        mirror: address of a folder with the four ``.gz`` files, instead of torchvision's mirrors.
        options: see :class:`~zoo.data.images.in_memory.ImagesInMemory`.
    """

    dataset: ClassVar[str] = "MNIST"  # torchvision's name, and the folder's
    in_channels = 1
    raw_size = SIZE
    keeps_normalized = True
    class_names: tuple[str, ...] = tuple("0123456789")
    statistics = (0.1307,), (0.3081,)  # of the 60,000
    checksums: ClassVar[dict[str, str]] = {  # md5 of the unpacked files
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    }

    def __init__(
        self,
        *,
        batch_size: int = 64,
        padding: int = 0,
        augment: bool | Preset = False,
        scaling: Scaling = "standard",
        binarize: Binarization = "none",
        val_size: int = 5000,
        mirror: str | None = None,
        **options: Unpack[MemoryOptions],
    ) -> None:
        check_scaling(scaling)
        check_binarization(binarize, scaling)
        if padding < 0:
            raise ValueError(f"padding must not be negative, not {padding}")
        super().__init__(
            batch_size=batch_size,
            augment="none" if isinstance(augment, bool) else augment,
            val_size=val_size,
            **options,
        )
        self.padding = padding
        self.image_size = SIZE + 2 * padding
        self.all_changes = augment is True
        self.mirror = mirror
        self.binarize = binarize
        if scaling != "standard":
            mean, std = RANGES[scaling]
            self.normalize = Normalize([mean], [std])

    def _read(self) -> tuple[Split, Split]:
        folder = self._files()
        return self._read_part(folder, "train"), self._read_part(folder, "test")

    def _prepare(self, image: "Image") -> Tensor:
        """Prepares an image, made grey; white on black, as the data are (nothing is guessed)."""
        pixels = fit_square(image, SIZE, in_channels=1, crop=False)  # (28, 28, 1)
        images = self.framed(pixels.permute(2, 0, 1).unsqueeze(0))
        if self.binarize != "none":
            images = binarize_once(images, "image")
        return self.normalize(images)[0]  # (1, height, width)

    def framed(self, images: Tensor) -> Tensor:
        """Images as they come, ``(batch, 1, 28, 28)``, of the size of these."""
        return F.pad(images, (self.padding,) * 4)

    def _augmentations(self, images: Tensor) -> tuple[Augmentation, ...]:
        changes = super()._augmentations(images)
        if self.all_changes:
            changes = (*self._changes(), *changes)
        if self.binarize == "dynamic":
            changes = (*changes, Binarize(images[0].numel()))
        return changes

    def _settled(self, images: Tensor, split: str) -> Tensor:
        return settled(images, self.binarize, split)

    def _changes(self) -> tuple[Augmentation, ...]:
        """What ``augment=true`` stands for."""
        return preset("affine", image_size=self.image_size, pixels=lambda: torch.empty(0))

    def _files(self) -> Path:
        """Makes sure of the four files and returns their folder."""
        folder = Path(self.root) / self.dataset / "raw"
        files = [folder / file for pair in FILES.values() for file in pair]
        if missing := [path.name for path in files if not path.is_file()]:
            self._download(folder, missing)
        for path in files:
            verify(path, md5=self.checksums.get(path.name))
        return folder

    def _download(self, folder: Path, missing: list[str]) -> None:
        import_torchvision()
        from torchvision import datasets

        dataset_class: Any = getattr(datasets, self.dataset)
        if self.mirror is not None:
            mirrors = [self.mirror.rstrip("/") + "/"]
            dataset_class = type(self.dataset, (dataset_class,), {"mirrors": mirrors})
        with torchvision_download(
            f"{', '.join(missing)} not found in {folder}",
            folder=folder,
            source=" or ".join(dataset_class.mirrors),
            advice="put the four unpacked files there by hand, or name a mirror",
        ):
            dataset_class(self.root, download=True)

    def _read_part(self, folder: Path, split: str) -> Split:
        images, labels = (read_idx(folder / file) for file in FILES[split])
        if images.shape[1:] != (SIZE, SIZE) or labels.shape != images.shape[:1]:
            raise DataError(
                f"{folder} holds images {tuple(images.shape)} with labels {tuple(labels.shape)}, "
                f"not (n, {SIZE}, {SIZE}) with (n,): delete its files, so that they are downloaded "
                f"again"
            )
        return self.framed(images.unsqueeze(1)), labels.long()  # (n, 1, height, width)


class FashionMNIST(MNIST):
    """Images of clothes; everything else as in :class:`MNIST`."""

    dataset = "FashionMNIST"
    class_names = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )
    statistics = (0.2860,), (0.3530,)
    checksums: ClassVar[dict[str, str]] = {}  # torchvision knows those of the packed files only

    def _changes(self) -> tuple[Augmentation, ...]:
        return (RandomCrop(2), HorizontalFlip())


def read_idx(path: Path) -> Tensor:
    """Reads a file of bytes in the IDX format (the last section of MNIST's page).

    Four bytes (0, 0, 8 for unsigned bytes, the number of dimensions), the size of each dimension
    as a big-endian 32-bit number, then the values.

    Raises:
        DataError: if it is anything else, or cut short.
    """
    content = bytearray(path.read_bytes())
    dimensions = content[3] if content[:3] == b"\x00\x00\x08" and len(content) > 3 else 0
    start = 4 + 4 * dimensions
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    values = torch.tensor(shape).prod().item() if shape else 0
    if not values or len(content) != start + values:
        raise DataError(
            f"{path} is not a whole IDX file of bytes: delete it, so that it is downloaded again"
        )
    return torch.frombuffer(content, dtype=torch.uint8, offset=start).view(shape)
