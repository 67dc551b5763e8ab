"""Help and refused command lines against importing torch."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.timing import interleave, ratio

ROOT = Path(__file__).resolve().parents[2]
STARTUPS = {
    "--help": (["--help"], 0, 0.5),
    "unknown group option": (["model=lenet6"], 2, 0.5),
    "unknown setting": (["trainer.position.epoch=3"], 2, 0.5),
    "setting out of range": (["trainer.epochs=0"], 2, 0.5),
    "unknown argument of a component": (["model.num_clases=3"], 2, 1.5),
    "argument of a wrong type": (["optimizer.lr=fast"], 2, 1.5),
}


def startup(blocks: int) -> list[dict[str, Any]]:
    """Whole processes: help and refusals against importing torch."""

    def process(words: list[str], code: int) -> Callable[[], float]:
        def run() -> float:
            began = time.perf_counter()
            done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True)
            seconds = time.perf_counter() - began
            if done.returncode != code:
                raise SystemExit(f"{words} ended with {done.returncode}: {done.stderr.decode()}")
            return seconds

        return run

    sides = {"import torch": process(["-c", "import torch"], 0)}
    sides |= {n: process(["train.py", *words], code) for n, (words, code, _) in STARTUPS.items()}
    times = interleave(sides, blocks)
    return [ratio(times, name, "import torch", bar) for name, (_, _, bar) in STARTUPS.items()]
