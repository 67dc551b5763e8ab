"""Runs one function many times: as a CUDA graph, or as it is.

A CUDA graph launches all kernels of a function at once. What was computed in Python while it was
captured stays as it was; only what tensors hold is alive. So a captured function reads tensors that
are always the same ones, writes into such, and what it returns is refreshed in place.

https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

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
    """Stands in for a graph on any device: runs the function again, and refreshes the same tensors.

    It finds out what a graph would have kept: a number, a text or a shape that the function returns
    must be those of the first run.

    Args:
        device: of the function's tensors.
    """

    def __init__(self, device: torch.device) -> None:
        self.replays = 0
        self._function: Function | None = None
        self._outputs: list[Any] = []
        self._structure: Any = None

    def warm_up(self, function: Function) -> Any:
        """Runs the function."""
        return function()

    def capture(self, function: Function) -> Any:
        """Runs the function, and keeps what it returns to be refreshed."""
        outputs = function()
        self._outputs, self._structure = tree_flatten(outputs)
        self._function, self.replays = function, 1
        return outputs

    def replay(self) -> None:
        """Runs the function again.

        Raises:
            CaptureError: it returns something other than tensors of the same shapes, or a value
                that is no tensor and has changed.
        """
        assert self._function is not None, "nothing was captured"
        outputs, structure = tree_flatten(self._function())
        if structure != self._structure:
            raise CaptureError(f"a captured function returned {self._structure}, now {structure}")
        for kept, new in zip(self._outputs, outputs, strict=True):
            if isinstance(kept, Tensor) and isinstance(new, Tensor) and kept.shape == new.shape:
                if kept is not new:
                    kept.copy_(new)
            elif isinstance(new, Tensor) or kept != new:
                raise CaptureError(f"a graph would have kept {kept!r}, and it is {new!r} now")
        self.replays += 1

    def release(self) -> None:
        """Forgets the function."""
        self._function, self._outputs = None, []
