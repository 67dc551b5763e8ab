"""Where the configurations are."""

from pathlib import Path


def _configs() -> Path:
    # A wheel has them inside the package, a clone of the repository next to it.
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


CONFIGS = _configs()
"""The folder of `train.yaml` and of a folder for each group."""
