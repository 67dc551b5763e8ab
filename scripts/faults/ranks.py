"""Runs train.py in two processes under torchrun, one of which may meet with something.

As a program, which torchrun starts, it takes one JSON object: the `words` of the command line, the
`rank` that is meant, and what happens to it (see `moments.py`), unless it has been started again.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def torchrun(
    words: Sequence[str],
    log: Path,
    *,
    restarts: int = 0,
    limit: float | None = None,
    **moments: Any,
) -> int:
    """Runs to the end and returns torchrun's exit code.

    Args:
        words: of the command line.
        log: to which the output is appended.
        restarts: how often torchrun is to start the processes again.
        limit: seconds after which they are killed.
        moments: what happens to the process `rank`, and when.

    Raises:
        TimeoutError: they took longer than the limit.
    """
    options = ["--standalone", "--nproc-per-node=2", f"--max-restarts={restarts}"]
    request = json.dumps({"words": list(words), **moments})
    command = [sys.executable, "-m", "torch.distributed.run", *options, __file__, request]
    with open(log, "a", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            return process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"took more than {limit:.0f} s") from None
        finally:
            if process.poll() is None:
                process.terminate()  # It ends the processes that it has started.
                process.wait()


def main() -> int:
    """Trains as one of torchrun's processes; returns the exit code."""
    sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

    import train
    from faults.moments import arrange
    from zoo.training.distributed.launch import launch

    request, here = json.loads(sys.argv[1]), launch()
    if here.rank == request.get("rank") and not here.restarts:
        arrange(request)
    return train.main(request["words"])


if __name__ == "__main__":
    sys.exit(main())
