"""Recurrent layers against torch's with the same weights: one step forward and backward."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.timing import interleave, ratio
from zoo.layers.recurrence import Recurrence
from zoo.models.recurrent.gru import GRU
from zoo.models.recurrent.lstm import LSTM

BATCH, TIME, STEPS = 32, 64, 4


def _seconds(layer: nn.Module, x: Tensor, weights: Tensor) -> float:
    """Seconds a step of forward and backward, the gradient of the input included."""
    began = time.perf_counter()
    for _ in range(STEPS):
        (layer(x)[0] * weights).sum().backward()
        layer.zero_grad()
        x.grad = None
    return (time.perf_counter() - began) / STEPS


def _gradients(layer: nn.Module, x: Tensor, weights: Tensor) -> list[Tensor]:
    output = layer(x)[0]
    loss = (output * weights).sum()
    return [output, *torch.autograd.grad(loss, [x, *layer.parameters()])]


def _compare(
    name: str, ours: Recurrence, theirs: nn.RNNBase, blocks: int, bar: float
) -> dict[str, Any]:
    """One layer of ours against torch's, which gets the same weights."""
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(BATCH, TIME, ours.input_size).requires_grad_()
    weights = torch.randn(BATCH, TIME, ours.hidden_size) / TIME
    for a, b in zip(_gradients(ours, x, weights), _gradients(theirs, x, weights), strict=True):
        if not torch.allclose(a, b, rtol=1e-3, atol=1e-4):
            raise SystemExit(f"{name}: the two layers disagree")
    ours_name, theirs_name = f"{name}, ours", f"{name}, torch's"
    sides: dict[str, Callable[[], float]] = {
        ours_name: partial(_seconds, ours, x, weights),
        theirs_name: partial(_seconds, theirs, x, weights),
    }
    return ratio(interleave(sides, blocks), ours_name, theirs_name, bar)


def recurrent(blocks: int) -> list[dict[str, Any]]:
    """Layers of 64 steps at batch 32, on as many threads as torch has."""
    torch.manual_seed(0)
    lstm, gru = partial(nn.LSTM, batch_first=True), partial(nn.GRU, batch_first=True)
    return [
        _compare("fused LSTM, 256 wide", LSTM(256, 256), lstm(256, 256), blocks, 1.02),
        _compare(
            "written LSTM, 512 wide",
            LSTM(512, 512, backend="written"),
            lstm(512, 512),
            blocks,
            1.25,
        ),
        _compare("GRU, 128 wide", GRU(128, 128), gru(128, 128), blocks, 0.8),
    ]
