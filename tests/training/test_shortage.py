"""What the machine has too little of is said in one line, whatever the words of who noticed it."""

import errno

import numpy as np
import pytest
import torch

from tests.training.tiny import mlp, trainer_of
from zoo.app.failures import failure
from zoo.tasks.classification import Classification
from zoo.training.shortage import shortage


def too_large_for_torch():
    torch.empty(1 << 58, dtype=torch.uint8)


def too_large_for_numpy():
    np.empty(1 << 58, dtype=np.uint8)


@pytest.mark.parametrize("attempt", [too_large_for_torch, too_large_for_numpy])
def test_too_little_memory_is_one_line_with_what_to_change(attempt):
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        attempt()
    code, text = failure(caught.value)
    assert code == 1 and text.startswith("error: this computer has too little memory (")
    assert "\n" not in text
    helps = (
        "batch_size",
        "trainer.accumulate",
        "trainer.precision",
        "activation_checkpointing=true",
    )
    assert all(word in text for word in helps)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "the device has too little memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "this computer has too little memory"),
        (ImportError("x.so: failed to map segment from shared object"), "too little memory (x.so"),
        (MemoryError(), "this computer has too little memory (an allocation failed)"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "num_workers"),
        (
            RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"),
            "DataLoader worker (pid(s) 7, 8) exited unexpectedly, most often because memory",
        ),
    ],
)
def test_every_shortage_names_what_to_change(error, words):
    assert words in shortage(error)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("shapes differ"), ValueError("out of memory"), OSError(2, "No such file")],
)
def test_other_errors_are_none(error):
    assert shortage(error) is None


def test_a_rehearsal_does_not_take_a_shortage_for_parts_that_do_not_fit():
    class Hungry(Classification):
        def loss(self, batch):
            too_large_for_torch()

    model = mlp()
    with pytest.raises(RuntimeError, match="allocate"):
        trainer_of(model, task=Hungry(model, num_classes=3)).dry_run()
