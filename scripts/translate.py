"""Translates lines of text: the program is `zoo/app/translate.py`."""

import sys

import clone  # noqa: F401
from zoo.app.translate import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
