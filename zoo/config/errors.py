"""The one exception of the configuration: a sentence for the user, exit code 2."""

import contextlib
import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches

SHOWN = 20
"""Names that a message lists."""


class ConfigError(Exception):
    """A wrong command line, configuration file or value, in one clear sentence."""


def one_line(text: object) -> str:
    """The text with every run of white space, line breaks included, as one space."""
    return " ".join(str(text).split())


def as_cli_text(value: object) -> str:
    """A value as a command line would have it, text in quotes, cut where it is very long."""
    if value is None or isinstance(value, bool):
        text = {None: "null", True: "true", False: "false"}[value]
    elif isinstance(value, dict):
        text = "{" + ", ".join(f"{k}: {as_cli_text(v)}" for k, v in value.items()) + "}"
    elif isinstance(value, list | tuple):
        text = "[" + ", ".join(map(as_cli_text, value)) + "]"
    else:
        text = repr(value)
    return text if len(text) <= 200 else text[:197] + "..."


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """A clause that offers the nearest known name, or lists them all where none is near.

    Args:
        name: what was written.
        known: what might have been.
        prefix: what stands before the name, so that the offer can be copied.
    """
    known = sorted(known)
    within = [other for other in known if name and other.startswith(name)]
    if len(within) > 1:
        return f"did you mean one of {_some(within)}?"
    near = within or get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {prefix + near[0]!r}?"
    return f"allowed: {_some(known)}" if known else "there is none"


def _some(names: list[str]) -> str:
    """The names, or the first of very many."""
    more = len(names) - SHOWN
    if more <= SHOWN // 2:
        return ", ".join(names)
    return f"{', '.join(names[:SHOWN])} and {more} more (python train.py --help lists all)"


@contextlib.contextmanager
def as_config_error(key: str = "") -> Iterator[None]:
    """Turns a refused value inside the block into a `ConfigError` that names the part."""
    try:
        yield
    except (ValueError, TypeError) as error:
        text = one_line(error)
        joint = "." if re.match(r"\w+=", text) else ": "
        raise ConfigError(f"{key}{joint}{text}" if key else text) from error
