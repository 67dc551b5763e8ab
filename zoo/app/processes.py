"""One run in several processes, which torchrun starts: who speaks, and how they come back.

    torchrun --standalone --nproc-per-node 2 train.py experiment=lenet_digits

The first process names the run folder, writes into it and speaks. What torchrun starts again after
a failure (`--max-restarts`) finds the folder of its launch and goes on from the last checkpoint.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from zoo.app.commands import printable
from zoo.app.failures import failure, report
from zoo.config.errors import ConfigError
from zoo.training.settings import TrainerSettings

if TYPE_CHECKING:
    import torch

    from zoo.training.distributed.strategy import Strategy

Value = TypeVar("Value")

ELASTIC = "elastic"
"""What `status.json` calls the name of a launch of torchrun."""


def world() -> int:
    """Processes of this run, as torchrun says."""
    text = os.environ.get("WORLD_SIZE") or "1"
    if not text.isdecimal() or text == "0":
        raise ConfigError(f"WORLD_SIZE={text}: torchrun sets it to the number of processes")
    return int(text)


def is_first() -> bool:
    """Whether this process is the one that writes."""
    if world() == 1:
        return True
    from zoo.training.distributed.launch import launch

    return launch().rank == 0


def require_one_process(program: str) -> None:
    """Refuses to do in every process what one is to do.

    Raises:
        ConfigError: torchrun has started several.
    """
    if world() > 1:
        raise ConfigError(f"torchrun: {program} works in one process; start it by itself")


def forget_launch() -> None:
    """Makes this process one that torchrun has not started."""
    for name in ("WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        os.environ.pop(name, None)


def of_all(value: Value) -> list[Value]:
    """What every process has for a value, in their order; each of them has to ask."""
    if world() == 1:
        return [value]
    import torch.distributed as dist

    values: list[Any] = [None] * world()
    dist.all_gather_object(values, value)
    return values


@contextlib.contextmanager
def one_speaker() -> Iterator[None]:
    """Joins the processes of a run, of which the first alone prints what is not an error."""
    if world() == 1:
        yield
        return
    from zoo.training.distributed.launch import launch, process_group

    with contextlib.ExitStack() as stack:
        if launch().rank > 0:
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        stack.enter_context(process_group())
        yield


def device_and_strategy(
    settings: TrainerSettings, *, resume: bool
) -> tuple["torch.device", "Strategy"]:
    """The device of this process, and how it shares the work with the others.

    Args:
        settings: `trainer.device`, `strategy`, `sync_batchnorm` and, of shards, the precision.
        resume: whether a run goes on, which may have had more processes before.

    Raises:
        ValueError: the device is not there, or the settings are for several processes, and this is
            one.
    """
    from zoo.training.distributed.launch import device_name, launch
    from zoo.training.distributed.replicated import Replicated
    from zoo.training.distributed.sharded import Sharded
    from zoo.training.distributed.strategy import OneProcess
    from zoo.training.precision import resolve_device, resolve_precision

    device = resolve_device(device_name(settings.device, launch()))
    if world() > 1:
        if settings.strategy == "fsdp":
            return device, Sharded(resolve_precision(settings.precision, device))
        return device, Replicated(sync_batchnorm=settings.sync_batchnorm)
    key = "strategy=fsdp" if settings.strategy == "fsdp" else "sync_batchnorm=true"
    if (settings.strategy == "fsdp" or settings.sync_batchnorm) and not resume:
        raise ValueError(
            f"{key}: is for several processes, and this is one: start it by "
            "`torchrun --standalone --nproc-per-node <number> train.py`, or omit it"
        )
    return device, OneProcess()


def launched() -> dict[str, str]:
    """What `status.json` keeps of how a run was started."""
    from zoo.training.distributed.launch import launch

    group = launch().group
    return {} if group is None else {ELASTIC: group}


def run_of_this_launch(parent: Path) -> Path | None:
    """The run folder that these processes had before torchrun started them again, if any.

    Args:
        parent: the folder of the experiment's runs.
    """
    from zoo.training.distributed.launch import launch
    from zoo.training.distributed.strategy import OneProcess

    here = launch()
    if here.group is None or not here.restarts:
        return None
    found = None
    if here.rank == 0:
        from zoo.training.run_folder import RunFolder

        for status in sorted(parent.glob("*/status.json")):  # By the time of their folders.
            if RunFolder(status.parent).read(status.name).get(ELASTIC) == here.group:
                found = status.parent
    strategy: Strategy = OneProcess()
    if here.world > 1:
        from zoo.training.distributed.several import Several

        strategy = Several()
    begun: Path | None = strategy.share(found)
    return begun


def report_here(error: BaseException) -> int:
    """Prints what went wrong, where the processes of a machine are not all told the same.

    Returns:
        The exit code.
    """
    if world() == 1:
        return report(error)
    from zoo.training.distributed.launch import launch
    from zoo.training.distributed.several import is_loss_of_another

    here, (code, text) = launch(), failure(error)
    if is_loss_of_another(error):
        text = "error: another process has ended before there was a run"
    # Configuration is refused alike in all, or for what a machine lacks; signals go to all.
    if here.rank == 0 or code == 1 or (code == 2 and here.local_rank == 0):
        print(f"process {here.rank}: {printable(text)}", file=sys.stderr, flush=True)
    return code
