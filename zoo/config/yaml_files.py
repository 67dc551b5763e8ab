"""YAML as others wrote it: read only if it stays as small as it looks."""

from pathlib import Path
from typing import Any

import yaml

from zoo.config.errors import ConfigError, one_line

LARGEST = 1 << 20
"""Bytes of a file of a configuration."""
NODES = 20_000
"""Values that it may stand for, aliases written out."""
DEPTH = 50
"""Mappings and lists within one another."""


def check_yaml(path: Path) -> None:
    """Refuses a file that Hydra or we would never finish with.

    An alias stands for all of what it repeats: a few lines of aliases of aliases are millions of
    values. Parsed but not built, they are still few.

    Raises:
        ConfigError: it is too large, too deep, or stands for too many values.
    """
    if path.stat().st_size > LARGEST:
        raise ConfigError(f"{path} is no configuration: it has more than {LARGEST:,} bytes")
    depth = 0
    counts: dict[str, int] = {}  # by anchor
    open_nodes: list[tuple[str | None, int]] = [(None, 0)]  # anchor and values so far
    try:
        for event in yaml.parse(path.read_text(encoding="utf-8"), yaml.SafeLoader):
            size = 0
            if isinstance(event, yaml.CollectionStartEvent):
                open_nodes.append((event.anchor, 1))
                depth = len(open_nodes) - 1
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, size = open_nodes.pop()
                if anchor is not None:
                    counts[anchor] = size
            elif isinstance(event, yaml.AliasEvent):
                size = counts.get(event.anchor, 1)
            elif isinstance(event, yaml.ScalarEvent):
                size = 1
                if event.anchor is not None:
                    counts[event.anchor] = 1
            open_nodes[-1] = open_nodes[-1][0], open_nodes[-1][1] + size
            if depth > DEPTH or open_nodes[-1][1] > NODES:
                what = f"lies more than {DEPTH} deep" if depth > DEPTH else "repeats itself"
                raise ConfigError(f"{path} is no configuration: it {what}")
    except (yaml.YAMLError, UnicodeDecodeError):
        return  # Whoever reads it says where.


def load_yaml(path: Path) -> Any:
    """What a YAML file holds.

    Raises:
        ConfigError: it is not valid, or too much.
        OSError: it cannot be read.
    """
    check_yaml(path)
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid YAML: {one_line(error)}") from error
