"""Networks against torchvision's: the bare loop of each, and ours in the trainer."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.data import TrainingOnly
from benchmarks.timing import interleave, ratio
from zoo.data.loading.tensor import TensorLoader
from zoo.models.vision.alexnet import alexnet
from zoo.models.vision.convnext import convnext_tiny
from zoo.models.vision.densenet import densenet121
from zoo.models.vision.googlenet import googlenet_bn
from zoo.models.vision.mobilenet_v2 import mobilenet_v2
from zoo.models.vision.resnet import resnet18, resnet50
from zoo.models.vision.squeezenet import squeezenet1_1
from zoo.models.vision.vgg import vgg11_bn
from zoo.models.vision.vision_transformer import vit_b_16
from zoo.tasks.classification import Classification
from zoo.training.optimizers import make_optimizer
from zoo.training.settings import TrainerSettings
from zoo.training.trainer import Trainer

STEPS, CLASSES = 4, 10


class Pair(NamedTuple):
    """A network of ours, torchvision's name for it, and a batch that suits a CPU."""

    ours: Callable[..., nn.Module]
    theirs: str
    batch: int
    size: int
    theirs_arguments: dict[str, Any] = {}  # noqa: RUF012 (a tuple's default, never changed)
    ours_arguments: dict[str, Any] = {}  # noqa: RUF012


PAIRS = {
    "alexnet": Pair(alexnet, "alexnet", 96, 96),
    "vgg11_bn": Pair(vgg11_bn, "vgg11_bn", 24, 64),
    "googlenet_bn": Pair(
        googlenet_bn,
        "googlenet",
        16,
        96,
        {"aux_logits": False, "init_weights": False},
        {"aux_logits": False},
    ),
    "resnet18": Pair(resnet18, "resnet18", 16, 96),
    "resnet50": Pair(resnet50, "resnet50", 16, 96),
    "densenet121": Pair(densenet121, "densenet121", 8, 96),
    "mobilenet_v2": Pair(mobilenet_v2, "mobilenet_v2", 24, 96),
    "squeezenet1_1": Pair(squeezenet1_1, "squeezenet1_1", 32, 96),
    "convnext_tiny": Pair(convnext_tiny, "convnext_tiny", 8, 64),
    "vit_b_16": Pair(vit_b_16, "vit_b_16", 2, 224),
}


def _seconds(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> float:
    """Seconds a step of forward and backward alone."""
    began = time.perf_counter()
    for inputs, targets in batches:
        F.cross_entropy(model(inputs), targets).backward()
        model.zero_grad()
    return (time.perf_counter() - began) / len(batches)


def _steps(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> float:
    """Seconds a step of a loop by hand with the optimizer."""
    optimizer = make_optimizer(torch.optim.SGD, model, lr=1e-4, momentum=0.9)
    began = time.perf_counter()
    for inputs, targets in batches:
        F.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    return (time.perf_counter() - began) / len(batches)


def _trained(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> float:
    """Seconds a step in the trainer."""
    inputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    trainer = Trainer(
        Classification(model, num_classes=CLASSES),
        TrainingOnly(TensorLoader((inputs, targets), batch_size=len(batches[0][1]))),
        make_optimizer(torch.optim.SGD, model, lr=1e-4, momentum=0.9),
        settings=TrainerSettings(epochs=1, device="cpu", log_every=len(batches)),
    )
    trainer.fit()
    return trainer.position.seconds / len(batches)


def _pair(name: str, *, compiled: bool) -> tuple[nn.Module, nn.Module, list[Any]]:
    """Two networks with the same weights, in training, and batches for them."""
    from torchvision import models

    pair = PAIRS[name]
    torch.manual_seed(0)
    theirs = getattr(models, pair.theirs)(num_classes=CLASSES, **pair.theirs_arguments)
    ours = pair.ours(CLASSES, **pair.ours_arguments)
    ours.load_state_dict(theirs.state_dict())
    theirs, ours = (m.to(memory_format=torch.channels_last).train() for m in (theirs, ours))
    images = torch.randn(STEPS, pair.batch, 3, pair.size, pair.size)
    targets = torch.randint(CLASSES, (STEPS, pair.batch))
    batches = [
        (x.contiguous(memory_format=torch.channels_last), y)
        for x, y in zip(images, targets, strict=True)
    ]
    outputs = []
    for model in (theirs, ours):
        torch.manual_seed(1)  # the same dropout
        with torch.no_grad():
            outputs.append(model(batches[0][0]))
    if not torch.allclose(outputs[0], outputs[1], rtol=1e-3, atol=1e-4):
        raise SystemExit(f"{name}: the two networks disagree")
    if compiled:
        theirs, ours = torch.compile(theirs), torch.compile(ours)  # type: ignore[assignment]
    return theirs, ours, batches


def models(blocks: int, *, compiled: bool = False) -> list[dict[str, Any]]:
    """Each network against torchvision's, channels-last, with the same weights."""
    results = []
    for name in PAIRS:
        theirs, ours, batches = _pair(name, compiled=compiled)
        kind = f"{name}, compiled" if compiled else name
        ours_name, theirs_name = f"{kind}, ours", f"{kind}, torchvision's"
        bare: dict[str, Callable[[], float]] = {
            ours_name: partial(_seconds, ours, batches),
            theirs_name: partial(_seconds, theirs, batches),
        }
        results.append(ratio(interleave(bare, blocks), ours_name, theirs_name, 1.02))
        if compiled:
            continue
        trained_name, loop_name = f"{ours_name}, trainer", f"{theirs_name}, loop by hand"
        stepped: dict[str, Callable[[], float]] = {
            trained_name: partial(_trained, ours, batches),
            loop_name: partial(_steps, theirs, batches),
        }
        results.append(ratio(interleave(stepped, blocks), trained_name, loop_name, 1.05))
    return results


def compiled_models(blocks: int) -> list[dict[str, Any]]:
    """The same, both sides compiled."""
    return models(blocks, compiled=True)
