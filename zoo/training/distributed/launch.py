"""What torchrun tells each process that it starts, and the group that these processes form."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

SEVERAL = "WORLD_SIZE"
"""The variable of the environment with the number of processes."""


@dataclass(frozen=True)
class Launch:
    """How this process was started.

    Attributes:
        rank: its number.
        world: how many there are, on all machines.
        local_rank: its number among those of its machine.
        local_world: how many there are on its machine.
        group: the name of this launch, the same after every restart; None: torchrun has not
            started it.
        restarts: how often torchrun has started these processes again.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    group: str | None = None
    restarts: int = 0


def launch(environment: Mapping[str, str] = os.environ) -> Launch:
    """Reads what torchrun has set; without it there is one process."""
    if "TORCHELASTIC_RUN_ID" not in environment and SEVERAL not in environment:
        return Launch()

    def number(name: str, default: int) -> int:
        return int(environment.get(name) or default)

    group = environment.get("TORCHELASTIC_RUN_ID")
    if group in ("none", ""):  # The default of torchrun, which names nothing: its process does.
        group = f"parent-{_name_of_process(os.getppid())}"
    return Launch(
        rank=number("RANK", 0),
        world=number(SEVERAL, 1),
        local_rank=number("LOCAL_RANK", 0),
        local_world=number("LOCAL_WORLD_SIZE", 1),
        group=group,
        restarts=number("TORCHELASTIC_RESTART_COUNT", 0),
    )


def _name_of_process(number: int) -> str:
    """A process by its number and the moment of its start: in containers numbers come again."""
    try:
        status = Path(f"/proc/{number}/stat").read_text(encoding="utf-8")
        booted = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8")
    except OSError:
        return str(number)
    started = status.rpartition(")")[2].split()[19]  # Field 22, in ticks since the start.
    return hashlib.sha256(f"{number} {started} {booted}".encode()).hexdigest()[:16]


def device_name(wanted: str, place: Launch) -> str:
    """The device of one of several processes of a machine, each of which has its own GPU.

    Args:
        wanted: `trainer.device`.
        place: how this process was started.

    Raises:
        ValueError: a device is named for all of them, or the machine has too few.
    """
    if place.world == 1 or wanted == "cpu":
        return wanted
    if ":" in wanted:
        raise ValueError(
            f"device={wanted}: names one device for {place.world} processes; "
            f"trainer.device={wanted.partition(':')[0]} gives each its own"
        )
    kind = wanted if wanted != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cpu":
        return kind
    count = torch.get_device_module(kind).device_count()
    if place.local_world > count:
        raise ValueError(
            f"device={wanted}: {place.local_world} processes on this machine, which has {count} "
            f"{kind.upper()} devices; torchrun --nproc-per-node {max(count, 1)}"
        )
    return f"{kind}:{place.local_rank}"


@contextmanager
def process_group() -> Iterator[None]:
    """Joins the processes that torchrun has started; alone, or where they are joined, nothing."""
    import torch.distributed as dist

    if launch().world == 1 or dist.is_initialized():
        yield
        return

    backend: Any = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if torch.cuda.is_available() and launch().local_rank < torch.cuda.device_count():
        torch.cuda.set_device(launch().local_rank)
    store, rank, world = next(dist.rendezvous("env://"))
    # Torchrun has one store for all its attempts: addresses of processes that are gone are in it.
    store = dist.PrefixStore(f"attempt {launch().restarts}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world)
    yield
    # Not after a failure: whoever waits for processes that are gone may wait for ever.
    dist.destroy_process_group()
