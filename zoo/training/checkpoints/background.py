"""Work beside the steps of training, on a copy of what they change."""

import copy
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from torch import Tensor

Result = TypeVar("Result")


def in_background(work: Callable[[], Result]) -> Future[Result]:
    """Begins work on a thread, for which a process that ends waits."""
    pool = ThreadPoolExecutor(1)
    result = pool.submit(work)
    pool.shutdown(wait=False)
    return result


def copied(state: Any) -> Any:
    """A nested state that nothing else changes, its tensors on the CPU.

    Tensors that are the same are the same in the copy.
    """
    copies: dict[tuple[Any, ...], Tensor] = {}

    def visit(value: Any) -> Any:
        match value:
            case Tensor():
                place = value.device, value.data_ptr(), value.dtype, value.shape, value.stride()
                if place not in copies:
                    copies[place] = value.detach().to("cpu", copy=True)
                return copies[place]
            case dict():
                result = copy.copy(value)  # An ordered one of torch has an attribute.
                for key, entry in value.items():
                    result[key] = visit(entry)
                return result
            case list() | tuple():
                return type(value)(map(visit, value))
        return copy.deepcopy(value)

    return visit(state)
