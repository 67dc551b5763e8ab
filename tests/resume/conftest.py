import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


class Runs:
    """Starts train.py again and again, each time as a process of its own.

    The processes are forked from one that has imported torch and computed nothing, which saves
    seconds for each. They can be told to die, or to be sent a signal, at a given moment: see
    `spawner.py`.
    """

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("spawner.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def _ask(self, **request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, words, log, **moments) -> int:
        """Starts a run and returns its process number."""
        return self._ask(words=[str(word) for word in words], log=str(log), **moments)

    def wait(self, number) -> int:
        """Waits for the end of a process and returns its exit code, negative for a signal."""
        return self._ask(wait=number)

    def __call__(self, words, log, **moments) -> int:
        """Runs to the end and returns the exit code."""
        return self.wait(self.start(words, log, **moments))


@pytest.fixture(scope="session")
def run():
    if not hasattr(os, "fork"):
        pytest.skip("processes are forked here, and this system has no fork")
    runs = Runs()
    yield runs
    runs.process.stdin.close()
    runs.process.wait()
    runs.process.stdout.close()


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tensors this small gain nothing from a second thread, and lose much on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
