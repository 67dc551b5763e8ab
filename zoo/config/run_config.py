"""Configurations that lie in run folders: written, read again, and laid over."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.types import OverrideType

from zoo.config.compose import COMPONENTS, GROUPS, check, complete, parse
from zoo.config.errors import ConfigError, did_you_mean
from zoo.config.moved import translated
from zoo.config.recipe import Recipe
from zoo.config.targets import locate, made_by
from zoo.config.yaml_files import load_yaml

FIXED = ("model", "task", "data", "seed", "name", "freeze")
"""Parts that a stored run keeps, but for what a component calls changeable."""


def merge(config: dict[str, Any], overrides: Sequence[str], trusted: Sequence[str] = ()) -> Recipe:
    """The recipe of a stored configuration with values of the command line laid over it.

    What would make another run is refused: another model, task, data set, seed or name, or another
    class anywhere. Of the data and the task, what their classes call `changeable` may change.

    Raises:
        ConfigError: an override is refused, or the configuration is wrong.
    """
    config = complete(config)
    stored = _targets(config)
    for override in parse(overrides):
        word = override.input_line or ""
        key = override.key_or_group
        top = key.split(".")[0]
        if override.type == OverrideType.DEL or override.is_sweep_override():
            raise ConfigError(f"{word}: only key=value can be laid over a stored run")
        if ("." not in key and top in GROUPS) or key.endswith("_target_"):
            raise ConfigError(f"{word}: a stored run keeps its {top}; start a new run instead")
        if top in FIXED and not _is_changeable(config, key, trusted):
            raise ConfigError(f"{word}: would make another run; start a new one instead")
        node: Any = config
        *path, last = key.split(".")
        for part in path:
            if not isinstance(node, dict) or part not in node:
                known = node if isinstance(node, dict) else ()
                raise ConfigError(f"{word}: there is no {part!r}; {did_you_mean(part, known)}")
            node = node[part]
        if not isinstance(node, dict):
            raise ConfigError(f"{word}: {'.'.join(path)} holds no settings")
        node[last] = override.value()
        if _targets(config) != stored:
            raise ConfigError(f"{word}: a stored run keeps its components; start a new one instead")
    return check(config, trusted)


def _is_changeable(config: dict[str, Any], key: str, trusted: Sequence[str]) -> bool:
    """Whether the class of a component says that a stored run may change this argument."""
    group, _, name = key.partition(".")
    node = config[group]
    if not isinstance(node, dict):
        return False
    made = made_by(locate(node.get("_target_"), group, trusted))
    return name in getattr(made, "changeable", ())


def _targets(node: Any, key: str = "") -> dict[str, Any]:
    """Every `_target_` below a node, by full key."""
    found: dict[str, Any] = {}
    pairs = node.items() if isinstance(node, dict) else enumerate(node)
    for name, value in pairs:
        if name == "_target_":
            found[key] = value
        elif isinstance(value, dict | list):
            found |= _targets(value, f"{key}.{name}")
    return found


def dump(config: dict[str, Any]) -> str:
    """The configuration as YAML, in the order of the data path."""
    stream = io.StringIO()
    yaml.safe_dump(config, stream, sort_keys=False, allow_unicode=True, width=100)
    return stream.getvalue()


def load(path: Path) -> dict[str, Any]:
    """A stored configuration.

    Raises:
        ConfigError: there is none, or it is not a YAML mapping.
    """
    try:
        config = load_yaml(path)
    except OSError as error:
        raise ConfigError(
            f"{path.parent} is not a run folder: {path.name} cannot be read"
        ) from error
    if not isinstance(config, dict) or not set(COMPONENTS) <= set(config):
        raise ConfigError(f"{path} is not the configuration of a run")
    try:
        json.dumps(config)
    except (TypeError, ValueError, RecursionError) as error:  # Dates, or a mapping inside itself.
        raise ConfigError(f"{path} is not the configuration of a run: {error}") from error
    return translated(config)


def stored_words(folder: Path) -> list[str]:
    """The words of the command line that a run began with; none where its file is damaged."""
    try:
        words = load_yaml(folder / "overrides.yaml")
    except (OSError, ConfigError):
        return []
    is_list = isinstance(words, list) and all(isinstance(word, str) for word in words)
    return words if is_list else []
