"""What the jobs of a sweep need where they run in processes of their own.

A queue such as Slurm takes a job's machine away, because its time is over or another job goes
first, and starts it again later. Submitit announces that with a signal, which its own handler
answers by requeuing the job; here the run is saved first, and the job that is started again goes on
with it.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from zoo.app.failures import report
from zoo.app.place import RunLocation, Train
from zoo.config.recipe import Recipe
from zoo.training.interruption import Interrupted, queue_signal

HERE = ("basic", "joblib", "submitit_local")
"""Launchers whose jobs run on this machine, with its devices and data."""


def gpu_of_job(number: int, device: str, devices: int) -> str:
    """The device of a job that runs beside others, by its number.

    Args:
        number: of the job.
        device: as `trainer.device` has it; what is not `auto` stays as it is.
        devices: CUDA devices that torch sees.
    """
    return f"cuda:{number % devices}" if device == "auto" and devices > 1 else device


def on_its_gpu(train: Train, number: int, recipe: Recipe, place: RunLocation) -> dict[str, Any]:
    """Trains a job on the device of its number; the configuration it stores keeps its `auto`.

    Args:
        train: builds and trains one run.
        number: of the job.
        recipe: of its run.
        place: where its run folder is or will be.
    """
    import torch

    settings = recipe.settings
    device = gpu_of_job(number, settings.trainer.device, torch.cuda.device_count())
    settings = replace(settings, trainer=replace(settings.trainer, device=device))
    return train(replace(recipe, settings=settings), place)


@contextlib.contextmanager
def importable() -> Iterator[None]:
    """Has Python processes that are started inside the block find the modules of this one."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def requeue(error: Interrupted) -> bool:
    """Has the queue start this job again later, if it was the queue that interrupted its run.

    The queue's handler ends the process. It does not where the job has been started again as often
    as it may.

    Returns:
        Whether it was the queue.
    """
    number = queue_signal()
    if number is None or number != error.number:
        return False
    report(error)
    handler = signal.getsignal(number)
    assert callable(handler)
    try:
        handler(number, None)
    except Exception as refusal:
        report(refusal)
    return True
