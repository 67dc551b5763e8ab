import os

import pytest
import torch

from faults.runs import Runs


@pytest.fixture(scope="session")
def run():
    if not hasattr(os, "fork"):
        pytest.skip("processes are forked here, and this system has no fork")
    runs = Runs()
    yield runs
    runs.close()


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tensors this small gain nothing from a second thread, and lose much on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
