"""Batches of images in memory: against a `DataLoader`, and against a training step."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.timing import interleave, ratio
from zoo.data.augmentation.base import HorizontalFlip, RandomCrop
from zoo.data.images.base import Normalize
from zoo.data.loading.tensor import TensorLoader
from zoo.models.vision.resnet_cifar import resnet20
from zoo.training.optimizers import make_optimizer
from zoo.training.precision import place

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class _Images(torch.utils.data.Dataset[Any]):
    """Images as PIL would decode them, through torchvision's transforms."""

    def __init__(self, images: torch.Tensor, transform: Any) -> None:
        from PIL import Image

        self.images = [Image.fromarray(p.numpy()) for p in images]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        found: torch.Tensor = self.transform(self.images[index])
        return found


def loader(blocks: int) -> list[dict[str, Any]]:
    """In-memory batches against a DataLoader of torchvision transforms."""
    from torchvision import transforms

    generator = torch.Generator().manual_seed(0)
    count = 128 * 40
    pixels = torch.randint(256, (count, 32, 32, 3), generator=generator, dtype=torch.uint8)
    normalize = Normalize(MEAN, STD)
    images = pixels.permute(0, 3, 1, 2)  # (samples, channels, height, width)

    plain = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    expected = torch.stack([_Images(pixels[:64], plain)[i] for i in range(64)])
    if not torch.allclose(normalize(images[:64]), expected, atol=1e-5):
        raise SystemExit("the two normalisations disagree")
    print("normalised images agree to 1e-5")

    ours = TensorLoader(
        (images,), batch_size=128, shuffle=True, augment=(RandomCrop(4),), transform=normalize
    )

    def run_ours() -> float:
        began = time.perf_counter()
        batches = sum(1 for _ in ours.batches(0))
        return (time.perf_counter() - began) / batches

    crop = transforms.Compose([transforms.RandomCrop(32, padding=4), *plain.transforms])
    dataset = _Images(pixels, crop)

    def theirs(workers: int) -> Callable[[], float]:
        batches = torch.utils.data.DataLoader(
            dataset, 128, shuffle=True, num_workers=workers, persistent_workers=workers > 0
        )

        def run() -> float:
            began = time.perf_counter()
            number = sum(1 for _ in batches)
            return (time.perf_counter() - began) / number

        return run

    sides: dict[str, Callable[[], float]] = {"in memory": run_ours}
    sides |= {f"DataLoader, {n} workers": theirs(n) for n in (0, 1, 2)}
    times = interleave(sides, blocks)
    best = min((n for n in times if n != "in memory"), key=lambda n: min(times[n]))
    return [ratio(times, "in memory", best, 0.12)]


def images(blocks: int) -> list[dict[str, Any]]:
    """Cropped, mirrored, normalised batches of 128 against a step of ResNet-20 on such a batch."""
    generator = torch.Generator().manual_seed(0)
    count = 128 * 8
    images = torch.randint(256, (count, 32, 32, 3), generator=generator, dtype=torch.uint8)
    targets = torch.randint(10, (count,), generator=generator)
    batches = TensorLoader(
        (images.permute(0, 3, 1, 2), targets),
        batch_size=128,
        shuffle=True,
        augment=(RandomCrop(4), HorizontalFlip()),
        transform=Normalize(MEAN, STD),
    )
    model = resnet20().to(memory_format=torch.channels_last)
    optimizer = make_optimizer(torch.optim.SGD, model, lr=0.1, momentum=0.9)
    ready = [batch for batch in batches.batches(0) if batch is not None]

    def load() -> float:
        began = time.perf_counter()
        number = sum(1 for _ in batches.batches(0))
        return (time.perf_counter() - began) / number

    def train() -> float:
        began = time.perf_counter()
        for inputs, labels in ready:
            F.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
        return (time.perf_counter() - began) / len(ready)

    times = interleave({"crop, flip, normalise": load, "step of ResNet-20": train}, blocks)
    return [ratio(times, "crop, flip, normalise", "step of ResNet-20", 0.1)]


def layout(blocks: int) -> list[dict[str, Any]]:
    """A step of ResNet-20 as the trainer lays it out against one in NCHW with torch's defaults."""
    torch.manual_seed(0)
    inputs, targets = torch.randn(128, 3, 32, 32), torch.randint(10, (128,))
    theirs, ours = resnet20(), resnet20()
    ours.load_state_dict(theirs.state_dict())
    place(ours, torch.device("cpu"), "auto")
    optimizers: dict[torch.nn.Module, torch.optim.Optimizer] = {
        ours: make_optimizer(torch.optim.SGD, ours, lr=0.1, momentum=0.9),
        theirs: torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9),
    }

    def step(model: torch.nn.Module, images: torch.Tensor) -> float:
        began = time.perf_counter()
        F.cross_entropy(model(images), targets).backward()
        optimizers[model].step()
        optimizers[model].zero_grad()
        return time.perf_counter() - began

    with torch.no_grad():
        if not torch.allclose(ours(inputs), theirs(inputs), rtol=1e-3, atol=1e-4):
            raise SystemExit("layout: the two networks disagree")
    pixels_last = inputs.contiguous(memory_format=torch.channels_last)
    names = "step of ResNet-20, ours", "step of ResNet-20, NCHW"
    sides = dict(
        zip(names, (lambda: step(ours, pixels_last), lambda: step(theirs, inputs)), strict=True)
    )
    return [ratio(interleave(sides, blocks), *names, 0.8)]
