"""The U-Net of diffusion models against diffusers' with the same weights."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.timing import interleave, ratio
from zoo.models.generative.diffusion import ddpm_cifar10

BATCH = 2
THEIRS: dict[str, Any] = {  # google/ddpm-cifar10-32, so far as it is not the default
    "sample_size": 32,
    "block_out_channels": (128, 256, 256, 256),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
    "attention_head_dim": None,
}


def _seconds(predict: Callable[[Tensor, Tensor], Tensor], model: nn.Module, x: Tensor) -> float:
    """Seconds of forward and backward, and of setting the gradients aside."""
    times = torch.tensor([10, 900])
    began = time.perf_counter()
    predict(x, times).square().mean().backward()
    model.zero_grad()
    return time.perf_counter() - began


def diffusion(blocks: int) -> list[dict[str, Any]]:
    """`ddpm_cifar10` against `UNet2DModel`, forward and backward, channels-last."""
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    theirs: Any = UNet2DModel(**THEIRS)
    ours = ddpm_cifar10(dropout=0.0)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(BATCH, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    for model in (theirs, ours):
        model.to(memory_format=torch.channels_last).train()

    def predict(x: Tensor, times: Tensor) -> Tensor:
        found: Tensor = theirs(x, times).sample
        return found

    times = torch.tensor([10, 900])
    with torch.no_grad():
        if not torch.allclose(ours(x, times), predict(x, times), rtol=1e-3, atol=1e-4):
            raise SystemExit("ddpm_cifar10: the two networks disagree")
    ours_name, theirs_name = "ddpm_cifar10, ours", "ddpm_cifar10, diffusers'"
    sides: dict[str, Callable[[], float]] = {
        ours_name: partial(_seconds, ours, ours, x),
        theirs_name: partial(_seconds, predict, theirs, x),
    }
    return [ratio(interleave(sides, blocks), ours_name, theirs_name, 1.05)]
