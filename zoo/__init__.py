"""A reference model zoo and trainer for PyTorch."""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
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


def _check_environment() -> None:
    """Ends a program of this clone that another Python has started, with what to do about it."""
    root = Path(__file__).resolve().parents[1]
    if Path(sys.argv[0] or "-").resolve().parent not in (root, root / "scripts"):
        return
    missing = [name for name in ("torch", "hydra", "yaml") if find_spec(name) is None]
    if missing:
        sys.exit(
            f"error: {missing[0]} is not installed for {sys.executable}; activate the environment "
            f"(source {root / '.venv' / 'bin' / 'activate'}), which `make train` makes"
        )


_check_environment()
