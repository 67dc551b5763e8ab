"""Which errors mean that the machine has too little of something, whoever raises them.

Torch, numpy and the system each have their own words for it, and none says what to change. No torch
is imported here: without it there is no error of its.
"""

import errno
import re
import sys

_NO_MEMORY = re.compile(
    r"can't allocate memory|cannot allocate memory|not enough memory|bad_alloc|out of memory"
    r"|unable to mmap|failed to map segment|could not create a primitive",
    re.IGNORECASE,
)
_LOST_WORKER = re.compile(r"DataLoader worker \(pid.* (is killed|exited)")
_FOR_LESS_MEMORY = (
    "use a smaller model or data.batch_size (with a larger trainer.accumulate), "
    "trainer.activation_checkpointing=true or, on a GPU, trainer.precision=bf16"
)


def shortage(error: BaseException) -> str | None:
    """What the machine has too little of, and what to change; None for any other error."""
    torch = sys.modules.get("torch")
    text = " ".join(str(error).split())[:200]
    number = error.errno if isinstance(error, OSError) else None
    said = isinstance(error, RuntimeError | ImportError)
    no_memory = isinstance(error, MemoryError) or (said and _NO_MEMORY.search(text))
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return f"the device has too little memory ({text}); {_FOR_LESS_MEMORY}"
    if no_memory or number == errno.ENOMEM:
        what = text or "an allocation failed"
        return f"this computer has too little memory ({what}); {_FOR_LESS_MEMORY}"
    if said and _LOST_WORKER.search(text):
        return f"{text}, most often because memory ran out; use a smaller data.num_workers"
    if number == errno.EMFILE or (said and "too many open files" in text.lower()):
        return (
            "too many open files; use a smaller data.num_workers, or allow more files with "
            "`ulimit -n 4096`"
        )
    return None
