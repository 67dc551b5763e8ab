"""A reference model zoo and trainer for PyTorch."""

from importlib import import_module
from typing import Any

from zoo.version import __version__

_PUBLIC = {
    "Predictor": "zoo.app.predict",
    "create_model": "zoo.app.models",
    "list_models": "zoo.app.models",
    "load": "zoo.app.rebuild",
}

__all__ = ["Predictor", "__version__", "create_model", "list_models", "load"]


def __getattr__(name: str) -> Any:
    # Lazy, so that `import zoo.config` (and `train.py --help`) does not pay for torch.
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'zoo' has no attribute {name!r}")
