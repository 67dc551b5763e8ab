import contextlib
import gc
import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch

from zoo.data.augmentation.base import RandomCrop
from zoo.data.images.opening import ImageError
from zoo.data.loading.stream import StreamLoader
from zoo.data.loading.tensor import TensorLoader


class Noisy:
    """Each sample: its number, and a draw from each of the random states a transform may use."""

    def __len__(self):
        return 11

    def __getitem__(self, index):
        draws = [torch.rand(()).item(), random.random(), np.random.rand()]  # noqa: NPY002
        return torch.tensor([index, *draws], dtype=torch.float64), index


class Images:
    def __len__(self):
        return 11

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8, generator=generator), index


class Broken(Noisy):
    def __getitem__(self, index):
        if index == 6:
            raise RuntimeError("sample six is broken")
        return super().__getitem__(index)


class Slow(Noisy):
    def __getitem__(self, index):
        time.sleep(0.1)
        return super().__getitem__(index)


def stream(dataset=None, **changes):
    settings = {"batch_size": 3, "shuffle": True, "seed": 4}
    return StreamLoader(dataset or Noisy(), **(settings | changes))


def same(first, second):
    first, second = list(first), list(second)
    return len(first) == len(second) and all(
        torch.equal(a, b)
        for x, y in zip(first, second, strict=True)
        for a, b in zip(x, y, strict=True)
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_nothing(workers):
    expected = [list(stream().batches(epoch)) for epoch in (0, 1)]
    loader = stream(num_workers=workers)
    assert same(loader.batches(0), expected[0])
    assert same(loader.batches(1), expected[1])
    assert same(loader.batches(1, 2), expected[1][2:])
    loader.close()


@pytest.mark.parametrize("start", [0, 1, 3, 4, 9])
def test_starting_at_any_batch_gives_the_batches_of_the_whole_epoch(start):
    whole = list(stream().batches(5))
    assert len(whole) == 4
    assert same(stream().batches(5, start), whole[start:])


def in_a_session_of_its_own(*arguments):
    """A program that no signal to this process reaches."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )


def test_batch_size_and_order_do_not_change_a_samples_random_numbers():
    def rows(loader):
        inputs = torch.cat([inputs for inputs, _ in loader.batches(2)])
        return inputs[inputs[:, 0].argsort()]

    expected = rows(stream())
    assert torch.equal(rows(stream(batch_size=5)), expected)
    assert torch.equal(rows(stream(shuffle=False)), expected)
    assert not torch.equal(rows(stream(seed=5)), expected)
    assert (expected[:, 1:].unique(dim=0).shape[0]) == 11


def test_order_is_that_of_the_tensor_loader():
    labels = torch.arange(11)
    tensors = TensorLoader((labels, labels), batch_size=3, shuffle=True, seed=4)
    for (_, a), (_, b) in zip(stream().batches(3), tensors.batches(3), strict=True):
        assert torch.equal(a, b)
    assert stream().indices(3, 2) == tensors.indices(3, 2)


def test_augmentation_of_batches_is_that_of_the_tensor_loader():
    images = torch.stack([Images()[i][0] for i in range(11)])
    settings = {"batch_size": 3, "shuffle": True, "seed": 4, "augment": (RandomCrop(2),)}
    tensors = TensorLoader((images, torch.arange(11)), **settings)
    assert same(StreamLoader(Images(), **settings).batches(1, 1), tensors.batches(1, 1))


@pytest.mark.parametrize("workers", [0, 1])
def test_global_random_states_are_neither_used_nor_changed(workers):
    loader = stream(num_workers=workers)
    torch.manual_seed(0)
    state, python = torch.get_rng_state(), random.getstate()
    numpy = np.random.get_state()[1].copy()  # noqa: NPY002
    first = list(loader.batches(0))
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == python
    assert (np.random.get_state()[1] == numpy).all()  # noqa: NPY002
    torch.manual_seed(1)
    assert same(loader.batches(0), first)
    loader.close()


def test_evaluation_drops_and_pads_nothing_and_keeps_the_order():
    batches = list(stream(shuffle=False).batches(0))
    assert [len(labels) for _, labels in batches] == [3, 3, 3, 2]
    assert torch.cat([labels for _, labels in batches]).tolist() == list(range(11))


def test_drop_last_leaves_out_the_smaller_batch_only():
    loader = stream(drop_last=True)
    assert [len(labels) for _, labels in loader.batches(0)] == [3, 3, 3] and len(loader) == 3


def test_an_epoch_left_in_the_middle_does_not_disturb_the_next():
    loader = stream(num_workers=2)
    left = loader.batches(0)
    next(left)
    assert same(loader.batches(1), stream().batches(1))
    with pytest.raises(RuntimeError, match="ended by a newer call"):
        next(left)
    loader.close()


def test_an_error_in_a_worker_arrives_with_its_message():
    loader = stream(Broken(), num_workers=1)
    with pytest.raises(RuntimeError, match="sample six is broken"):
        list(loader.batches(0))
    loader.close()


def test_a_closed_loader_starts_again():
    loader = stream(num_workers=1)
    expected = list(stream().batches(0))
    assert same(loader.batches(0), expected)
    loader.close()
    loader.close()
    assert same(loader.batches(0), expected)
    loader.close()


@pytest.mark.skipif(os.name != "posix", reason="needs process groups")
def test_signals_to_the_whole_group_leave_the_workers_to_the_main_process(tmp_path):
    program = """
        import signal, time, torch
        from zoo.data.loading.stream import StreamLoader

        class Slow:
            def __len__(self):
                return 40
            def __getitem__(self, index):
                time.sleep(0.02)
                return torch.tensor(index), index

        if __name__ == "__main__":
            for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
                signal.signal(getattr(signal, name), lambda *_: None)
            loader = StreamLoader(Slow(), batch_size=4, num_workers=2)
            count = 0
            for inputs, _ in loader.batches(0):
                count += len(inputs)
                print(count, flush=True)
    """
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(program))
    process = in_a_session_of_its_own(str(script))
    try:
        # A batch of each worker: until then one may still be starting, and a signal ends it.
        assert [process.stdout.readline() for _ in range(2)] == ["4\n", "8\n"]
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            os.killpg(process.pid, number)
            time.sleep(0.02)
        output, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
        assert output.split()[-1] == "40"
        with pytest.raises(ProcessLookupError):  # no worker is left in the group
            os.killpg(process.pid, 0)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


CUT_SHORT = {
    "ctrl-c between the starts of two workers": """
        start = Process.start
        def start_and_interrupt(self):
            start(self)
            time.sleep(0.5)  # Until it ignores signals.
            signal.raise_signal(signal.SIGINT)
        Process.start = start_and_interrupt
    """,
    "a worker that cannot start": """
        start, started = Process.start, []
        def fail(self):
            if started:
                raise OSError(24, "Too many open files")
            started.append(start(self))
            time.sleep(0.5)
        Process.start = fail
    """,
    "a second ctrl-c while the workers are ended": """
        def interrupt(self):
            signal.raise_signal(signal.SIGINT)
        Iterator._shutdown_workers = interrupt
    """,
}


@pytest.mark.skipif(os.name != "posix", reason="needs process groups")
@pytest.mark.parametrize("cause", CUT_SHORT)
def test_however_a_run_is_cut_short_it_ends_and_no_worker_is_left(cause, tmp_path):
    program = """
        import signal, time, torch
        from multiprocessing.process import BaseProcess as Process
        from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter as Iterator
        from zoo.data.loading.stream import StreamLoader

        class Numbers:
            def __len__(self):
                return 40
            def __getitem__(self, index):
                return torch.tensor(index), index

        {cause}
        print(*next(StreamLoader(Numbers(), batch_size=4, num_workers=3).batches(0)))
        raise KeyboardInterrupt
    """
    text = textwrap.dedent(program).format(cause=textwrap.dedent(CUT_SHORT[cause]))
    process = in_a_session_of_its_own("-c", text)
    try:
        _, errors = process.communicate(timeout=60)
        assert process.returncode not in (0, None)
        # Torch may tell of the workers' end before Python tells of the interrupt.
        said = ("KeyboardInterrupt", "Too many open files", "is killed by signal: Killed")
        assert any(words in errors for words in said)
        assert "_workers_status" not in errors
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_a_worker_that_is_killed_is_named_as_such():
    loader = stream(Slow(), num_workers=1, batch_size=1)
    batches = loader.batches(0)
    next(batches)
    os.kill(loader._guard.workers[0].pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match=r"DataLoader worker \(pid.*(killed|exited)"):
        list(batches)
    loader.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"batch_size": 12, "drop_last": True}, "batch_size must be at most 11"),
        ({"num_workers": -1}, "num_workers must not be negative, not -1"),
    ],
)
def test_nonsense_is_refused_with_the_value(settings, message):
    with pytest.raises(ValueError, match=message):
        stream(**settings)


class OneBad:
    """Samples of which one cannot be read."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        if index == 7:
            raise ImageError(f"image {index} cannot be read: replace or remove it")
        return torch.tensor(float(index)), index


def test_a_loader_that_is_garbage_ends_its_workers_at_once(capfd):
    loader = stream(num_workers=2)
    loader.itself = loader
    batches = loader.batches(0)
    next(batches)
    workers = loader._guard.workers
    began = time.perf_counter()
    del loader, batches
    gc.collect()
    # Their queues may already be closed: asked to stop, each would not hear of it for ten seconds.
    assert time.perf_counter() - began < 10
    for worker in workers:
        worker.join(5)
        assert not worker.is_alive()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_what_is_wrong_with_a_sample_is_the_same_sentence_from_a_worker(num_workers):
    loader = StreamLoader(OneBad(), batch_size=4, num_workers=num_workers)
    seen = []
    with pytest.raises(ImageError) as caught:
        for _, numbers in loader.batches(0):
            seen += numbers.tolist()
    assert str(caught.value) == "image 7 cannot be read: replace or remove it"
    assert seen == [0, 1, 2, 3]
    assert next(loader.batches(0))[1].tolist() == [0, 1, 2, 3]
    loader.close()
