"""How paths and commands are written for the user to copy."""

import os
import shutil
import sys
from pathlib import Path


def shown(path: Path) -> str:
    """The path relative to where the program was started, where that is shorter."""
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") else str(path)


def python_command() -> str:
    """How to call this Python from where the user stands, for commands that are to be copied."""
    if shutil.which("python") == sys.executable:
        return "python"
    return shown(Path(sys.executable))
