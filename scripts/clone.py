"""Lets the scripts use the zoo of this clone, and says so where a Python lacks its packages.

Every script imports this first: what the zoo checks as it is imported ends the program with one
sentence where a package is missing (`zoo/__init__.py`), and nothing else must be imported before.
"""

import sys
from pathlib import Path

_ROOT = str(Path(__file__).resolve().parents[1])
if _ROOT not in sys.path:
    sys.path.insert(1, _ROOT)  # Behind the script's own folder, as it is first for train.py.

import zoo  # noqa: E402, F401
