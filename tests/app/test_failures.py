"""From exceptions to exit codes."""

import signal

import pytest
import torch

from zoo.app.failures import failure
from zoo.config.errors import ConfigError
from zoo.training.interruption import Interrupted
from zoo.training.run_folder import RunFolderError


class OutOfMemoryError(RuntimeError):
    """Not torch's."""


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ConfigError("seed=x:\n  must be an integer"), 2, "error: seed=x: must be an integer"),
        (Interrupted(signal.SIGTERM), 143, "interrupted by SIGTERM; the state is saved"),
        (KeyboardInterrupt(), 130, "stopped at once; the last checkpoint stands"),
        (RunFolderError("it is in use"), 1, "error: it is in use"),
        (FileNotFoundError(2, "No such file", "a"), 1, "error: No such file (a)"),
    ],
)
def test_what_went_wrong_is_a_line_and_a_code(error, code, text):
    assert failure(error) == (code, text)


def test_a_full_device_is_known_by_its_class_and_not_by_a_name():
    code, text = failure(torch.OutOfMemoryError("CUDA out of memory"))
    assert code == 1 and "data.batch_size" in text
    code, text = failure(OutOfMemoryError("another"))
    assert code == 1 and "batch_size" not in text and text.endswith("OutOfMemoryError: another")
