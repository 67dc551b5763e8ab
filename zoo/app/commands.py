"""How the programs are called from where the user stands, for commands that are to be copied."""

import os
import shlex
import shutil
import sys
from pathlib import Path


def relative(path: Path) -> str:
    """The path relative to where the program was started, where that is shorter."""
    found = os.path.relpath(path)
    return found if not found.startswith("..") else str(path)


def python() -> str:
    """The interpreter: `python` if that is this one."""
    return "python" if shutil.which("python") == sys.executable else relative(Path(sys.executable))


def command(file: str) -> str:
    """A program of the zoo, `train.py` say: `python train.py` in a clone, else `zoo-train`.

    The file is that of this clone, wherever the user stands.
    """
    if Path(sys.argv[0]).name.startswith("zoo-"):
        return installed(f"zoo-{Path(file).stem}")
    root = Path(__file__).resolve().parents[2]
    return f"{shlex.quote(python())} {shlex.quote(relative(root / file))}"


def installed(name: str) -> str:
    """A program that was installed next to the interpreter, such as `tensorboard`."""
    file = Path(sys.executable).with_name(name)
    return name if shutil.which(name) == str(file) else shlex.quote(relative(file))
