"""Forks a process for each run of train.py that it is asked for, one line of JSON at a time.

Each request holds the words of the command line, a file for what the run prints, and what is to
happen to it: see `moments.py`. To ask for `{"wait": <process>}` gives the exit code once there is
one, or `stopped`.
"""

import json
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.getcwd(), "scripts"))
sys.path.insert(0, os.getcwd())

# Everything that a run imports, so that it need not do so again.
import networkx  # noqa: F401
import torch._dynamo
import torch.utils.tensorboard  # noqa: F401

import train
from faults.moments import arrange

STOPPED = "stopped"


def wait(process: int) -> int | str:
    """The exit code of a child, negative for a signal; or that it has been stopped."""
    status = os.waitpid(process, os.WUNTRACED)[1]
    return STOPPED if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status)


def main() -> None:
    """Answers requests until there are no more."""
    answers = os.dup(1)
    for line in sys.stdin:
        request = json.loads(line)
        answer: int | str
        if "wait" in request:
            answer = wait(request["wait"])
        else:
            answer = os.fork()
            if answer == 0:
                log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                for number in (1, 2):
                    os.dup2(log, number)
                # `nohup` and `&` have them ignored, and then a run ignores them too.
                signal.signal(signal.SIGHUP, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                code = 99
                try:
                    arrange(request)
                    code = train.main(request["words"])
                finally:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(code)
        os.write(answers, (json.dumps(answer) + "\n").encode())


if __name__ == "__main__":
    main()
