"""Runs one function many times: as a CUDA graph, or operation by operation.

A CUDA graph launches all kernels of a function at once. What was computed in Python while it was
captured stays as it was; only what tensors hold is alive. So a captured function reads tensors that
are always the same ones, writes into such, and what it returns is refreshed in place.

https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Function = Callable[[], Any]


class CaptureError(RuntimeError):
    """A step cannot be captured in a CUDA graph, or not go on as it was captured."""


class Runner(Protocol):
    """Who runs a function again and again.

    Attributes:
        replays: how often what was captured has run.
    """

    replays: int

    def warm_up(self, function: Function) -> Any:
        """Runs the function as the capture will, without one; returns what it returns."""
        ...

    def capture(self, function: Function) -> Any:
        """Captures the function and replays it once.

        Returns:
            What the function returns, whose tensors every replay fills anew.

        Raises:
            CaptureError: it cannot be captured.
        """
        ...

    def replay(self) -> None:
        """Runs what was captured."""
        ...

    def release(self) -> None:
        """Gives up what was captured, and the memory that it holds."""
        ...


class CudaRunner:
    """Captures a function in a CUDA graph, with a stream and a memory pool of its own.

    Torch registers the device's random generator with the graph: every replay draws on from where
    the generator stands, as the function itself would.

    Args:
        device: a CUDA device.

    Raises:
        ValueError: it is another device.
    """

    def __init__(self, device: torch.device) -> None:
        if device.type != "cuda":
            raise ValueError(
                f"cuda_graphs=true needs a CUDA device, and this run is on {device.type}; leave "
                "trainer.cuda_graphs out"
            )
        self.replays = 0
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._graph: torch.cuda.CUDAGraph | None = None

    def warm_up(self, function: Function) -> Any:
        """Runs the function on the stream on which it will be captured."""
        present = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(present)
        with torch.cuda.stream(self._stream):
            outputs = function()
        present.wait_stream(self._stream)
        return outputs

    def capture(self, function: Function) -> Any:
        """Captures the function, which runs nothing yet, and replays it once."""
        graph = torch.cuda.CUDAGraph()
        try:
            # Threads that load data may allocate meanwhile, which "global" would not forgive.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                outputs = function()
        except Exception as error:  # Torch and CUDA have many classes for it.
            reason = " ".join(str(error).split())[:300]
            raise CaptureError(
                f"the step cannot be captured in a CUDA graph ({reason}); go on with "
                "trainer.cuda_graphs=false"
            ) from error
        self._graph = graph
        self.replays = 0
        self.replay()
        return outputs

    def replay(self) -> None:
        """Launches the graph on the present stream."""
        assert self._graph is not None, "nothing was captured"
        self._graph.replay()
        self.replays += 1

    def release(self) -> None:
        """Waits for the device, and frees the graph and its memory."""
        if self._graph is not None:
            torch.cuda.synchronize(self._device)
            self._graph.reset()
            self._graph = None


class EagerRunner:
    """Notes the operations of a function and runs them again, one by one: a graph on any device.

    Like a graph it runs no Python again and always works on the same tensors, so that a CPU shows
    what a graph would make of a function. It is slow, and keeps every intermediate tensor.

    Args:
        device: of the function's tensors.
    """

    def __init__(self, device: torch.device) -> None:
        self.replays = 0
        self._tape: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def warm_up(self, function: Function) -> Any:
        """Runs the function."""
        return function()

    def capture(self, function: Function) -> Any:
        """Runs the function, and notes its operations."""
        with _Notes() as notes:
            outputs = function()
        self._tape, self.replays = notes.tape, 1
        return outputs

    def replay(self) -> None:
        """Runs the operations again, and copies what is new into the tensors of the first time."""
        assert self._tape, "nothing was captured"
        with torch._C._AutoDispatchBelowAutograd():
            for operation, args, kwargs, kept in self._tape:
                result = operation(*args, **kwargs)
                for old, new in zip(tree_leaves(kept), tree_leaves(result), strict=True):
                    if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)
        self.replays += 1

    def release(self) -> None:
        """Forgets the operations."""
        self._tape = []


class _Notes(TorchDispatchMode):
    """Keeps the operations within its block, with their arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self.tape: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.tape.append((func, args, kwargs or {}, result))
        return result
