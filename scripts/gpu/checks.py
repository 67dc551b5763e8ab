"""The checks of a machine with a GPU, the most telling first."""

import sys
from importlib.util import find_spec
from pathlib import Path

import torch

from gpu.plan import ROOT, Check
from zoo.training.settings import default_data_dir

SPEEDRUN = "speedrun_cifar10"
CASES = ("trainer", "models", "gpt")
SPEED = "docs/benchmarks/gpu_speed.json"
"""Where `scripts/benchmark.py` records its ratios."""


def has_device() -> bool:
    """Whether torch sees a CUDA device."""
    return torch.cuda.is_available()


def _no_pytest() -> str | None:
    return None if find_spec("pytest") else "pytest is not installed: pip install -e '.[dev]'"


def _one_device() -> str | None:
    count = torch.cuda.device_count()
    return f"there are {count} CUDA devices, and it needs 2" if count < 2 else None


def _no_speedrun() -> str | None:
    if not (ROOT / "configs" / "experiment" / f"{SPEEDRUN}.yaml").exists():
        return f"there is no experiment={SPEEDRUN}"
    if not (Path(default_data_dir()) / "cifar-10-batches-py").is_dir():
        return "CIFAR-10 is not there: set ZOO_DATA_DIR to the folder with cifar-10-batches-py"
    return None


def _own(name: str) -> tuple[str, ...]:
    return (sys.executable, "scripts/gpu_check.py", "--inside", name)


def _no_benchmark() -> str | None:
    text = (ROOT / "scripts" / "benchmark.py").read_text(encoding="utf-8")
    return None if '"--device"' in text else "scripts/benchmark.py knows no --device"


CHECKS = (
    Check(
        "tests",
        "tests that need a CUDA device",
        _own("tests"),
        180,
        _no_pytest,
    ),
    Check(
        "graphs",
        "steps as CUDA graphs: they engage, the losses are equal, how fast",
        _own("graphs"),
        120,
    ),
    Check(
        "waiting",
        "no training step makes Python wait for the device",
        _own("waiting"),
        150,
    ),
    Check(
        "precisions",
        "losses in bf16 and fp16 against those in fp32",
        _own("precisions"),
        90,
    ),
    Check(
        "processes",
        "two processes with nccl against one",
        _own("processes"),
        90,
        _one_device,
    ),
    Check(
        "speedrun",
        "CIFAR-10 in seconds, with the trainer as it is",
        (sys.executable, "train.py", f"experiment={SPEEDRUN}"),
        240,
        _no_speedrun,
    ),
    Check(
        "benchmark",
        "ratios of speed, recorded by themselves",
        (sys.executable, "scripts/benchmark.py", *CASES, "--device", "cuda", "--record", SPEED),
        240,
        _no_benchmark,
    ),
)
