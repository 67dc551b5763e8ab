"""The largest `data.batch_size` for which there is memory: `trainer.find_batch_size=true`.

Each size is tried in a process of its own, which builds the run, rehearses it, takes two steps (the
second with the optimizer's state) and says how much memory that took: on a GPU what torch has
reserved there, on a CPU the largest resident set of the process. The sizes double until one is too
much; then the gap is halved until it is no more than an eighth. Of several processes each tries its
share of the batch, and what is too much for one is too much for all.
"""

import dataclasses
import math
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from zoo.app.place import RunLocation, Train
from zoo.app.processes import forget_launch, of_all, world
from zoo.config.errors import ConfigError, as_cli_text, one_line
from zoo.config.recipe import Recipe
from zoo.training.settings import bytes_of

_KEY = "trainer.find_batch_size=true"
_TOO_MUCH = 77
"""Exit code of a trial that has reached the limit."""


@dataclass(frozen=True)
class Trial:
    """What came of a batch size.

    Attributes:
        memory: bytes at the peak; None: more than there are.
        samples: of the training split.
        is_whole: whether an epoch is a single batch.
        refusal: why there can be no batch of this size; empty: there can.
    """

    memory: int | None = None
    samples: int = 0
    is_whole: bool = False
    refusal: str = ""


def search(trial: Callable[[int], Trial], start: int) -> tuple[int, Trial]:
    """The largest size that fits, to an eighth, and what came of it.

    Args:
        trial: tries a size.
        start: the first one.

    Raises:
        ConfigError: not even a batch of one sample fits, or the first size is refused.
    """
    fits, best, fails, size = 0, Trial(), 0, start
    while not fails or fails - fits > max(1, fits // 8):
        found = trial(size)
        if found.memory is not None:
            fits, best = size, found
            if found.is_whole:
                break
        elif found.refusal and not fits:
            raise ConfigError(f"{_KEY}: data.batch_size={size}: {found.refusal}")
        elif size == 1:
            raise ConfigError(
                f"{_KEY}: there is too little memory for a batch of a single sample; use a larger "
                "trainer.memory_limit, a smaller model or trainer.activation_checkpointing=true"
            )
        else:
            fails = size
        size = (fits + fails) // 2 if fails else 2 * fits
    return min(fits, max(best.samples, 1)), best


def sized(train: Train) -> Train:
    """A `train` that looks for the batch size first, where the settings ask for it."""

    def find_and_train(recipe: Recipe, place: RunLocation) -> dict[str, Any]:
        if recipe.settings.trainer.find_batch_size:
            recipe, note = with_found_batch_size(train, recipe)
            place.notes = [note]
        return train(recipe, place)

    return find_and_train


def with_found_batch_size(train: Train, recipe: Recipe) -> tuple[Recipe, str]:
    """The recipe with the size that was found, and a line about it.

    Args:
        train: builds and trains one run.
        recipe: of the run.

    Raises:
        ConfigError: there is no batch size to begin with, no limit, or no size that fits.
    """
    from zoo.training.distributed.launch import device_name, launch
    from zoo.training.precision import resolve_device

    settings, processes = recipe.settings.trainer, world()
    if processes > 1 and settings.strategy == "fsdp":
        raise ConfigError(
            f"{_KEY}: tries the whole model in each process, and trainer.strategy=fsdp has it in "
            "parts; give data.batch_size, or use trainer.strategy=ddp"
        )
    device = resolve_device(device_name(settings.device, launch()))
    start = recipe.data.arguments.get("batch_size")
    if not isinstance(start, int):
        raise ConfigError(
            f"{_KEY}: needs a data.batch_size to begin with, not {as_cli_text(start)}"
        )
    limit = None if settings.memory_limit is None else bytes_of(settings.memory_limit)
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"{_KEY}: is for a CPU or CUDA, not for trainer.device={device}")
    if limit is None and device.type == "cpu":
        raise ConfigError(
            f"{_KEY}: needs a trainer.memory_limit on a CPU, such as trainer.memory_limit=4GiB"
        )

    alone = {"device": str(device), "sync_batchnorm": False}

    def trial(share: int) -> Trial:
        found = _of_all(in_a_process(train, with_size(recipe, share, alone), limit))
        print(f"data.batch_size={share * processes}: {_in_words(found)}", flush=True)
        return found

    share, best = search(trial, max(1, start // processes))
    size = share * processes
    said = f"data.batch_size={size} has been found for {_limit_in_words(settings.memory_limit)}"
    said += f" ({_in_words(best)}) in place of {start}"
    if size != start:
        said += "; the learning rate stays what it was, which may no longer suit the batch"
    return with_size(recipe, size), said


def _of_all(own: Trial) -> Trial:
    """What came of the shares of a batch in all processes; samples are those of one share."""
    found = of_all(own)
    worst = min(found, key=lambda trial: (trial.memory is not None, -(trial.memory or 0)))
    samples = math.ceil(own.samples / len(found))
    return dataclasses.replace(worst, samples=samples, is_whole=own.is_whole)


def with_size(recipe: Recipe, size: int, trainer: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe with another batch size, and other settings of the trainer."""
    data = recipe.data.replaced({"batch_size": size})
    config = recipe.config | {"data": data.node}
    config["trainer"] = config["trainer"] | dict(trainer or {})
    return dataclasses.replace(recipe, config=config, data=data)


def _limit_in_words(limit: int | str | None) -> str:
    return "all memory of the GPU" if limit is None else f"trainer.memory_limit={limit}"


def _in_words(found: Trial) -> str:
    if found.refusal:
        return found.refusal
    return "too much memory" if found.memory is None else f"{found.memory / 2**20:,.0f} MiB"


# ---------------------------------------------------------------------------- in another process


def in_a_process(train: Train, recipe: Recipe, limit: int | None) -> Trial:
    """What comes of the batch size of a recipe, in a process that dies with what it has taken.

    Args:
        train: builds and trains one run; a function that the process can import.
        recipe: of the run.
        limit: bytes; None: all there are.

    Raises:
        RuntimeError: the process died, and not for memory.
    """
    context = multiprocessing.get_context("spawn")  # A fork would share what this one has taken.
    here, there = context.Pipe(duplex=False)
    body = partial(_body, there, train, recipe.config, recipe.trusted, limit)
    process = context.Process(target=body)
    process.start()
    there.close()
    try:
        found: Trial = here.recv()
    except EOFError:
        process.join()
        if process.exitcode not in (_TOO_MUCH, -signal.SIGKILL):
            raise RuntimeError(f"a trial of a batch size ended with {process.exitcode}") from None
        found = Trial()
    finally:
        process.kill()
        process.join()
    return found


def _body(
    connection: Any,
    train: Train,
    config: dict[str, Any],
    trusted: Sequence[str],
    limit: int | None,
) -> None:
    """The process of a trial."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Its parent ends it.
    forget_launch()
    warnings.simplefilter("ignore")
    connection.send(attempt(train, config, trusted, limit))


def attempt(
    train: Train, config: dict[str, Any], trusted: Sequence[str], limit: int | None
) -> Trial:
    """Builds a run and takes two steps; says what memory this process has needed for it."""
    from zoo.config.compose import check
    from zoo.training.shortage import shortage

    place = _Steps(limit)
    try:
        train(check(config, trusted), place)
    except _Taken as taken:
        return taken.trial
    except Exception as error:
        if shortage(error) or (error.__cause__ is not None and shortage(error.__cause__)):
            return Trial()
        if isinstance(error, ConfigError | ValueError):
            return Trial(refusal=one_line(error))
        raise
    raise AssertionError("a trial ends where its run would begin")


class _Taken(Exception):
    """The steps have been taken.

    Attributes:
        trial: what came of them.
    """

    def __init__(self, trial: Trial) -> None:
        super().__init__(trial)  # What it is made of again in another process.
        self.trial = trial


class _Steps(RunLocation):
    """Has a run take two steps as soon as it is built, and end there."""

    def __init__(self, limit: int | None) -> None:
        super().__init__(parent=None)  # type: ignore[arg-type]  # no folder is made
        self._limit = limit

    def require_same_selection(self, trainer: Any) -> NoReturn:
        import torch

        from zoo.training.curve import forget_peak, peak_memory
        from zoo.training.freezing import training_mode
        from zoo.training.reproducibility import backends
        from zoo.training.step import Stepper

        device, settings = trainer.device, trainer.settings
        if device.type == "cuda":
            total = torch.cuda.get_device_properties(device).total_memory
            if self._limit is not None:
                torch.cuda.set_per_process_memory_fraction(min(1.0, self._limit / total), device)
        elif self._limit is not None:
            threading.Thread(target=_end_beyond, args=(self._limit,), daemon=True).start()
        forget_peak(device)
        with backends(deterministic=settings.deterministic, threads=settings.threads):
            trainer.dry_run()
            trainer.task.prepare(trainer.data.batches("train", 0))
            stepper = Stepper(trainer.task, trainer.updater, trainer.strategy, trainer.curve)
            training_mode(trainer.task.model)
            trainer.updater.set_rates(trainer.rates(0))
            for _ in range(2):
                stepper.step(next(iter(trainer.plan.windows(trainer.position))), measure=True)
        memory = int(peak_memory(device) * 2**20)
        if device.type == "cuda":
            memory = torch.cuda.max_memory_reserved(device)
        samples = trainer.data.loaders["train"].num_samples
        fits = self._limit is None or memory <= self._limit
        is_whole = trainer.plan.batches_per_epoch == 1
        raise _Taken(Trial(memory, samples, is_whole) if fits else Trial())


def _end_beyond(limit: int) -> None:
    """Ends the process once it has taken more, before the machine runs out of it."""
    import torch

    from zoo.training.curve import peak_memory

    while peak_memory(torch.device("cpu")) * 2**20 <= limit:
        time.sleep(0.02)
    os._exit(_TOO_MUCH)
