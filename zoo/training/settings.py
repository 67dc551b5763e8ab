"""The fixed part of a configuration: what every run has, whatever it trains.

Plain dataclasses, one line of documentation a field (unit, special values, range). This module
imports no torch, so that a wrong value is reported before anything slow happens.
"""

import os
import re
from dataclasses import dataclass, field
from typing import Any, Literal

MOST_THREADS = 1024
"""CPU threads of torch: with very many more it crashes instead of refusing."""

LONGEST_NAME = 200
"""Bytes of a folder's name, of which file systems allow 255."""


def _at_least(owner: object, low: float, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if value is not None and value < low:
            raise ValueError(f"{name} must be at least {low:g}, not {value!r}")


def seconds_of(time_limit: float | str) -> float:
    """Seconds of a time limit in minutes or as `HH:MM:SS`.

    Raises:
        ValueError: it is neither, or not above 0.
    """
    seconds = 0.0
    if isinstance(time_limit, str):
        if found := re.fullmatch(r"(\d+):([0-5]?\d):([0-5]?\d)", time_limit):
            hours, minutes, rest = map(int, found.groups())
            seconds = 3600.0 * hours + 60 * minutes + rest
    else:
        seconds = 60 * time_limit
    if seconds <= 0:
        raise ValueError(f"time_limit must be minutes above 0 or HH:MM:SS, not {time_limit!r}")
    return seconds


def bytes_of(size: int | str) -> int:
    """Bytes of a size that is a number of them or has a unit: `4GiB`, `500 MB`.

    Raises:
        ValueError: it is neither, or not above 0.
    """
    powers = {"k": 1, "m": 2, "g": 3, "t": 4}
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(?:([KMGT])(i?))?B?", str(size), re.IGNORECASE)
    number = 0
    if found:
        value, unit, binary = found.groups()
        base = 1024 if binary else 1000
        number = int(float(value) * (base ** powers[unit.lower()] if unit else 1))
    if number <= 0:
        raise ValueError(f"memory_limit must be bytes or a size such as 4GiB, not {size!r}")
    return number


def _above_zero(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if value is not None and value <= 0:
            raise ValueError(f"{name} must be greater than 0, not {value!r}")


@dataclass(kw_only=True)
class TrainerSettings:
    """How long, where and how precisely to train."""

    epochs: int | None = 10
    """Passes over the training data; null: as long as `steps` says."""
    steps: int | None = None
    """Optimizer steps; null: as long as `epochs` says. The first limit reached ends the run."""
    time_limit: float | str | None = None
    """Minutes or `HH:MM:SS` of training, then save and end with exit code 75; null: no limit."""
    device: str = "auto"
    """`auto` (a CUDA device if there is one, else the CPU), `cpu`, `cuda[:1]`, `mps` or `xpu`."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Autocast type; `auto` is bf16 on a GPU that computes in it and fp32 elsewhere."""
    accumulate: int = 1
    """Batches per optimizer step."""
    clip_norm: float | None = None
    """Largest global norm of a network's gradient; null: no limit."""
    clip_value: float | None = None
    """Largest magnitude of a gradient's element; null: no limit."""
    ema_decay: float | None = None
    """Decay of the averaged weights that are judged, at most (1+n)/(10+n) at step n; null: none."""
    evaluate_every: int | None = None
    """Steps between evaluations; null: every epoch. The last step is always evaluated."""
    train_metrics: bool = True
    """With every validation, measure as many (augmented) training batches too."""
    log_every: int = 50
    """Steps between two lines of the training curve."""
    channels_last: Literal["auto"] | bool = "auto"
    """Memory format of convolutional networks; `auto`: channels-last where a Conv2d is found."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """What each process of several holds: `ddp` the whole model, `fsdp` a part of each weight."""
    sync_batchnorm: bool = False
    """Batch statistics over all processes instead of each one's own; on CUDA."""
    compile: Literal["off", "default", "reduce-overhead", "max-autotune"] | bool = "off"
    """Mode of `torch.compile` for the steps of training; true: `default`, false: `off`."""
    cuda_graphs: bool = False
    """Replay each training step as one CUDA graph: one loss, one shape, a fused optimizer."""
    activation_checkpointing: bool = False
    """Keep only what goes into each repeated block: less memory, a third more time, equal weights.
    """
    find_batch_size: bool = False
    """Look for the largest `data.batch_size` before training; the run's configuration has it."""
    memory_limit: int | str | None = None
    """Bytes, or a size such as `4GiB`, for `find_batch_size`; null: the whole GPU, on a CPU none.
    """
    deterministic: bool = False
    """Only deterministic algorithms; an operation that has none stops the run and is named."""
    threads: int | None = None
    """CPU threads of torch; null: torch's own choice."""
    limit_train_batches: int | None = None
    """Batches of a training epoch to use (the first ones); null: all."""
    limit_eval_batches: int | None = None
    """Batches of an evaluation to use (the first ones); null: all."""
    overfit: bool = False
    """Train and evaluate on the first training batch alone, again and again."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "epochs", "steps", "accumulate", "evaluate_every", "log_every")
        _at_least(self, 1, "threads", "limit_train_batches", "limit_eval_batches")
        _above_zero(self, "clip_norm", "clip_value")
        if self.time_limit is not None:
            seconds_of(self.time_limit)
        if self.memory_limit is not None:
            bytes_of(self.memory_limit)
        if isinstance(self.compile, bool):  # Of earlier versions; and YAML reads `off` as false.
            self.compile = "default" if self.compile else "off"
        if self.epochs is None and self.steps is None:
            raise ValueError("epochs and steps must not both be null: a run needs an end")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay must be between 0 and 1, not {self.ema_decay!r}")
        if self.threads is not None and self.threads > MOST_THREADS:
            raise ValueError(f"threads must be at most {MOST_THREADS}, not {self.threads!r}")
        if not re.fullmatch(r"auto|cpu|(cuda|mps|xpu)(:\d{1,3})?", self.device):
            raise ValueError(
                "device must be auto, cpu, cuda or cuda:<number>, mps or xpu (nobody has run these "
                f"two), not {self.device!r}"
            )


@dataclass(kw_only=True)
class CheckpointSettings:
    """When the state of a run is saved, and which states are kept.

    It is saved after every evaluation; where a save takes more than a second, an evaluation that is
    not among the best leaves it out unless ten times as long has passed since the last save.
    """

    monitor: str = "auto"
    """Validation metric that selects the best checkpoint; `auto`: the task's own."""
    mode: Literal["auto", "min", "max"] = "auto"
    """Whether less or more of it is better; `auto`: what the metric itself says."""
    every_steps: int | None = None
    """Steps between saves, besides the save after every evaluation; null: none."""
    every_minutes: float | None = 10.0
    """Minutes after which to save at the next step, besides the saves above; null: never."""
    background: bool = False
    """Go on with the steps while a checkpoint is written, from a copy of the state in memory."""
    top_k: int = 1
    """Number of best checkpoints to keep."""
    keep_every: int | None = None
    """Keep the state of every n-th evaluation for good, as `kept-<step>.pt`; null: none."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "every_steps", "top_k", "keep_every")
        _above_zero(self, "every_minutes")


@dataclass(kw_only=True)
class EarlyStoppingSettings:
    """When to stop because validation no longer improves."""

    patience: int | None = None
    """Evaluations without improvement of the monitored metric before stopping; null: never stop."""
    min_delta: float = 0.0
    """Least change that counts as an improvement, in the metric's own unit."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "patience")
        _at_least(self, 0, "min_delta")


@dataclass(kw_only=True)
class ProfileSettings:
    """A torch profiler trace of a few steps."""

    steps: int | None = None
    """Steps to record after three of warm-up; null: no profile."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "steps")


@dataclass(kw_only=True)
class CallbackSettings:
    """What happens besides the training loop."""

    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    """When the state is saved."""
    early_stopping: EarlyStoppingSettings = field(default_factory=EarlyStoppingSettings)
    """When to stop early."""
    profile: ProfileSettings = field(default_factory=ProfileSettings)
    """Whether to profile."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Callbacks of your own by name: `callbacks.extra.mine._target_=...`."""


@dataclass(kw_only=True)
class LoggerSettings:
    """What is written for people to look at."""

    console: Literal["auto", "bar", "lines", "off"] = "auto"
    """`auto`: a progress bar on a terminal, a line per `trainer.log_every` steps elsewhere."""
    tensorboard: bool = True
    """Write TensorBoard event files into the run folder, and the newest images as PNG files."""
    graph: bool = True
    """Write the model's graph to TensorBoard where torch can trace it."""
    images_every: int = 10
    """Evaluations between images and text samples, besides those of the last; 0: only the last."""
    layer_gradients: bool = False
    """Write every parameter's gradient norm next to the global one."""

    def __post_init__(self) -> None:
        _at_least(self, 0, "images_every")


def default_data_dir() -> str:
    """The folder of downloads: the environment variable `ZOO_DATA_DIR`, else `data`."""
    return os.path.expanduser(os.environ.get("ZOO_DATA_DIR") or "data")


@dataclass(kw_only=True)
class PathSettings:
    """Where things are on this machine."""

    runs_dir: str = "runs"
    """Folder of run folders."""
    data_dir: str = field(default_factory=default_data_dir)
    """Folder of data sets and downloads; default: `ZOO_DATA_DIR`, else `data`."""


@dataclass(kw_only=True)
class RunSettings:
    """Everything of a run that is not a component (data, model, task, optimizer, schedule)."""

    name: str = "run"
    """Folder below `paths.runs_dir`; the experiment's name, or model_data where none is named."""
    seed: int = 0
    """Seed of everything random: initial weights, order, augmentation, dropout, noise."""
    freeze: list[str] = field(default_factory=list)
    """Patterns of the names of parameters that are not trained (`*`: anything, `!`: except)."""
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    """How long, where and how precisely to train."""
    callbacks: CallbackSettings = field(default_factory=CallbackSettings)
    """What happens besides the training loop."""
    logger: LoggerSettings = field(default_factory=LoggerSettings)
    """What is written for people."""
    paths: PathSettings = field(default_factory=PathSettings)
    """Where things are."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be from 0 to 4294967295, not {self.seed!r}")
        if not self.name or set(self.name) & set("/\\=, \t\n") or self.name.startswith("."):
            raise ValueError(
                f"name must have no '/', '=', ',' or space, nor start with '.', not {self.name!r}"
            )
        if len(self.name.encode()) > LONGEST_NAME:
            raise ValueError(f"name must have at most {LONGEST_NAME} bytes, not {self.name!r}")

    def without_effect(self) -> dict[str, str]:
        """Settings that nothing will read, by full key, and why."""
        idle = {}
        if self.callbacks.early_stopping.patience is None:
            key = "callbacks.early_stopping"
            idle[f"{key}.min_delta"] = f"nothing stops early without {key}.patience"
        if self.logger.layer_gradients and not self.logger.tensorboard:
            reason = "it is for TensorBoard, which logger.tensorboard=false switches off"
            idle["logger.layer_gradients"] = reason
        if self.trainer.memory_limit is not None and not self.trainer.find_batch_size:
            idle["trainer.memory_limit"] = "only trainer.find_batch_size=true asks for it"
        return idle
