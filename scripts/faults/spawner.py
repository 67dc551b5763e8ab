"""Forks a process for each run of train.py that the tests ask for, one line of JSON at a time.

Each request holds the words of the command line, a file for what the run prints, and moments:

    signals: [[5, "SIGTERM"], ...]   the run gets the signal during its 5th update of this process
    twice: true                      and at once a second time
    kill_at_file: 7                  the run is killed just before its 7th change of a file
    kill_in_save: 2                  the run is killed halfway through writing its 2nd checkpoint
    wait_at: [3, "path"]             the run waits in its 3rd update until there is such a file
    files: "path"                    where to write the list of the run's changes of files
    below: "path"                    which files these two are about
"""

import io
import json
import os
import signal
import sys
import time

sys.path.insert(0, os.getcwd())

# Everything that a run imports, so that it need not do so again.
import networkx  # noqa: F401
import torch
import torch._dynamo
import torch.utils.tensorboard
from torch.optim.optimizer import register_optimizer_step_pre_hook

import train

CHANGES = ("os.rename", "os.link", "os.remove", "os.truncate")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def watch_files(request: dict) -> None:
    """Counts what changes files, which Python announces before it does it."""
    last, log = request.get("kill_at_file"), request.get("files")
    count = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal count
        if event == "open" and isinstance(arguments[1], str) and arguments[1][:1] in "wax+":
            name = str(arguments[0])
        elif event in CHANGES:
            name = str(arguments[1 if event in ("os.rename", "os.link") else 0])
        else:
            return
        if request["below"] not in name:
            return
        count += 1
        if count == last:
            die()
        if log:
            handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(handle, f"{event} {os.path.basename(name)}\n".encode())
            os.close(handle)

    sys.addaudithook(hook)


def watch_updates(request: dict) -> None:
    signals, wait_at = dict(request.get("signals", [])), request.get("wait_at")
    count = 0

    def hook(*_: object) -> None:
        nonlocal count
        count += 1
        if count in signals:
            for _ in range(2 if request.get("twice") else 1):
                signal.raise_signal(getattr(signal, signals[count]))
        if wait_at and wait_at[0] == count:
            while not os.path.exists(wait_at[1]):
                time.sleep(0.01)

    register_optimizer_step_pre_hook(hook)


def watch_saves(request: dict) -> None:
    save, count = torch.save, 0

    def half(state: object, file: io.BufferedWriter) -> None:
        nonlocal count
        count += 1
        if count < request["kill_in_save"]:
            return save(state, file)
        whole = io.BytesIO()
        save(state, whole)
        file.write(whole.getvalue()[: whole.tell() // 2])
        file.flush()
        return die()

    torch.save = half


def main() -> None:
    answers = os.dup(1)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                for number in (1, 2):
                    os.dup2(log, number)
                if "kill_at_file" in request or "files" in request:
                    watch_files(request)
                if "signals" in request or "wait_at" in request:
                    watch_updates(request)
                if "kill_in_save" in request:
                    watch_saves(request)
                code = 99
                try:
                    code = train.main(request["words"])
                finally:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(code)
        os.write(answers, (json.dumps(answer) + "\n").encode())


if __name__ == "__main__":
    main()
