"""Nothing that is printed ends a program, whoever listens."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRINTS = """
from zoo.app.streams import lasting_output
import sys
with lasting_output():
    for _ in range(20_000):
        print("line")
    print("\\u00fcber \\udcff", flush=True)
    print("done", file=sys.stderr)
"""


def prints(**options):
    return subprocess.run(
        [sys.executable, "-c", PRINTS], stderr=subprocess.PIPE, text=True, cwd=ROOT, **options
    )


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX pipes")
def test_a_reader_that_has_gone_ends_nothing():
    reading, writing = os.pipe()
    os.close(reading)
    done = prints(stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "done\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_the_output_ends_nothing():
    with open("/dev/full", "w") as full:
        done = prints(stdout=full)
    assert (done.returncode, done.stderr) == (0, "done\n")


def test_a_narrow_encoding_shows_what_it_cannot_as_escapes():
    done = prints(stdout=subprocess.PIPE, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "\\xfcber \\udcff"


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
def test_an_output_that_was_closed_from_the_start_ends_nothing():
    words = ["sh", "-c", 'exec "$0" -c "$1" >&-', sys.executable, PRINTS]
    done = subprocess.run(words, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "done\n")


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs POSIX signals")
def test_a_request_to_save_before_there_is_anything_ends_nothing():
    program = (
        "import os, signal\n"
        "from zoo.training.interruption import early_requests\n"
        "with early_requests():\n"
        "    os.kill(os.getpid(), signal.SIGUSR1)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0
