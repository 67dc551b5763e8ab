"""Clipping, optimizer and clearing the gradients, without the network's forward and backward."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.timing import interleave, ratio
from zoo.models.vision.resnet_cifar import resnet110
from zoo.training.optimizers import make_optimizer
from zoo.training.update import Updater

RATE, NORM, STEPS = 1e-3, 1.0, 10


def _sides(make: Callable[[], nn.Module]) -> tuple[list[nn.Module], list[Callable[[], None]]]:
    """Two networks with the same weights, and what takes a step of each: ours, then torch's."""
    networks = []
    for _ in range(2):
        torch.manual_seed(0)
        networks.append(make().to(memory_format=torch.channels_last))
    ours, theirs = networks
    optimizer = make_optimizer(torch.optim.AdamW, ours, lr=RATE, decay_norms_and_biases=True)
    updater = Updater(ours, {"model": optimizer}, device=torch.device("cpu"), clip_norm=NORM)
    loss = torch.zeros(())
    plain = torch.optim.AdamW(theirs.parameters(), lr=RATE)

    def by_defaults() -> None:
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), NORM)
        plain.step()
        plain.zero_grad()

    def by_updater() -> None:
        updater.update("model", loss)

    return networks, [by_updater, by_defaults]


def _set(network: nn.Module, gradients: list[Tensor]) -> None:
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        parameter.grad = gradient


def disagreement(make: Callable[[], nn.Module], steps: int) -> str | None:
    """The first parameter that both sides have moved elsewhere, if any."""
    networks, sides = _sides(make)
    for _ in range(steps):
        drawn = [torch.randn_like(p) for p in networks[0].parameters()]
        for network, step in zip(networks, sides, strict=True):
            _set(network, [gradient.clone() for gradient in drawn])
            step()
    pairs = zip(networks[0].named_parameters(), networks[1].parameters(), strict=True)
    return next((n for (n, a), b in pairs if not torch.allclose(a, b, rtol=1e-4, atol=1e-6)), None)


def optimizer(blocks: int) -> list[dict[str, Any]]:
    """AdamW of ResNet-110, clipped: ours against torch's defaults."""
    if name := disagreement(resnet110, 3):
        raise SystemExit(f"optimizer: the two sides disagree about {name}")
    print("optimizer: the same weights on both sides after 3 steps")
    networks, steps = _sides(resnet110)
    drawn = [torch.randn_like(p) for p in networks[0].parameters()]

    def timed(network: nn.Module, step: Callable[[], None]) -> Callable[[], float]:
        gradients = [gradient.clone() for gradient in drawn]

        def run() -> float:
            seconds = 0.0
            for _ in range(STEPS):
                torch._foreach_copy_(gradients, drawn)  # Clipping has changed them.
                _set(network, gradients)
                began = time.perf_counter()
                step()
                seconds += time.perf_counter() - began
            return seconds / STEPS

        return run

    ours, theirs = "clip, AdamW, zero_grad of ResNet-110, ours", "torch's defaults"
    sides = {
        name: timed(network, step)
        for name, network, step in zip((ours, theirs), networks, steps, strict=True)
    }
    return [ratio(interleave(sides, blocks), ours, theirs, 0.3)]
