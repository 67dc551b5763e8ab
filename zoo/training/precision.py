"""Which type to compute in, and where."""

import warnings
from pathlib import Path

import torch
from torch import nn

from zoo.tasks.task import Task
from zoo.training.recomputation import recompute_blocks
from zoo.training.settings import TrainerSettings

_TYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """The device of a name: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`, `xpu`.

    Raises:
        ValueError: it asks for a device that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind != "cpu":  # By its name: torch wraps a number that does not fit into eight bits.
        module = torch.get_device_module(kind)
        count = module.device_count() if module.is_available() else 0
        if int(index or 0) >= count:
            raise ValueError(
                f"device={name}: torch sees {count} {kind.upper()} devices here; "
                "trainer.device=auto takes a CUDA device if there is one, else the CPU"
            )
    return torch.device(name)


def _cpu_has_bf16() -> bool:
    """Whether this CPU multiplies in bf16; elsewhere autocast is two to four times slower."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def resolve_precision(name: str, device: torch.device) -> torch.dtype | None:
    """The autocast type of `auto`, `fp32`, `bf16` or `fp16` on a device; None: no autocast."""
    if name == "auto":
        good = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if good else None
    kind = _TYPES[name]
    if device.type == "cpu" and (kind is torch.float16 or (kind and not _cpu_has_bf16())):
        warnings.warn(
            f"trainer.precision={name} is several times slower than fp32 on this CPU, which has no "
            f"arithmetic for it; trainer.precision=auto chooses fp32 here",
            stacklevel=2,
        )
    return kind


def prepare(
    task: Task, settings: TrainerSettings, *, is_sharded: bool
) -> tuple[torch.device, torch.dtype | None]:
    """Moves the networks of a task to their device, in place, and has their blocks recomputed.

    Args:
        task: whose networks.
        settings: device, precision, memory format, activation checkpointing.
        is_sharded: whether a process holds a part of each parameter.

    Returns:
        The device, and the type to compute in; None: no autocast.

    Raises:
        ValueError: the device is not there, shards cannot do what the settings ask for, the task
            cannot be compiled, or there is no block to recompute.
    """
    device = resolve_device(settings.device)
    dtype = resolve_precision(settings.precision, device)
    if is_sharded and dtype is torch.float16:
        raise ValueError("precision=fp16 does not work with shards; use precision=bf16 or replicas")
    if settings.compile != "off" and task.differentiates:
        raise ValueError(
            f"compile={settings.compile}: the loss of {type(task).__name__} holds a derivative (a "
            "gradient penalty), whose own derivative torch.compile cannot take; use compile=off"
        )
    place(task.model, device, False if is_sharded else settings.channels_last)
    task.to(device)
    if settings.activation_checkpointing and not sum(
        map(recompute_blocks, task.networks().values())
    ):
        raise ValueError(
            f"activation_checkpointing=true: {type(task.model).__name__} repeats no block that "
            "could be computed again; use activation_checkpointing=false"
        )
    return device, dtype


def place(model: nn.Module, device: torch.device, channels_last: str | bool) -> None:
    """Moves a model to a device, in place, in the memory format that convolutions like.

    Args:
        model: what to move.
        device: where to.
        channels_last: whether in that format; `auto`: if there is a Conv2d.
    """
    if channels_last == "auto":
        channels_last = any(isinstance(module, nn.Conv2d) for module in model.modules())
    model.to(device)
    if channels_last:
        model.to(memory_format=torch.channels_last)
