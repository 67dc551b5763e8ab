"""The kinds of faults: each is a function of a run, to which it happens."""

from collections.abc import Callable
from pathlib import Path

from faults.life import Life
from faults.runs import CLOCK

KILLED, TERMINATED, INTERRUPTED, HUNG_UP = -9, 143, 130, 129
ENDS = {"SIGTERM": TERMINATED, "SIGINT": INTERRUPTED, "SIGHUP": HUNG_UP}
HARMS = ("altered", "altered", "zeroed", "cut off", "empty", "gone")
CLOCKS = ("-400d", "-1d", "-1h", "-3s", "+3s", "+1h", "+1d", "+400d")


def killed_in_a_step(life: Life) -> None:
    """Kill -9 in a step."""
    life.go(KILLED, signals=[[life.step(), "SIGKILL"]])


def killed_at_a_file(life: Life) -> None:
    """Kill -9 just before a file is made, replaced or removed."""
    life.go(KILLED, kill_at_file=life.choice.randint(1, len(life.reference.files)))


def killed_in_a_save(life: Life) -> None:
    """Kill -9 halfway through a checkpoint."""
    life.go(KILLED, in_save=[life.choice.randint(1, 8), "SIGKILL"])


def asked_to_end(life: Life) -> None:
    """SIGTERM, SIGINT or SIGHUP, in a step or halfway through a checkpoint."""
    name = life.choice.choice(list(ENDS))
    if life.choice.random() < 0.7:
        life.go(ENDS[name], signals=[[life.step(), name]])
    else:
        life.go(ENDS[name], in_save=[life.choice.randint(2, 8), name])


def asked_twice(life: Life) -> None:
    """SIGTERM or SIGINT twice: the second Ctrl-C ends at once, halfway through a save as well."""
    name = life.choice.choice(["SIGTERM", "SIGINT"])
    if life.choice.random() < 0.5:
        life.go(ENDS[name], signals=[[life.step(), name]], twice=True)
    else:
        life.go(ENDS[name], in_save=[life.choice.randint(2, 8), name], twice=True)


def asked_to_save(life: Life) -> None:
    """SIGUSR1: saves, and goes on; half of these are killed a little later."""
    first = life.step()
    last = life.choice.randint(first + 1, first + 6)
    killed = [[last, "SIGKILL"]] if life.choice.random() < 0.5 else []
    life.go(0, KILLED, signals=[[first, "SIGUSR1"], *killed])


def stopped(life: Life) -> None:
    """SIGSTOP in a step, and SIGCONT; meanwhile a second process asks for the run."""
    life.go(0, signals=[[life.step(), "SIGSTOP"]])


def out_of_room_for_files(life: Life) -> None:
    """No space is left (ENOSPC) for any new file but what a removed one leaves."""
    life.go(0, 1, full_at_file=life.choice.randint(1, len(life.reference.files)))


def out_of_room_in_files(life: Life) -> None:
    """No file grows beyond a size, as on a disk that fills up in the middle of one."""
    largest = life.choice.choice([3_000, life.reference.largest])
    life.go(0, 1, limit_at=[life.step(), life.choice.randrange(largest)])


def damaged(life: Life) -> None:
    """The newest of several checkpoints of a killed run is altered, cut off, emptied or gone."""
    second, end = life.reference.saves[1], len(life.reference.files)
    life.go(KILLED, kill_at_file=life.choice.randint(second + 1, end))
    file = life.checkpoints / "last.pt"
    raw = bytearray(file.read_bytes())
    harm, at = life.choice.choice(HARMS), life.choice.randrange(len(raw))
    if harm == "altered":
        raw[at] ^= 1 << life.choice.randrange(8)
    elif harm == "zeroed":
        raw[at : at + 512] = bytes(len(raw[at : at + 512]))
    else:
        del raw[at if harm == "cut off" else 0 :]
    if harm == "gone":
        file.unlink()
    else:
        file.write_bytes(raw)  # In place: `best.pt` may be another name of this file.
    life.tell(f"last.pt: {harm}, at byte {at}")


def moved(life: Life) -> None:
    """The run folder has another name when the killed run goes on."""
    life.go(KILLED, signals=[[life.step(), "SIGKILL"]])
    assert life.path is not None
    place = life.folder / life.choice.choice(["moved (1)", "a=b, c", "~", "über/${x}", "[1,2]"])
    place.parent.mkdir(parents=True, exist_ok=True)
    life.path.rename(place)
    life.path = place
    life.tell(f"the folder is called {place.name}")


def clock_put(life: Life) -> None:
    """The clock is put back or forward, within a process and between two (libfaketime)."""
    clock = Path(life.run.environment[CLOCK])
    clock.write_text("+0")
    step = life.step()
    put = [life.choice.randint(1, step), life.choice.choice(CLOCKS)]
    life.go(KILLED, clock=put, signals=[[step, "SIGKILL"]])
    clock.write_text(life.choice.choice(CLOCKS))
    life.tell(f"the clock says {clock.read_text()} when it goes on")


def worker_killed(life: Life) -> None:
    """One of the two processes that load the pictures is killed."""
    life.go(0, 1, kill_worker_at=life.step())


def rank_killed(life: Life) -> None:
    """One of two processes of a run is killed; half of these are started again by torchrun."""
    moments = {"signals": [[life.step(), "SIGKILL"]], "rank": life.choice.randrange(2)}
    if life.choice.random() < 0.5:
        life.go(0, restarts=1, **moments)
    else:
        life.go(1, **moments)


def again_and_again(life: Life) -> None:
    """Two to four of the simple ones, one after the other."""
    for _ in range(life.choice.randint(2, 4)):
        kind = life.choice.randrange(4)
        if kind == 0:
            life.go(0, KILLED, signals=[[life.step(), "SIGKILL"]])
        elif kind == 1:
            life.go(0, KILLED, kill_at_file=life.choice.randint(1, 60))
        elif kind == 2:
            life.go(0, KILLED, in_save=[life.choice.randint(1, 6), "SIGKILL"])
        else:
            life.go(0, TERMINATED, signals=[[life.step(), "SIGTERM"]])


KINDS: dict[str, Callable[[Life], None]] = {
    "killed in a step": killed_in_a_step,
    "killed at a change of a file": killed_at_a_file,
    "killed in a save": killed_in_a_save,
    "asked to end": asked_to_end,
    "asked to end twice": asked_twice,
    "asked to save": asked_to_save,
    "stopped and continued": stopped,
    "no room for files": out_of_room_for_files,
    "no room in files": out_of_room_in_files,
    "newest checkpoint damaged": damaged,
    "run folder renamed": moved,
    "clock changed": clock_put,
    "data worker killed": worker_killed,
    "one of two processes killed": rank_killed,
    "several, one after the other": again_and_again,
}
