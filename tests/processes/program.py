"""Runs command lines of train.py one after the other, in each of torchrun's processes.

torchrun --standalone --nproc-per-node 2 tests/processes/program.py [kill=<step>] <words>...

The words of each run are a list in JSON. With `kill=5`, the last process kills itself in its fifth
step, unless torchrun has started it again.
"""

import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import train
from zoo.training.distributed.launch import launch, process_group
from zoo.training.step import Stepper


def die_in(step: int) -> None:
    taken, take = 0, Stepper.step

    def counted(self, window, *, measure):
        nonlocal taken
        taken += 1
        if taken == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return take(self, window, measure=measure)

    Stepper.step = counted


def main(arguments: list[str]) -> int:
    here = launch()
    if arguments[0].startswith("kill="):
        step = int(arguments.pop(0).removeprefix("kill="))
        if here.rank == here.world - 1 and not here.restarts:
            die_in(step)
    if len(arguments) == 1:
        return train.main(json.loads(arguments[0]))
    with process_group():  # One for all.
        for words in arguments:
            if code := train.main(json.loads(words)):
                print(f"exit code {code}: {words}", file=sys.stderr, flush=True)
                os._exit(1)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
