"""Disturbs runs at random, lets them go on, and compares them bit for bit with undisturbed ones.

    python scripts/soak.py faults=300 seed=0 out=soak

faults   how many (30): each is of the next kind and happens to the next experiment, made tiny
seed     which ones (0): the same seed and number are the same fault
out      folder for all of it (soak); the same command goes on where it was stopped
only     does the fault of this number again, and no other
record   where to write the summary (summary.json in that folder)
limit    seconds that a part of a run may take (600)
faketime libfaketime.so.1, where it is not in the place that Debian has for it

Kinds of faults: kill -9 in a step, at a change of a file and in a save; SIGTERM, SIGINT, SIGHUP,
also twice; SIGUSR1; SIGSTOP; a full disk; a damaged checkpoint; a renamed run folder; a changed
clock (where libfaketime is installed); a killed data worker; one of two processes killed; several
of these.

The folder of a run that has failed is kept in failed/. Exit codes: 0 none has failed, 1 one has.
"""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import clone  # noqa: F401
from zoo.app.program import program
from zoo.config.command_line import CommandLine
from zoo.config.errors import ConfigError

OPTIONS = ("faults", "seed", "out", "only", "record", "limit", "faketime")


def soak(line: CommandLine) -> bool:
    """Does what is left to do; returns whether none has failed.

    Raises:
        ConfigError: a word is none of the options, or the folder holds faults of another seed.
    """
    if line.overrides:
        raise ConfigError(f"{line.overrides[0]}: there is {', '.join(OPTIONS)}")
    if not hasattr(os, "fork"):
        raise ConfigError("soak.py forks processes, and this system has no fork")
    count, seed = line.integer("faults", 30, least=1), line.integer("seed", 0, least=0)
    limit, only = line.integer("limit", 600, least=1), line.integer("only", None, least=0)
    out = Path(line.options.get("out", "soak")).absolute()

    from faults.journal import Journal, summary
    from faults.plan import Soak, fault
    from faults.runs import faketime
    from zoo.training.own_files import replacing, to_json
    from zoo.training.run_folder import environment

    journal = Journal(out / "faults.jsonl", seed)
    named = line.options.get("faketime")
    library = Path(named).absolute() if named else faketime()
    with ended_by_term(), closing(Soak(out, limit=limit, library=library)) as doing:
        if only is not None:
            row = doing.do(fault(seed, only))
            tell(row)
            print("\n".join(row["told"]))
            return bool(row["result"] != "failed")
        try:
            for number in range(count):
                if number not in journal.rows:
                    journal.add(doing.do(fault(seed, number)))
                    tell(journal.rows[number])
        except KeyboardInterrupt:
            print("stopped; the same command goes on", file=sys.stderr)
            raise SystemExit(130) from None
    command = f"python scripts/soak.py faults={count} seed={seed}"
    found = summary([journal.rows[number] for number in range(count)], command)
    found["environment"] = environment("cpu")
    record = Path(line.options.get("record", out / "summary.json"))
    with replacing(record) as file:
        file.write(f"{to_json(found, indent=2)}\n".encode())
    print(
        f"{found['passed']} passed, {found['failed']} failed, {found['skipped']} skipped: {record}"
    )
    return not found["failed"]


@contextmanager
def ended_by_term() -> Iterator[None]:
    """Answers SIGTERM as Ctrl-C: whoever ends it in the background ends its processes, too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def tell(row: dict[str, Any]) -> None:
    """Prints a line about a fault."""
    said = f" ({row['reason']})" if "reason" in row else ""
    what = f"{row['kind']}, {row['experiment']}{said}"
    print(f"{row['number']:5}  {row['result']:8}{row['seconds']:6.1f} s  {what}", flush=True)


def main(words: Sequence[str] | None = None) -> int:
    """Runs the program; returns the exit code."""
    good = []
    code = program(lambda line: good.append(soak(line)), __doc__, options=OPTIONS)(words)
    return code or int(good == [False])


if __name__ == "__main__":
    sys.exit(main())
