"""Evaluates a run, or predicts with it: the program is `zoo/app/evaluate.py`."""

import sys

from zoo.app.evaluate import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
