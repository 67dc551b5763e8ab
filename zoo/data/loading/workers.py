"""What a stream of samples needs around torch's `DataLoader`.

Keys of samples from any batch on, a random state for each sample, and worker processes that leave
signals to the main process.
"""

import atexit
import contextlib
import random
import signal
import threading
import traceback
import weakref
from collections.abc import Iterable, Iterator
from multiprocessing import active_children
from multiprocessing.connection import wait
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler, default_collate, get_worker_info
from torch.utils.data._utils import signal_handling
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from zoo.data.download import DataError
from zoo.data.loading.order import BatchOrder
from zoo.data.sampling import mix_seed

Key = tuple[int, int]  # (epoch, index of the sample)


class SizedDataset(Protocol):
    """A map-style data set: samples by number."""

    def __len__(self) -> int:
        """How many samples there are."""
        ...

    def __getitem__(self, index: int) -> Any:
        """One sample."""
        ...


class Keys(Sampler[list[Key]]):
    """The keys of each batch of the current epoch, for `DataLoader`; empty slices are left out.

    Set ``epoch`` and ``start`` before iterating; the batches before ``start`` cost nothing.

    Args:
        order: says which samples each batch holds.
        ahead: see :meth:`~zoo.data.loading.order.BatchOrder.chunks`.
    """

    def __init__(self, order: BatchOrder, *, ahead: int = 0) -> None:
        self.order = order
        self.ahead = ahead
        self.epoch = 0
        self.start = 0

    def __iter__(self) -> Iterator[list[Key]]:
        """The keys of each batch."""
        epoch, chunks = self.epoch, self.order.chunks(self.epoch, self.start, ahead=self.ahead)
        return ([(epoch, index) for index in chunk.tolist()] for chunk in chunks if len(chunk))


class SeededDataset(Dataset[Any]):
    """Gives each sample a random state of its own, a pure function of (seed, epoch, index).

    ``torch``, ``random`` and ``numpy`` are seeded before a sample is made, so its augmentation
    depends neither on the worker that makes it nor on what was made before. In the main process
    the global states are put back afterwards.
    """

    def __init__(self, dataset: SizedDataset, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __getitem__(self, key: Key) -> Any:
        """The sample ``index`` of ``(epoch, index)``."""
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: list[Key]) -> list[Any]:
        """The samples of one batch; `DataLoader` calls this rather than fetching them singly."""
        if get_worker_info() is None:
            with preserved_random_state():
                return [self._sample(epoch, index) for epoch, index in keys]
        try:
            return [self._sample(epoch, index) for epoch, index in keys]
        except DataError as error:
            return [error]  # see `collate`

    def _sample(self, epoch: int, index: int) -> Any:
        seed = mix_seed("sample", self.seed, epoch, index)
        # Not torch.manual_seed, which would seed the GPUs of the main process as well.
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 (other people's transforms use this state)
        return self.dataset[index]


@contextlib.contextmanager
def preserved_random_state() -> Iterator[None]:
    """Puts the global random states of torch (CPU), `random` and numpy back on leaving."""
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002


SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
"""What a user, a scheduler or a terminal may send to the whole process group."""


def ignore_signals(worker_id: int) -> None:
    """Lets a worker live through signals sent to the whole process group.

    Ctrl-C and a scheduler's SIGTERM or SIGUSR1 reach every process. The main process answers them
    at the end of its step and still needs batches until then. A worker ends when the main process
    tells it to, or has gone (torch's workers look for their parent every few seconds).
    """
    del worker_id
    for name in SIGNALS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


@contextlib.contextmanager
def deferred_signals() -> Iterator[None]:
    """Signals that arrive meanwhile are answered on leaving, by whatever would have answered."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python answers signals in the main thread alone.
        return
    arrived: list[int] = []
    before: dict[int, Any] = {}
    try:
        for name in SIGNALS:
            number = getattr(signal, name, None)
            if number is None or signal.getsignal(number) in (None, signal.SIG_IGN):
                continue
            before[number] = signal.getsignal(number)
            signal.signal(number, lambda number, _: arrived.append(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in arrived:
            signal.raise_signal(number)


def collate(samples: list[Any]) -> Any:
    """A batch of samples, or what is wrong with the data: for the main process to raise.

    Raised in a worker, it would come to the main process as the text of a traceback.
    """
    return samples[0] if isinstance(samples[0], DataError) else default_collate(samples)


class WorkerGuard:
    """Starts the worker processes of a `DataLoader`, and sees to it that they end.

    Python and torch end left-over workers by SIGTERM, which ours ignore, and Python then waits for
    them without a limit. So they are killed here: where one of them could not be started, when an
    error or a second Ctrl-C cuts their end short, and at the latest when Python exits.

    Args:
        loader: with `num_workers` above 0.
    """

    _open: ClassVar[weakref.WeakSet["WorkerGuard"]] = weakref.WeakSet()

    def __init__(self, loader: Any) -> None:
        before = set(active_children())
        try:
            with deferred_signals():  # Between two starts, nobody would know of the first worker.
                self.iterator = iter(loader)
                self.workers = list(self.iterator._workers)
                self._open.add(self)
        except BaseException as error:
            _kill(set(active_children()) - before)
            for frame, _ in traceback.walk_tb(error.__traceback__):
                # Half made, it would complain of that on its way out.
                if isinstance(made := frame.f_locals.get("self"), _MultiProcessingDataLoaderIter):
                    made._shutdown = True
            raise

    def require_alive(self) -> None:
        """Says that a worker has died, in torch's words, where torch says something else.

        A worker that dies while it hands a batch over shows as a broken connection.

        Raises:
            RuntimeError: one has.
        """
        wait([worker.sentinel for worker in self.workers], timeout=1)
        for worker in self.workers:
            if not worker.is_alive():
                raise RuntimeError(
                    f"DataLoader worker (pid {worker.pid}) exited with code {worker.exitcode}"
                )

    def close(self) -> None:
        """Asks the workers to stop; kills those that are still there afterwards."""
        try:
            self.iterator._shutdown_workers()
        finally:
            _kill(self.workers)
            self._open.discard(self)

    def abandon(self) -> None:
        """Kills the workers without asking them, whose queues may already be closed as garbage."""
        self._open.discard(self)
        iterator = self.iterator
        if iterator._shutdown:
            return
        iterator._shutdown = True
        signal_handling._remove_worker_pids(id(iterator))  # Else torch would report their deaths.
        iterator._worker_pids_set = False
        if hasattr(iterator, "_pin_memory_thread"):
            iterator._pin_memory_thread_done_event.set()
        _kill(self.workers)

    @classmethod
    def close_all(cls) -> None:
        """Ends all workers as the process ends, where Ctrl-C has nothing left to stop."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for guard in list(cls._open):
            guard.close()
        _kill(child for child in active_children() if child.daemon)


def _kill(workers: Iterable[Any]) -> None:
    for worker in workers:
        if worker.is_alive():
            worker.kill()


# Handlers are called in reverse order: before those that torch and multiprocessing, imported above,
# have registered, of which the latter waits for whatever is left.
atexit.register(WorkerGuard.close_all)
