"""Images of any size, each in a file of its own: in memory if they fit, streamed if not.

What ImageFolder, Pets and Flowers-102 share; `zoo.data.images.reading` opens their files.
"""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict, get_args

import torch
from torch import Tensor

from zoo.data.augmentation.base import Augmentation
from zoo.data.augmentation.mixing import check_mixing, mixing
from zoo.data.augmentation.presets import Preset, check_preset, preset
from zoo.data.images.base import ImageModule, Normalize, fit_square
from zoo.data.images.cache import Cache, DiskStore, RamStore, Store
from zoo.data.images.opening import depth_note
from zoo.data.images.reading import (
    STREAMED,
    ImageFiles,
    Sample,
    StreamedPreset,
    load_all,
)
from zoo.data.loading.memory import available_memory
from zoo.data.loading.order import check_balance
from zoo.data.loading.stream import StreamLoader
from zoo.data.loading.tensor import TensorLoader
from zoo.data.module import Part, check_batch_size
from zoo.data.sampling import Balance, evaluation_order

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GREY_MEAN, GREY_STD = (0.449,), (0.226,)  # their averages
MEMORY_LIMIT = 2 * 2**30  # bytes of images beyond which "auto" streams them
COLOUR_SAMPLE = 1000  # training images whose colours stand for those of all
FilePreset = Literal[Preset, StreamedPreset]


class ReadingOptions(TypedDict, total=False):
    """Arguments of :class:`ImagesFromFiles` but the sizes, which have other defaults elsewhere."""

    root: str
    augment: FilePreset
    mixup: float
    cutmix: float
    mean: Sequence[float] | None
    std: Sequence[float] | None
    class_names: Literal["auto"] | Sequence[str]
    in_memory: Literal["auto"] | bool
    cache: Cache | None
    num_workers: int
    balance: Balance
    drop_last: bool


class FileOptions(ReadingOptions, total=False):
    """All arguments of :class:`ImagesFromFiles`."""

    batch_size: int
    image_size: int
    resize: int | None


class ImagesFromFiles(ImageModule):
    """Batches of images from files and their classes.

    In memory or streamed, the batches are the same; only the time they take is not. In memory,
    images are kept as bytes on the training device.

    Args:
        root: folder of all data.
        batch_size: images a batch.
        image_size: height and width that images are resized to.
        resize: length of the shorter side from whose middle an image is cut (256 for ImageNet's
            usual 224); ``None``: the largest centred square is resized.
        augment: a preset of `zoo.data.augmentation.presets`, for batches: ``none``, ``affine``,
            ``crop_flip``, ``crop_flip_colour``, ``alexnet``, ``randaugment``,
            ``crop_flip_erase``, ``airbench``; or ``resized_crop_flip`` (a random part of 8 to 100
            % of the image, resized, mirrored half the time), ``resized_crop_flip_colour`` or
            ``resized_crop_randaugment``, which start from the file each time and so need streaming.
        mixup: alpha of mixup in training; 0: none. With both, half the samples have either.
        cutmix: alpha of CutMix in training; 0: none.
        mean: of each channel, for values from 0 to 1; ``None``: ImageNet's.
        std: of each channel, likewise.
        class_names: of the labels, in their order; ``auto``: as the data name them.
        in_memory: ``auto``: if all images together take at most 2 GiB and a quarter of the free
            memory of the device.
        cache: decode every image once, and keep the bytes: ``ram``: in the computer's memory,
            where the device has no room for them; ``disk``: in a file below ``root``, which later
            runs find (`zoo.data.images.cache`); ``None``: decode files whenever they are read.
        num_workers: processes that read files while streaming.
        balance: let every class come equally often in training: ``undersample``, ``oversample`` or
            ``resample`` (:func:`~zoo.data.sampling.balanced_order`).
        drop_last: omit the last training batch of an epoch if it is smaller.
    """

    changeable: ClassVar[tuple[str, ...]] = ("root", "cache", "num_workers")
    for_training = (*ImageModule.for_training, "balance")
    in_channels = 3

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
        cache: Cache | None = None,
        num_workers: int = 2,
        balance: Balance = "none",
        drop_last: bool = False,
    ) -> None:
        super().__init__()
        check_batch_size(batch_size)
        check_balance(balance)
        check_mixing(mixup, cutmix)
        if image_size < 1:
            raise ValueError(f"image_size must be at least 1, not {image_size}")
        if resize is not None and resize < image_size:
            raise ValueError(f"resize must be at least image_size = {image_size}, not {resize}")
        check_preset(augment, in_channels=self.in_channels, names=STREAMED)
        if in_memory not in ("auto", True, False):
            raise ValueError(f"in_memory must be 'auto', true or false, not {in_memory!r}")
        if in_memory is True and augment in STREAMED:
            raise ValueError(f"in_memory must not be true with augment {augment!r}")
        if cache not in (None, *get_args(Cache)):
            raise ValueError(f"cache must be ram, disk or null, not {cache!r}")
        if cache is not None and augment in STREAMED:
            raise ValueError(
                f"cache must be null with augment {augment!r}, which starts from the file each "
                f"time, not {cache!r}"
            )
        if num_workers < 0:
            raise ValueError(f"num_workers must not be negative, not {num_workers}")
        default_mean, default_std = (
            (GREY_MEAN, GREY_STD) if self.in_channels == 1 else (IMAGENET_MEAN, IMAGENET_STD)
        )
        self.normalize = Normalize(
            default_mean if mean is None else mean, default_std if std is None else std
        )
        if len(self.normalize.mean) != self.in_channels:
            raise ValueError(f"mean must have in_channels = {self.in_channels} values, not {mean}")
        self.class_names = () if class_names == "auto" else tuple(class_names)
        self.root = root
        self.batch_size = batch_size
        self.image_size = image_size
        self.resize = resize
        self.augment = augment
        self.mixup = mixup
        self.cutmix = cutmix
        self.in_memory = in_memory
        self.cache = cache
        self._store: Store | None = None
        self.num_workers = num_workers
        self.balance = balance
        self.drop_last = drop_last

    @abstractmethod
    def _samples(self) -> dict[str, list[Sample]]:
        """Files and labels of each split; makes sure of ``class_names``."""

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        self.notes = []
        samples = self._samples()
        note = depth_note([path for path, _ in samples["train"]], self.reader)
        self.notes += [] if note is None else [note]
        in_memory = self._fits(samples, torch.device(device))
        self._store = self._stored(samples, in_memory=in_memory)
        for split, found in samples.items():
            train = split == "train"
            if not train:
                found = [found[i] for i in evaluation_order(len(found)).tolist()]
            batches: dict[str, Any] = {
                "batch_size": self.batch_size,
                "shuffle": train,
                "seed": seed,
                "transform": self._finish,
                "drop_last": self.drop_last and train,
                "augment": self._augmentations(found) if train else (),
                "device": device,
                "part": part,
                "balance": self.balance if train else "none",
            }
            files = self._files(found, self.augment if train and self.augment in STREAMED else None)
            if in_memory:
                self.loaders[split] = TensorLoader(load_all(files), **batches)
            else:
                labels = torch.tensor([label for _, label in found])
                self.loaders[split] = StreamLoader(
                    files, num_workers=self.num_workers, classes=labels, **batches
                )

    def facts(self) -> dict[str, Any]:
        if not self.class_names:
            raise RuntimeError(
                f"{type(self).__name__}.setup() must be called before its facts are known"
            )
        return super().facts()

    def resolved(self) -> dict[str, Any]:
        return {"class_names": list(self.class_names)} if self.class_names else {}

    def _prepare(self, image: "Image") -> Tensor:
        """Prepares any image: its middle, a square, resized and normalised."""
        pixels = fit_square(
            image, self.image_size, in_channels=self.in_channels, crop=True, resize=self.resize
        )
        return self.normalize(pixels.permute(2, 0, 1).unsqueeze(0))[0]  # (channels, height, width)

    def _files(self, samples: Sequence[Sample], augment: str | None = None) -> ImageFiles:
        return ImageFiles(
            samples,
            image_size=self.image_size,
            in_channels=self.in_channels,
            resize=self.resize,
            augment=augment,
            reader=self.reader,
            store=self._store,
        )

    def _stored(self, samples: dict[str, list[Sample]], *, in_memory: bool) -> Store | None:
        """The decoded images, where they are to be kept."""
        paths = sorted({path for part in samples.values() for path, _ in part})
        if self.cache == "disk":
            store = DiskStore(paths, self._files([]), Path(self.root) / "cache")
            self.notes.append(store.note)
            return store
        if self.cache == "ram" and not in_memory:
            return RamStore(paths, self._files([]))
        return None  # The loaders themselves keep what fits.

    def _fits(self, samples: dict[str, list[Sample]], device: torch.device) -> bool:
        if self.in_memory != "auto":
            return self.in_memory
        if self.augment in STREAMED:
            return False
        count = sum(len(part) for part in samples.values())
        size = count * self.in_channels * self.image_size**2
        return size <= min(MEMORY_LIMIT, available_memory(device) // 4)

    def _finish(self, images: Tensor) -> Tensor:
        # Streamed images too: results may differ in the last bit between memory formats.
        return self.normalize(images.contiguous(memory_format=torch.channels_last))

    def _augmentations(self, samples: Sequence[Sample]) -> tuple[Augmentation, ...]:
        def pixels() -> Tensor:
            # Some of them, evenly spread: those of ImageNet would take hours to read.
            step = -(-len(samples) // COLOUR_SAMPLE)
            return load_all(self._files(samples[::step]))[0]

        name = "none" if self.augment in STREAMED else self.augment
        changes = preset(name, image_size=self.image_size, pixels=pixels)
        return changes + mixing(len(self.class_names), mixup=self.mixup, cutmix=self.cutmix)
