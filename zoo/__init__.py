"""A reference model zoo and trainer for PyTorch."""

from typing import Any

from zoo.version import __version__ as __version__


def __getattr__(name: str) -> Any:
    # Lazy, so that `import zoo.config` (and `train.py --help`) does not pay for torch.
    if name == "load":
        from zoo.app.rebuild import load

        return load
    raise AttributeError(f"module 'zoo' has no attribute {name!r}")
