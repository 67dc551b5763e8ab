"""Trains one experiment, many (`-m`), or resumes a run: the map is `zoo/app/train.py`."""

import sys

from zoo.app.train import main, train

__all__ = ["main", "train"]

if __name__ == "__main__":
    sys.exit(main())
