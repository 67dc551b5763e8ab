"""Lets a trained language model write: the program is `zoo/app/generate.py`."""

import sys

import clone  # noqa: F401
from zoo.app.generate import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
