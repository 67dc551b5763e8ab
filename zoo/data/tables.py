"""The tables that scikit-learn carries, read without importing it.

Importing `sklearn.datasets` takes longer than everything else a small run does before its first
step, so the two files are read where the installed package keeps them. Should a version keep them
elsewhere, scikit-learn is asked after all.
"""

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zoo.data.download import DataError


def digits_table() -> tuple[Tensor, Tensor]:
    """The 1,797 handwritten digits: images ``(n, 8, 8)`` with values 0 to 16, and labels."""
    path = _installed("digits.csv.gz")
    if path is not None:
        table = _read(path, delimiter=",")
        images, labels = table[:, :-1], table[:, -1]
    else:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
    pixels = torch.from_numpy(np.ascontiguousarray(images)).float()
    return pixels.view(-1, 8, 8), torch.from_numpy(np.asarray(labels)).long()


def diabetes_table() -> tuple[Tensor, Tensor]:
    """The 442 diabetes patients: features ``(n, 10)`` in their own units, and targets ``(n,)``."""
    paths = _installed("diabetes_data_raw.csv.gz"), _installed("diabetes_target.csv.gz")
    if paths[0] is not None and paths[1] is not None:
        features, target = _read(paths[0]), _read(paths[1])
    else:
        from sklearn.datasets import load_diabetes

        features, target = load_diabetes(return_X_y=True, scaled=False)
    return torch.from_numpy(np.asarray(features)), torch.from_numpy(np.asarray(target))


def _installed(name: str) -> Path | None:
    spec = importlib.util.find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("this data set comes with scikit-learn, which is not installed")
    path = Path(next(iter(spec.submodule_search_locations))) / "datasets" / "data" / name
    return path if path.is_file() else None


def _read(path: Path, delimiter: str | None = None) -> np.ndarray:
    with gzip.open(path, "rt") as file:
        return np.loadtxt(file, delimiter=delimiter)
