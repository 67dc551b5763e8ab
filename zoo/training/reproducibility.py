"""Random states and deterministic algorithms."""

import hashlib
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

SEED = 1234
"""Evaluations and callbacks draw from a random state of their own, always the same."""


def seed_everything(seed: int) -> None:
    """Seeds the global generators of Python, NumPy and torch (every device)."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries draw from this very generator
    torch.manual_seed(seed)


def stream(seed: int, rank: int) -> int:
    """The seed of one of several processes, whose dropout and noise are not to be alike."""
    if rank == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}/{rank}".encode()).digest()[:4], "big")


def random_state() -> dict[str, Any]:
    """The state of all global generators, as plain Python and tensors."""
    _, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": [torch.from_numpy(np.array(keys, dtype=np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restores what `random_state` gave."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(  # noqa: NPY002
        ("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached)
    )
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Seeds everything for the block and puts the states back afterwards, whatever happens."""
    before = random_state()
    seed_everything(seed)
    try:
        yield
    finally:
        set_random_state(before)


@contextmanager
def backends(*, deterministic: bool, threads: int | None) -> Iterator[None]:
    """Sets torch's global switches for one run and puts them back afterwards."""
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
    )
    if deterministic:
        # cuBLAS reads this when its first handle is made.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = before[2]
        if torch.get_num_threads() != before[3]:
            torch.set_num_threads(before[3])
        torch.set_float32_matmul_precision(before[4])
