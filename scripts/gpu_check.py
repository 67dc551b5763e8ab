"""Checks on a machine with a GPU what no CPU can, the most telling first, within ten minutes.

    python scripts/gpu_check.py
    python scripts/gpu_check.py graphs precisions --minutes 5

Each check is a process with a time limit of its own; one that fails or takes too long does not keep
the others from running. What each has found is written into the record as soon as it is over
(docs/benchmarks/gpu.json), so that nothing is lost if the program or the machine ends early.

Exit codes: 0 no check has failed (some may have been skipped: the last column says why), 1 one has,
2 there is no CUDA device.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import clone  # noqa: F401
from gpu.checks import CHECKS, has_device
from gpu.plan import ROOT, Record, run_all
from zoo.training.run_folder import environment

RECORD = Path("docs") / "benchmarks" / "gpu.json"


def main() -> int:
    """Runs the checks named on the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [check.name for check in CHECKS]
    parser.add_argument("names", nargs="*", help=f"which: {', '.join(names)} (all)")
    parser.add_argument("--minutes", type=float, default=10, help="for all together (10)")
    parser.add_argument("--record", type=Path, default=ROOT / RECORD, help=f"JSON file ({RECORD})")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in names]:
        parser.error(f"there is no check {unknown[0]!r}; choose from {', '.join(names)}")
    if not arguments.minutes > 0:
        parser.error(f"--minutes must be greater than 0, not {arguments.minutes:g}")
    if not has_device():
        print("error: torch sees no CUDA device, and these checks are for one", file=sys.stderr)
        return 2
    if arguments.inside:
        from gpu.runs import PROGRAMS

        with tempfile.TemporaryDirectory() as tempfile.tempdir:  # Of all the runs.
            measured = PROGRAMS[arguments.inside]()
        print(json.dumps(measured))
        return 0 if measured["passed"] else 1
    chosen = [check for check in CHECKS if not arguments.names or check.name in arguments.names]
    record = Record(arguments.record, environment("cuda"))
    return 0 if run_all(chosen, record, seconds=60 * arguments.minutes) else 1


if __name__ == "__main__":
    sys.exit(main())
