"""A reference model zoo and trainer for PyTorch."""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Lazy, so that `import zoo.config` (and `train.py --help`) does not pay for torch.
    if name == "load":
        from zoo.app.rebuild import load

        return load
    if name == "Predictor":
        from zoo.app.predict import Predictor

        return Predictor
    raise AttributeError(f"module 'zoo' has no attribute {name!r}")
