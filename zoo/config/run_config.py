"""Configurations that lie in run folders: written, read again, and laid over."""

import io
import json
import math
import os
from collections.abc import Collection, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.types import OverrideType

from zoo.config.compose import COMPONENTS, check, complete
from zoo.config.errors import ConfigError, did_you_mean
from zoo.config.moved import translated
from zoo.config.overrides import GROUPS, parse
from zoo.config.recipe import Recipe
from zoo.config.targets import locate, made_by
from zoo.config.yaml_files import load_yaml

FIXED = ("model", "task", "data", "seed", "name", "freeze")
"""Parts that a stored run keeps, but for what a component calls changeable."""


def merge(config: dict[str, Any], overrides: Sequence[str], trusted: Sequence[str] = ()) -> Recipe:
    """The recipe of a stored configuration with values of the command line laid over it.

    What would make another run is refused: another model, task, data set, seed or name, or another
    class anywhere. Of the data and the task, what their classes call `changeable` may change. The
    folder of data sets is today's: that of the command line, else `ZOO_DATA_DIR`, else the stored
    one; what the stored configuration has below its own is looked for below today's.

    Raises:
        ConfigError: an override is refused, or the configuration is wrong.
    """
    config = deepcopy(complete(config))
    stored = _targets(config)
    was = config["paths"]["data_dir"]
    config["paths"]["data_dir"] = os.environ.get("ZOO_DATA_DIR") or was
    parsed = parse(overrides)
    for override in parsed:
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
    _move_data(config, was, {override.key_or_group for override in parsed}, trusted)
    return check(config, trusted)


def _move_data(
    config: dict[str, Any], was: str, given: Collection[str], trusted: Sequence[str]
) -> None:
    """Has what lies below the stored folder of data sets lie below today's instead.

    Args:
        config: the configuration, changed in place.
        was: the stored folder.
        given: full keys whose values the command line gives.
        trusted: packages whose components may be built.
    """
    now = config["paths"]["data_dir"]
    if now == was or not isinstance(now, str):
        return
    for name in _changeable(config, "data", trusted):
        *path, last = name.split(".")
        node: Any = config["data"]
        for part in path:
            node = node.get(part) if isinstance(node, dict) else None
        value = node.get(last) if isinstance(node, dict) else None
        if isinstance(value, str) and f"data.{name}" not in given:
            below = Path(value)
            if below.is_relative_to(was):
                node[last] = str(Path(now) / below.relative_to(was))


def _is_changeable(config: dict[str, Any], key: str, trusted: Sequence[str]) -> bool:
    """Whether the class of a component says that a stored run may change this argument."""
    group, _, name = key.partition(".")
    return name in _changeable(config, group, trusted)


def _changeable(config: dict[str, Any], group: str, trusted: Sequence[str]) -> tuple[str, ...]:
    """The arguments of a component that its class lets a stored run change."""
    node = config[group]
    if not isinstance(node, dict):
        return ()
    found: tuple[str, ...] = getattr(
        made_by(locate(node.get("_target_"), group, trusted)), "changeable", ()
    )
    return found


def repetition_keys(config: dict[str, Any]) -> tuple[str, ...]:
    """The keys in which repetitions of a run differ: the seed, and those that its data name.

    One that is null is none: these data are divided otherwise.
    """
    data = config.get("data", {})
    try:
        source = made_by(locate(data.get("_target_"), "data"))
    except ConfigError:  # none, or in a package of the user's own
        return ("seed",)
    repeated = getattr(source, "repeated", ())
    return ("seed", *(f"data.{name}" for name in repeated if data.get(name) is not None))


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


def stored_words(folder: Path) -> list[str]:
    """The words of a run's command lines, for each key the last; none where the file is damaged."""
    try:
        words = load_yaml(folder / "overrides.yaml")
    except (OSError, ConfigError):
        return []
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return []
    return list({word.lstrip("+").partition("=")[0]: word for word in words}.values())


def add_words(text: str, step: int, words: Sequence[str]) -> str:
    """The text of `overrides.yaml` with the words of a resume, and the step from which they hold.

    The file stays one list of words: the step is in a comment. It is a record that nothing depends
    on, so a damaged one begins anew, and says so.
    """
    try:
        before = yaml.safe_load(text) or []
    except yaml.YAMLError:
        before = None
    if not isinstance(before, list):
        text = "# The words before were damaged."
    elif not text.startswith(("- ", "# ")):  # An empty list, or one in a single line.
        text = _listed(before)
    return f"{text.rstrip()}\n# from step {step} on:\n{_listed(words)}".lstrip()


def _listed(words: Sequence[str]) -> str:
    text: str = yaml.safe_dump(list(words), sort_keys=False, allow_unicode=True, width=math.inf)
    return text if words else ""


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
